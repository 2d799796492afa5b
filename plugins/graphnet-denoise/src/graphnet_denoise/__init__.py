"""Denoising images from noisy data alone: data sets, metrics and commands for graphnet."""

__version__ = "0.1.0"

"""Kernels by torch's own operators, a family of layers a file."""

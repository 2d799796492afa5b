"""Kernels for layers whose stride is their kernel: matrix products over pixels in blocks."""

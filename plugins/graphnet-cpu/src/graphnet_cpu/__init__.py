"""Kernels in C++ for graphnet: convolutions, patch layers and chains of them on a CPU."""

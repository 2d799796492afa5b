"""Kernels in Triton for graphnet: fused patch layers, losses, norms and gates on a GPU."""

"""The built-in kernels: other ways to compute the built-in layers and updates."""

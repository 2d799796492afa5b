"""The built-in layers, in their plainest form: unfold, matmul, fold and elementwise operations."""

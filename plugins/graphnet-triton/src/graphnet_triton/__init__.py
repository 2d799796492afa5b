"""Kernels in Triton for graphnet: fused patch layers, losses, norms and gates on a GPU."""

import os

INTERPRETED = os.environ.get("TRITON_INTERPRET", "") not in ("", "0")
"""Whether kernels run by the interpreter, on CPU tensors, as in the tests; Triton reads this variable too."""

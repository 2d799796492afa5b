"""Where programs over images in channels_last, (pixels, C), read and write."""

import triton
import triton.language as tl


@triton.jit
def places(p, c, pixels, C: tl.constexpr):
    """Where the pixels p hold the channels c, and which of these are there."""
    at = p[:, None] * C + c[None, :]
    return at, (p[:, None] < pixels) & (c[None, :] < C)

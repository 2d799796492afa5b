"""Engine: denoises parts, and takes smaller ones when a device is out of memory."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor

from graphnet.errors import MemoryBudgetError
from graphnet_denoise.jobs.cutting import Reach, cut
from graphnet_denoise.jobs.methods import Advance, Method
from graphnet_denoise.restoring import Look


class Engine:
    """Runs a method.

    Args:
        method: how parts are denoised.
        say: is called with a line for the user.

    Attributes:
        most_pixels: the pixels that a part may have, after the device was out of memory; before, None.
        seconds: the time that the method has taken in all.
    """

    def __init__(self, method: Method, say: Callable[[str], None]) -> None:
        self.method = method
        self.say = say
        self.most_pixels: int | None = None
        self.seconds = 0.0

    def restore(
        self, part: Tensor, look: Look, corner: tuple[int, int], advance: Advance
    ) -> Tensor:
        """Denoise a part; raises MemoryBudgetError if the device has no memory for it in any size."""
        started = perf_counter()
        try:
            return self._restore(part, look, corner, advance)
        finally:
            self.seconds += perf_counter() - started

    def _restore(
        self, part: Tensor, look: Look, corner: tuple[int, int], advance: Advance
    ) -> Tensor:
        while True:
            height, width = part.shape[2:]
            try:
                if self.most_pixels is None or height * width <= self.most_pixels:
                    return self.method.restore(part, look, corner, advance)
                reach = self.method.reach()
                if reach is not None:
                    return self._in_blocks(part, look, corner, advance, reach)
            except (torch.OutOfMemoryError, MemoryError):
                pass  # it goes on outside, where the tensors of the call are free again
            except RuntimeError as error:
                if "can't allocate memory" not in str(error):  # torch's words for a CPU
                    raise
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._shrink(height * width)

    def _shrink(self, pixels: int) -> None:
        if self.method.reach() is None:
            raise MemoryBudgetError(
                "the device is out of memory, and this network cannot run in tiles. Take a smaller image or "
                "another --device."
            )
        if self.most_pixels is None:
            self.say("the device is out of memory: going on with smaller tiles")
        self.most_pixels = min(pixels, self.most_pixels or pixels) // 2

    def _in_blocks(
        self, part: Tensor, look: Look, corner: tuple[int, int], advance: Advance, reach: Reach
    ) -> Tensor:
        assert self.most_pixels is not None
        height, width = part.shape[2:]
        blocks = cut(height, width, reach, most_pixels=self.most_pixels)
        whole = torch.empty_like(part)
        for number, block in enumerate(blocks, 1):
            rows, columns = block.rows, block.columns
            place = corner[0] + rows.start, corner[1] + columns.start
            piece = part[..., rows, columns].clone()
            result = self.method.restore(piece, look, place, lambda _share: None)
            whole[..., block.kept_rows, block.kept_columns] = result[..., *block.inside]
            advance(number / len(blocks))
        return whole

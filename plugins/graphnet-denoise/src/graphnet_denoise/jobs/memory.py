"""Memory: how many pixels a network may read at a time so that the whole process keeps to a bound."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from graphnet.errors import MemoryBudgetError
from graphnet.system import bytes_text, keep_freed_memory, return_freed_memory

_UNKNOWN_BYTES = 600 << 20  # what Python with torch takes, where the system does not say
_SURELY = 2000  # bytes for a pixel, more than a network takes
_LATER_BYTES = 64 << 20  # code and tables that the first computation loads
_AMPLE_BYTES = 1 << 30  # from here on, time is worth more than memory
_KEPT = 2.4  # measured
_SPARE = 0.92  # the share that is planned for; allocators and decoders take some more


def taken_bytes() -> int:
    """The memory that this process takes now, shared libraries included."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return _UNKNOWN_BYTES
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Bound:
    """The memory that images may take beside what the process takes already.

    Args:
        limit: the bytes; None for any number.
        kept: how many times the bytes of a network's tensors the C library holds, since it keeps what they
            free: that saves a third of the time.
    """

    limit: int | None
    kept: float = 1.0

    @classmethod
    def of_process(cls, memory: int | None) -> Bound:
        """Bound all that this process takes, and set the C library to fit; before the first image.

        Raises:
            MemoryBudgetError: the process takes as much already.
        """
        if memory is None:
            keep_freed_memory()
            return cls(None)
        taken = taken_bytes() + _LATER_BYTES
        limit = memory - taken
        if limit <= 0:
            raise MemoryBudgetError(
                f"--memory is {bytes_text(memory)}, but the process takes {bytes_text(taken)} without any "
                f"image. Allow at least {bytes_text(taken + _AMPLE_BYTES // 8)}."
            )
        if limit >= _AMPLE_BYTES:
            keep_freed_memory()
            return cls(limit, _KEPT)
        return_freed_memory()
        return cls(limit)

    def fits_surely(self, numbers: int) -> bool:
        """Whether an image of so many numbers fits with any usual network."""
        return self.limit is None or numbers * _SURELY * self.kept <= self.limit

    def most_pixels(
        self, *, network_bytes: float, channels: int, itemsize: int, whole_bytes: int
    ) -> int | None:
        """The pixels that a network may read at a time; None for any number.

        Args:
            network_bytes: what the network takes for a pixel.
            channels: the channels of the file.
            itemsize: the bytes of a number in the file.
            whole_bytes: what is in memory as a whole, for formats that are decoded or encoded so.

        Raises:
            MemoryBudgetError: there is no memory left.
        """
        if self.limit is None:
            return None
        left = int(self.limit * _SPARE) - whole_bytes
        # Beside the network: a part as read and as values, each three times (one waits, one is computed, one
        # is being copied); its result as values and in the file's numbers; and copies for the network.
        around = channels * (3 * itemsize + 3 * 4 + 3 * (4 + 8)) + 3 * 3 * 4
        pixels = int(left / (network_bytes * self.kept + around))
        if pixels < 1:
            raise MemoryBudgetError(
                f"there are {bytes_text(self.limit)} of memory for the image, and {bytes_text(whole_bytes)} "
                f"are needed, since it is read or written as a whole. Allow more with --memory, or take TIFF "
                f"for image and result."
            )
        return pixels

"""Opening: an image for a method, cut into blocks where the memory is less than it needs as a whole."""

from __future__ import annotations

import math

from graphnet.errors import GraphnetError
from graphnet_denoise.images import ImageFile, open_image
from graphnet_denoise.jobs.cutting import Block, cut
from graphnet_denoise.jobs.memory import Bound
from graphnet_denoise.jobs.methods import Method
from graphnet_denoise.jobs.opened import OpenedImage, ranges_of
from graphnet_denoise.jobs.targets import Job
from graphnet_denoise.jobs.written import copies_in_memory, wrong_ending


def open_job(job: Job, method: Method, bound: Bound) -> OpenedImage:
    """Open the image of a job, and find the range of its numbers and its blocks.

    Raises:
        DataError: the image cannot be read.
        MemoryBudgetError: it does not fit into the memory, not even in tiles.
    """
    source = open_image(job.file)
    try:
        # A model that knows the numbers of files was trained on such images, with their channels together.
        apart = source.colour in ("independent", "cmyk") and not method.takes_numbers
        fits = not apart and method.takes(source.channels)
        together = source.colour in ("grey", "rgb") or fits
        blocks = _blocks(job, source, method, bound)
        ranges = ranges_of(source, together=together, takes_numbers=method.takes_numbers)
    except BaseException:
        source.close()
        raise
    notes = dict.fromkeys((wrong_ending(job, source), *(one.note for one in ranges)))
    said = [note for note in notes if note]
    return OpenedImage(job, source, together, ranges, blocks, notes=said)


def _blocks(job: Job, source: ImageFile, method: Method, bound: Bound) -> list[Block]:
    height, width = source.height, source.width
    whole = Block(*(slice(0, side) for side in (height, width, height, width)))
    if bound.fits_surely(height * width * source.channels):
        return [whole]
    reach = method.reach()
    if reach is None:
        return [whole]
    size = math.prod(source.shape) * source.dtype.itemsize
    try:
        copies = (0 if source.by_parts else 1) + copies_in_memory(job.result, source)
        most = bound.most_pixels(
            network_bytes=reach.pixel_bytes,
            channels=source.channels,
            itemsize=source.dtype.itemsize,
            whole_bytes=copies * size,
        )
        return [whole] if most is None else cut(height, width, reach, most_pixels=most)
    except GraphnetError as error:
        raise type(error)(f"{job.source}: {error}") from error

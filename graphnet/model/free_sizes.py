"""Free sizes: which sizes of a model's inputs its description leaves open, under which names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphnet.description import InputDescription

Places = Sequence[tuple[int, int]]
"""Pairs of an input's number and an axis."""
BATCH = "batch"
_OF_IMAGES = {2: "height", 3: "width"}


def open_sizes(
    inputs: Sequence[InputDescription], shapes: Sequence[tuple[int, ...]]
) -> Mapping[str, Places]:
    """Return name -> its places, for the sizes that the description does not fix.

    These are the batch, sizes with a name, and those that the description does not state: "height" and
    "width" of images, else the number of the axis.

    Args:
        inputs: the model's inputs as its description states them.
        shapes: a shape for each input.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    sizes: dict[str, int] = {}
    for number, (described, shape) in enumerate(zip(inputs, shapes, strict=True)):
        for axis, size in enumerate(shape):
            stated = described.axes[axis - 1] if 0 < axis <= len(described.axes) else None
            if isinstance(stated, int):
                continue
            of_image = described.shape is None and len(shape) == 4
            word = stated or (_OF_IMAGES.get(axis) if of_image else None) or f"axis_{axis}"
            name = BATCH if axis == 0 else word
            if sizes.setdefault(name, size) != size:  # inputs of different sizes
                name = f"{name}_{number}"
            found.setdefault(name, []).append((number, axis))
    return found


def resized(
    shapes: Sequence[tuple[int, ...]], places: Places, size: int
) -> tuple[tuple[int, ...], ...]:
    """The shapes with another size at these places.

    >>> resized([(1, 3, 8, 8)], [(0, 2)], 16)
    ((1, 3, 16, 8),)
    """
    other = [list(shape) for shape in shapes]
    for number, axis in places:
        other[number][axis] = size
    return tuple(map(tuple, other))

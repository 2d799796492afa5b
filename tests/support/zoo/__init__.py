"""The zoo: small image files of every format, depth, layout and kind of metadata."""

from __future__ import annotations

from tests.support.zoo import arrays, jpeg, pictures, png, tiff
from tests.support.zoo.specimen import Sight, Specimen

ZOO: tuple[Specimen, ...] = tuple(
    specimen for family in (png, jpeg, tiff, arrays, pictures) for specimen in family.specimens()
)
"""All specimens."""

__all__ = ["ZOO", "Sight", "Specimen"]

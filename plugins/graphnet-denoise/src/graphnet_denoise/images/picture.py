"""Image files: read PNG, JPEG, TIFF, WebP and BMP as arrays, and write PNG and JPEG.

Every decoder's error becomes a DataError that names the file. What would be lost or read wrongly without a
message is an error: the missing part of a truncated file, further frames, slices and channels, signed and
floating-point pixels, alpha in a JPEG.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from graphnet.errors import DataError
from graphnet.system import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
READ_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
WRITE_SUFFIXES = (".png", ".jpg", ".jpeg")
JPEG_QUALITY = 95

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")  # Pillow's others are never tried
_DEEP_FORMATS = ("PNG", "TIFF")  # those that may hold 16 bits a channel
_GREY_MODES = ("1", "L", "LA", "La")
_WHITE_IS_ZERO, _SEPARATE, _UNSIGNED, _UNSPECIFIED = 0, 2, 1, 0  # in a TIFF's tags
_IMAGE_DEPTH = 32997  # the TIFF tag that counts the slices of a volume
_ALPHA_MODES = ("LA", "La", "RGBA", "RGBa", "PA")


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded image: `pixels` uint8 or uint16 (C, H, W), C = 1 (grey) or 3 (RGB).

    `alpha` is uint8 (H, W), or None if the image has none. `depth` is the number of bits of a channel in the
    file: 16 with uint8 pixels means that the decoder kept the upper 8 bits only, as Pillow does for colour.
    """

    pixels: Pixels
    alpha: NDArray[np.uint8] | None = None
    depth: int = 8
    icc_profile: bytes | None = None

    def tensor(self) -> Tensor:
        """The pixels as float32 (C, H, W) in 0..1.

        >>> Picture(np.full((1, 1, 2), 255, np.uint8)).tensor()
        tensor([[[1., 1.]]])
        """
        import torch  # takes two seconds, and the file's header needs none of it

        peak = float(np.iinfo(self.pixels.dtype).max)
        return torch.from_numpy(self.pixels.astype(np.float32) / np.float32(peak))

    def with_tensor(self, values: Tensor) -> Picture:
        """Return a copy with these pixels, float (C, H, W), clamped to 0..1 and rounded to this depth.

        >>> import torch
        >>> Picture(np.zeros((1, 1, 2), np.uint8)).with_tensor(torch.tensor([[[0.5, 7.0]]])).pixels
        array([[[128, 255]]], dtype=uint8)
        """
        peak = float(np.iinfo(self.pixels.dtype).max)
        scaled = values.double().clamp(0, 1) * peak
        levels = (scaled + 0.5).floor().cpu().numpy()
        deep = self.pixels.dtype == np.uint16
        pixels: Pixels = levels.astype(np.uint16) if deep else levels.astype(np.uint8)
        return Picture(pixels, self.alpha, self.depth, self.icc_profile)


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file that can be read; False for hidden files."""
    return path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path) -> list[Path]:
    """Return the images directly in `folder`, in the order of their names.

    Raises DataError if it has none, is no folder, or cannot be listed.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}). Give a folder.") from error
    images = [entry for entry in entries if is_image(entry) and entry.is_file()]
    if not images:
        folders = [f"'{entry.name}'" for entry in entries if entry.is_dir()]
        inside = (
            f" It holds folders ({', '.join(folders[:5])}): give one of them." if folders else ""
        )
        raise DataError(
            f"{folder}: expected a folder with images ({', '.join(READ_SUFFIXES)}), "
            f"found none directly in it.{inside}"
        )
    return images


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) from the file's header, before a rotation that its EXIF data state."""
    with _opened(path) as image:
        return image.height, image.width


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image as uint8 RGB (H, W, 3): grey is repeated, alpha dropped, 16 bits become the upper 8."""
    picture = read_picture(path)
    pixels = picture.pixels
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)  # as Pillow does for 16-bit colour
    return np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3)).astype(np.uint8)


def read_picture(path: Path) -> Picture:
    """Read the image at `path`, and apply its EXIF orientation.

    Raises DataError, which names the file, if the file is missing, damaged, truncated, too large to be
    decoded safely, has more than one frame, or has pixels that are no 8- or 16-bit integers.
    """
    with _opened(path) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG with previews behind it
            raise DataError(
                f"{path}: expected one image, found {frames} frames or pages. Save each as a file."
            )
        inverted = False
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_tiff(image, path)
            inverted = _is_inverted(image)
        depth = 16 if _is_deep(image) else 8
        image.load()
        profile = image.info.get("icc_profile") if image.mode not in ("CMYK", "LAB") else None
        pixels, alpha = _planes(ImageOps.exif_transpose(image), path)
    if inverted:
        pixels = np.iinfo(pixels.dtype).max - pixels
    return Picture(pixels, alpha, depth, profile)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a PNG or JPEG (quality 95, full colour resolution), completely or not at all.

    uint16 grey becomes a 16-bit PNG, or an 8-bit JPEG. Raises DataError for another suffix, for alpha in a
    JPEG, and if the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITE_SUFFIXES:
        raise DataError(
            f"{path}: expected a name that ends in {', '.join(WRITE_SUFFIXES)}, found "
            f"{path.suffix or 'no ending'!r}. PNG keeps every bit and alpha; JPEG is smaller."
        )
    pixels = picture.pixels
    if suffix != ".png":
        if picture.alpha is not None:
            raise DataError(f"{path}: a JPEG cannot hold the image's alpha. Write a .png instead.")
        if pixels.dtype == np.uint16:
            pixels = (pixels >> 8).astype(np.uint8)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    if picture.alpha is not None:
        if pixels.dtype == np.uint16:
            raise DataError(f"{path}: 16-bit grey with alpha cannot be written. Remove the alpha.")
        image.putalpha(Image.fromarray(picture.alpha))
    options: dict[str, Any] = {"icc_profile": picture.icc_profile}
    if suffix != ".png":
        options |= {"quality": JPEG_QUALITY, "subsampling": 0}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        image.save(file, "PNG" if suffix == ".png" else "JPEG", **options)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """An image whose header was read; whatever its decoder raises becomes a DataError."""
    try:
        with warnings.catch_warnings():
            # Remarks on odd metadata concern nobody; the one on size comes before memory is taken.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path}: expected at most {Image.MAX_IMAGE_PIXELS:,} pixels, found more in the "
            f"header; a small file of that kind can fill the memory. Cut the image into parts."
        ) from error
    except Exception as error:  # a decoder of damaged data may raise anything
        raise DataError(
            f"{path}: cannot be read as an image ({_reason(error)}). The file is damaged, "
            f"truncated or of another kind; replace or remove it."
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):
        return f"no {', '.join(_FORMATS)} data found"
    return str(error) or type(error).__name__


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether the file has 16 bits a channel, which Pillow tells by its tiles, until it loads."""
    return image.format in _DEEP_FORMATS and any(";16" in str(tile[3]) for tile in image.tile)


def _check_tiff(image: TiffImagePlugin.TiffImageFile, path: Path) -> None:
    """Raise DataError for the kinds of TIFF that Pillow reads wrongly, or in part, without an error."""
    tags = image.tag_v2
    bits = set(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    formats = set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (_UNSIGNED,)))
    unspecified = tags.get(TiffImagePlugin.EXTRASAMPLES, ()).count(_UNSPECIFIED)
    planes = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1)
    found = ""
    if (slices := tags.get(_IMAGE_DEPTH, 1)) != 1:
        found = f"a volume of {slices} slices. Save each slice as a file"
    elif formats != {_UNSIGNED} and bits <= {8, 16}:
        found = "signed or floating-point ones. Convert the image"
    elif not bits <= {1, 2, 4, 8, 16, 32}:
        found = f"pixels of {' and '.join(map(str, sorted(bits)))} bits. Convert the image"
    elif unspecified:
        found = (
            f"further channels beside the colours ({unspecified}), which would be lost. Remove them, or "
            f"declare one as alpha"
        )
    elif planes == _SEPARATE and bits == {16} and image.info["compression"] == "raw":
        found = (
            "16-bit colours stored apart from one another (PlanarConfiguration 2). Save the image with the "
            "colours of a pixel together (tifffile: planarconfig='contig'), or as a PNG"
        )
    if found:
        raise DataError(
            f"{path}: expected one image of unsigned integers of 8 or 16 bits, found {found}."
        )


def _is_inverted(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether 0 is white and Pillow leaves it so, as it does with 16 bits."""
    photometric = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    return photometric == _WHITE_IS_ZERO and image.mode.startswith("I;16")


def _planes(image: Image.Image, path: Path) -> tuple[Pixels, NDArray[np.uint8] | None]:
    """Colour (C, H, W) and alpha (H, W), from any of Pillow's modes."""
    if image.mode.startswith("I;16"):
        if "transparency" in image.info:
            raise DataError(
                f"{path}: 16-bit grey with a transparent level cannot be read. Remove the transparency."
            )
        return np.asarray(image).astype(np.uint16)[None], None
    if image.mode in ("I", "F"):
        raise DataError(
            f"{path}: expected integers of 8 or 16 bits, found 32-bit pixels, whose range no file "
            f"states. Convert the image to 16 bits."
        )
    has_alpha = image.mode in _ALPHA_MODES or "transparency" in image.info
    array = np.asarray(image.convert("RGBA" if has_alpha else "RGB")).transpose(2, 0, 1)
    colour = np.ascontiguousarray(array[: 1 if image.mode in _GREY_MODES else 3])
    return colour, np.ascontiguousarray(array[3]) if has_alpha else None

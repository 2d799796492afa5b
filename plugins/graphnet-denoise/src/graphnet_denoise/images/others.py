"""Files that are healthy, but of a kind that cannot be read: what they are, and what to do with them."""

from __future__ import annotations

_CONVERT = "Convert it to a TIFF or PNG"
_UNPACK = "Unpack it first"
_EXPORT = "Export its images as OME-TIFF or OME-Zarr"

_KINDS: tuple[tuple[int, bytes, str, str], ...] = (
    (4, b"ftypheic", "a HEIC", _CONVERT),
    (4, b"ftypheix", "a HEIC", _CONVERT),
    (4, b"ftypmif1", "a HEIF", _CONVERT),
    (4, b"ftyp", "a video (MP4 or the like)", "Save its frames as files or as a TIFF"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL", _CONVERT),
    (0, b"\xff\x0a", "a JPEG XL", _CONVERT),
    (0, b"8BPS", "a Photoshop document", "Save it as a TIFF"),
    (0, b"gimp xcf", "a GIMP document", "Export it as a TIFF"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR", _CONVERT),
    (0, b"#?RADIANCE", "a Radiance picture", _CONVERT),
    (0, b"\0\0\1\0", "an icon", _CONVERT),
    (0, b"%PDF", "a PDF", "Export its pictures as PNG"),
    (0, b"<svg", "a drawing (SVG)", "Export it as a PNG"),
    (0, b"<?xml", "an XML text", "Give an image"),
    (0, b"RIFF", "a video or sound (RIFF)", "Save its frames as files or as a TIFF"),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska)", "Save its frames as files or as a TIFF"),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (0, b"PK\3\4", "a zip archive (also .npz)", _UNPACK),
    (0, b"\x89HDF", "an HDF5 file", _EXPORT),
    (0, b"ZISRAWFILE", "a Zeiss CZI", _EXPORT),
    (0, b"\xda\xce\xbe\x0a", "a Nikon ND2", _EXPORT),
    (0, b"\x70\0\0\0", "a Leica LIF", _EXPORT),
    (0, b"\xd0\xcf\x11\xe0", "an Olympus OIB or a Zeiss ZVI", _EXPORT),
)
"""Where the signature stands, the signature, the kind, and the remedy; the first that fits counts."""


def other_kind(head: bytes) -> str:
    """What a file of another kind is, by its first bytes, and what to do; "" if nothing is known of it.

    >>> other_kind(b"8BPS")
    'a Photoshop document. Save it as a TIFF'
    """
    for place, signature, kind, remedy in _KINDS:
        if head[place:].startswith(signature):
            return f"{kind}. {remedy}"
    return ""

"""Arrays: .npy, zarr, FITS, MRC and PNM; read by NumPy, zarr, astropy, mrcfile and by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import mrcfile
import numpy as np
import zarr
from astropy.io import fits
from numpy.typing import NDArray

from tests.support.zoo.specimen import HEIGHT, WIDTH, Sight, Specimen, noise

_SUMS = ("CHECKSUM", "DATASUM", "HISTORY", "COMMENT", "")


def look_at_npy(path: Path) -> Sight:
    """Read a .npy by NumPy."""
    array = np.load(path)
    order = "F" if np.isfortran(array) else "C"
    return Sight(array, {"dtype": array.dtype.str, "shape": array.shape, "order": order})


def _npys() -> Iterator[Specimen]:
    def made(name: str, array: NDArray[Any]) -> Specimen:
        return Specimen(f"{name}.npy", lambda path: np.save(path, array), look_at_npy)

    yield made("grey-u1", noise(HEIGHT, WIDTH))
    yield made("big-endian-u2", noise(HEIGHT, WIDTH, dtype="u2").astype(">u2"))
    yield made("fortran-f4", np.asfortranarray(noise(HEIGHT, WIDTH, dtype="f4")))
    yield made("rgb-f8", noise(HEIGHT, WIDTH, 3, dtype="f8"))
    yield made("batch-f4", noise(4, 3, HEIGHT, WIDTH, dtype="f4"))
    yield made("stack-i2", noise(5, HEIGHT, WIDTH, dtype="i2"))
    yield made("mask", noise(HEIGHT, WIDTH, dtype="?"))


def look_at_zarr(path: Path) -> Sight:
    """Read a zarr array, or the full resolution of an OME-Zarr, by zarr."""
    opened = zarr.open(path, mode="r")
    facts: dict[str, Any] = {"attributes": opened.attrs.asdict()}
    if isinstance(opened, zarr.Group):
        scales = facts["attributes"].get("ome", facts["attributes"])["multiscales"]
        scales[0]["datasets"] = scales[0]["datasets"][:1]
        if "labels" in opened:
            facts["labels"] = np.asarray(opened["labels/cells"]).tolist()
        opened = opened["0"]
    assert isinstance(opened, zarr.Array)
    metadata = opened.metadata.to_dict()
    facts |= {"metadata": str(metadata), "version": opened.metadata.zarr_format}
    return Sight(np.asarray(opened[:]), facts)


def _zarrs() -> Iterator[Specimen]:
    def plain(name: str, array: NDArray[Any], **options: Any) -> Specimen:
        def write(path: Path) -> None:
            made = zarr.create_array(
                store=str(path), data=array, attributes={"instrument": "one"}, **options
            )
            assert made.shape == array.shape

        return Specimen(f"{name}.zarr", write, look_at_zarr)

    yield plain("version-2", noise(HEIGHT, WIDTH, dtype="u2"), zarr_format=2, chunks=(16, 16))
    yield plain("version-3", noise(HEIGHT, WIDTH, dtype="f4"), zarr_format=3, chunks=(16, 16))
    yield plain("shards", noise(40, 48, dtype="u2"), chunks=(8, 8), shards=(40, 24))
    yield plain(
        "named-axes",
        noise(2, HEIGHT, WIDTH, dtype="i2"),
        chunks=(1, 16, 16),
        dimension_names=("z", "y", "x"),
    )
    yield Specimen("ome-0.4.zarr", lambda path: _ome_zarr(path, 2), look_at_zarr)
    yield Specimen("ome-0.5.zarr", lambda path: _ome_zarr(path, 3), look_at_zarr)


def _ome_zarr(path: Path, version: Literal[2, 3]) -> None:
    picture = noise(2, 2, 3, HEIGHT, WIDTH, dtype="u2")
    group = zarr.open_group(path, mode="w", zarr_format=version)
    levels = ("0", picture), ("1", picture[..., ::2, ::2])
    for name, level in levels:
        group.create_array(name, data=level, chunks=(1, 1, 1, 32, 32))
    group.create_group("labels").create_array(
        "cells", data=noise(HEIGHT, WIDTH), chunks=(HEIGHT, WIDTH)
    )
    axes = [{"name": name, "type": "space"} for name in "tczyx"]
    datasets = [{"path": name, "coordinateTransformations": []} for name, _ in levels]
    about: dict[str, Any] = {
        "multiscales": [{"axes": axes, "datasets": datasets, "version": "0.4"}]
    }
    about["omero"] = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    group.attrs.update(about if version == 2 else {"ome": {**about, "version": "0.5"}})


def look_at_fits(path: Path) -> Sight:
    """Read a FITS file by astropy: every header, and the tables and images behind the first image."""
    with fits.open(path, memmap=False, ignore_blank=False) as units:
        units.verify("exception")
        images = [i for i, unit in enumerate(units) if unit.is_image and unit.data is not None]
        first = images[0]
        stored = units[first].data
        headers = [
            {
                str(card.keyword): card.value
                for card in unit.header.cards
                if card.keyword not in _SUMS
            }
            for unit in units
        ]
        rest = [np.asarray(unit.data).tolist() for unit in units[first + 1 :]]
        facts = {"headers": headers, "rest": rest, "dtype": stored.dtype.newbyteorder("=")}
        return Sight(np.array(stored, stored.dtype.newbyteorder("=")), facts)


def _fits() -> Iterator[Specimen]:
    def made(name: str, array: NDArray[Any], *more: Any, **cards: Any) -> Specimen:
        def write(path: Path) -> None:
            unit = fits.PrimaryHDU(array)
            unit.header["OBJECT"] = ("M 31", "the object")
            unit.header["EXPTIME"] = 30.5
            unit.header.update(cards)
            unit.header.add_history("taken")
            fits.HDUList([unit, *more]).writeto(path, checksum=True)

        return Specimen(f"{name}.fits", write, look_at_fits)

    for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8"):
        yield made(f"grey-{kind}", noise(HEIGHT, WIDTH, dtype=kind))
    yield made("rgb-f4", noise(3, HEIGHT, WIDTH, dtype="f4"))
    yield made("cube-u2", noise(4, HEIGHT, WIDTH, dtype="u2"))
    table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.arange(5.0))])
    errors = fits.ImageHDU(noise(HEIGHT, WIDTH, dtype="f4", seed=3), name="ERR")
    yield made("with-parts", noise(HEIGHT, WIDTH, dtype="i2"), errors, table)
    yield Specimen("image-extension.fits", _extension, look_at_fits)


def _extension(path: Path) -> None:
    science = fits.ImageHDU(noise(HEIGHT, WIDTH, dtype="f4"), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), science]).writeto(path)


def look_at_mrc(path: Path) -> Sight:
    """Read an MRC file by mrcfile."""
    with mrcfile.open(path) as opened:
        header = opened.header
        names = (
            "mode",
            "nx",
            "ny",
            "nz",
            "mx",
            "my",
            "mz",
            "cella",
            "ispg",
            "origin",
            "exttyp",
            "nlabl",
        )
        facts: dict[str, Any] = {name: str(header[name]) for name in names}
        facts |= {"extended": bytes(opened.extended_header), "labels": opened.get_labels()}
        return Sight(np.array(opened.data), facts)


def _mrcs() -> Iterator[Specimen]:
    def made(
        name: str, array: NDArray[Any], *, volume: bool = False, extended: bool = False
    ) -> Specimen:
        def write(path: Path) -> None:
            with mrcfile.new(path) as opened:
                opened.set_data(array)
                opened.voxel_size = 1.5
                if volume:
                    opened.set_volume()
                if extended:
                    opened.set_extended_header(np.zeros(100, "V1"))
                opened.add_label("made by hand")

        return Specimen(f"{name}.mrc", write, look_at_mrc)

    for kind in ("i1", "i2", "u2", "f4", "f2"):
        yield made(f"grey-{kind}", noise(HEIGHT, WIDTH, dtype=kind))
    yield made("stack", noise(4, HEIGHT, WIDTH, dtype="f4"), extended=True)
    yield made("volume", noise(4, HEIGHT, WIDTH, dtype="i2"), volume=True)
    yield made("big-endian", noise(HEIGHT, WIDTH, dtype="f4").astype(">f4"))


def _pnms() -> Iterator[Specimen]:
    def made(name: str, head: bytes, levels: NDArray[Any], body: bytes, peak: int) -> Specimen:
        data = head + body
        look = _look_at_pnm(head, levels.dtype, levels.shape)
        return Specimen(name, lambda path: path.write_bytes(data), look, peak=peak)

    size = b"%d %d" % (WIDTH, HEIGHT)
    grey, deep = noise(HEIGHT, WIDTH), noise(HEIGHT, WIDTH, dtype="u2").astype(">u2")
    rgb, deep_rgb = noise(HEIGHT, WIDTH, 3), noise(HEIGHT, WIDTH, 3, dtype="u2").astype(">u2")
    yield made("grey-8.pgm", b"P5\n# a note\n%s\n255\n" % size, grey, grey.tobytes(), 255)
    yield made("grey-16.pgm", b"P5 %s 65535\n" % size, deep, deep.tobytes(), 65535)
    low = (deep % 1001).astype(">u2")
    yield made("grey-to-1000.pgm", b"P5 %s 1000\n" % size, low, low.tobytes(), 1000)
    yield made("rgb-8.ppm", b"P6\n%s\n255\n" % size, rgb, rgb.tobytes(), 255)
    yield made("rgb-16.ppm", b"P6\n%s\n65535\n" % size, deep_rgb, deep_rgb.tobytes(), 65535)
    bits = grey & 1
    packed = np.packbits(bits, axis=1)
    yield made("bits.pbm", b"P4\n%s\n" % size, bits, packed.tobytes(), 1)
    for kind, levels, peak in (
        (b"P1", bits, 1),
        (b"P2", low.astype("u2"), 1000),
        (b"P3", rgb, 255),
    ):
        last = b"" if kind == b"P1" else b"%d\n" % peak
        rows = levels.reshape(HEIGHT, -1).tolist()
        text = b"".join(" ".join(map(str, row)).encode() + b"\n" for row in rows)
        suffix = {b"P1": "pbm", b"P2": "pgm", b"P3": "ppm"}[kind]
        yield made(f"text.{suffix}", b"%s\n%s\n%s" % (kind, size, last), levels, text, peak)


def _look_at_pnm(
    head: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Callable[[Path], Sight]:
    def look(path: Path) -> Sight:
        data = path.read_bytes()
        body = data[len(head) :]
        if head[1:2] in b"123":
            levels = np.array(body.split(), np.int64).astype(dtype)
        elif head[1:2] == b"4":
            levels = np.unpackbits(np.frombuffer(body, np.uint8).reshape(HEIGHT, -1), axis=1)[
                :, :WIDTH
            ]
        else:
            levels = np.frombuffer(body, dtype)
        native = levels.astype(levels.dtype.newbyteorder("="))
        return Sight(native.reshape(shape), {"head": data[: len(head)]})

    return look


def specimens() -> Iterator[Specimen]:
    """All arrays."""
    for family in (_npys, _zarrs, _fits, _mrcs, _pnms):
        yield from family()

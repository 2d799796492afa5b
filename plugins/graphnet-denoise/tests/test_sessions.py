"""The sessions in the docs: each command is run, and prints what the page shows below it.

Trainings are shorter than on the pages, so the numbers that depend on the model are not compared.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import tifffile
from graphnet_denoise.draws import Draws
from graphnet_denoise.noise import NOISES, Scenes
from numpy.typing import NDArray
from PIL import Image

from graphnet.cli import run as graphnet_command
from tests.support import own_images

DOCS = Path(__file__).parents[3] / "docs"
TIMES = re.compile(r"\b\d+(\.\d+)? s\b")
OF_A_MODEL = re.compile(
    r"^(the best held-out|score|residual|contrast|flips|│|star|wrote \S+\.(html|zip):).*$", re.M
)
"""Lines with numbers that depend on the model, and so on how long it was trained."""

PASSING = re.compile(r"^(note|epoch|\d+% of) .*\n| +$", re.M)
"""Progress, remarks on a model that was trained for too short a time, and spaces that nobody sees."""

Plane = NDArray[np.float64]


def photograph(path: Path, clean: Any, *, seed: int) -> None:
    """Save a photo as a camera does at ISO 3200."""
    noise: Any = NOISES.make({"camera": {"iso": 3200, "quality": 85, "jpeg": 0}})
    strength = noise.strength(Draws(seed, 0, [0], stream=1))
    strength["luma_blur"][:], strength["colour_blur"][:] = 0.5, 1.5
    scenes = Scenes([clean], clean.shape[:2], strength)
    noisy = noise(scenes, Draws(seed, 0, [0], stream=3))[0]
    Image.fromarray((noisy * 255).round().astype(np.uint8)).save(path, quality=85)


def prepare_photos(folder: Path) -> None:
    data: Any = skimage.data
    photograph(folder / "IMG_0001.jpg", data.astronaut()[:192, 100:356], seed=1)
    (folder / "shoot").mkdir()
    photograph(folder / "shoot/IMG_0001.jpg", data.astronaut()[:192, 100:356], seed=1)
    photograph(folder / "shoot/IMG_0002.jpg", data.coffee()[100:292, 150:406], seed=2)
    (folder / "shoot/IMG_0003.jpg").write_bytes((folder / "IMG_0001.jpg").read_bytes()[:3000])


def cells(number: int, side: int = 192) -> Plane:
    """Cells of about 1 on a background of 0."""
    data: Any = skimage.data
    shapes = data.binary_blobs(side, blob_size_fraction=0.1, volume_fraction=0.3, rng=number)
    texture = own_images.smoothed(np.random.default_rng(number).normal(size=shapes.shape), 2.5)
    inside = shapes * np.clip(1 + 0.35 * texture / texture.std(), 0.1, None)
    return own_images.smoothed(inside, 1.2)


def exposed(picture: Plane, draws: np.random.Generator) -> NDArray[np.uint16]:
    """Expose a camera: 3 photons in the dark and 63 at 1, read noise, 2.2 numbers each, an offset of 100."""
    electrons = draws.poisson(3 + 60 * picture.clip(0)) + draws.normal(0, 1.6, picture.shape)
    return (100 + 2.2 * electrons).round().clip(0, 4095).astype(np.uint16)


def prepare_microscope(folder: Path) -> None:
    draws = np.random.default_rng(5)
    for name in ("cells", "few", "averages", "positions", "scans", "striped"):
        (folder / name).mkdir()
    for k in range(8):
        image = exposed(cells(k), draws)
        tifffile.imwrite(folder / f"cells/cell_{k}.tif", image)
        if k < 3:
            mean = np.mean([exposed(cells(k), draws) for _ in range(100)], axis=0)
            tifffile.imwrite(folder / f"few/cell_{k}.tif", image)
            tifffile.imwrite(folder / f"averages/cell_{k}.tif", (10 * mean).astype(np.uint16))
    frames = [np.roll(cells(20), (4 * t, 3 * t), (0, 1)) for t in range(6)]
    movie = np.stack([exposed(frame, draws) for frame in frames])
    of_pixels = {"PhysicalSizeX": 0.108, "PhysicalSizeY": 0.108, "TimeIncrement": 2.0}
    tifffile.imwrite(
        folder / "movie.ome.tif", movie, ome=True, metadata={"axes": "TYX", **of_pixels}
    )
    for k in range(3):
        for i in range(5):
            image = exposed(cells(30 + k), draws)
            tifffile.imwrite(folder / f"positions/pos{k}_{i:02}.tif", image)
    for k in range(4):
        picture = 300 + 800 * cells(40 + k)
        each = draws.normal(0, 90, picture.shape)
        along = sum(np.roll(each, shift, 1) for shift in range(3)) / np.sqrt(3)
        stripes = draws.normal(0, 90, (len(picture), 1)) + draws.normal(0, 20, picture.shape)
        for name, noise in (("scans", along), ("striped", stripes)):
            levels = (picture + noise).round().clip(0, 4095).astype(np.uint16)
            tifffile.imwrite(folder / f"{name}/scan_{k}.tif", levels)


STARS = {"bright": (100_000, 60, 70), "medium": (5_000, 130, 180), "faint": (600, 200, 60)}
"""The flux of three stars in electrons, and their row and column."""


def sky(side: int = 256) -> Plane:
    """The electrons of a field of stars and galaxies over a flat sky."""
    draws = np.random.default_rng(11)
    rows, columns = np.indices((side, side))

    def distance(row: float, column: float) -> Plane:
        return np.asarray(np.hypot(rows - row, columns - column))

    def free() -> tuple[float, float]:
        """A place that is far from the three stars."""
        while True:
            row, column = draws.uniform(0, side, 2)
            if all(np.hypot(row - r, column - c) > 30 for _, r, c in STARS.values()):
                return row, column

    field = np.full((side, side), 200.0)
    faint = [(float(flux), *free()) for flux in 10 ** draws.uniform(2.5, 4.5, 70)]
    for flux, row, column in [*STARS.values(), *faint]:
        field += flux / (2 * np.pi * 1.8**2) * np.exp(-(distance(row, column) ** 2) / (2 * 1.8**2))
    for size in draws.uniform(3, 9, 10):
        field += draws.uniform(20, 150) * np.exp(-distance(*free()) / size)
    return field


def prepare_telescope(folder: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    draws = np.random.default_rng(6)
    (folder / "exposures").mkdir()
    header = fits.Header({"OBJECT": "M 51", "EXPTIME": 60.0, "FILTER": "r"})
    for k in range(1, 9):
        electrons = draws.poisson(sky()) + draws.normal(0, 5, (256, 256))
        image = electrons.round().clip(0, 65535).astype(np.uint16)
        fits.PrimaryHDU(image, header).writeto(folder / f"exposures/m51_{k}.fits")
    raw = image.copy()
    raw[30, 200] = 40_000  # a hot pixel
    fits.PrimaryHDU(raw, header).writeto(folder / "raw.fits")
    rate = (image / 60).astype(np.float32)
    rate[:, 90] = np.nan
    fits.PrimaryHDU(rate, header).writeto(folder / "masked.fits")


def output_of(command: str) -> str:
    """What a command prints, on both streams."""
    name, *arguments = shlex.split(re.sub(r"--steps \d+", "--steps 2", command))
    assert name == "graphnet"
    said = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        contextlib.suppress(SystemExit),
    ):
        graphnet_command(arguments)
    said.seek(0)
    return said.read()


def printed_by(block: str, names: dict[str, Any]) -> str:
    """A block of commands of the shell or of Python, each with what it prints now."""
    if commands := re.findall(r"^\$ (.*)$", block, re.M):
        return "".join(f"$ {command}\n{output_of(command)}" for command in commands)
    printed = ""
    for example in doctest.DocTestParser().get_examples(block):
        source = re.sub(r"^", "... ", example.source[:-1], flags=re.M)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(example.source, "page", "single"), names)
        printed += f">>> {source[4:]}\n{said.getvalue()}"
    return printed


def comparable(text: str) -> str:
    """The text without what differs from run to run."""
    text = TIMES.sub("N s", re.sub(r"\b\d+ steps\b", "N steps", text))
    return PASSING.sub("", OF_A_MODEL.sub(lambda found: found[0].split()[0], text))


@pytest.mark.parametrize(
    ("page", "prepare"),
    [
        ("photographers", prepare_photos),
        ("microscopists", prepare_microscope),
        ("astronomers", prepare_telescope),
    ],
)
def test_each_command_prints_what_the_page_shows(
    page: str, prepare: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    text = (DOCS / f"{page}.md").read_text()
    blocks = re.findall(r"^```(?:console|pycon)\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) > 3
    names: dict[str, Any] = {}
    for block in blocks:
        assert comparable(printed_by(block, names)) == comparable(block)

"""The sessions in the docs: each command is run, and prints what the page shows below it."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from graphnet_denoise.draws import Draws
from graphnet_denoise.noise import NOISES, Scenes
from PIL import Image

from graphnet.cli import run as graphnet_command

DOCS = Path(__file__).parents[3] / "docs"
TIMES = re.compile(r"\b\d+(\.\d+)? s\b")


def photograph(path: Path, clean: Any, *, seed: int) -> None:
    """Save a photo as a camera does at ISO 3200."""
    noise: Any = NOISES.make({"camera": {"iso": 3200, "quality": 85, "jpeg": 0}})
    scenes = Scenes([clean], clean.shape[:2], noise.strength(Draws(seed, 0, [0], stream=1)))
    noisy = noise(scenes, Draws(seed, 0, [0], stream=3))[0]
    Image.fromarray((noisy * 255).round().astype(np.uint8)).save(path, quality=85)


def prepare_photos(folder: Path) -> None:
    data: Any = skimage.data
    photograph(folder / "IMG_0001.jpg", data.astronaut()[:192, 100:356], seed=1)
    (folder / "shoot").mkdir()
    photograph(folder / "shoot/IMG_0001.jpg", data.astronaut()[:192, 100:356], seed=1)
    photograph(folder / "shoot/IMG_0002.jpg", data.coffee()[100:292, 150:406], seed=2)
    (folder / "shoot/IMG_0003.jpg").write_bytes((folder / "IMG_0001.jpg").read_bytes()[:3000])


def output_of(command: str) -> str:
    """What a command prints, on both streams."""
    name, *arguments = shlex.split(command)
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


@pytest.mark.parametrize(("page", "prepare"), [("photographers", prepare_photos)])
def test_each_command_prints_what_the_page_shows(
    page: str, prepare: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    blocks = re.findall(r"^```console\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.M | re.S)
    assert len(blocks) > 3
    for block in blocks:
        commands = re.findall(r"^\$ (.*)$", block, re.M)
        printed = "".join(f"$ {command}\n{output_of(command)}" for command in commands)
        assert TIMES.sub("N s", printed) == TIMES.sub("N s", block)

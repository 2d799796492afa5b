"""The files of the included models; shipped.py says which of them an image gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Kind = Literal["gaussian", "camera"]
Noise = Literal["auto", Kind]
"""What a user says of an image's noise; "auto" lets graphnet measure it."""

_FOLDER = Path(__file__).parent

MODELS: Mapping[Kind, Path] = {
    "gaussian": _FOLDER / "gaussian.safetensors",
    "camera": _FOLDER / "camera.safetensors",
}
"""`gaussian`: noise that was added to the picture itself; `camera`: photographs as cameras save them."""

"""The model files of examples/, and a shape for the input of each."""

from __future__ import annotations

from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
_SHAPES = {
    "characters": (2, 20),
    "digits": (2, 1, 8, 8),
    "heartbeats": (2, 1, 40),
    "stacks": (2, 1, 4, 12, 8),
    "unet-conditioned": (2, 4, 32, 16),
    "unet-grey": (2, 1, 32, 16),
}


def example_models() -> list[Path]:
    """The model files of all examples; training files name one of them."""
    return [p for p in sorted(EXAMPLES.glob("*/*.yaml")) if "\nlayers:" in p.read_text()]


def example_shape(path: Path) -> tuple[int, ...]:
    """A shape that the input of an example takes."""
    return _SHAPES.get(path.stem, (2, 3, 32, 16))

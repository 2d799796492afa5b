"""Targets: what is fuzzed. Each takes bytes, and raises nothing but the errors that graphnet documents."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from graphnet.description import expand, parse_text, read_text
from graphnet.errors import GraphnetError
from graphnet.model import Model, read_checkpoint
from graphnet.sdk import Registry, default_registry
from graphnet.training.config import make_job

ROOT = Path(__file__).parents[2]
SUFFIX = ".safetensors"


@functools.cache
def registry() -> Registry:
    return default_registry()


def model_file(data: bytes) -> None:
    """A model file, read, unrolled and made a model of; no shape is given, so no layer runs."""
    text = data.decode("utf-8", errors="replace")
    try:
        description = parse_text(text)
        expand(description, registry())
        Model(description, registry=registry())
        description.to_yaml()
    except GraphnetError as error:
        str(error)


def training_file(data: bytes) -> None:
    """A training file, with everything that it names but its data, which is read later."""
    text = data.decode("utf-8", errors="replace")
    try:
        plain, locations = read_text(text)
        if isinstance(plain, dict):
            make_job(
                plain,
                registry=registry(),
                folder=ROOT / "examples" / "denoisers",
                locations=locations,
            )
    except GraphnetError as error:
        str(error)


def checkpoint_file(path: Path, data: bytes) -> None:
    """A model or checkpoint; `path` is where the data is written to be read."""
    path.write_bytes(data)
    try:
        read_checkpoint(path)
    except GraphnetError as error:
        str(error)


def texts(*patterns: str) -> list[str]:
    """The files of the project that match, as a corpus."""
    found = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    assert found
    return [path.read_text(encoding="utf-8") for path in found]


def models() -> list[str]:
    """The model files of the project."""
    every = texts("examples/**/*.yaml", "plugins/*/src/**/*.yaml", "benchmarks/networks/*.yaml")
    return [text for text in every if "layers:" in text]


def trainings() -> list[str]:
    """The training files of the project."""
    every = texts("examples/**/*.yaml", "plugins/*/src/**/*.yaml")
    return [text for text in every if "optimizer:" in text]


TEXTS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[str]]]] = {
    "model files": (model_file, models),
    "training files": (training_file, trainings),
}

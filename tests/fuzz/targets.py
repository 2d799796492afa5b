"""Targets: the functions that are fuzzed. Each takes bytes, and may raise only GraphnetErrors."""

from __future__ import annotations

import atexit
import functools
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from graphnet_denoise.images import open_image
from graphnet_denoise.pickled import read_tensors

from graphnet.description import expand, parse, parse_text, read_text
from graphnet.errors import GraphnetError
from graphnet.model import Checkpoint, Model, read_checkpoint, write_checkpoint
from graphnet.sdk import Registry, default_registry
from graphnet.training.config import make_job
from tests.fuzz.mutate import mutated_bytes, mutated_data, mutated_text
from tests.support.zoo import ZOO

ROOT = Path(__file__).parents[2]
SUFFIX = ".safetensors"
FOLDER = ROOT / "examples" / "denoisers"


@functools.cache
def registry() -> Registry:
    return default_registry()


def model_description(data: bytes) -> None:
    """The plain data of a model file, as JSON; as `model_file` without the reading of YAML."""
    description = parse(_plain(data))
    expand(description, registry())
    Model(description, registry=registry())


def training_description(data: bytes) -> None:
    """The plain data of a training file, as JSON; as `training_file` without the reading of YAML."""
    plain = _plain(data)
    if isinstance(plain, dict):
        make_job(plain, registry=registry(), folder=FOLDER)


def model_file(data: bytes) -> None:
    """A model file, read, unrolled and made a model of; no shape is given, so no layer runs."""
    description = parse_text(data.decode("utf-8", errors="replace"))
    expand(description, registry())
    Model(description, registry=registry())
    description.to_yaml()


def training_file(data: bytes) -> None:
    """A training file, with everything that it names but its data, which is read later."""
    plain, locations = read_text(data.decode("utf-8", errors="replace"))
    if isinstance(plain, dict):
        make_job(plain, registry=registry(), folder=FOLDER, locations=locations)


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


@dataclass(frozen=True)
class Target:
    """A function that reads inputs, and how inputs for it are made.

    Args:
        read: takes an input.
        corpus: makes the inputs to start from.
        mutate: makes an input from some others.
        most_mib: the memory that reading an input may take.
    """

    read: Callable[[bytes], object]
    corpus: Callable[[], list[bytes]]
    mutate: Callable[[random.Random, Sequence[bytes]], bytes]
    most_mib: int = 256

    def run(self, data: bytes) -> None:
        """Read an input, or get a GraphnetError; any other exception is a fault."""
        try:
            self.read(data)
        except GraphnetError as error:
            str(error)


def _text(draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    texts = [one.decode("utf-8", errors="replace") for one in corpus]
    return mutated_text(draw, texts).encode("utf-8", errors="surrogatepass")


def _data(draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    return json.dumps(mutated_data(draw, [_plain(one) for one in corpus])).encode()


def _plain(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return {}


def model_descriptions() -> list[bytes]:
    """The model files of the project as JSON."""
    return [json.dumps(read_text(text)[0]).encode() for text in models()]


def training_descriptions() -> list[bytes]:
    """The training files of the project as JSON, most with a small model in place of a file's name."""
    found = []
    for number, text in enumerate(trainings()):
        plain: Any = read_text(text)[0]
        small = {"input": {"channels": 3}, "layers": [{"prelu": {}}]}
        found.append(json.dumps(plain if number % 8 == 0 else {**plain, "model": small}).encode())
    return found


def _written(read: Callable[[Path], object], name: str) -> Callable[[bytes], None]:
    """A target of bytes that reads them from a file with this name, in memory where the system has that."""
    shared = Path("/dev/shm")
    place = tempfile.mkdtemp(dir=shared if shared.is_dir() else None)
    atexit.register(shutil.rmtree, place, ignore_errors=True)

    def target(data: bytes) -> None:
        path = Path(place) / name
        path.write_bytes(data)
        read(path)

    return target


def checkpoints() -> list[bytes]:
    """Two checkpoints."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"m{SUFFIX}"
        for layers in (["relu"], [{"linear": {"out_features": 2}}]):
            weights = {"linear_1.weight": torch.ones(2, 3), "linear_1.bias": torch.ones(2)}
            description = parse({"layers": layers})
            write_checkpoint(path, Checkpoint(description, weights, training={"step": 1}))
            found.append(path.read_bytes())
    return found


def _checkpoint(draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Changed bytes, or a changed header, without digests as in older files: else they show the change."""
    data = draw.choice(corpus)
    end = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:end])
        inner = json.loads(header["__metadata__"]["graphnet"])
        inner = {k: v for k, v in inner.items() if k not in ("digest", "digests")}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return mutated_bytes(draw, corpus)
    match draw.randrange(3):
        case 0:
            return mutated_bytes(draw, corpus)
        case 1:
            inner = mutated_data(draw, [inner])
            header["__metadata__"]["graphnet"] = json.dumps(inner)
        case 2:
            header = mutated_data(draw, [header])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


def pickles() -> list[bytes]:
    """Files of torch.save, as the course's."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "pairs.pkl"
        for dtype in (torch.uint8, torch.float32):
            pair = torch.zeros(2, 3, 4, 4, dtype=dtype), torch.ones(2, 3, 4, 4, dtype=dtype)
            torch.save(pair, path)
            found.append(path.read_bytes())
    return found


def images() -> list[bytes]:
    """The smaller image files of the zoo; the first byte says which name the file has."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        for specimen in ZOO:
            path = Path(place) / specimen.name
            specimen.write(path)
            if path.is_file() and path.stat().st_size < _LARGE:
                found.append(bytes([_ENDINGS.index(path.suffix)]) + path.read_bytes())
    return found


def _read_image(path: Path) -> None:
    data = path.read_bytes()
    named = path.with_suffix(_ENDINGS[data[0] % len(_ENDINGS)] if data else ".png")
    named.write_bytes(data[1:])
    try:
        with open_image(named) as source:
            for plane in {0, source.planes - 1}:
                source.read(plane, slice(2, 9), slice(5, 30))
    finally:
        named.unlink(missing_ok=True)


_LARGE = 1 << 15
_ENDINGS = sorted({Path(specimen.name).suffix for specimen in ZOO})

TARGETS = {
    "model-descriptions": Target(model_description, model_descriptions, _data),
    "training-descriptions": Target(training_description, training_descriptions, _data),
    "model-files": Target(model_file, lambda: [*map(str.encode, models())], _text),
    "training-files": Target(training_file, lambda: [*map(str.encode, trainings())], _text),
    "checkpoints": Target(_written(read_checkpoint, f"m{SUFFIX}"), checkpoints, _checkpoint),
    "pickles": Target(_written(read_tensors, "pairs.pkl"), pickles, mutated_bytes),
    "images": Target(_written(_read_image, "image"), images, mutated_bytes, most_mib=1024),
}

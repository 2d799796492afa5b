"""Judge exported networks: layers and examples are exported, run where torch is alone, and compared."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import graphnet as gn
from graphnet.errors import GraphnetError, SourceError
from graphnet.model import Model, export_standalone
from graphnet.sdk import Registry
from graphnet.testing import Case, NoSample, model_of, varied_cases_for, with_random_weights
from tests.support.examples import example_shape

TOLERANCE = 1e-6
"""The largest error, in parts of the largest value or of 1 if all are smaller."""
ALONE = Path(__file__).with_name("alone.py")
OFF = ("fold_affine", "hoist_constants", "in_place", "block_layout")


class Outcome(StrEnum):
    """What came of one export."""

    SAME = "equal to the bit"
    EQUAL = "equal to 1e-6"
    REFUSED = "refused"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Judged:
    """One network: what it is, what came of it, and the reason or the error."""

    what: str
    outcome: Outcome
    detail: str = ""


def example(path: Path) -> tuple[Model, list[Tensor]]:
    """A model of the examples with random weights, and inputs for it."""
    model = gn.load(path)
    shape = example_shape(path)
    (described,) = model.description.inputs.values()
    x = torch.zeros(shape, dtype=described.integer or torch.float32)
    x = torch.rand(shape) if x.is_floating_point() else torch.randint(0, 90, shape)
    return with_random_weights(model, shape), [x]


def cases(name: str, registry: Registry) -> list[Case]:
    """The configurations of a layer that the conformance kit knows and that can be built."""
    try:
        found, _ = varied_cases_for(registry.find("layers", name).value, registry=registry)
    except NoSample:
        return []
    return [case for case in found if isinstance(case, Case) and case.raises is None]


@dataclass
class Exports:
    """Exports to judge: each is a folder with a network, and its inputs and expected outputs beside it."""

    folder: Path
    kernels: str = "aten"

    def __post_init__(self) -> None:
        self.judged: dict[str, Judged] = {}
        self.written: dict[str, str] = {}

    def add(self, what: str, model: Model, inputs: Sequence[Tensor]) -> None:
        """Export a network, and note inputs and outputs, also for twice the free sizes."""
        package = f"net_{len(self.judged) + len(self.written)}"
        place = self.folder / package
        try:
            done = export_standalone(
                model, place, *(tuple(x.shape) for x in inputs), kernels=self.kernels
            )
        except SourceError as error:
            self.judged[what] = Judged(what, Outcome.REFUSED, str(error))
            return
        free = {word for sizes in done.inputs.values() for word in sizes.split(" x ")}
        tried = [list(inputs)]
        if "batch" in free:
            tried.append([torch.cat([x, x]) if x.ndim else x for x in inputs])
        runs = [(x, _several(model.predict(*x, kernels=self.kernels, without=OFF))) for x in tried]
        torch.save(runs, self.folder / f"{package}.pt")
        self.written[package] = what

    def run(self) -> list[Judged]:
        """Run all networks in one process that has torch alone, and return what came of each."""
        done = subprocess.run(
            [sys.executable, "-I", "-W", "error", str(ALONE), str(self.folder), *self.written],
            capture_output=True,
            text=True,
            env={"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert done.returncode == 0, done.stderr
        for package, (same, error) in json.loads(done.stdout).items():
            what = self.written[package]
            outcome = Outcome.SAME if same else Outcome.EQUAL
            if not error <= TOLERANCE:
                outcome = Outcome.WRONG
            self.judged[what] = Judged(what, outcome, f"{error:.1e}")
        return list(self.judged.values())


def judge_layers(
    folder: Path, registry: Registry, *, kernels: str = "aten", most: int | None = None
) -> Iterator[tuple[str, list[Judged]]]:
    """Judge each layer in at most so many of its configurations."""
    exports = Exports(folder, kernels)
    owners: dict[str, str] = {}
    for name in registry.layers:
        for number, case in enumerate(cases(name, registry)[:most]):
            what = f"{name} {number}: {case}"
            owners[what] = name
            try:
                exports.add(what, *model_of(name, case))
            except GraphnetError as error:
                exports.judged[what] = Judged(
                    what, Outcome.WRONG, f"{type(error).__name__}: {error}"
                )
    found = {one.what: one for one in exports.run()}
    for name in registry.layers:
        yield name, [found[what] for what, owner in owners.items() if owner == name]


def _several(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)

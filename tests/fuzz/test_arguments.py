"""A public function raises only GraphnetErrors, whatever arguments a caller gives it.

Each argument of a right call is replaced by each of some 50 wrong values in turn. A call may also succeed:
many functions take more than one kind of value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from graphnet_denoise import denoise, denoise_graphnet

import graphnet as gn
from graphnet.errors import GraphnetError
from graphnet.inspection import Gradients

SHAPE = (1, 3, 4, 4)
MODEL = gn.Model(
    {"input": {"channels": 3}, "layers": [{"conv2d": {"out_channels": 3, "kernel_size": 1}}]}
)
OPTIMIZER = gn.SGD(lr=0.1)
TRAINING: Mapping[str, Any] = {"loss": "mse", "optimizer": OPTIMIZER, "device": "cpu"}
IMAGE = torch.rand(SHAPE)
PHOTO = np.full((16, 16, 3), 100, np.uint8)


class Anything:
    """An object of somebody else's class."""


def wrong_values() -> Iterator[object]:
    yield from (None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**400, -(10**9), 1j)
    yield from (np.float32(1), np.int64(3), np.zeros(3), np.array(["a"]))
    yield from (
        "",
        "\0",
        "nothing",
        "x" * 5000,
        b"\xff",
        "auto",
        Path("missing/file"),
        Path("/dev/null/x"),
    )
    yield from ([], [None], (), {}, {"a": None}, {1: 2}, set(), range(3), iter([1]))
    yield from ([IMAGE], [np.zeros(2)], np.array(1), [2**63], [True])
    yield from (SHAPE, (SHAPE,), [[*SHAPE]], (0, 3, 4, 4), (1, 3, 10**9, 10**9))
    yield from (object(), Anything(), lambda: 0, int, Ellipsis, NotImplemented)
    yield from (
        torch.zeros(0),
        torch.rand(2),
        IMAGE.double(),
        IMAGE.to(torch.complex64),
        IMAGE.to_sparse(),
    )
    yield from (torch.device("meta"), torch.float16, MODEL, OPTIMIZER)


class Right(NamedTuple):
    """A call that succeeds."""

    function: Callable[..., object]
    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = {}

    def wrong(self) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        """The call with each argument replaced by each wrong value."""
        known = inspect.signature(self.function).parameters.values()
        more = [one.name for one in known if one.kind is inspect.Parameter.KEYWORD_ONLY]
        for position in range(len(self.positional)):
            for value in wrong_values():
                args = list(self.positional)
                args[position] = value
                yield f"argument {position} = {value!r:.60}", tuple(args), dict(self.named)
        for name in dict.fromkeys([*self.named, *more]):
            for value in wrong_values():
                yield f"{name} = {value!r:.60}", self.positional, {**self.named, name: value}


def right_calls() -> dict[str, Right]:
    program = MODEL.compile(SHAPE, **TRAINING)
    trained = MODEL.with_weights(program.weights)
    trained.save("model.safetensors")
    options = {
        "dtype": torch.float32,
        "precision": None,
        "kernels": "auto",
        "memory": None,
        "without": (),
        "saved_dtype": None,
    }
    updates = {"accumulate": 1, "clip_grad_norm": None, "ema": None, "parameters": (), "report": ()}
    return {
        "load": Right(gn.load, ("model.safetensors",)),
        "Model": Right(gn.Model, (MODEL.description.to_data(),)),
        "compile": Right(
            MODEL.compile, (SHAPE,), {**TRAINING, **options, **updates, "executor": "eager"}
        ),
        "plan": Right(MODEL.plan, (SHAPE,), TRAINING),
        "graph": Right(MODEL.graph, (SHAPE,)),
        "summary": Right(MODEL.summary, (SHAPE,)),
        "tiling": Right(MODEL.tiling, (SHAPE,), {"device": "cpu", "memory": "1MiB"}),
        "predict": Right(trained.predict, (IMAGE,)),
        "with_weights": Right(MODEL.with_weights, (program.weights,)),
        "set_weights": Right(trained.set_weights, (dict(program.weights),)),
        "save": Right(trained.save, ("saved.safetensors",)),
        "program.step": Right(program.step, (IMAGE, IMAGE)),
        "program.loss": Right(program.loss, (IMAGE, IMAGE)),
        "program.pack": Right(program.pack, (IMAGE, IMAGE)),
        "program.save": Right(program.save, ("program.safetensors",)),
        "program.with_shapes": Right(program.with_shapes, (SHAPE,)),
        "program.rewind": Right(program.rewind, (0,)),
        "SGD": Right(gn.SGD, (), {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}),
        "Adam": Right(gn.Adam, (), {"lr": 0.1}),
        "AdamW": Right(gn.AdamW, (), {"lr": 0.1}),
        "Muon": Right(gn.Muon, (), {"lr": 0.1}),
        "CompileOptions": Right(gn.CompileOptions, (), {"device": "cpu", **options}),
        "Builder": Right(gn.Builder, (), {"channels": 3}),
        "export_standalone": Right(
            gn.export_standalone, (trained, "folder", SHAPE), {"overwrite": True}
        ),
        "source": Right(gn.source, (program.plan,)),
        "explain": Right(gn.explain, (program.plan,)),
        "from_nn": Right(gn.from_nn, (gn.to_nn(trained, SHAPE),)),
        "to_nn": Right(gn.to_nn, (trained, SHAPE)),
        "from_torch": Right(gn.from_torch, (torch.nn.Conv2d(3, 3, 1), SHAPE)),
        "as_torch_module": Right(gn.as_torch_module, (trained, SHAPE)),
        "Constant": Right(gn.Constant, (1.0,)),
        "Uniform": Right(gn.Uniform, (1.0,)),
        "ParameterSpec": Right(gn.ParameterSpec, ((3,), gn.Constant(0.0))),
        "StateSpec": Right(gn.StateSpec, ((3,),)),
        "export": Right(gn.export, (trained, "model.onnx", SHAPE)),
        "train": Right(gn.train, (program, [(IMAGE, IMAGE)]), {"epochs": 1}),
        "Gradients.of": Right(Gradients.of, (MODEL, SHAPE), {"loss": "mse"}),
        "program.restore": Right(program.restore, (program.training_state,), {"steps_done": 1}),
        "denoise": Right(denoise, (PHOTO,), {"noise": "gaussian"}),
        "denoise_graphnet": Right(denoise_graphnet, (PHOTO,), {"channel_axis": 2}),
        "Pass": Right(gn.Pass, (lambda graph: graph,), {"after": "dead_code"}),
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_only_graphnet_errors_leave_public_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = 0
    for name, right in right_calls().items():
        right.function(*right.positional, **right.named)
        for what, args, kwargs in right.wrong():
            try:
                right.function(*args, **kwargs)
            except GraphnetError:
                refused += 1
            except Exception as error:
                pytest.fail(f"{name}, {what}: {type(error).__name__}: {error}")
    assert refused > 5000

"""A model's weights: whatever way they are written, the next prediction and the next save use them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet.errors import CheckpointError, InputError
from graphnet.model import Model, Program

# In a prediction the norm is folded into the convolution: its weights are not the model's own.
FOLDED: dict[str, Any] = {
    "input": {"channels": 4},
    "layers": [
        {"id": "c", "conv2d": {"out_channels": 8, "kernel_size": 3, "padding": 1}},
        {"id": "n", "batch_norm2d": {}},
        {"id": "r", "relu": {}},
        {"id": "d", "conv2d": {"out_channels": 4, "kernel_size": 2, "stride": 2}},
    ],
}
SHAPE = (1, 4, 32, 32)
OPTIONS: dict[str, dict[str, Any]] = {
    "folded": {},
    "reference": {"kernels": "reference"},
    "casts": {"precision": "bfloat16"},
    "tiles": {"memory": "70%"},
}


def images() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))


def drawn(seed: int) -> dict[str, Tensor]:
    plan = Model(FOLDED).plan(SHAPE)
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.rand(plan.values[n].spec.shape, generator=generator) + 0.1 for n in plan.slots}


def with_drawn() -> Model:
    return Model(FOLDED, weights=drawn(0))


def torchs(weights: Any, x: Tensor) -> Tensor:
    """What torch makes of the images with these weights."""
    w = {name: tensor.detach().to(x.dtype) for name, tensor in weights.items()}
    y = torch.conv2d(x, w["c.weight"], w["c.bias"], padding=1)
    norms = (w["n.running_mean"], w["n.running_var"], w["n.weight"], w["n.bias"])
    y = torch.nn.functional.batch_norm(y, *norms).relu()
    return torch.conv2d(y, w["d.weight"], w["d.bias"], stride=2)


def copy_(weights: Any, name: str, value: Tensor) -> None:
    weights[name].copy_(value)


def through_data(weights: Any, name: str, value: Tensor) -> None:
    weights[name].data.copy_(value)


def through_numpy(weights: Any, name: str, value: Tensor) -> None:
    weights[name].numpy()[...] = value.numpy()


def through_a_view_of_data(weights: Any, name: str, value: Tensor) -> None:
    weights[name].data[None].numpy()[0] = value.numpy()


def in_inference_mode(weights: Any, name: str, value: Tensor) -> None:
    with torch.inference_mode():
        weights[name].copy_(value)


WRITES: list[Callable[[Any, str, Tensor], None]] = [
    copy_,
    through_data,
    through_numpy,
    through_a_view_of_data,
    in_inference_mode,
]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", ["c.weight", "c.bias", "n.weight", "n.running_var", "d.weight"])
def test_a_prediction_sees_every_write(
    write: Callable[[Any, str, Tensor], None], option: str, name: str, tmp_path: Path
) -> None:
    model, x = with_drawn(), images()
    bound = 5e-2 if option == "casts" else 1e-5
    for seed in (0, 1, 2):
        if seed:
            write(model.weights, name, drawn(seed)[name])
        expected = torchs({**drawn(0), name: drawn(seed)[name]}, x)
        y = model.predict(x, **OPTIONS[option])
        torch.testing.assert_close(y, expected, rtol=bound, atol=bound)
    model.save(tmp_path / "m.safetensors")
    assert torch.equal(gn.load(tmp_path / "m.safetensors").predict(x, **OPTIONS[option]), y)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_view_kept_for_long_is_seen_each_time(option: str) -> None:
    model, x = with_drawn(), images()
    assert model.weights is not None
    view: Any = model.weights["n.weight"].numpy()
    other: Any = model.weights["n.weight"].data
    for factor in (1.0, 2.0, 3.0):
        view *= factor
        expected = torchs({**drawn(0), "n.weight": torch.from_numpy(np.array(view))}, x)
        found = model.predict(x, **OPTIONS[option])
        torch.testing.assert_close(found, expected, rtol=5e-2, atol=5e-2)
        other.copy_(drawn(0)["n.weight"])
        found = model.predict(x, **OPTIONS[option])
        torch.testing.assert_close(found, torchs(drawn(0), x), rtol=5e-2, atol=5e-2)
        view[...] = drawn(0)["n.weight"].numpy() * factor


def test_predictors_of_other_dtypes_and_strides_follow_the_same_weights(tmp_path: Path) -> None:
    model, x = with_drawn(), images()
    ways: list[tuple[Tensor, dict[str, Any]]] = [
        (x, OPTIONS["reference"]),
        (x.double(), {}),
        (x, OPTIONS["folded"]),
        (x, OPTIONS["casts"]),
    ]
    for seed in (0, 1, 2):
        if seed:
            model.set_weights(drawn(seed))
        for given, options in ways:
            y = model.predict(given, **options)
            torch.testing.assert_close(y, torchs(drawn(seed), given), rtol=5e-2, atol=5e-2)
        assert model.weights is not None
        for name, tensor in model.weights.items():
            assert torch.equal(tensor, drawn(seed)[name])
            assert tensor.dtype == torch.float32


def test_hoisted_values_are_computed_once_while_nobody_writes_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = with_drawn(), images()
    model.predict(x)
    (predictor,) = model._predictions.made.values()
    prelude = predictor.prepared((SHAPE,)).prelude
    assert prelude is not None
    runs: list[int] = []
    run = prelude._run

    def counted(*weights: Tensor) -> Any:
        runs.append(1)
        return run(*weights)

    monkeypatch.setattr(prelude, "_run", counted)
    model.predict(x)
    assert len(runs) == 0
    assert model.weights is not None
    held = model.weights["d.bias"]
    for count in (1, 2):
        model.predict(x)
        assert len(runs) == count
    del held
    for _ in range(3):
        model.predict(x)
    assert len(runs) == 3


def test_weights_are_set_by_name_whole_or_not_at_all() -> None:
    model, x = with_drawn(), images()
    model.predict(x)
    weights: Any = model.weights
    with pytest.raises(InputError, match=r"weights\['c.bias'\]: the mapping is read-only\. Call "):
        weights["c.bias"] = torch.zeros(8)
    with pytest.raises(InputError, match=r"model\.set_weights\(weights\)"):
        model.weights = drawn(1)  # type: ignore[assignment]
    good = {"c.bias": torch.zeros(8)}
    with pytest.raises(InputError, match=r"there is no 'c.bia'\. Did you mean 'c.bias'"):
        model.set_weights({**good, "c.bia": torch.zeros(8)})
    with pytest.raises(
        InputError, match=r"'c.weight'\]: expected the shape \(8, 4, 3, 3\), got \(1,\)"
    ):
        model.set_weights({**good, "c.weight": torch.zeros(1)})
    for bad in (np.zeros(8), torch.zeros(8, dtype=torch.complex64), None):
        with pytest.raises(InputError, match=r"'n.bias'\]: expected a tensor of real numbers"):
            model.set_weights({**good, "n.bias": bad})  # type: ignore[dict-item]
        with pytest.raises(InputError, match=r"'n.bias'\]: expected a tensor of real numbers"):
            Model(FOLDED, weights={**drawn(0), "n.bias": bad})  # type: ignore[dict-item]
    torch.testing.assert_close(model.predict(x), torchs(drawn(0), x), rtol=1e-5, atol=1e-5)
    model.set_weights(good)
    expected = torchs({**drawn(0), **good}, x)
    torch.testing.assert_close(model.predict(x), expected, rtol=1e-5, atol=1e-5)


def test_a_model_without_weights_takes_them_after_a_prediction() -> None:
    model, x = Model(FOLDED), images()
    model.predict(x)
    assert model.weights is None
    model.set_weights(drawn(1))
    torch.testing.assert_close(model.predict(x), torchs(drawn(1), x), rtol=1e-5, atol=1e-5)


def test_the_callers_tensors_are_copied() -> None:
    mine, x = drawn(0), images()
    for model in (Model(FOLDED, weights=mine), with_drawn().with_weights(mine)):
        for tensor in mine.values():
            tensor.zero_()
        torch.testing.assert_close(model.predict(x), torchs(drawn(0), x), rtol=1e-5, atol=1e-5)
        mine.update(drawn(0))


def trained(**options: Any) -> tuple[Model, Program]:
    model = with_drawn()
    program = model.compile(
        SHAPE, loss="mse", optimizer={"sgd": {"lr": 0.01}}, device="cpu", **options
    )
    for _ in range(3):
        program.step(images(), torch.zeros(1, 4, 16, 16))
    return model, program


def test_a_program_trains_copies_and_the_model_takes_them_over(tmp_path: Path) -> None:
    model, program = trained()
    x, path = images(), tmp_path / "m.safetensors"
    torch.testing.assert_close(model.predict(x), torchs(drawn(0), x), rtol=1e-5, atol=1e-5)
    after = torchs(program.weights, x)
    assert not torch.allclose(after, torchs(drawn(0), x))
    torch.testing.assert_close(program.predict(x), after, rtol=1e-5, atol=1e-5)
    program.save(path)
    torch.testing.assert_close(gn.load(path).predict(x), after, rtol=1e-5, atol=1e-5)
    model.set_weights(program.model_weights)
    torch.testing.assert_close(model.predict(x), after, rtol=1e-5, atol=1e-5)
    model.save(path)
    torch.testing.assert_close(gn.load(path).predict(x), after, rtol=1e-5, atol=1e-5)


def test_a_model_that_was_never_given_weights_says_how_to_save_trained_ones(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"program\.save\(path\)"):
        Model(FOLDED).save(tmp_path / "m.safetensors")


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("averages", [False, True])
def test_a_programs_prediction_sees_every_write(
    write: Callable[[Any, str, Tensor], None], averages: bool
) -> None:
    _, program = trained(**({"ema": 0.5} if averages else {}))
    x, value = images(), drawn(5)["c.weight"]
    before = program.predict(x)
    write(program.averages if averages else program.weights, "c.weight", value)
    expected = torchs({**program.model_weights, "c.weight": value}, x)
    torch.testing.assert_close(program.predict(x), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, expected)

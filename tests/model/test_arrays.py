"""Predictions on numpy arrays give numpy arrays, equal to those on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import graphnet as gn
from graphnet.errors import InputError

NET = {
    "input": {"channels": 1},
    "layers": [{"conv2d": {"out_channels": 2, "kernel_size": 3, "padding": 1}}],
}
MODEL = gn.Model(NET)
X = np.linspace(-1, 1, 48, dtype=np.float32).reshape(3, 1, 4, 4)


def program(**settings: Any) -> gn.Program:
    return MODEL.compile(
        (2, 1, 4, 4), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu", **settings
    )


def convolved(x: Any, weights: Any) -> Any:
    """The model's output by torch, in the dtype of x."""
    weight, bias = (
        weights[f"conv2d_1.{name}"].to(torch.from_numpy(x).dtype) for name in ("weight", "bias")
    )
    return torch.nn.functional.conv2d(torch.from_numpy(x), weight, bias, padding=1).numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_model_predicts_arrays_in_their_dtype(dtype: Any) -> None:
    given = X.astype(dtype)
    model = gn.Model(NET, weights=program().weights)
    found = model.predict(given)
    assert isinstance(found, np.ndarray)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, convolved(given, model.weights), atol=1e-6)
    np.testing.assert_array_equal(given, X.astype(dtype))


def test_program_predicts_arrays_with_its_present_weights() -> None:
    ours = program()
    ours.step(torch.from_numpy(X[:2]), torch.zeros(2, 2, 4, 4))
    found = ours.predict(X)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, convolved(X, ours.weights), atol=1e-6)


VIEWS: dict[str, Callable[[], Any]] = {
    "flipped": lambda: X[..., ::-1],
    "every second": lambda: np.repeat(X, 2, axis=-1)[..., ::2],
    "transposed": lambda: np.ascontiguousarray(X.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2),
    "read only": lambda: np.broadcast_to(X[:, :, :1, :1], X.shape),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_of_arrays_are_taken(view: str) -> None:
    given = VIEWS[view]()
    expected = MODEL.predict(torch.from_numpy(np.ascontiguousarray(given).copy()))
    np.testing.assert_array_equal(MODEL.predict(given), expected.numpy())


def test_several_outputs_are_several_arrays() -> None:
    two = gn.Model(
        {
            "inputs": {"a": {"shape": [2]}, "tokens": {"shape": [3], "dtype": "int64"}},
            "layers": [
                {"id": "s", "relu": {}, "inputs": ["$a"]},
                {
                    "id": "e",
                    "embedding": {"num_embeddings": 4, "embedding_dim": 2},
                    "inputs": ["$tokens"],
                },
            ],
            "outputs": ["s", "e"],
        }
    )
    a, tokens = np.array([[-1.0, 2.0]], np.float32), np.array([[0, 3, 3]])
    for mixed in (a, torch.from_numpy(a)):
        s, e = two.predict(mixed, tokens)
        np.testing.assert_array_equal(s, [[0.0, 2.0]])
        assert isinstance(e, np.ndarray)
        assert e.shape == (1, 3, 2)
    with pytest.raises(
        InputError, match="input 'tokens' .*expected a tensor of int64, got 1x3 int32"
    ):
        two.predict(a, tokens.astype(np.int32))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (X.astype(np.uint8), r"model: predict: .*got 3x1x4x4 uint8\. .*/ 255"),
        (X.astype(np.int32), r"got 3x1x4x4 int32\. Convert it"),
        (X.astype(np.complex64), r"got 3x1x4x4 complex64\."),
        (X.astype(">f4"), "model: predict: input 0: .*machine's byte order, got an ndarray of >f4"),
        (X.astype(object), "an ndarray of object"),
        (np.array("a cat"), "an ndarray of <U5"),
        ([[1.0]], "a list"),
        (np.float32(1.0), "float32"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_as_tensors_are(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MODEL.predict(given)


def test_a_program_takes_arrays_of_its_dtype_only() -> None:
    with pytest.raises(InputError, match="expected 3x1x4x4 float32, got 3x1x4x4 float64"):
        program().predict(X.astype(np.float64))


def test_an_output_that_numpy_cannot_hold_is_refused() -> None:
    tokens = gn.Model(
        {
            "input": {"shape": [3], "dtype": "int64"},
            "layers": [{"embedding": {"num_embeddings": 4, "embedding_dim": 2}}],
        }
    )
    given = np.array([[0, 3, 3]])
    assert tokens.predict(torch.from_numpy(given), dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(InputError, match="numpy has no bfloat16"):
        tokens.predict(given, dtype=torch.bfloat16)

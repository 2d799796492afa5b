"""Run standalone: run a network that was written as a folder, and compare it with the model."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import SourceError

_TOLERANCE = 1e-4  # whatever a wrong copy changes is larger; sums in another order change less
_Sizes = tuple[tuple[tuple[int, ...], ...], tuple[torch.dtype, ...]]


def check(folder: Path, predict: Callable[..., Any], tried: Sequence[_Sizes]) -> None:
    """Compare a written network with the model that it comes from, on random inputs.

    Args:
        folder: the folder that was written.
        predict: the model's prediction.
        tried: the shapes of the inputs, and their dtypes.

    Raises:
        SourceError: the network fails, or its outputs differ by more than 1e-4 of the largest value.
    """
    name = f"_graphnet_{folder.name.strip('.').replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(name, folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
        network = module.Network()
        for shapes, dtypes in tried:
            inputs = [_drawn(*one) for one in zip(shapes, dtypes, strict=True)]
            _compare(network.predict(*inputs), predict(*inputs))
    except SourceError:
        raise
    except Exception as error:  # the code of layers, which may rely on anything
        raise SourceError(
            f"the written network fails where the model runs: {type(error).__name__}: {error}. "
            f"A layer depends on what its source does not show"
        ) from error
    finally:
        sys.dont_write_bytecode = writes
        del sys.modules[name]


def _drawn(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.rand(shape, generator=generator, dtype=dtype)
    return torch.randint(0, 2, shape, generator=generator, dtype=dtype)


def _compare(found: object, expected: object) -> None:
    pairs = zip(_several(found), _several(expected), strict=True)
    for number, (one, other) in enumerate(pairs):
        one, other = one.double(), other.double()
        scale = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        if one.shape != other.shape or not torch.allclose(
            one, other, rtol=0, atol=_TOLERANCE * scale, equal_nan=True
        ):
            raise SourceError(
                f"the written network computes another output {number} than the model: "
                f"a layer depends on what its source does not show"
            )


def _several(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)

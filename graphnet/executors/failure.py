"""What went wrong in a step, in words: the node, its layer and the cause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from graphnet.errors import LayerError
from graphnet.graph import Call


def failure(call: Call, error: Exception, arguments: Sequence[Any] = ()) -> LayerError:
    """A LayerError that names the node; raise it from `error`."""
    where = f"{call.where}: " if call.where else ""
    shapes = [str(tuple(a.shape)) for a in arguments if isinstance(a, Tensor)]
    given = f" on {', '.join(shapes)}" if shapes else ""
    return LayerError(
        f"{where}node {call.node!r} ({call.title}): {call.method} failed{given}: "
        f"{type(error).__name__}: {error}"
    )

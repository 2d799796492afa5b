"""Rows of the operators on tensors of any shape: activations, arithmetic, and what rearranges elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from graphnet.builtin.operators.table import row_of
from graphnet.sdk import Node, Operand, Row, Size, alike, is_float

ROWS: dict[str, Row] = {}
_row = partial(row_of, ROWS)


# -- activations -------------------------------------------------------------------------------------


def _pointwise(layer: str, self: Operand) -> Node | None:
    return Node(layer, (self,)) if is_float(self) else None


for _operator in ("relu", "sigmoid", "tanh", "silu", "relu6", "hardsigmoid", "hardswish"):
    _row(f"aten.{_operator}.default")(partial(_pointwise, _operator))


@_row("aten.leaky_relu.default")
def leaky_relu(self: Operand, negative_slope: float) -> Node | None:
    if negative_slope < 0:
        return None
    return Node("leaky_relu", (self,), {"negative_slope": float(negative_slope)})


@_row("aten.prelu.default")
def prelu(self: Operand, weight: Operand) -> Node | None:
    return Node("prelu", (self,), {"num_parameters": weight.shape[0]}, {"weight": weight})


@_row("aten.gelu.default")
def gelu(self: Operand, approximate: str) -> Node | None:
    return Node("gelu", (self,), {"approximate": approximate})


@_row("aten.softplus.default")
def softplus(self: Operand, beta: float, threshold: float) -> Node | None:
    if beta <= 0:
        return None
    return Node("softplus", (self,), {"beta": float(beta), "threshold": float(threshold)})


@_row("aten.elu.default")
def elu(self: Operand, alpha: float) -> Node | None:
    return Node("elu", (self,), {"alpha": float(alpha)}) if alpha > 0 else None


@_row("aten.hardtanh.default")
def hardtanh(self: Operand, min_val: float, max_val: float) -> Node | None:
    if not is_float(self) or min_val >= max_val:
        return None
    return Node("hardtanh", (self,), {"min_val": float(min_val), "max_val": float(max_val)})


@_row("aten.softmax.int")
def softmax(self: Operand, dim: int) -> Node | None:
    return Node("softmax", (self,), {"dim": dim}) if is_float(self) else None


@_row("aten.log_softmax.int")
def log_softmax(self: Operand, dim: int) -> Node | None:
    return Node("log_softmax", (self,), {"dim": dim}) if is_float(self) else None


@_row("aten.dropout.default")
def dropout(input: Operand, p: float, train: bool, eval_train: bool) -> Node | Operand | None:
    if eval_train:
        return None
    return Node("dropout", (input,), {"p": float(p)}) if train and p else input


# -- arithmetic --------------------------------------------------------------------------------------


@_row("aten.add.Tensor")
def add(self: Operand, other: Any) -> Node | None:
    if is_float(self) and isinstance(other, (int, float)):
        return Node("add_scalar", (self,), {"value": float(other)})
    if not alike(self, other):
        return None
    return Node("add" if self.shape == other.shape else "broadcast_add", (self, other))


@_row("aten.sub.Tensor")
def sub(self: Operand, other: Any) -> Node | None:
    if is_float(self) and isinstance(other, (int, float)):
        return Node("add_scalar", (self,), {"value": -float(other)})
    return Node("subtract", (self, other)) if alike(self, other) else None


@_row("aten.rsub.Scalar")
def rsub(self: Operand, other: Any) -> Node | None:
    if not is_float(self) or not isinstance(other, (int, float)):
        return None
    return Node(
        "add_scalar", (Node("rescale", (self,), {"factor": -1.0}),), {"value": float(other)}
    )


@_row("aten.mul.Tensor")
def mul(self: Operand, other: Any) -> Node | None:
    if is_float(self) and isinstance(other, (int, float)):
        return Node("rescale", (self,), {"factor": float(other)})
    return Node("multiply", (self, other)) if alike(self, other) else None


@_row("aten.div.Tensor")
def div(self: Operand, other: Any) -> Node | None:
    if not is_float(self) or not isinstance(other, (int, float)) or other == 0:
        return None
    return Node("rescale", (self,), {"factor": 1 / other})


@_row("aten.neg.default")
def neg(self: Operand) -> Node | None:
    return Node("rescale", (self,), {"factor": -1.0}) if is_float(self) else None


@_row("aten.mean.dim")
def mean(self: Operand, dim: Any, keepdim: bool) -> Node | None:
    if not is_float(self) or not dim:
        return None
    axes = sorted(axis % len(self.shape) for axis in dim)
    if keepdim and len(axes) > 0 and axes == [*range(2, len(self.shape))]:
        return Node("global_avg_pool", (self,))
    return Node("mean", (self,), {"dim": tuple(dim), "keepdim": keepdim})


# -- what rearranges elements ------------------------------------------------------------------------


@_row("aten.cat.default")
def cat(tensors: tuple[Operand, ...], dim: int) -> Node | None:
    ranks = {len(x.shape) for x in tensors}
    if len(ranks) > 1 or not all(alike(tensors[0], x) for x in tensors):
        return None
    return Node("concat", tensors, {"dim": dim})


def _parts(x: Operand, dim: int, parts: Sequence[Any]) -> tuple[Node, ...] | None:
    """Parts of these sizes: the layer `split` makes two, and its rest is split again."""
    known = all(isinstance(part, int) and part > 0 for part in parts)
    if not is_float(x) or len(parts) < 2 or not known:
        return None
    found: list[Node] = []
    rest: Operand | Node = x
    for part in parts[:-1]:
        node = Node("split", (rest,), {"size": part, "dim": dim})
        rest = replace(node, output="rest")
        found.append(node)
    assert isinstance(rest, Node)
    return (*found, rest)


@_row("aten.chunk.default")
def chunk(self: Operand, chunks: int, dim: int) -> tuple[Node, ...] | None:
    size = self.shape[dim]
    return _equal_parts(self, dim, -(-size // chunks)) if isinstance(size, int) else None


@_row("aten.split.Tensor")
def split(self: Operand, split_size: Any, dim: int) -> tuple[Node, ...] | None:
    return _equal_parts(self, dim, split_size)


@_row("aten.split.sizes")
def split_of_sizes(self: Operand, split_size: Any, dim: int) -> tuple[Node, ...] | None:
    return _parts(self, dim, split_size)


@_row("aten.split_with_sizes.default")
def split_with_sizes(self: Operand, split_sizes: Any, dim: int) -> tuple[Node, ...] | None:
    return _parts(self, dim, split_sizes)


def _equal_parts(x: Operand, dim: int, part: Any) -> tuple[Node, ...] | None:
    """Parts of one size, and a last one for what is left."""
    size = x.shape[dim]
    if not isinstance(size, int) or not isinstance(part, int) or part < 1:
        return None
    full, rest = divmod(size, part)
    return _parts(x, dim, [part] * full + [rest] * (rest > 0))


@_row("aten.flatten.using_ints")
def flatten(self: Operand, start_dim: int, end_dim: int) -> Node | None:
    if not is_float(self) or not self.shape:
        return None
    return Node("flatten", (self,), {"start_dim": start_dim, "end_dim": end_dim})


@_row("aten.permute.default")
def permute(self: Operand, dims: Any) -> Node | None:
    if not is_float(self):
        return None
    return Node("permute", (self,), {"dims": tuple(dim % len(self.shape) for dim in dims)})


@_row("aten.transpose.int")
def transpose(self: Operand, dim0: int, dim1: int) -> Node | None:
    if not is_float(self) or not self.shape:
        return None
    dims = [*range(len(self.shape))]
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return Node("permute", (self,), {"dims": tuple(dims)})


def _reshaped(self: Operand, result: Operand) -> Node | Operand | None:
    """x with other axes after the first one, of which at most one has no fixed size."""
    if self.shape == result.shape:
        return self
    shape = _after_the_batch(result)
    if not is_float(self) or shape is None or self.shape[:1] != result.shape[:1]:
        return None
    return Node("reshape", (self,), {"shape": shape})


def _after_the_batch(x: Operand) -> tuple[int, ...] | None:
    """The sizes after the first one, with -1 for a free one; None if `reshape` cannot make them."""
    shape = tuple(size if isinstance(size, int) else -1 for size in x.shape[1:])
    return None if not x.shape or 0 in shape or shape.count(-1) > 1 else shape


@_row("aten.view.default", "aten._unsafe_view.default")
def view(self: Operand, size: Any, result: Operand) -> Node | Operand | None:
    return _reshaped(self, result)


@_row("aten.reshape.default")
def reshape(self: Operand, shape: Any, result: Operand) -> Node | Operand | None:
    return _reshaped(self, result)


@_row("aten.unflatten.int")
def unflatten(self: Operand, dim: int, sizes: Any, result: Operand) -> Node | Operand | None:
    return _reshaped(self, result)


@_row("aten.unsqueeze.default", "aten.squeeze.dim")
def unsqueeze(self: Operand, dim: int, result: Operand) -> Node | Operand | None:
    return _reshaped(self, result)


@_row("aten.slice.Tensor")
def slice(
    self: Operand, dim: int, start: Any, end: Any, step: int, result: Operand
) -> Node | Operand | None:
    if self.shape == result.shape:
        return self
    start = 0 if start is None else start
    end = None if end is None or (isinstance(end, int) and end >= _NO_END) else end
    if not is_float(self) or not isinstance(start, int) or not isinstance(end, int | None):
        return None
    return Node("slice", (self,), {"dim": dim, "start": start, "end": end, "step": step})


_NO_END = 2**63 - 1  # torch's number for the end of an axis


@_row("aten.select.int")
def select(self: Operand, dim: int, index: Any, result: Operand) -> Node | None:
    """One element of an axis: a slice of one element without its axis."""
    if not is_float(self) or not isinstance(index, int) or dim % len(self.shape) == 0:
        return None
    end = None if index == -1 else index + 1
    part = Node("slice", (self,), {"dim": dim, "start": index, "end": end})
    shape = _after_the_batch(result)
    return None if shape is None else Node("reshape", (part,), {"shape": shape})


@_row("aten.stack.default")
def stack(tensors: tuple[Operand, ...], dim: int, result: Operand) -> Node | None:
    """The tensors with an axis of size 1 each, joined along it."""
    axis = dim % len(result.shape)
    shape = _after_the_batch(replace(result, shape=_with(result.shape, axis, 1)))
    if axis == 0 or shape is None or not all(alike(tensors[0], x) for x in tensors):
        return None
    return Node(
        "concat", tuple(Node("reshape", (x,), {"shape": shape}) for x in tensors), {"dim": axis}
    )


def _with(shape: tuple[Size, ...], axis: int, size: int) -> tuple[Size, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


@_row("aten.contiguous.default", "aten.clone.default")
def contiguous(self: Operand, memory_format: Any) -> Operand:
    return self


@_row("module.parameter.get")
def parameter(self: Operand, like: Operand) -> Node:
    return Node("trained_tensor", (like,), {"shape": self.shape}, {"value": self})


@_row("module.buffer.get")
def buffer(self: Operand, like: Operand) -> Node:
    fields: dict[str, Any] = {"shape": self.shape}
    if not self.dtype.is_floating_point:
        fields["dtype"] = str(self.dtype).removeprefix("torch.")
    return Node("fixed_tensor", (like,), fields, {"value": self})


@_row("aten.alias.default")
def alias(self: Operand) -> Operand:
    return self

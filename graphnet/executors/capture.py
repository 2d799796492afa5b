"""Capture: a plan's generated function as a graph of PyTorch operators, forward to update."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from graphnet.errors import LayerError
from graphnet.executors.eager import Function
from graphnet.plan import Plan


@torch.no_grad()
def capture(plan: Plan, examples: Sequence[Tensor]) -> GraphModule:
    """Run the plan's function on stand-ins for the examples and write down every operator.

    The examples give shapes, strides and dtypes; nothing is computed. Raises LayerError, which names
    the node and its layer's module, where a layer does what cannot be written down.
    """
    function = Function(plan)
    try:
        return make_fx(function.step, tracing_mode="fake")(*examples)
    except Exception as error:
        step = function.step_of(error)
        if step is None:
            raise
        call = step.call
        where = f"{call.where}: " if call.where else ""
        cause = str(error).strip().split("\n", 1)[0]
        raise LayerError(
            f"{where}node {call.node!r} ({call.title}, from {type(call.layer).__module__}): "
            f"{call.method} cannot be compiled: {type(error).__name__}: {cause}. Compiled code sees "
            f"tensors without values: use tensor operations only, read nothing back to the host, keep no "
            f"tensors outside the arguments. Or run it with the executor eager."
        ) from error


def fingerprint(graph: GraphModule) -> str:
    """A digest of all operators, their arguments and constants: what the compiler will see."""
    digest = hashlib.sha256(graph.code.encode())
    for name, tensor in sorted(graph.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:32]

"""Layer, Loss and Kernel: what a plugin author writes.

A Layer states its own forward and backward. Both ask for their arguments by name, and the names are
the declaration: graphnet knows from them what to hand over, and what to keep for the reverse pass.

    class Swish(Layer):
        \"""x * sigmoid(beta * x).\"""

        saves = ("gate",)
        pointwise = True
        beta: float = 1.0

        def forward(self, x):
            gate = torch.sigmoid(self.beta * x)
            return x * gate, gate

        def backward(self, grad_y, x, gate):
            return grad_y * (gate + self.beta * x * gate * (1 - gate))

`forward` may name inputs (first, in order; `*xs` takes any number), parameters, states, `key`, `specs`.
It returns `outputs`, then `saves`, then the new values of the states in `updates`.

`backward` may name `grad_<output>`, any input, parameter, output or save, and `key`, `specs`, `wanted`.
What it does not name is not kept for it. It returns one gradient for each input and parameter of
forward, in forward's order (a tuple for `*xs`; bare where there is one); None only for names that are
not `wanted`, `nondifferentiable`, or absent. A `grad_<output>` whose output nobody used arrives as
zeros, or as None if the argument defaults to None.

Everything is pure: no argument is written, nothing is read back to the host, no shape depends on data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch

from graphnet.errors import ContractError
from graphnet.sdk.blocks import Layout
from graphnet.sdk.definition import Definition
from graphnet.sdk.signature import Signature, check_overwrites, read_signature
from graphnet.sdk.spec import ParameterSpec, StateSpec

CONTRACT = 1  # the version of what this module says; a plugin may state the one it was written for
Precision = Literal["compute", "follow", "float32"]
Specs = Mapping[str, Any]
"""Name -> Spec; a tuple of Specs for `*xs`, None for an absent optional parameter."""


class Layer(Definition):
    """One differentiable function with its own backward; subclass it and see the module's text.

    Class attributes (declarations, all optional):
      outputs: names of the results that other nodes may read.
      saves: names of further results that only backward reads.
      updates: states whose new values forward returns last.
      nondifferentiable: inputs that get no gradient (integer indices, a loss's target).
      pointwise: each output element depends on the same element of each input only, for any strides.
      memory_formats: the strides a port runs fastest with, as name -> torch.memory_format. A
        preference for values that are stored between steps, never a promise.
      precision: what runs under `precision: bfloat16` or `float16`. "compute": inputs and parameters in
        that dtype (a matrix product). "follow": the dtype of the inputs, the wider one where they differ.
        "float32", the default: inputs and parameters in float32. States keep their dtype.
      kept: inputs and outputs that backward takes in bfloat16 too, beside wider gradients, and reads as if
        they had been rounded to it. `saved_dtype: bfloat16` hands the others over cast back.
      overwrites: result -> argument, such as {"y": "x", "grad_x": "grad_y"}: `forward_` and `backward_`
        take the arguments of forward and backward, write that result into that argument's storage,
        and return the same. A plan calls them where nothing else needs the argument any more. For
        `*xs` it is the first of them. The pure methods stay as they are.
    """

    outputs: ClassVar[tuple[str, ...]] = ("y",)
    saves: ClassVar[tuple[str, ...]] = ()
    updates: ClassVar[tuple[str, ...]] = ()
    nondifferentiable: ClassVar[tuple[str, ...]] = ()
    pointwise: ClassVar[bool] = False
    memory_formats: ClassVar[Mapping[str, torch.memory_format]] = {}
    precision: ClassVar[Precision] = "float32"
    kept: ClassVar[tuple[str, ...]] = ()
    overwrites: ClassVar[Mapping[str, str]] = {}
    signature: ClassVar[Signature]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.forward is not Layer.forward:  # else a base that leaves forward to its subclasses
            cls.signature = read_signature(cls, Layer)
            check_overwrites(cls, Layer)

    @property
    def layouts(self) -> Mapping[str, Layout] | None:
        """Input or output -> the blocks it has before one rest r that all of them share.

        A patch convolution reads and writes {"x": ((2, 2),), "y": ()}; see graphnet.sdk.blocks. Where every
        stack is empty, as in a loss, any layout will do, N C H W too. None means N C H W only; a
        pointwise layer takes any layout anyway.
        """
        return None

    def window(self, rows: range, axis: int) -> range | None:
        """The rows of every input that the outputs' `rows` depend on; axis 0 is H, axis 1 is W.

        It is what inference reads, for images (N, C, H, W) without an end: rows below 0 are padding. None
        means all of them. With it an image can be cut into tiles that come out as the whole would.
        """
        return rows if self.pointwise else None

    # These are open, but for the last two: a subclass names the arguments that it asks for.

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute outputs, saves and new states from inputs, parameters and states."""
        raise ContractError(f"{type(self).__name__} defines no forward")

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute one gradient for each input and parameter of forward."""
        raise ContractError(f"{type(self).__name__} defines no backward")

    def inference(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs only, outside training; without it forward runs."""
        raise ContractError(f"{type(self).__name__} defines no inference")

    def forward_(self, *args: Any, **kwargs: Any) -> Any:
        """What forward computes, written into arguments as `overwrites` declares."""
        raise ContractError(f"{type(self).__name__} defines no forward_")

    def backward_(self, *args: Any, **kwargs: Any) -> Any:
        """What backward computes, written into arguments as `overwrites` declares."""
        raise ContractError(f"{type(self).__name__} defines no backward_")

    def affine_map(self, *args: Any, **kwargs: Any) -> Any:
        """The scale and shift, both (C,), by which inference maps the channels (axis 1) of its one input.

        It asks for parameters and states by forward's names. A layer that has it can disappear from a
        plan that only predicts, into the layer before it.
        """
        raise ContractError(f"{type(self).__name__} defines no affine_map")

    def absorb(self, *args: Any, **kwargs: Any) -> Any:
        """Parameters with which the output's channels (axis 1) come out times `scale`, plus `shift`.

        It asks for the parameters that change, then for scale and shift, both (C,); it returns those
        parameters in that order, as they were in shape and dtype. An absent one arrives as None and has to
        be returned as a tensor.
        """
        raise ContractError(f"{type(self).__name__} defines no absorb")

    def parameters(self, specs: Specs) -> Mapping[str, ParameterSpec | None]:
        """The trainable tensors, by the names forward gives them; None for an absent optional one."""
        return {}

    def states(self, specs: Specs) -> Mapping[str, StateSpec]:
        """The tensors that outlive a step without being trained."""
        return {}


class Loss(Layer):
    """A layer whose one output, `loss`, is a 0-dim mean or sum; `grad_loss` is a 0-dim tensor."""

    outputs: ClassVar[tuple[str, ...]] = ("loss",)

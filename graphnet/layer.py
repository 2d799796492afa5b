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

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch

from graphnet.definition import Definition
from graphnet.errors import ContractError, nearest
from graphnet.layout import Layout
from graphnet.spec import ParameterSpec, Spec, StateSpec

CONTRACT = 1  # the version of what this module says; a plugin may state the one it was written for
RESERVED = frozenset({"key", "specs", "wanted"})
AFFINE = ("scale", "shift")  # what affine_map returns, and absorb takes
Precision = Literal["compute", "follow", "float32"]
Specs = Mapping[str, Any]
"""Name -> Spec; a tuple of Specs for `*xs`, None for an absent optional parameter."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What the methods ask for, read off their arguments once, when the class is defined.

    `forward`, `backward` and the others hold the argument names in order; `variadic` is the name behind
    the star. `optional` are the gradients that may arrive as None.
    """

    forward: tuple[str, ...]
    backward: tuple[str, ...]
    inference: tuple[str, ...]
    variadic: str | None
    optional: frozenset[str]
    affine_map: tuple[str, ...] = ()
    absorb: tuple[str, ...] = ()

    def of(self, method: str) -> tuple[str, ...]:
        """The argument names of a method, in order; those of `forward_` are those of forward."""
        names: tuple[str, ...] = getattr(self, method.removesuffix("_"))
        return names

    @property
    def tensors(self) -> tuple[str, ...]:
        """Forward's arguments that carry tensors: inputs, parameters and states."""
        return tuple(name for name in self.forward if name not in RESERVED)


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
        they had been rounded to it. `keep: bfloat16` hands the others over cast back.
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
            cls.signature = _read_signature(cls)
            _check_overwrites(cls)

    @property
    def layouts(self) -> Mapping[str, Layout] | None:
        """Input or output -> the blocks it has before one rest r that all of them share.

        A patch convolution reads and writes {"x": ((2, 2),), "y": ()}; see graphnet.layout. Where every
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


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a graph where a kernel's pattern fits, as `Kernel.match` sees it.

    `layers` are the definitions in the pattern, outermost first; `specs` the shapes of the names in it
    (None for an absent optional parameter). `data` are the names of what no parameter has an influence on:
    nobody will want their gradients.
    """

    layers: tuple[Layer, ...]
    specs: Mapping[str, Spec | None]
    device: torch.device
    data: frozenset[str] = frozenset()


class Kernel(Layer):
    """Another way to compute an expression of layers, with its own backward.

    `replaces` is the expression, such as "conv2d(x, weight, bias)" or "relu(conv2d(x, weight, bias))". A
    layer of `*xs` stands in it with as many arguments as the kernel takes: "add(skip, conv2d(x, w, b))".
    `chain(x, *parameters)` stands for any row of layers, each of one input, from x on; behind it are the
    parameters that are there, in the order in which they are used: "mse(chain(x, *parameters), target)".
    `match` looks at a site where it fits and returns an instance, or None to leave the site alone; of chains
    it is shown the longest first.
    """

    replaces: ClassVar[str]

    @classmethod
    def match(cls, site: Site) -> Self | None:
        raise ContractError(f"{cls.__name__} defines no match(site)")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "replaces" in vars(cls):  # else a base that leaves the pattern to its subclasses
            parse_pattern(cls)


Pattern = str | tuple[Any, ...]
"""A name, or a tuple of a layer's name and its arguments' patterns; a chain is (CHAIN, x, parameters)."""
CHAIN = "chain"


def layer_names(pattern: Pattern) -> Iterator[str]:
    """The names of the layers in a pattern, outermost first; nothing is known of those in a chain."""
    if not isinstance(pattern, str):
        if pattern[0] != CHAIN:
            yield pattern[0]
        for part in pattern[1:]:
            yield from layer_names(part)


def has_chain(pattern: Pattern) -> bool:
    """Whether there is a chain in a pattern."""
    return not isinstance(pattern, str) and (
        pattern[0] == CHAIN or any(map(has_chain, pattern[1:]))
    )


def parse_pattern(kernel: type[Kernel]) -> Pattern:
    """`relu(conv2d(x, weight, bias))` as ("relu", ("conv2d", "x", "weight", "bias")).

    The `*parameters` of a chain stand in it without their star. A namespaced layer is written with a dot in
    place of the slash: "acme.swish(x)".
    """

    def walk(node: ast.expr) -> Pattern:
        match node:
            case ast.Name(id=name):
                return name
            case ast.Call(
                func=ast.Name(id=name),
                args=[ast.Name(id=x), ast.Starred(value=ast.Name(id=parameters))],
                keywords=[],
            ) if name == CHAIN:
                return (CHAIN, x, parameters)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name != CHAIN:
                return (name, *map(walk, arguments))
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=space), attr=name), args=arguments, keywords=[]
            ):
                return (f"{space}/{name}", *map(walk, arguments))
        raise ContractError(
            f"{kernel.__name__}.replaces must be an expression of layer names and arguments, such as "
            f"'relu(conv2d(x, weight, bias))' or 'mse(chain(x, *parameters), target)'; "
            f"found {getattr(kernel, 'replaces', None)!r}"
        )

    try:
        pattern = walk(ast.parse(kernel.replaces, mode="eval").body)
    except (SyntaxError, AttributeError):
        pattern = ""
    if isinstance(pattern, str) or pattern[0] == CHAIN:
        raise ContractError(
            f"{kernel.__name__}.replaces must be an expression such as 'conv2d(x, weight, bias)'; "
            f"found {getattr(kernel, 'replaces', None)!r}"
        )
    return pattern


def _read_signature(cls: type[Layer]) -> Signature:
    forward = _arguments(cls, "forward", cls.forward)
    for name, parameter in forward.items():
        if parameter.default is not parameter.empty:
            raise ContractError(
                f"{cls.__name__}.forward: {name!r} has a default; an absent optional parameter "
                f"arrives as None, so state it without one"
            )
    if len(set(cls.outputs + cls.saves)) != len(cls.outputs + cls.saves) or not cls.outputs:
        raise ContractError(
            f"{cls.__name__}: outputs {cls.outputs} and saves {cls.saves} need different names, "
            f"and at least one output"
        )
    for declared in ("updates", "nondifferentiable"):
        for name in getattr(cls, declared):
            if name not in forward:
                raise ContractError(
                    f"{cls.__name__}.{declared} names {name!r}, which forward does not take. "
                    f"{nearest(name, forward)}"
                )
    for name in cls.kept:
        if name not in (known := {*forward, *cls.outputs, *cls.saves} - RESERVED):
            raise ContractError(
                f"{cls.__name__}.kept names {name!r}, which is no input, output or save of this layer. "
                f"{nearest(name, known)}"
            )
    if "wanted" in forward:
        raise ContractError(f"{cls.__name__}.forward names 'wanted', which only backward is given")

    inference = _arguments(cls, "inference", cls.inference)
    for name in inference:
        if name not in forward or name == "key":
            raise ContractError(
                f"{cls.__name__}.inference names {name!r}, which forward does not take "
                f"(inference has no key)"
            )

    backward = _arguments(cls, "backward", cls.backward)
    gradients = {f"grad_{output}" for output in cls.outputs}
    known = {*forward, *cls.outputs, *cls.saves, *gradients, *RESERVED} - set(cls.updates)
    for name, parameter in backward.items():
        if name not in known:
            raise ContractError(
                f"{cls.__name__}.backward names {name!r}, which is no gradient, input, parameter, "
                f"output or save of this layer. {nearest(name, known)}"
            )
        if parameter.default is not parameter.empty and (
            name not in gradients or parameter.default is not None
        ):
            raise ContractError(
                f"{cls.__name__}.backward: only a gradient may have a default, and only None; "
                f"found {name}={parameter.default!r}"
            )
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise ContractError(
                f"{cls.__name__}.backward: '*{name}' must be written {name!r}; it arrives as a tuple"
            )
    variadic = [n for n, p in forward.items() if p.kind is p.VAR_POSITIONAL]
    affine_map, absorb = (
        tuple(_arguments(cls, n, getattr(cls, n))) for n in ("affine_map", "absorb")
    )
    _check_folding(cls, tuple(forward), affine_map, absorb)
    return Signature(
        forward=tuple(forward),
        backward=tuple(backward),
        inference=tuple(inference),
        variadic=variadic[0] if variadic else None,
        optional=frozenset(n for n, p in backward.items() if p.default is None),
        affine_map=affine_map,
        absorb=absorb,
    )


def _check_folding(
    cls: type[Layer], forward: tuple[str, ...], affine_map: tuple[str, ...], absorb: tuple[str, ...]
) -> None:
    slots = [name for name in forward[1:] if name not in RESERVED]
    if (affine_map or absorb) and len(cls.outputs) != 1:
        raise ContractError(
            f"{cls.__name__}: a layer to be folded has one output, not {cls.outputs}"
        )
    if absorb and (absorb[-2:] != AFFINE or len(absorb) < 3):
        raise ContractError(
            f"{cls.__name__}.absorb must take parameters, then scale and shift; found {absorb}"
        )
    for method, names in (("affine_map", affine_map), ("absorb", absorb[:-2])):
        for name in names:
            if name not in slots:
                raise ContractError(
                    f"{cls.__name__}.{method} names {name!r}, which is no parameter or state that "
                    f"forward takes. {nearest(name, slots)}"
                )


def _check_overwrites(cls: type[Layer]) -> None:
    signature = cls.signature
    declared: dict[str, list[str]] = {"forward": [], "backward": []}
    for result, argument in cls.overwrites.items():
        gradient = result.removeprefix("grad_")
        if result in cls.outputs + cls.saves:
            method = "forward"
        elif gradient != result and gradient in set(signature.tensors) - {signature.variadic}:
            method = "backward"
        else:
            known = [*cls.outputs, *cls.saves, *(f"grad_{name}" for name in signature.tensors)]
            raise ContractError(
                f"{cls.__name__}.overwrites names {result!r}, which is no result of this layer that "
                f"can overwrite. {nearest(result, known)}"
            )
        known = [name for name in signature.of(method) if name not in RESERVED]
        if argument not in known:
            raise ContractError(
                f"{cls.__name__}.overwrites: {result!r} cannot overwrite {argument!r}, which "
                f"{method} does not take. {nearest(argument, known)}"
            )
        declared[method].append(result)
    for method, results in declared.items():
        expected = signature.of(method) if results else ()
        found = tuple(_arguments(cls, f"{method}_", getattr(cls, f"{method}_")))
        if found != expected and (results or "overwrites" in vars(cls)):
            raise ContractError(
                f"{cls.__name__}: expected {method}_({', '.join(expected)}), which writes "
                f"{', '.join(results)} in place, found {method}_({', '.join(found)})"
                if results
                else f"{cls.__name__} defines {method}_, but `overwrites` names nothing that it writes"
            )


def _arguments(
    cls: type[Layer], method: str, function: Callable[..., Any]
) -> dict[str, inspect.Parameter]:
    if function is getattr(Layer, method):
        return {}  # not defined by this layer
    if not callable(function):
        raise ContractError(f"{cls.__name__}.{method} must be a method; found {function!r}")
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].name != "self":
        raise ContractError(f"{cls.__name__}.{method} must take self as its first argument")
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            raise ContractError(
                f"{cls.__name__}.{method} takes '**{parameter.name}'; arguments are asked for by "
                f"name, so write the names out"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ContractError(
                f"{cls.__name__}.{method}: {parameter.name!r} is positional-only; write it without '/'"
            )
    return {parameter.name: parameter for parameter in parameters[1:]}

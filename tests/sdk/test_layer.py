"""The Layer contract: what is refused when a class is defined, and what is observed of it."""

from __future__ import annotations

import inspect
import math
import textwrap
from typing import Any

import pytest
import torch

import graphnet.sdk.layer
from graphnet.errors import ContractError, DescriptionError, GraphError, LayerError
from graphnet.graph import bind_inputs, observe, observe_backward
from graphnet.sdk import (
    Bound,
    Constant,
    Definition,
    Kernel,
    Layer,
    ParameterSpec,
    Spec,
    has_chain,
    layer_names,
)
from tests.support.models import Swish

SPEC = Spec((2, 3))


def define(**members: Any) -> type[Layer]:
    annotations = members.pop("annotations", {})
    return type(
        "Broken", (Layer,), {"__module__": __name__, "__annotations__": annotations, **members}
    )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"forward": lambda self, x: x, "backward": lambda self, grad_z: grad_z},
            "Broken.backward names 'grad_z', which is no gradient, input, parameter, output or save of "
            "this layer. Did you mean 'grad_y'?",
        ),
        (
            {"forward": lambda self, x: x, "backward": lambda self, grad_y, gate: grad_y},
            "Broken.backward names 'gate', which is no gradient, input, parameter, output or save of "
            "this layer.",
        ),
        (
            {"forward": lambda self, **xs: 0},
            "Broken.forward takes '**xs'; arguments are asked for by name",
        ),
        ({"forward": lambda x: x}, "Broken.forward must take self as its first argument"),
        (
            {"forward": lambda self, x, bias=None: x},
            "Broken.forward: 'bias' has a default; an absent optional parameter arrives as None",
        ),
        (
            {"forward": lambda self, x, wanted: x},
            "Broken.forward names 'wanted', which only backward",
        ),
        (
            {"forward": lambda self, x: x, "outputs": ("y",), "saves": ("y",)},
            "Broken: outputs ('y',) and saves ('y',) need different names",
        ),
        ({"forward": lambda self, x: x, "outputs": ()}, "and at least one output"),
        (
            {"forward": lambda self, x: x, "updates": ("mean",)},
            "Broken.updates names 'mean', which forward does not take.",
        ),
        (
            {"forward": lambda self, x: x, "nondifferentiable": ("target",)},
            "Broken.nondifferentiable names 'target', which forward does not take.",
        ),
        (
            {"forward": lambda self, x: x, "inference": lambda self, x, key: x},
            "Broken.inference names 'key', which forward does not take",
        ),
        (
            {"forward": lambda self, x: x, "backward": lambda self, grad_y=0: grad_y},
            "only a gradient may have a default, and only None (for an output that nobody uses) or 1.0 "
            "(for a loss that is the whole loss); found grad_y=0",
        ),
        (
            {"forward": lambda self, x: x, "backward": lambda self, grad_y, x=1.0: grad_y},
            "found x=1.0",
        ),
        (
            {"forward": lambda self, *xs: xs[0], "backward": lambda self, grad_y, *xs: xs},
            "Broken.backward: '*xs' must be written 'xs'; it arrives as a tuple",
        ),
        ({"forward": 3}, "Broken.forward must be a method; found 3"),
    ],
)
def test_wrong_signature_is_refused_when_the_class_is_defined(
    members: dict[str, Any], message: str
) -> None:
    with pytest.raises(ContractError) as caught:
        define(**members)
    assert message in str(caught.value)


def test_definition_is_frozen_hashable_and_compares_by_value() -> None:
    assert Swish(beta=2) == Swish(beta=2.0)
    assert hash(Swish(beta=2.0)) == hash(Swish(beta=2.0))
    assert Swish(beta=2.0) != Swish(beta=3.0)
    with pytest.raises(AttributeError):
        Swish().beta = 3.0  # type: ignore[misc]


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(DescriptionError) as caught:
        Swish(beta="high", betta=1)  # type: ignore[arg-type, call-arg]
    assert str(caught.value).splitlines() == [
        "beta: expected number, found 'high'",
        "betta: unknown field. Did you mean 'beta'?",
    ]


def test_a_field_is_finite_unless_its_type_is_bound() -> None:
    class Clip(Definition):
        least: Bound = -math.inf
        scale: float = 1.0

    assert Clip(least=-math.inf) == Clip()
    for fields in ({"scale": math.inf}, {"scale": math.nan}, {"least": math.nan}):
        with pytest.raises(DescriptionError, match="expected a (finite )?number, found (inf|nan)"):
            Clip(**fields)


def test_shapes_and_views_are_observed() -> None:
    class Transposed(Layer):
        def forward(self, x):
            return x.t()

        def backward(self, grad_y):
            return grad_y.t()

    (result,) = observe(Transposed(), "forward", {"x": SPEC})
    assert result.spec.shape == (3, 2)
    assert result.view_of == ("x", 0)
    y, gate = observe(Swish(), "forward", {"x": SPEC})
    assert (y.spec.shape, y.view_of, gate.view_of) == ((2, 3), None, None)
    (gradient,) = observe_backward(
        Transposed(), {"x": SPEC}, gradients={"grad_y": Spec((3, 2))}, wanted=frozenset({"x"})
    )
    assert gradient.view_of == ("grad_y", 0)


def test_inputs_parameters_and_states_are_told_apart() -> None:
    class Affine(Layer):
        bias: bool = False

        def parameters(self, specs):
            one = ParameterSpec(specs["x"].shape[1:], Constant(1.0))
            return {"weight": one, "shift": one if self.bias else None}

        def forward(self, x, weight, shift):
            return x * weight if shift is None else x * weight + shift

        def backward(self, grad_y, x, weight):
            return grad_y * weight, (grad_y * x).sum(0), None

    ports = bind_inputs(Affine(), [SPEC], torch.float32)
    assert ports.inputs == ("x",)
    assert ports.specs["weight"].shape == (3,)
    assert ports.specs["shift"] is None
    with pytest.raises(GraphError, match=r"takes 1 inputs \(x\), got 2"):
        bind_inputs(Affine(), [SPEC, SPEC], torch.float32)


class Base(Layer):
    """Forward is right; subclasses break backward."""

    def forward(self, x, z):
        return x + z


class TooFew(Base):
    def backward(self, grad_y):
        return grad_y


class WrongShape(Base):
    def backward(self, grad_y):
        return grad_y, grad_y.sum()


class NoneWanted(Base):
    def backward(self, grad_y):
        return grad_y, None


class NotATensor(Base):
    def backward(self, grad_y):
        return grad_y, 3.0


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (TooFew(), r"backward must return 2 gradients \(x, z\), returned Tensor"),
        (WrongShape(), r"backward must return the shape \(2, 3\) for 'z', returned \(\)"),
        (NoneWanted(), "backward returned None for 'z', whose gradient is wanted"),
        (NotATensor(), "backward must return a tensor for 'z', returned float"),
    ],
)
def test_observe_checks_the_results_of_backward(layer: Layer, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        observe_backward(
            layer,
            {"x": SPEC, "z": SPEC},
            gradients={"grad_y": SPEC},
            wanted=frozenset({"x", "z"}),
        )


def test_forward_must_return_outputs_and_saves() -> None:
    class Short(Layer):
        saves = ("gate",)

        def forward(self, x):
            return x * 1

    with pytest.raises(
        LayerError, match=r"forward must return 2 tensors \(y, gate\), returned Tensor"
    ):
        observe(Short(), "forward", {"x": SPEC})


_CHAINS = [
    "chain(x, *parameters)",
    "mse(chain(x), target)",
    "mse(chain(relu(x), *parameters), target)",
]


@pytest.mark.parametrize("text", ["relu", "relu(", "relu(x) + 1", "relu(x=3)", "f(g)(x)", *_CHAINS])
def test_kernel_pattern_must_be_an_expression_of_layers(text: str) -> None:
    with pytest.raises(ContractError, match=r"\.replaces must be an expression"):
        type(
            "K", (Kernel,), {"replaces": text, "forward": lambda self, x: x, "__module__": __name__}
        )


def test_kernel_pattern_is_parsed() -> None:
    class Fused(Kernel):
        replaces = "relu(acme.swish(x, relu(z)))"

        def forward(self, x, z):
            return x

    assert Fused.pattern == ("relu", ("acme/swish", "x", ("relu", "z")))

    class Faster(Fused):
        """Another way to compute the same expression."""

    class Alone(Fused):
        replaces = "acme.swish(x)"

        def forward(self, x):
            return x

    assert Faster.pattern is Fused.pattern  # parsed once
    assert Alone.pattern == ("acme/swish", "x")


def test_kernel_pattern_may_hold_a_chain() -> None:
    class Whole(Kernel):
        replaces = "mse(chain(x, *parameters), target)"

        def forward(self, x, target, *parameters):
            return x

    pattern = Whole.pattern
    assert pattern == ("mse", ("chain", "x", "parameters"), "target")
    assert has_chain(pattern)
    assert list(layer_names(pattern)) == ["mse"]


def test_the_example_in_the_modules_text_is_the_layer_of_the_tests() -> None:
    text = inspect.getdoc(graphnet.sdk.layer) or ""
    namespace: dict[str, Any] = {"Layer": Layer, "torch": torch, "__name__": __name__}
    lines = text[text.index("    class Swish(Layer):") : text.index("`forward` may name")]
    exec(textwrap.dedent(lines), namespace)
    x = torch.linspace(-2, 2, 5)
    made, expected = namespace["Swish"](), Swish()
    for mine, theirs in zip(made.forward(x), expected.forward(x), strict=True):
        assert torch.equal(mine, theirs)


def test_kept_must_name_arguments_or_results_of_the_layer() -> None:
    with pytest.raises(
        ContractError, match="Odd.kept names 'z', which is no input, output or save"
    ):

        class Odd(Layer):
            kept = ("z",)

            def forward(self, x):
                return x

            def backward(self, grad_y):
                return grad_y

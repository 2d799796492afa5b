"""Layer and Loss: what a plugin author writes.

A Layer states its own forward and backward. Both ask for their arguments by name, and the names are the
declaration: they tell graphnet what to pass, and what to keep for the reverse pass.

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
What it does not name is not kept for it. It returns one gradient for each input and parameter of forward, in
forward's order (a tuple for `*xs`; a single gradient without a tuple); None only for names that are not
`wanted`, `nondifferentiable`, or absent. A `grad_<output>` whose output nobody used arrives as zeros, or as
None if the argument defaults to None.

Everything is pure: no argument is written, nothing is read back to the host, no shape depends on data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from graphnet.errors import ContractError
from graphnet.sdk.blocks import Layout
from graphnet.sdk.declarations import check_declarations
from graphnet.sdk.definition import Definition
from graphnet.sdk.signature import Signature, check_overwrites, read_signature
from graphnet.sdk.spec import ParameterSpec, Spec, StateSpec

Precision = Literal["compute", "follow", "float32"]
Specs = Mapping[str, Any]
"""Name -> Spec; a tuple of Specs for `*xs`, None for an absent optional parameter."""


class Layer(Definition):
    """One differentiable function with its own backward.

    Attributes (declarations of the class, all optional):
        outputs: the names of the results that other nodes may read.
        saves: the names of further results, which only backward reads.
        updates: the states whose new values forward returns last.
        nondifferentiable: the inputs that get no gradient, such as integer indices, or a loss's target.
        pointwise: whether each element of the outputs depends on the same element of each input only, for
            any strides.
        memory_formats: input or output -> the torch.memory_format with which the layer runs fastest. It is
            a preference for values that are stored between steps, never a promise.
        precision: the dtypes under `precision: bfloat16` or `float16`. "compute": inputs and parameters in
            that dtype, for matrix products. "follow": the dtype of the inputs, the wider one where they
            differ. "float32": inputs and parameters in float32. States keep their dtype.
        kept: the inputs and outputs that backward also takes in bfloat16, beside wider gradients, and reads
            as if they had been rounded to it. `saved_dtype: bfloat16` casts the others back before backward.
        overwrites: result -> argument, such as {"y": "x", "grad_x": "grad_y"}: `forward_` and `backward_`
            take the arguments of forward and backward, write that result into that argument's storage, and
            return the same. A plan calls them where nothing else needs the argument any more. For `*xs`, the
            argument is the first input. `forward` and `backward` still write nothing.
        signature: the arguments that the methods ask for, read when the class is made.

    Raises:
        ContractError: when the class is made, if a method asks for an argument that it cannot get, or a
            declaration names something that the layer does not have.

    >>> class Double(Layer):
    ...     def forward(self, x):
    ...         return 2 * x
    ...
    ...     def backward(self, grad_y):
    ...         return 2 * grad_y
    >>> Double().forward(torch.ones(2))
    tensor([2., 2.])

    A layer with more declarations: `mask` gets no gradient, and `backward` reads `gate`, a save, but not x.

    >>> class Split(Layer):
    ...     outputs = ("y", "rest")
    ...     saves = ("gate",)
    ...     nondifferentiable = ("mask",)
    ...     pointwise = True
    ...     precision = "follow"
    ...     memory_formats = {"x": torch.channels_last}
    ...
    ...     def forward(self, x, mask):
    ...         gate = torch.sigmoid(x)
    ...         return gate * mask, gate * ~mask, gate
    ...
    ...     def backward(self, grad_y, grad_rest, mask, gate):
    ...         return (grad_y * mask + grad_rest * ~mask) * gate * (1 - gate), None
    >>> Split.signature.of("backward")
    ('grad_y', 'grad_rest', 'mask', 'gate')

    A layer with a parameter, which is trained, and a state, which `forward` changes:

    >>> from graphnet.sdk import Constant
    >>> class Centred(Layer):
    ...     saves = ("centred",)
    ...     updates = ("mean",)
    ...
    ...     def parameters(self, specs):
    ...         return {"scale": ParameterSpec((specs["x"].shape[1],), Constant(1.0))}
    ...
    ...     def states(self, specs):
    ...         return {"mean": StateSpec((specs["x"].shape[1],))}
    ...
    ...     def forward(self, x, scale, mean):
    ...         centred = x - mean
    ...         return centred * scale, centred, 0.9 * mean + 0.1 * x.mean(0)
    ...
    ...     def inference(self, x, scale, mean):
    ...         return (x - mean) * scale
    ...
    ...     def backward(self, grad_y, scale, centred):
    ...         return grad_y * scale, (grad_y * centred).sum(0)
    ...
    ...     def affine_map(self, scale, mean):
    ...         return scale.clone(), -mean * scale
    >>> *_, mean = Centred().forward(torch.full((2, 1), 5.0), torch.ones(1), torch.zeros(1))
    >>> mean
    tensor([0.5000])
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
            check_declarations(cls, Precision)
            cls.signature = read_signature(cls, Layer)
            check_overwrites(cls, Layer)

    @property
    def layouts(self) -> Mapping[str, Layout] | None:
        """The innermost blocks of pixels of inputs and outputs; their outer blocks must be equal.

        See graphnet.sdk.blocks. A pointwise layer takes any layout without stating it.

        Returns:
            Input or output -> its blocks: {"x": ((2, 2),), "y": ()} for a patch convolution. If all are
            empty, as in a loss, any layout is allowed, N C H W too. None means N C H W only.

        >>> from graphnet.builtin import MSE
        >>> MSE().layouts
        {'prediction': (), 'target': ()}
        """
        return None

    def window(self, rows: range, axis: int) -> range | None:
        """The rows of every input on which some rows of the outputs depend, in inference.

        With it, graphnet cuts an image into tiles that give the same result as the whole image. The image has
        no borders here: rows below 0 are padding.

        Args:
            rows: rows of the outputs, or columns; positions along any spatial axis.
            axis: the spatial axis: 0 for H and 1 for W of an image, 0 for L of a signal, 0 to 2 for D, H
                and W of a volume.

        Returns:
            The rows of the inputs; None if each row depends on all of them.

        >>> from graphnet.builtin import Conv2d
        >>> Conv2d(out_channels=8, kernel_size=3, padding=1).window(range(0, 4), axis=0)
        range(-1, 5)
        """
        return rows if self.pointwise else None

    # These are open, but for the last two: a subclass names the arguments that it asks for.

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs, then the saves, then the new states; a single one comes without a tuple.

        A subclass asks by name for inputs (first, in order; `*xs` for any number), parameters, states,
        `key` and `specs`. An absent optional parameter arrives as None.
        """
        raise ContractError(f"{type(self).__name__} defines no forward")

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute one gradient for each input and parameter of forward, in forward's order.

        A subclass asks by name for `grad_<output>`, inputs, parameters, outputs, saves, `key`, `specs` and
        `wanted`, the names whose gradients are needed. What it does not name is not kept for it.

        Returns:
            The gradients, each of its value's shape; a tuple for `*xs`; a single one without a tuple. None
            only for names that are not wanted, not differentiable or absent.

        >>> class Square(Layer):
        ...     kept = ("x",)  # x rounded to bfloat16 is good enough for the gradient
        ...
        ...     def forward(self, x):
        ...         return x * x
        ...
        ...     def backward(self, grad_y, x):
        ...         return 2 * grad_y * x
        >>> Square().backward(torch.ones(2), torch.tensor([1.0, 3.0]))
        tensor([2., 6.])
        """
        raise ContractError(f"{type(self).__name__} defines no backward")

    def inference(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs only, for prediction. If it is not defined, forward runs."""
        raise ContractError(f"{type(self).__name__} defines no inference")

    def forward_(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what forward computes, and write it into arguments as `overwrites` declares.

        >>> class Double(Layer):
        ...     overwrites = {"y": "x", "grad_x": "grad_y"}
        ...
        ...     def forward(self, x):
        ...         return 2 * x
        ...
        ...     def forward_(self, x):
        ...         return x.mul_(2)
        ...
        ...     def backward(self, grad_y):
        ...         return 2 * grad_y
        ...
        ...     def backward_(self, grad_y):
        ...         return grad_y.mul_(2)
        >>> x = torch.ones(2)
        >>> Double().forward_(x) is x
        True
        """
        raise ContractError(f"{type(self).__name__} defines no forward_")

    def backward_(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what backward computes, and write it into arguments as `overwrites` declares."""
        raise ContractError(f"{type(self).__name__} defines no backward_")

    def affine_map(self, *args: Any, **kwargs: Any) -> Any:
        """The scale and the shift of each channel, for a layer whose inference is y = scale x + shift.

        It asks for parameters and states by forward's names. A plan for prediction can fold such a layer into
        the layer before it (see `absorb`).

        Returns:
            scale and shift, both (C,), for axis 1 of the one input.
        """
        raise ContractError(f"{type(self).__name__} defines no affine_map")

    def absorb(self, *args: Any, **kwargs: Any) -> Any:
        """Parameters with which the layer computes scale y + shift in the place of its output y.

        It asks for the parameters that change, then for `scale` and `shift`, both (C,), for axis 1 of y. An
        absent parameter arrives as None.

        Returns:
            Those parameters, in that order, in the shapes and dtypes that they had; none of them absent.

        >>> class Dense(Layer):
        ...     def forward(self, x, weight, bias):  # x: (N, C)
        ...         return x @ weight.T + bias
        ...
        ...     def absorb(self, weight, bias, scale, shift):
        ...         return weight * scale[:, None], bias * scale + shift
        >>> Dense().absorb(torch.ones(1, 1), torch.ones(1), torch.full((1,), 3.0), torch.ones(1))
        (tensor([[3.]]), tensor([4.]))
        """
        raise ContractError(f"{type(self).__name__} defines no absorb")

    def parameters(self, specs: Specs) -> Mapping[str, ParameterSpec | None]:
        """The trainable tensors.

        Args:
            specs: the inputs' specs, by forward's names; a tuple of them for `*xs`.

        Returns:
            The name that forward gives a parameter -> its shape and initial value; None for an absent one.
        """
        return {}

    def states(self, specs: Specs) -> Mapping[str, StateSpec]:
        """The tensors that are kept between steps but not trained, in the form of `parameters`."""
        return {}

    def across_processes(self) -> tuple[Layer, Layer] | None:
        """This layer in two parts, if it computes statistics of a batch over the samples of all processes.

        Returns:
            A layer that takes inputs of this one and returns one tensor, the statistics of a process's
            samples, and a layer that takes all arguments of this one and `statistics`: those of all
            processes, (number of processes, *their shape). It returns `y` and the new states. None if the
            layer computes from its own samples only; several processes then take the mean of its states.

        >>> from graphnet.builtin import BatchNorm2d
        >>> first, second = BatchNorm2d(sync=True).across_processes()
        >>> first.forward(torch.ones(2, 3, 4, 4)).shape  # the mean and the variance of each channel
        torch.Size([2, 3])
        """
        return None


class Loss(Layer):
    """A layer whose one output, `loss`, is a 0-dim mean or sum; `grad_loss` is 0-dim too.

    Its first input is the prediction, its second the target. Further inputs, such as a mask, come with the
    data under their own names. All have the prediction's shape and dtype, unless `target_spec` states others.

    >>> class SquaredSum(Loss):
    ...     def forward(self, prediction, target):
    ...         return (prediction - target).square().sum()
    ...
    ...     def backward(self, grad_loss, prediction, target):
    ...         return grad_loss * 2 * (prediction - target), None
    >>> SquaredSum().forward(torch.ones(2), torch.zeros(2))
    tensor(2.)
    >>> SquaredSum.outputs
    ('loss',)
    """

    outputs: ClassVar[tuple[str, ...]] = ("loss",)

    def target_spec(self, prediction: Spec, name: str) -> Spec:
        """The spec of the target, or of a further input such as a mask, for a prediction of this spec.

        graphnet checks the data against this spec. The default is the prediction's own spec.

        Args:
            prediction: the spec of a batch of predictions.
            name: "target", or the name of a further input of forward.

        Raises:
            GraphError: no target fits such a prediction.

        >>> from dataclasses import replace
        >>> class Hinge(Loss):  # prediction: (N,); target: (N,), 0 or 1
        ...     def target_spec(self, prediction, name):
        ...         return replace(prediction, dtype=torch.int64)
        >>> str(Hinge().target_spec(Spec((8,)), "target"))
        '8 int64'
        """
        return prediction

    def weight(self, *targets: Tensor) -> Tensor:
        """What forward divides by, if it can differ between parts of a batch, such as the sum of a mask.

        When a batch is computed in parts, one after the other or in several processes, its loss is
            sum over the parts of weight_i loss_i / sum of weight_i.
        A loss without this method is a mean over all elements; its parts count equally.

        Args:
            *targets: what forward takes after the prediction: the target, and further inputs.

        Returns:
            A 0-dim tensor, at least 0, of any dtype.

        >>> class MaskedSum(Loss):
        ...     def forward(self, prediction, target, mask):
        ...         return (mask * (prediction - target).square()).sum() / mask.sum()
        ...
        ...     def weight(self, target, mask):
        ...         return mask.sum()
        >>> MaskedSum().weight(torch.zeros(3), torch.tensor([1.0, 1.0, 0.0]))
        tensor(2.)
        """
        raise ContractError(f"{type(self).__name__} defines no weight(*targets)")

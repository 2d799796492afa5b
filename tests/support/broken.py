"""Layers that are wrong on purpose, each in one way, with the check that names the fault."""

from __future__ import annotations

import itertools
import random as python_random
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch

from graphnet.builtin import BatchNorm2d, ReLU
from graphnet.builtin.kernels.aten.norm import AtenBatchNorm2d
from graphnet.errors import GraphError
from graphnet.sdk import Constant, Kernel, Layer, Loss, ParameterSpec, Site, StateSpec
from graphnet.sdk.random import uniform
from graphnet.testing import Sample

IMAGE = (2, 4, 6, 6)
BROKEN: list[tuple[str, Sample, type[Layer], str]] = []


def fails(
    check: str,
    *,
    says: str,
    inputs: Any = (IMAGE,),
    replaces: Any = None,
    starts: Any = MappingProxyType({}),
    **fields: Any,
) -> Any:
    """State the check on which the decorated layer must fail first, and words of its message."""

    def note(cls: type[Layer]) -> type[Layer]:
        layer = cls(**fields) if replaces is None else replaces
        BROKEN.append((check, Sample(layer, inputs, starts=starts), cls, says))
        return cls

    return note


class Twice(Layer):
    """2 x, elementwise. What is right; the layers below break it."""

    def forward(self, x):
        return 2 * x

    def backward(self, grad_y):
        return 2 * grad_y


class Affine(Layer):
    """x * weight + bias over the channels. weight, bias: (C,). What is right."""

    def parameters(self, specs):
        one = ParameterSpec((specs["x"].shape[1],), Constant(1.0))
        return {"weight": one, "bias": one}

    def forward(self, x, weight, bias):
        return x * weight.view(-1, 1, 1) + bias.view(-1, 1, 1)

    def backward(self, grad_y, x, weight):
        axes = (0, 2, 3)
        return grad_y * weight.view(-1, 1, 1), (grad_y * x).sum(axes), grad_y.sum(axes)


class Dropping(Layer):
    """x where a random number is above one half, doubled; 0 elsewhere. What is right."""

    def mask(self, key, x):
        return 2.0 * (uniform(key, x.shape) > 0.5).to(x.dtype)

    def forward(self, x, key):
        return x * self.mask(key, x)

    def backward(self, grad_y, key):
        return grad_y * self.mask(key, grad_y)

    def inference(self, x):
        return x.clone()


class Centered(Layer):
    """x minus a running mean over the batch. mean: (C,), a state. What is right."""

    updates = ("mean",)

    def states(self, specs):
        return {"mean": StateSpec((specs["x"].shape[1],))}

    def forward(self, x, mean):
        return x - mean.view(-1, 1, 1), 0.9 * mean + 0.1 * x.mean((0, 2, 3))

    def backward(self, grad_y):
        return grad_y


RIGHT = (Twice(), Affine(), Dropping(), Centered())

# The basics.


@fails("runs", says="backward must return 3 tensors")
class ForgottenGradient(Affine):
    """x * weight + bias."""

    def backward(self, grad_y, x, weight):
        return grad_y * weight.view(-1, 1, 1), (grad_y * x).sum((0, 2, 3))


@fails("docstring", says="expected a docstring")
class Undocumented(Twice):
    pass


@fails("docstring", says="say what scale is")
class HalfDocumented(Layer):
    """x times a trained number."""

    def parameters(self, specs):
        return {"scale": ParameterSpec((1,), Constant(1.0))}

    def forward(self, x, scale):
        return x * scale

    def backward(self, grad_y, x, scale):
        return grad_y * scale, (grad_y * x).sum().reshape(1)


@fails("json_schema", says="fields that a JSON Schema can describe", dtype=torch.float64)
class TorchField(Twice):
    """2 x, with a field that no file can state."""

    dtype: torch.dtype


@fails("description", says="after writing and reading", factor=2.0)
class ForgetfulField(Layer):
    """x times a factor, which changes whenever it is read."""

    factor: float

    def __post_init__(self):
        object.__setattr__(self, "factor", self.factor * 2)

    def forward(self, x):
        return x * self.factor

    def backward(self, grad_y):
        return grad_y * self.factor


@fails("input_count", says="found IndexError", inputs=(IMAGE, IMAGE))
class CarelessParameters(Layer):
    """x + z + shift. shift: (C,)."""

    def parameters(self, specs):
        other = list(specs.values())[1]
        return {"shift": ParameterSpec((other.shape[1], 1, 1), Constant(1.0))}

    def forward(self, x, z, shift):
        return x + z + shift

    def backward(self, grad_y):
        return grad_y, grad_y, grad_y.sum((0, 2, 3)).view(-1, 1, 1)


# A function of its arguments.


@fails("host_reads", says="_local_scalar_dense")
class HostRead(Twice):
    """2 x, where the largest x is read back first."""

    def forward(self, x):
        return 2 * x if x.max().item() < 1e9 else x


@fails("data_dependent_shapes", says="depends on data")
class Compacted(Layer):
    """The sum of the positive x."""

    def forward(self, x):
        return x[x > 0].sum()

    def backward(self, grad_y, x):
        return grad_y * (x > 0)


@fails("global_random", says="drew from torch's")
class TorchDropout(Dropping):
    """x or 0, drawn from torch's generator."""

    saves = ("kept",)

    def forward(self, x):
        kept = (torch.rand_like(x) > 0.5).to(x.dtype)
        return x * kept, kept

    def backward(self, grad_y, kept):
        return grad_y * kept


@fails("global_random", says="drew from Python's")
class PythonNoise(Twice):
    """2 x plus a number that Python draws."""

    def forward(self, x):
        return 2 * x + python_random.random()


@fails("initializers", says="the given generator alone")
class CarelessStart(Affine):
    """x * weight + bias, started from torch's global generator."""

    def parameters(self, specs):
        one = ParameterSpec((specs["x"].shape[1],), lambda tensor, generator: tensor.normal_())
        return {"weight": one, "bias": one}


@fails("forward_pure", says="leave 'x' alone")
class WritesInput(Twice):
    """2 x, in place."""

    def forward(self, x):
        return x.mul_(2)


@fails("backward_pure", says="leave 'grad_y' alone")
class WritesGradient(Twice):
    """2 x, with a gradient in place."""

    def backward(self, grad_y):
        return grad_y.mul_(2)


@fails("backward_pure", says="leave 'gate' alone")
class WritesSave(Layer):
    """x * sigmoid(x), whose backward reuses the memory of what was saved."""

    saves = ("gate",)

    def forward(self, x):
        gate = x.sigmoid()
        return x * gate, gate

    def backward(self, grad_y, x, gate):
        slope = x * gate * (1 - gate)
        return grad_y * gate.add_(slope)


@fails("states_untouched", says="to leave 'mean' alone")
class SecretUpdate(Centered):
    """x minus a running mean, which is updated on the way."""

    updates = ()

    def forward(self, x, mean):
        mean.mul_(0.9).add_(x.mean((0, 2, 3)), alpha=0.1)
        return x - mean.view(-1, 1, 1)


@fails("states_untouched", says="inference to leave 'mean' alone")
class LearnsFromTests(Centered):
    """x minus a running mean, which follows test images too."""

    def inference(self, x, mean):
        mean.mul_(0.9).add_(x.mean((0, 2, 3)), alpha=0.1)
        return x - mean.view(-1, 1, 1)


@fails("forward_repeats", says="the second time")
class Counting(Twice):
    """2 x plus the number of calls so far."""

    calls = itertools.count()

    def forward(self, x):
        return 2 * x + next(self.calls)


@fails("backward_repeats", says="graphnet adds them up")
class Accumulating(Twice):
    """2 x, adding its gradients up by itself."""

    total: ClassVar[dict[str, Any]] = {}

    def backward(self, grad_y):
        name = str(grad_y.shape) + str(grad_y.device)
        self.total[name] = self.total.get(name, torch.zeros_like(grad_y)) + 2 * grad_y
        return self.total[name].clone()


@fails("interleaved_calls", says="because another forward ran in between")
class StaleSave(Layer):
    """x^2, whose backward takes x from the latest forward."""

    latest: ClassVar[dict[str, Any]] = {}

    def forward(self, x):
        self.latest["x"] = x.clone()
        return x * x

    def backward(self, grad_y):
        return 2 * self.latest["x"] * grad_y


@fails("interleaved_calls", says="an earlier forward changed")
class ReusedBuffer(Layer):
    """x^2, whose saved values share one buffer."""

    saves = ("slope",)
    buffers: ClassVar[dict[Any, Any]] = {}

    def forward(self, x):
        buffer = self.buffers.setdefault((x.shape, x.dtype, x.device), torch.empty_like(x))
        return x * x, torch.mul(x, 2, out=buffer)

    def backward(self, grad_y, slope):
        return slope * grad_y


# Shapes, dtypes, devices.


@fails("devices", says="made one on cpu")
class OnCPU(Layer):
    """x plus 0, 1, 2, ... along its width."""

    def forward(self, x):
        return x + torch.arange(x.shape[-1], dtype=x.dtype)

    def backward(self, grad_y):
        return grad_y.clone()


@fails("forward_observed", says="as on meta tensors, found 2x4x6x6 float32")
class TwoFaced(Layer):
    """x, in float32 on real devices."""

    def forward(self, x):
        return x.clone() if x.is_meta else x.float()

    def backward(self, grad_y):
        return grad_y.double()


@fails("forward_observed", says="a view of 'x'")
class SometimesView(Layer):
    """x itself on real devices, a copy on meta."""

    def forward(self, x):
        return x.clone() if x.is_meta else x.view_as(x)

    def backward(self, grad_y):
        return grad_y.clone()


@fails("dtypes", says="found torch.float32")
class WrongDtype(Layer):
    """2 x, always in float32."""

    def forward(self, x):
        return 2 * x.float()

    def backward(self, grad_y, specs):
        return 2 * grad_y.to(specs["x"].dtype)


@fails("nondifferentiable", says="a slope of", inputs=(IMAGE, IMAGE))
class ForgottenFactor(Layer):
    """x * z, where z is declared to have no gradient."""

    nondifferentiable = ("z",)

    def forward(self, x, z):
        return x * z

    def backward(self, grad_y, z):
        return grad_y * z, None


@fails(
    "runs",
    says="input 'index': expected a tensor of float32, float64, bfloat16 or float16, got 3 int64",
    inputs=((5, 3), torch.tensor([0, 2, 4])),
)
class UndeclaredIndex(Layer):
    """Rows of x. index: (N,), int64."""

    def forward(self, x, index):
        return x.index_select(0, index)

    def backward(self, grad_y, index, specs):
        return grad_y.new_zeros(specs["x"].shape).index_add(0, index, grad_y), None


@fails("parameter_gradients", says="parameter 'bias', found None")
class NoBiasGradient(Affine):
    """x * weight + bias, where the bias is forgotten."""

    def backward(self, grad_y, x, weight):
        return grad_y * weight.view(-1, 1, 1), (grad_y * x).sum((0, 2, 3)), None


@fails("parameter_gradients", says="parameter 'bias', found zeros")
class ZeroBiasGradient(Affine):
    """x * weight + bias, where the bias is never trained."""

    def backward(self, grad_y, x, weight):
        sums = (grad_y * x).sum((0, 2, 3))
        return grad_y * weight.view(-1, 1, 1), sums, torch.zeros_like(sums)


@fails("gradient_shapes", says="Where forward broadcasts, backward sums")
class ForgottenSum(Affine):
    """x * weight + bias, where the bias's gradient is not summed."""

    def backward(self, grad_y, x, weight):
        return grad_y * weight.view(-1, 1, 1), (grad_y * x).sum((0, 2, 3)), grad_y.clone()


@fails("saves_used", says="does not name 'unused'")
class UnusedSave(Twice):
    """2 x, saving x for nobody."""

    saves = ("unused",)

    def forward(self, x):
        return 2 * x, x.exp()


@fails("saves_used", says="tells its shape")
class KeptForItsShape(Layer):
    """The mean of x."""

    def forward(self, x):
        return x.mean()

    def backward(self, grad_y, x):
        return (grad_y / x.numel()).expand(x.shape)


# The derivative.


@fails("random_replay", says="the random numbers of its forward")
class RedrawnMask(Dropping):
    """x or 0, with another mask in backward."""

    def backward(self, grad_y, key):
        return grad_y * self.mask(key + 1, grad_y)


@fails("random_replay", says="the same for nine keys")
class IgnoredKey(Dropping):
    """x or 0, always the same ones."""

    def mask(self, key, x):
        return super().mask(torch.zeros_like(key), x)


@fails("gradient_linear", says="not linear")
class IgnoredGradient(Twice):
    """2 x, taking the gradient of y for ones."""

    def backward(self, grad_y):
        return torch.full_like(grad_y, 2.0)


@fails("gradient_linear", says="not linear")
class Regularized(Affine):
    """x * weight + bias, with weight decay hidden in the gradient."""

    def backward(self, grad_y, x, weight):
        grad_x, grad_weight, grad_bias = super().backward(grad_y, x, weight)
        return grad_x, grad_weight + 0.1 * weight, grad_bias


@fails("gradient_numerical", says="a sign")
class SignError(Layer):
    """1 / (1 + x^2)."""

    def forward(self, x):
        return 1 / (1 + x * x)

    def backward(self, grad_y, x, y):
        return grad_y * 2 * x * y * y


@fails("gradient_numerical", says="counted twice?")
class CountedTwice(Twice):
    """2 x, with its gradient added to itself."""

    def backward(self, grad_y):
        return 2 * grad_y + 2 * grad_y


@fails("gradient_numerical", says="by central differences")
class WrongMask(Layer):
    """max(x, 0), letting gradients pass on the other side."""

    def forward(self, x):
        return x.clamp_min(0)

    def backward(self, grad_y, x):
        return grad_y * (x < 0)


@fails("gradient_autograd", says="a cast to float32")
class RoundedGradient(Layer):
    """exp(x), with a gradient computed in float32."""

    def forward(self, x):
        return x.exp()

    def backward(self, grad_y, y):
        return (grad_y.float() * y.float()).to(grad_y.dtype)


def _forgets_its_draw(tensor, generator):
    return tensor.normal_(generator=generator).zero_()


@fails("initializers", says="the same numbers for two seeds")
class ForgottenDraw(Affine):
    """x * weight + bias. weight, bias: (C,)."""

    def parameters(self, specs):
        drawn = ParameterSpec((specs["x"].shape[1],), _forgets_its_draw)
        return {"weight": drawn, "bias": drawn}


@fails("axes_of_one", says="with size 1 on axis 1")
class LooksAtTheSecondChannel(Twice):
    """2 x, whose backward takes the shape of a channel from the second one."""

    def backward(self, grad_y):
        zeros = torch.zeros_like(grad_y[:, 1])
        return 2 * grad_y + zeros[:, None]


@fails("overwrites", says="does not give the bits of forward")
class AnotherBoundInPlace(Layer):
    """min(x, 3), in place min(x, 4)."""

    overwrites: ClassVar[dict[str, str]] = {"y": "x"}

    def forward(self, x):
        return x.clamp_max(3.0)

    def forward_(self, x):
        return x.clamp_max_(4.0)

    def backward(self, grad_y, x):
        return grad_y * (x < 3.0)


@fails("starting_values", says="starts from another number", starts={"weight": 1.0, "bias": 0.0})
class BiasedFromTheStart(Affine):
    """x * weight + bias, which should start as x. weight, bias: (C,)."""


@fails("large_inputs", says="central differences")
class FlatTooEarly(Layer):
    """min(max(x, -3), 3), whose gradient is 1 below -3 too."""

    def forward(self, x):
        return x.clamp(-3.0, 3.0)

    def backward(self, grad_y, x):
        return grad_y * (x < 3.0)


@fails("large_inputs", says="not that of torch.autograd")
class SmallTail(Layer):
    """x + a wave that rises from 3 on; its gradient leaves the wave out."""

    def forward(self, x):
        return x + 1e-7 * (x - 3.0).clamp_min(0.0)

    def backward(self, grad_y):
        return grad_y.clone()


@fails("own_memory", says="found a view of")
class KeepsAllSums(Twice):
    """2 x, summed over each image: a row of a table that stays behind it."""

    def forward(self, x):
        return (2 * x).expand(16, *x.shape).contiguous()[0]


@fails("devices", says="on cpu", inputs=((2, 4, 6, 6),))
class LastOnTheHost(Twice):
    """2 x, for which a table is made on the CPU if the channels come last in memory."""

    def forward(self, x):
        return 2 * x if x.is_contiguous() else x * (2 * torch.ones(x.shape))


@fails("forward_pure", says="inference to leave 'x' alone")
class WritingInference(Twice):
    """2 x, in inference by writing to x."""

    def inference(self, x):
        return x.mul_(2)


@fails("affine_map", says="in torch.float64")
class RoundMap(Affine):
    """x * weight + bias. weight, bias: (C,)."""

    def affine_map(self, weight, bias):
        return weight.clone(), bias.float()


@fails("gradient_at_kinks", says="found nan")
class ZeroByZero(Layer):
    """|x|, whose gradient at 0 is 0 / 0."""

    def forward(self, x):
        return x.abs()

    def backward(self, grad_y, x):
        return grad_y * x / x.abs()


@fails("gradient_at_kinks", says="ties")
class AllWinners(Layer):
    """The largest x in each row of an image; equal ones all get the gradient."""

    def forward(self, x):
        return x.amax(-1, keepdim=True)

    def backward(self, grad_y, x, y):
        return grad_y * (x == y)


@fails("gradient_at_kinks", says="masks")
class WrongSideAtKink(Layer):
    """min(|x|, 1): flat from 1 on, where the mask forgets the kink's own side."""

    def forward(self, x):
        return x.abs().clamp_max(1.0)

    def backward(self, grad_y, x):
        return (
            grad_y * ((x > 0).to(x) - (x < 0).to(x)) * torch.where(x.abs() == 1, -1.0, x.abs() < 1)
        )


# In a plan.


@fails("wanted", says="only weight is wanted")
class WrongWhenAlone(Affine):
    """x * weight + bias, where a shortcut forgets a factor."""

    def backward(self, grad_y, x, weight, wanted):
        if "x" not in wanted:
            return None, grad_y.sum((0, 2, 3)), grad_y.sum((0, 2, 3))
        return super().backward(grad_y, x, weight)


class _Split(Layer):
    outputs = ("first", "second")

    def forward(self, x):
        return 2 * x, 3 * x


@fails("unused_outputs", says="grad_second=None")
class UnusedSecond(_Split):
    """2 x and 3 x."""

    def backward(self, grad_first, grad_second=None):
        if grad_second is None:
            return 5 * grad_first
        return 2 * grad_first + 3 * grad_second


@fails("gradient_of_one", says="grad_y=1.0 gives something else")
class HalfOfOne(Twice):
    """2 x, whose gradient is forgotten if nothing scales it."""

    def backward(self, grad_y=1.0):
        return 2 * grad_y if isinstance(grad_y, torch.Tensor) else torch.ones(IMAGE)


@fails("same_tensor_twice", says="are the same tensor", inputs=(IMAGE, IMAGE))
class Identical(Layer):
    """x * z, which looks whether they are one."""

    def forward(self, x, z):
        return x * z

    def backward(self, grad_y, x, z):
        return (grad_y * x, grad_y * x * 3) if x is z else (grad_y * z, grad_y * x)


# What is declared.


@fails("inference", says="the inference output is not that of forward")
class OtherInference(Twice):
    """2 x, and x outside training."""

    def inference(self, x):
        return x.clone()


@fails("affine_map", says="the inference output is not scale * input + shift")
class ForgottenShift(Affine):
    """x * weight + bias over the channels, of which only the scale is told."""

    def affine_map(self, weight, bias):
        return weight.clone(), torch.zeros_like(bias)


@fails("absorb", says="the output is not scale * output + shift")
class UnscaledBias(Affine):
    """x * weight + bias over the channels; a scale leaves the bias as it is."""

    def absorb(self, weight, bias, scale, shift):
        return weight * scale, bias + shift


@fails("pointwise", says="others matter")
class FalsePointwise(Layer):
    """x minus its mean along the width."""

    pointwise = True

    def forward(self, x):
        return x - x.mean(-1, keepdim=True)

    def backward(self, grad_y):
        return grad_y - grad_y.mean(-1, keepdim=True)


@fails("pointwise", says="changes with its place")
class PlaceDependent(Layer):
    """x times 1, 2, 3, ... along its width."""

    pointwise = True

    def ramp(self, x):
        return torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)

    def forward(self, x):
        return x * self.ramp(x)

    def backward(self, grad_y):
        return grad_y * self.ramp(grad_y)


@fails("window", says="columns 1 to 1 of 'y' to depend on columns 1 to 1 of the inputs alone")
class NarrowWindow(Layer):
    """y[..., j] = x[..., j] + x[..., j - 1]: the pixel to the left counts too."""

    def window(self, rows, axis):
        return rows

    def forward(self, x):
        return x + torch.nn.functional.pad(x, (1, 0))[..., :-1]

    def backward(self, grad_y):
        return grad_y + torch.nn.functional.pad(grad_y, (0, 1))[..., 1:]


@fails("overwrites", says="forward_ does not give the bits of forward")
class OtherInPlace(Twice):
    """2 x, whose method that works in place forgets the factor."""

    overwrites: ClassVar[dict[str, str]] = {"y": "x"}

    def forward_(self, x):
        return x


@fails("overwrites", says="expected forward_ to return 'y' in the storage of 'x'")
class NotInPlace(Twice):
    """2 x, whose method that should work in place does not."""

    overwrites: ClassVar[dict[str, str]] = {"y": "x"}

    def forward_(self, x):
        return 2 * x


@fails("overwrites", says="backward_ to write to grad_y only, found that it wrote to 'y'")
class TooMuchInPlace(Layer):
    """exp(x), whose method that works in place uses y as room for a product."""

    overwrites: ClassVar[dict[str, str]] = {"grad_x": "grad_y"}

    def forward(self, x):
        return x.exp()

    def backward(self, grad_y, y):
        return grad_y * y

    def backward_(self, grad_y, y):
        return grad_y.copy_(y.mul_(grad_y))


# Strides, sizes, dtypes.


@fails("noncontiguous", says="with x transposed")
class StorageOrder(Layer):
    """x^2, whose backward reads x in the order of its storage."""

    def forward(self, x):
        return x * x

    def backward(self, grad_y, x):
        return (
            2
            * grad_y
            * x.as_strided(
                grad_y.shape,
                torch.empty_like(grad_y, memory_format=torch.contiguous_format).stride(),
            )
        )


@fails("noncontiguous", says="with gradients transposed")
class ViewedGradient(Twice):
    """2 x, for gradients that can be viewed as a vector."""

    def backward(self, grad_y):
        return (2 * grad_y.view(-1)).view(grad_y.shape)


@fails("channels_last", says="channels_last")
class WrongChannelsLast(Affine):
    """x * weight + bias, with a special case that is wrong."""

    def forward(self, x, weight, bias):
        if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
            return x * weight.view(-1, 1, 1)
        return super().forward(x, weight, bias)


@fails("expanded", says="expanded")
class WrongExpanded(Twice):
    """2 x, which takes a stride of 0 for an axis of one element."""

    def forward(self, x):
        return (2 if all(x.stride()) else 1) * x


@fails("batch_of_one", says="for a batch of 1")
class Squeezed(Layer):
    """The mean of each image in x, without axes of one element."""

    def forward(self, x):
        return x.mean((1, 2, 3)).squeeze()

    def backward(self, grad_y, specs):
        n, c, h, w = specs["x"].shape
        return (grad_y.reshape(n, 1, 1, 1) / (c * h * w)).expand(n, c, h, w).clone()


@fails("odd_sizes", says="by central differences")
class EvenOnly(Layer):
    """The sum of 2 x 2 blocks, forgetting the last row and column of odd images."""

    def forward(self, x):
        x = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 2, 2, w // 2, 2).sum((3, 5))

    def backward(self, grad_y, specs):
        h, w = specs["x"].shape[2:]
        wide = grad_y.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return torch.nn.functional.pad(
            wide, (0, w - wide.shape[3], 0, h - wide.shape[2]), value=1.0
        )


@fails("empty_batch", says="RuntimeError")
class NoEmptyBatch(Twice):
    """2 x, by way of a reshape that an empty batch leaves open."""

    def forward(self, x):
        return 2 * x.reshape(x.shape[0], -1).reshape(x.shape)


@fails("float32", says="found torch.float64")
class DoubleConstant(Twice):
    """2 x, with a constant in float64."""

    def forward(self, x):
        return x * torch.full((1,), 2.0, dtype=torch.float64, device=x.device)


@fails("float32", says="not that of float64")
class Cancelling(Layer):
    """x, by way of a large number."""

    def forward(self, x):
        return (x + 1e5) - 1e5

    def backward(self, grad_y):
        return grad_y.clone()


@fails("bfloat16", says="not that of float64")
class SmallConstant(Layer):
    """100 x, by way of 1 + x / 100."""

    precision = "compute"

    def forward(self, x):
        return ((x / 100 + 1) - 1) * 1e4

    def backward(self, grad_y):
        return 100 * grad_y


@fails("compiles", says="traced whole")
class Breaking(Twice):
    """2 x, with a graph break."""

    def forward(self, x):
        torch._dynamo.graph_break()
        return 2 * x


@fails("cost", says="A multiply-add is 2")
class WrongCost(Layer):
    """x @ weight. x: (N, C); weight: (C, C)."""

    def parameters(self, specs):
        return {"weight": ParameterSpec((specs["x"].shape[1],) * 2, Constant(0.5))}

    def forward(self, x, weight):
        return x @ weight

    def backward(self, grad_y, x, weight):
        return grad_y @ weight.t(), x.t() @ grad_y

    def cost(self, specs):
        n, c = specs["x"].shape
        return n * c * c


BROKEN[-1] = (BROKEN[-1][0], Sample(WrongCost(), [(2, 6)]), *BROKEN[-1][2:])


@fails("kernel_names", says="found z", replaces=ReLU())
class OtherNames(Kernel):
    """relu under another name."""

    replaces = "relu(x)"

    @classmethod
    def match(cls, site: Site) -> Self | None:
        return cls()

    def forward(self, z):
        return z.relu()

    def backward(self, grad_y, y):
        return grad_y * (y > 0)


@fails("kernel_equals_reference", says="not that of relu(x)", replaces=ReLU())
class LeakyKernel(Kernel):
    """relu that leaks."""

    replaces = "relu(x)"

    @classmethod
    def match(cls, site: Site) -> Self | None:
        return cls()

    def forward(self, x):
        return torch.where(x > 0, x, 0.01 * x)

    def backward(self, grad_y, x):
        return torch.where(x > 0, grad_y, 0.01 * grad_y)


@fails("kernel_at_ties", says="at whole numbers", replaces=ReLU())
class OpenAtZero(Kernel):
    """relu whose gradient at 0 is 1."""

    replaces = "relu(x)"

    @classmethod
    def match(cls, site: Site) -> Self | None:
        return cls()

    def forward(self, x):
        return x.relu()

    def backward(self, grad_y, x):
        return grad_y * (x >= 0)


@fails("kernel_equals_reference", says="the new state is not that of", replaces=BatchNorm2d())
class StandingVariance(AtenBatchNorm2d):
    """batch_norm2d whose running variance stays where it is."""

    def forward(self, x, weight, bias, running_mean, running_var):
        *results, _ = super().forward(x, weight, bias, running_mean, running_var)
        return *results, running_var.clone()


@fails("kernel_equals_reference", says="inference output is not that of", replaces=BatchNorm2d())
class BatchAtPrediction(AtenBatchNorm2d):
    """batch_norm2d that predicts by the batch's own mean."""

    def inference(self, x, weight, bias, running_mean, running_var):
        return self.forward(x, weight, bias, running_mean, running_var)[0]


@fails("runs", says="returns None for all", replaces=ReLU())
class NeverKernel(LeakyKernel):
    """relu that never matches."""

    @classmethod
    def match(cls, site: Site) -> Self | None:
        return None


@fails("kept_rounded", says="kept in bfloat16")
class RoundsTheGradientToo(Affine):
    """x * weight + bias over the channels, whose backward computes in what was kept. weight, bias: (C,)."""

    kept: ClassVar[tuple[str, ...]] = ("x",)

    def backward(self, grad_y, x, weight):
        _, grad_weight, grad_bias = super().backward(grad_y.to(x.dtype), x, weight)
        return (
            grad_y * weight.view(-1, 1, 1),
            grad_weight.to(grad_y.dtype),
            grad_bias.to(grad_y.dtype),
        )


@fails("declared_errors", says="the inputs are accepted", inputs=((2, 3),))
class Tolerant(Twice):
    """2 x, which should refuse what is no image."""


BROKEN[-1] = (
    "declared_errors",
    Sample(Tolerant(), [(2, 3)], raises=GraphError),
    Tolerant,
    "accepted",
)


@fails("examples", says="Expected:")
class WrongExample(Twice):
    """2 x, elementwise, x of any shape.

    >>> WrongExample().forward(torch.tensor([1.5]))
    tensor([4.])
    """


@fails("ranks", says="on an input of 0 axes")
class OneAxisAtLeast(Twice):
    """2 x, elementwise, by way of the last axis of x."""

    pointwise = True

    def forward(self, x):
        return torch.cat((2 * x[..., :1], 2 * x[..., 1:]), -1)


@fails("float16", says="not that of float64")
class LargeConstant(Layer):
    """x / 100, by way of numbers that float16 does not have."""

    precision = "compute"

    def forward(self, x):
        return x * 1e5 / 1e7

    def backward(self, grad_y):
        return grad_y / 100


@fails("expected_values", says="forward gives another value", inputs=((2, 3),))
class AnotherLayer(Twice):
    """2 x, in the place of 3 x. x: any shape."""


BROKEN[-1] = (
    "expected_values",
    Sample(AnotherLayer(), [(2, 3)], expected=lambda x: 3 * x),
    AnotherLayer,
    "forward gives another value",
)


@fails("fields_matter", says="expected the field 'twice' to change something")
class UnusedFlag(Twice):
    """2 x, whatever the flag says. x: any shape."""

    twice: bool = True


@fails("absorb", says="expected absorb to leave 'shift' alone")
class WritesWhileAbsorbing(Affine):
    """x * weight + bias over the channels, whose absorb writes. weight, bias: (C,)."""

    def absorb(self, weight, bias, scale, shift):
        moved = bias * scale + shift
        shift.zero_()
        return weight * scale, moved


@fails("distributed", says="as the mean of those of its halves", inputs=((4, 3), (4, 3)))
class SquaredSum(Loss):
    """sum((prediction - target)^2), whose parts would have to be added up."""

    nondifferentiable = ("target",)

    def forward(self, prediction, target):
        return (prediction - target).square().sum()

    def backward(self, grad_loss, prediction, target):
        return grad_loss * 2 * (prediction - target), None


@fails("distributed", says="its parts on two halves of a batch return something else")
class HalfSynced(Layer):
    """x - mean of x over the batch; its second part reads the mean of the first process alone. x: (N, C)."""

    def across_processes(self):
        return MeanOfBatch(), MinusFirstMean()

    def forward(self, x):
        return x - x.mean(0)

    def backward(self, grad_y):
        return grad_y - grad_y.mean(0)


class MeanOfBatch(Layer):
    """mean of x over the batch."""

    def forward(self, x):
        return x.mean(0)

    def backward(self, grad_y, x):
        return (grad_y / len(x)).expand_as(x)


class MinusFirstMean(Layer):
    """x - statistics[0]."""

    def forward(self, x, statistics):
        return x - statistics[0]

    def backward(self, grad_y, statistics):
        grad_statistics = torch.zeros_like(statistics)
        grad_statistics[0] = -grad_y.sum(0)
        return grad_y, grad_statistics


@fails("distributed", says="the new state 'seen' in floating point")
class CountingBatches(Twice):
    """2 x, with a count of batches in integers."""

    updates = ("seen",)

    def states(self, specs):
        return {"seen": StateSpec((), dtype=torch.int64)}

    def forward(self, x, seen):
        return 2 * x, seen + 1

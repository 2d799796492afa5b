"""Layers of many kinds that are right: the kit must not bark at any of them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch

from graphnet.errors import GraphError
from graphnet.sdk import Constant, Layer, Loss, ParameterSpec, StateSpec, Uniform
from graphnet.testing import Sample


class BatchNorm(Layer):
    """(x - mean) / sqrt(var + eps) * gamma + beta over N, H, W (Ioffe & Szegedy 2015, alg. 1).

    x: (N, C, H, W); gamma, beta: (C,). running_mean and running_var follow in training.
    """

    saves = ("normal", "scale")
    updates = ("running_mean", "running_var")
    eps: float = 1e-5

    def parameters(self, specs):
        c = (specs["x"].shape[1],)
        return {"gamma": ParameterSpec(c, Constant(1.0)), "beta": ParameterSpec(c, Constant(0.0))}

    def states(self, specs):
        c = (specs["x"].shape[1],)
        return {"running_mean": StateSpec(c), "running_var": StateSpec(c, Constant(1.0))}

    def forward(self, x, gamma, beta, running_mean, running_var):
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        scale = (var + self.eps).rsqrt()
        normal = (x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1)
        y = normal * gamma.view(-1, 1, 1) + beta.view(-1, 1, 1)
        return y, normal, scale, running_mean.lerp(mean, 0.1), running_var.lerp(var, 0.1)

    def backward(self, grad_y, normal, scale, gamma):
        axes = (0, 2, 3)
        grad_gamma, grad_beta = (grad_y * normal).sum(axes), grad_y.sum(axes)
        count = max(1, grad_y.numel() // grad_y.shape[1])
        means = (grad_beta / count).view(-1, 1, 1), (grad_gamma / count).view(-1, 1, 1)
        grad_x = grad_y - means[0] - normal * means[1]
        return grad_x * (scale * gamma).view(-1, 1, 1), grad_gamma, grad_beta

    def inference(self, x, gamma, beta, running_mean, running_var):
        scale = gamma * (running_var + self.eps).rsqrt()
        return (x - running_mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + beta.view(-1, 1, 1)


class MaxPool(Layer):
    """The largest x in each 2 x 2 block; its first place gets the gradient. H and W are even."""

    saves = ("place",)

    def blocks(self, x):
        n, c, h, w = x.shape
        if h % 2 or w % 2:
            raise GraphError(f"expected an even height and width, got {h}x{w}")
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(3, 4)
        return x.reshape(n, c, h // 2, w // 2, 4)

    def forward(self, x):
        y, place = self.blocks(x).max(-1)
        return y, place

    def backward(self, grad_y, place, specs):
        n, c, h, w = specs["x"].shape
        blocks = grad_y.new_zeros((n, c, h // 2, w // 2, 4))
        blocks = blocks.scatter(-1, place.unsqueeze(-1), grad_y.unsqueeze(-1))
        return blocks.view(n, c, h // 2, w // 2, 2, 2).transpose(3, 4).reshape(n, c, h, w)


class Softmax(Layer):
    """exp(x) / sum(exp(x)) along the last axis."""

    def forward(self, x):
        return x.softmax(-1)

    def backward(self, grad_y, y):
        return y * (grad_y - (grad_y * y).sum(-1, keepdim=True))


class PReLU(Layer):
    """x above 0, slope * x below. slope: (C, 1, 1)."""

    pointwise = True

    def parameters(self, specs):
        return {"slope": ParameterSpec((specs["x"].shape[1], 1, 1), Constant(0.25))}

    def forward(self, x, slope):
        return torch.where(x > 0, x, slope * x)

    def backward(self, grad_y, x, slope):
        below = torch.where(x > 0, 0.0, grad_y)
        return torch.where(x > 0, grad_y, slope * grad_y), (below * x).sum((0, 2, 3)).view(-1, 1, 1)


class GELU(Layer):
    """x Phi(x), elementwise (Hendrycks & Gimpel 2016, eq. 1)."""

    pointwise = True

    def forward(self, x):
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))

    def backward(self, grad_y, x):
        cdf = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        return grad_y * (cdf + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))


class Linear(Layer):
    """x weight^T + bias. x: (..., C); weight: (O, C); bias: (O,) or absent."""

    out_features: int
    bias: bool = True

    def parameters(self, specs):
        c = specs["x"].shape[-1]
        start = Uniform(1 / math.sqrt(c))
        bias = ParameterSpec((self.out_features,), start) if self.bias else None
        return {"weight": ParameterSpec((self.out_features, c), start), "bias": bias}

    def forward(self, x, weight, bias):
        y = x @ weight.t()
        return y if bias is None else y + bias

    def backward(self, grad_y, x, weight, wanted):
        flat = grad_y.reshape(-1, self.out_features)
        grad_weight = flat.t() @ x.reshape(-1, weight.shape[1]) if "weight" in wanted else None
        return grad_y @ weight, grad_weight, flat.sum(0) if "bias" in wanted else None

    def cost(self, specs):
        product = 2 * specs["x"].numel * self.out_features
        return {"forward": product, "backward": 2 * product}


class Embedding(Layer):
    """Rows of a table. index: any shape, int64, below 5; table: (5, 3)."""

    nondifferentiable = ("index",)

    def parameters(self, specs):
        return {"table": ParameterSpec((5, 3), Uniform(1.0))}

    def forward(self, index, table):
        return table[index]

    def backward(self, grad_y, index, specs):
        rows = grad_y.new_zeros(specs["table"].shape)
        return None, rows.index_add(0, index.flatten(), grad_y.reshape(-1, 3))

    @classmethod
    def samples(cls) -> list[Any]:
        return [(cls(), [torch.tensor([[0, 4, 4], [1, 2, 0]])])]


class Halves(Layer):
    """The two halves of x's channels, views of it; nobody need use both."""

    outputs = ("first", "second")

    def forward(self, x):
        if x.shape[1] % 2:
            raise GraphError("expected an even number of channels")
        first, second = x.chunk(2, 1)
        return first, second

    def backward(self, grad_first=None, grad_second=None):
        if grad_first is None:
            grad_first = torch.zeros_like(grad_second)
        if grad_second is None:
            grad_second = torch.zeros_like(grad_first)
        return torch.cat((grad_first, grad_second), 1)


class Huber(Loss):
    """The mean of d^2 / 2 where |d| < 1, of |d| - 1/2 elsewhere; d = prediction - target."""

    nondifferentiable = ("target",)

    def forward(self, prediction, target):
        size = (prediction - target).abs()
        return torch.where(size < 1, 0.5 * size * size, size - 0.5).mean()

    def backward(self, grad_loss, prediction, target):
        difference = (prediction - target).clamp(-1, 1)
        return difference * (grad_loss / max(1, difference.numel())), None


class Tanh(Layer):
    """tanh(x), elementwise; y may overwrite x."""

    pointwise = True
    overwrites: ClassVar[dict[str, str]] = {"y": "x", "grad_x": "grad_y"}

    def forward(self, x):
        return x.tanh()

    def forward_(self, x):
        return x.tanh_()

    def backward(self, grad_y, y):
        return grad_y * (1 - y * y)

    def backward_(self, grad_y, y):
        return grad_y.mul_(1 - y * y)


class StraightThrough(Layer):
    """The sign of x, whose gradient is taken for 1 on purpose (Bengio et al. 2013, sec. 4)."""

    def forward(self, x):
        return x.sign()

    def backward(self, grad_y):
        return grad_y.clone()


BY_DESIGN = "a straight-through gradient is not the derivative"
RIGHT: list[tuple[type[Layer], list[Sample] | None]] = [
    (BatchNorm, None),
    (MaxPool, None),
    (Softmax, None),
    (PReLU, None),
    (GELU, None),
    (Linear, None),
    (Linear, [Sample(Linear(out_features=2), [(3, 2, 5)])]),
    (Embedding, None),
    (Halves, None),
    (Huber, None),
    (Tanh, None),
    (
        StraightThrough,
        [
            Sample(
                StraightThrough(),
                [(2, 3, 4, 4)],
                skip=dict.fromkeys(
                    ("gradient_numerical", "gradient_autograd", "gradient_at_kinks"), BY_DESIGN
                ),
            )
        ],
    ),
]

"""Attention over channels: a gate for each channel, and attention between the channels of each head.

Axes: N batch, C channels, H and W of the image, L = H W pixels, c = C / heads channels of a head.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Constant, Layer, ParameterSpec, Precision, Specs, weight_and_bias


class SimplifiedChannelAttention(Layer):
    """Multiplies each channel by a gate, a linear function of the means of all channels.

    Chen et al. 2022 (NAFNet), eq. 6:  y = x * (W pool(x) + bias), with pool the mean over the pixels and
    W the weight of a 1x1 convolution. With g the gradient of y, m = pool(x) and a = W m + bias:
        da = sum over the pixels of g x;  dW = sum over the batch of da m^T;  dbias = sum of da;
        dx = g a + W^T da / L.

    x, y: (N, C, H, W); weight: (C, C, 1, 1); bias: (C,). Any floating dtype. Parameters start as those of
    torch.nn.Conv2d: U(-b, b), b = 1 / sqrt(C). Backward keeps x, and the means and gates, (N, C).

    Raises:
        GraphError: x does not have the axes N C H W.
    """

    saves: ClassVar[tuple[str, ...]] = ("mean", "gate")
    precision: ClassVar[Precision] = "compute"
    kept: ClassVar[tuple[str, ...]] = ("x",)

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        channels = _image(specs["x"].shape)[1]
        return weight_and_bias((channels, channels, 1, 1), (channels,))

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean((2, 3))
        gate = mean @ weight.flatten(1).t() + bias
        return x * gate[..., None, None], mean, gate

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, mean: Tensor, gate: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        grad_gate = (grad_y * x).sum((2, 3))
        grad_mean = grad_gate @ weight.flatten(1) / (x.shape[2] * x.shape[3])
        grad_x = grad_y * gate[..., None, None] + grad_mean[..., None, None]
        return grad_x, (grad_gate.t() @ mean).reshape(weight.shape), grad_gate.sum(0)


class TransposedAttention(Layer):
    """Mixes the channels of each head, weighted by their similarity: attention between channels.

    Zamir et al. 2022 (Restormer), eq. 1, the core of their multi-Dconv head transposed attention. In each
    head q, k and v are c x L matrices, rows of qkv in this order:
        S[i, j] = q[i] . k[j] / (|q[i]| |k[j]|);  A = softmax over j of temperature S;  y = A v,
    with norms of at least 1e-12. With g the gradient of y, and P = temperature S:
        dv = A^T g;  dA = g v^T;  dP = A (dA - sum over j of A dA);
        dtemperature = sum dP S, over batch, i and j;  dS = temperature dP;  M = dS / (|q| |k|^T);
        dq = M k - q (sum over j of dS S) / |q|^2;  dk = M^T q - k (sum over i of dS S) / |k|^2.

    qkv: (N, 3C, H, W); temperature: (num_heads, 1, 1), starts at 1; y: (N, C, H, W). Any floating dtype; S
    and A are computed in float32 at least. The 1x1 and depthwise convolutions around the attention are other
    layers. Backward keeps qkv, S and A (N, num_heads, c, c), and the norms (N, 2, num_heads, c).

    Raises:
        GraphError: qkv does not have the axes N C H W, or 3 num_heads does not divide its channels.

    >>> layer = TransposedAttention(num_heads=1)
    >>> y, *_ = layer.forward(torch.ones(1, 6, 1, 1), torch.ones(1, 1, 1))  # q = k = v, c = 2
    >>> y.flatten()
    tensor([1., 1.])
    """

    saves: ClassVar[tuple[str, ...]] = ("cosine", "attention", "norms")
    precision: ClassVar[Precision] = "compute"
    num_heads: PositiveInt

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[tuple[int, ...]]]]:
        """Samples for the conformance kit, which cannot guess a number of channels that fits the heads."""
        return [(cls(num_heads=2), [(2, 12, 3, 5)]), (cls(num_heads=1), [(2, 6, 4, 4)])]

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        channels = _image(specs["qkv"].shape)[1]
        if channels % (3 * self.num_heads):
            raise GraphError(
                f"expected channels for q, k and v in {self.num_heads} heads, a multiple of "
                f"{3 * self.num_heads}, got {channels}"
            )
        return {"temperature": ParameterSpec((self.num_heads, 1, 1), Constant(1.0))}

    def heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split qkv into q, k and v, each (N, heads, c, L)."""
        n, channels, h, w = qkv.shape
        size = (n, 3, self.num_heads, channels // (3 * self.num_heads), h * w)
        q, k, v = qkv.reshape(size).unbind(1)
        return q, k, v

    def forward(self, qkv: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n, channels, h, w = qkv.shape
        q, k, v = self.heads(qkv)
        wide = torch.promote_types(qkv.dtype, torch.float32)
        lengths = [torch.linalg.vector_norm(rows, dim=-1, dtype=wide) for rows in (q, k)]
        norms = torch.stack(lengths, 1).clamp_min(_LEAST_NORM)
        if q.dtype == torch.float16:  # a sum over many pixels would overflow in float16
            unit = (q / norms[:, 0, ..., None]).to(q.dtype)
            cosine = (unit @ k.mT) / norms[:, 1, ..., None, :]
        else:
            cosine = (q @ k.mT) / _outer(norms)
        attention = (temperature * cosine).softmax(-1)
        y = attention.to(v.dtype) @ v
        return y.reshape(n, channels // 3, h, w), cosine, attention, norms

    def backward(
        self,
        grad_y: Tensor,
        qkv: Tensor,
        temperature: Tensor,
        cosine: Tensor,
        attention: Tensor,
        norms: Tensor,
    ) -> tuple[Tensor, Tensor]:
        q, k, v = self.heads(qkv)
        g = grad_y.reshape(v.shape)
        grad_attention = g @ v.mT
        weighted = attention * grad_attention
        grad_logits = weighted - attention * weighted.sum(-1, keepdim=True)
        grad_temperature = (grad_logits * cosine).sum((0, 2, 3)).reshape(temperature.shape)
        grad_cosine = grad_logits * temperature
        mixed = (grad_cosine / _outer(norms)).to(q.dtype)
        # Where a norm was replaced by the least norm, its derivative by the row is 0.
        turned = grad_cosine * cosine
        radial = torch.stack((turned.sum(3), turned.sum(2)), 1) / norms.square()
        along_q, along_k = (
            radial.masked_fill(norms <= _LEAST_NORM, 0).to(q.dtype)[..., None].unbind(1)
        )
        grad_q = mixed @ k - along_q * q
        grad_k = mixed.mT @ q - along_k * k
        grad_v = attention.to(g.dtype).mT @ g
        return torch.stack((grad_q, grad_k, grad_v), 1).reshape(qkv.shape), grad_temperature


_LEAST_NORM = 1e-12


def _outer(norms: Tensor) -> Tensor:
    """Return |q[i]| |k[j]|, (N, heads, c, c), from norms (N, 2, heads, c)."""
    q, k = norms.unbind(1)
    return q[..., :, None] * k[..., None, :]


def _image(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 4:
        raise GraphError(f"expected an input N x C x H x W, got {shape}")
    return shape

"""ATen kernels of layers on sequences: embedding, norms over the last axes, softmax, attention."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.layers.dot_attention import Attention, merged
from graphnet.builtin.layers.embedding import Embedding
from graphnet.builtin.layers.feature_norm import LayerNorm, RMSNorm
from graphnet.builtin.layers.softmax import LogSoftmax, Softmax
from graphnet.sdk import Kernel, Layer, Site

_aten = torch.ops.aten


class AtenEmbedding(Kernel):
    """embedding with aten's gradient of the table."""

    replaces = "embedding(indices, weight)"
    nondifferentiable: ClassVar[tuple[str, ...]] = ("indices",)
    rows: int
    padding: int

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,) = site.layers
        assert isinstance(layer, Embedding)
        padding = -1 if layer.padding is None else layer.padding
        return cls(rows=layer.num_embeddings, padding=padding)

    def forward(self, indices: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = _aten.embedding.default(weight, indices, self.padding)
        return y

    def backward(self, grad_y: Tensor, indices: Tensor) -> tuple[None, Tensor]:
        grad: Tensor = _aten.embedding_dense_backward.default(
            grad_y, indices, self.rows, self.padding, False
        )
        return None, grad


class AtenLayerNorm(Kernel):
    """layer_norm by aten's operators, in one pass; it does not match empty inputs."""

    replaces = "layer_norm(x, weight, bias)"
    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    shape: tuple[int, ...]
    eps: float

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, LayerNorm)
        if x is None or not x.numel:
            return None
        return cls(shape=layer.normalized_shape or x.shape[-1:], eps=layer.eps)

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        results: tuple[Tensor, Tensor, Tensor] = _aten.native_layer_norm.default(
            x, self.shape, weight, bias, self.eps
        )
        return results

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        wanted: frozenset[str],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        mask = ["x" in wanted, "weight" in wanted, "bias" in wanted]
        bias = weight  # aten reads its shape only
        grads: tuple[Tensor | None, Tensor | None, Tensor | None] = (
            _aten.native_layer_norm_backward.default(
                grad_y, x, self.shape, mean, inverse_std, weight, bias, mask
            )
        )
        return grads


class FusedRMSNorm(Kernel):
    """rms_norm in fewer passes over x; torch has its backward as one operator on GPUs only.

    The sum over the features in its backward is a product of a matrix with weight.
    """

    replaces = "rms_norm(x, weight)"
    saves: ClassVar[tuple[str, ...]] = ("inverse_rms",)
    axes: int
    eps: float | None

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,) = site.layers
        assert isinstance(layer, RMSNorm)
        return cls(axes=len(layer.axes), eps=layer.eps)

    def rows(self, x: Tensor) -> Tensor:
        """View x, or a copy of it, as rows of features."""
        return x.reshape(-1, math.prod(x.shape[-self.axes :]))

    def forward(self, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        rows = self.rows(x)
        norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        inverse_rms = norm.square_().div_(rows.shape[1]).add_(eps).rsqrt_()
        y = rows * inverse_rms
        if weight is not None:
            y.mul_(weight.reshape(-1))
        return y.view(x.shape), inverse_rms

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor | None, inverse_rms: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        g, z = self.rows(grad_y), self.rows(x) * inverse_rms
        product = g * z
        if weight is None:
            mean, grad_weight, h = product.mean(1, keepdim=True), None, product.copy_(g)
        else:
            scale = weight.reshape(-1)
            mean = (product @ scale).div_(scale.numel()).unsqueeze(1)
            grad_weight = product.sum(0).view(weight.shape)
            h = torch.mul(g, scale, out=product)
        return h.addcmul_(z, mean, value=-1).mul_(inverse_rms).view(x.shape), grad_weight


class AtenSoftmax(Kernel):
    """softmax with its gradient as one operator."""

    replaces = "softmax(x)"
    dim: int

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,) = site.layers
        assert isinstance(layer, Softmax)
        return cls(dim=layer.dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten._softmax.default(x, self.dim, False)
        return y

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten._softmax_backward_data.default(grad_y, y, self.dim, y.dtype)
        return grad


class AtenLogSoftmax(Kernel):
    """log_softmax with its gradient as one operator."""

    replaces = "log_softmax(x)"
    dim: int

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,) = site.layers
        assert isinstance(layer, LogSoftmax)
        return cls(dim=layer.dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten._log_softmax.default(x, self.dim, False)
        return y

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten._log_softmax_backward_data.default(grad_y, y, self.dim, y.dtype)
        return grad


class FlashAttention(Kernel):
    """attention by torch's flash attention for CPUs (Dao et al. 2022), which never stores all of A.

    It is for q and v of equal features, on a CPU. Backward keeps q, k, v, y, and a number for each query.
    """

    replaces = "attention(q, k, v)"
    saves: ClassVar[tuple[str, ...]] = ("logsumexp",)
    num_heads: int
    causal: bool

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), q, k, v = site.layers, *(site.specs[name] for name in "qkv")
        assert isinstance(layer, Attention)
        if site.device.type != "cpu" or q is None or k is None or v is None:
            return None
        if v.shape[2] != q.shape[2] or 0 in (*q.shape, *k.shape):
            return None
        return cls(num_heads=layer.num_heads, causal=layer.causal)

    def heads(self, x: Tensor) -> Tensor:
        """View (N, T, h d) as (N, h, T, d); the operator needs the features of a head side by side."""
        n, t, features = x.shape
        return x.contiguous().view(n, t, self.num_heads, features // self.num_heads).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        y, logsumexp = _aten._scaled_dot_product_flash_attention_for_cpu.default(
            self.heads(q), self.heads(k), self.heads(v), 0.0, self.causal
        )
        return merged(y), logsumexp

    def backward(
        self, grad_y: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, logsumexp: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, out, g = map(self.heads, (q, k, v, y, grad_y))
        grads = _aten._scaled_dot_product_flash_attention_for_cpu_backward.default(
            g, query, key, value, out, logsumexp, 0.0, self.causal
        )
        grad_q, grad_k, grad_v = map(merged, grads)
        return grad_q, grad_k, grad_v


KERNELS: dict[str, type[Layer]] = {
    "aten/embedding": AtenEmbedding,
    "aten/layer_norm": AtenLayerNorm,
    "aten/rms_norm": FusedRMSNorm,
    "aten/softmax": AtenSoftmax,
    "aten/log_softmax": AtenLogSoftmax,
    "aten/attention": FlashAttention,
}

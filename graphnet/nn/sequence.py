"""The modules of sequences and classifiers: embeddings, attention, norms, recurrent layers, losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphnet.nn.module import Module, layer_named
from graphnet.sdk import Spec


class Embedding(Module):
    """A trained vector for each token, with the arguments of torch.nn.Embedding.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> Embedding(10, 4)(torch.tensor([[1, 2, 9]])).shape
    torch.Size([1, 3, 4])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        **options: Any,
    ) -> None:
        layer = layer_named(
            "embedding",
            num_embeddings=num_embeddings,
            embedding_dim=embedding_dim,
            padding_idx=padding_idx,
        )
        super().__init__(layer, specs=[Spec((1,), torch.int64)], **options)


class PositionEmbedding(Module):
    """Adds a trained vector for each of at most `max_length` positions to (N, T, D).

    >>> PositionEmbedding(max_length=8, features=4)(torch.zeros(2, 5, 4)).shape
    torch.Size([2, 5, 4])
    """

    def __init__(self, max_length: int, features: int, **options: Any) -> None:
        layer = layer_named("position_embedding", max_length=max_length)
        super().__init__(layer, specs=[_spec((1, 1, features), options)], **options)


class Attention(Module):
    """Scaled dot-product attention of (query, key, value), each (N, T, features of all heads).

    >>> x = torch.ones(2, 5, 8)
    >>> Attention(num_heads=2, causal=True)(x, x, x).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, num_heads: int, causal: bool = False, **options: Any) -> None:
        super().__init__(layer_named("attention", num_heads=num_heads, causal=causal), **options)


class Linear(Module):
    """A linear map of the last axis, with the arguments of torch.nn.Linear.

    >>> Linear(4, 3)(torch.ones(2, 5, 4)).shape
    torch.Size([2, 5, 3])
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, **options: Any
    ) -> None:
        layer = layer_named("linear", in_features=in_features, out_features=out_features, bias=bias)
        super().__init__(layer, specs=[_spec((1, in_features), options)], **options)


class LayerNorm(Module):
    """Layer norm over the last axes, with the arguments of torch.nn.LayerNorm.

    >>> LayerNorm(2)(torch.tensor([1.0, 3.0]))
    tensor([-1.0000,  1.0000])
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        **options: Any,
    ) -> None:
        shape = _sizes(normalized_shape)
        layer = layer_named(
            "layer_norm",
            normalized_shape=shape,
            eps=eps,
            elementwise_affine=elementwise_affine,
            bias=bias,
        )
        super().__init__(layer, specs=[_spec(shape, options)], **options)


class RMSNorm(Module):
    """Division by the root mean square of the last axes, with the arguments of torch.nn.RMSNorm.

    >>> RMSNorm(2)(torch.tensor([3.0, -3.0]))
    tensor([ 1., -1.])
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        **options: Any,
    ) -> None:
        shape = _sizes(normalized_shape)
        layer = layer_named(
            "rms_norm", normalized_shape=shape, eps=eps, elementwise_affine=elementwise_affine
        )
        super().__init__(layer, specs=[_spec(shape, options)], **options)


class Softmax(Module):
    """Softmax over one axis.

    >>> Softmax()(torch.zeros(2))
    tensor([0.5000, 0.5000])
    """

    def __init__(self, dim: int = -1, **options: Any) -> None:
        super().__init__(layer_named("softmax", dim=dim), **options)


class LogSoftmax(Module):
    """The logarithm of softmax over one axis.

    >>> LogSoftmax()(torch.zeros(2))
    tensor([-0.6931, -0.6931])
    """

    def __init__(self, dim: int = -1, **options: Any) -> None:
        super().__init__(layer_named("log_softmax", dim=dim), **options)


class Flatten(Module):
    """Joins axes into one, with the arguments of torch.nn.Flatten.

    >>> Flatten()(torch.ones(2, 3, 4)).shape
    torch.Size([2, 12])
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1, **options: Any) -> None:
        super().__init__(layer_named("flatten", start_dim=start_dim, end_dim=end_dim), **options)


class Reshape(Module):
    """Gives each sample another shape; one size may be -1.

    >>> Reshape(3, -1)(torch.ones(2, 12)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, *shape: int, **options: Any) -> None:
        super().__init__(layer_named("reshape", shape=shape), **options)


class Permute(Module):
    """Puts the axes, the batch included, into another order.

    >>> Permute(0, 2, 1)(torch.ones(2, 3, 4)).shape
    torch.Size([2, 4, 3])
    """

    def __init__(self, *dims: int, **options: Any) -> None:
        super().__init__(layer_named("permute", dims=dims), **options)


class Mean(Module):
    """The mean over one axis or several.

    >>> Mean(1)(torch.tensor([[1.0, 3.0]]))
    tensor([2.])
    """

    def __init__(self, dim: int | Sequence[int], keepdim: bool = False, **options: Any) -> None:
        super().__init__(layer_named("mean", dim=_sizes(dim), keepdim=keepdim), **options)


class _Recurrent(Module):
    _name: str

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, **options: Any
    ) -> None:
        layer = layer_named(self._name, hidden_size=hidden_size, bias=bias)
        super().__init__(layer, specs=[_spec((1, 1, input_size), options)], **options)


class LSTM(_Recurrent):
    """Long short-term memory: the states (N, T, hidden_size) of all steps of (N, T, input_size).

    >>> LSTM(3, 5)(torch.ones(2, 7, 3)).shape
    torch.Size([2, 7, 5])
    """

    _name = "lstm"


class GRU(_Recurrent):
    """A gated recurrent unit: the states (N, T, hidden_size) of all steps of (N, T, input_size).

    >>> GRU(3, 5)(torch.ones(2, 7, 3)).shape
    torch.Size([2, 7, 5])
    """

    _name = "gru"


class CrossEntropy(Module):
    """Cross entropy of logits (N, C, ...) and labels (N, ...); `backward()` returns the logits' gradient.

    >>> criterion = CrossEntropy()
    >>> float(criterion(torch.zeros(1, 2), torch.tensor([1])))
    0.6931471824645996
    >>> criterion.backward()
    tensor([[ 0.5000, -0.5000]])
    """

    def __init__(
        self, ignore_index: int = -100, label_smoothing: float = 0.0, **options: Any
    ) -> None:
        layer = layer_named(
            "cross_entropy", ignore_index=ignore_index, label_smoothing=label_smoothing
        )
        super().__init__(layer, **options)


class NLL(Module):
    """Negative log likelihood of log probabilities (N, C, ...) and labels (N, ...).

    >>> float(NLL()(torch.tensor([[-0.5, -1.0]]), torch.tensor([1])))
    1.0
    """

    def __init__(self, ignore_index: int = -100, **options: Any) -> None:
        super().__init__(layer_named("nll", ignore_index=ignore_index), **options)


class BCEWithLogits(Module):
    """Binary cross entropy of sigmoid(prediction) and a target in 0..1, of one shape.

    >>> BCEWithLogits()(torch.zeros(2), torch.tensor([0.0, 1.0]))
    tensor(0.6931)
    """

    def __init__(self, pos_weight: float = 1.0, **options: Any) -> None:
        layer = layer_named("binary_cross_entropy_with_logits", pos_weight=pos_weight)
        super().__init__(layer, **options)


def _spec(shape: tuple[int, ...], options: dict[str, Any]) -> Spec:
    return Spec(shape, options.get("dtype") or torch.get_default_dtype())


def _sizes(sizes: int | Sequence[int]) -> tuple[int, ...]:
    return (sizes,) if isinstance(sizes, int) else tuple(sizes)

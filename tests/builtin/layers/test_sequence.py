"""Layers on sequences and losses of classifiers, with and without kernels, against torch in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet import as_torch_module, nn
from graphnet.errors import DescriptionError, GraphError, InputError
from graphnet.nn import make
from graphnet.sdk import default_registry
from tests.support.oracle import random_tensor, relative_error

kernels = pytest.mark.parametrize("kernel", ["reference", "aten"])
TOKENS = torch.tensor([[3, 0, 3, 1], [1, 4, 0, 2]])
LABELS = torch.tensor([[2, 0, 1, -100], [1, -100, 2, 2]])


def assert_equals_torch(
    form: Any, expected: Callable[..., Tensor], inputs: list[Tensor], kernel: str
) -> None:
    """The output, and the gradients of floating inputs and parameters, which torch takes after the inputs."""
    module = as_torch_module(form, *inputs, dtype=torch.float64, kernels=kernel)
    floating = [i for i, x in enumerate(inputs) if x.is_floating_point()]
    frozen = "target" in repr(form) or next(iter(form)) in default_registry().losses
    of = floating[:1] if frozen else floating
    mine = [x.clone().requires_grad_(i in of) for i, x in enumerate(inputs)]
    theirs = [x.clone().requires_grad_(i in of) for i, x in enumerate(inputs)]
    y = module(*mine)
    parameters = list(module.parameters())
    copies = [p.detach().clone().requires_grad_() for p in parameters]
    true = expected(*theirs, *copies)
    assert relative_error(y.detach(), true.detach()) <= 1e-10
    grad = random_tensor(true.shape, seed=9)
    found = torch.autograd.grad(y, [*(mine[i] for i in of), *parameters], grad)
    exact = torch.autograd.grad(true, [*(theirs[i] for i in of), *copies], grad)
    for one, other in zip(found, exact, strict=True):
        assert relative_error(one, other) <= 1e-10


@kernels
@pytest.mark.parametrize("padding", [None, 3, -2])
def test_embedding_equals_torch(kernel: str, padding: int | None) -> None:
    form = {"embedding": {"num_embeddings": 5, "embedding_dim": 3, "padding_idx": padding}}

    def expected(tokens: Tensor, weight: Tensor) -> Tensor:
        return F.embedding(tokens, weight, padding_idx=padding)

    assert_equals_torch(form, expected, [TOKENS], kernel)


def test_the_padding_row_starts_at_zero_and_has_no_gradient() -> None:
    embedding = nn.Embedding(5, 3, padding_idx=1)
    embedding(TOKENS)
    embedding.backward(torch.ones(2, 4, 3))
    assert embedding.weight[1].eq(0).all()
    assert not embedding.weight[0].eq(0).any()
    assert embedding.weight.grad.sum(1).tolist() == [6.0, 0.0, 3.0, 6.0, 3.0]


@kernels
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", [(4, 4, 6), (3, 5, 6), (5, 3, 6), (4, 4, 2)])
def test_attention_equals_torch(kernel: str, causal: bool, sizes: tuple[int, int, int]) -> None:
    t, s, features = sizes
    shapes = [(2, t, 6), (2, s, 6), (2, s, features)]
    inputs = [random_tensor(shape, seed=i) for i, shape in enumerate(shapes)]

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(2, (2, -1)).transpose(1, 2)

    def expected(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(*map(heads, (q, k, v)), is_causal=causal)
        return y.transpose(1, 2).flatten(2)

    form = {"attention": {"num_heads": 2, "causal": causal}}
    assert_equals_torch(form, expected, inputs, kernel)


@kernels
@pytest.mark.parametrize("shape", [None, 4, [3, 4]])
@pytest.mark.parametrize("fields", [{}, {"bias": False}, {"elementwise_affine": False}])
def test_layer_norm_equals_torch(kernel: str, shape: Any, fields: dict[str, bool]) -> None:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape or (4,))

    def expected(x: Tensor, *parameters: Tensor) -> Tensor:
        return F.layer_norm(x, sizes, *parameters, eps=1e-3)

    form = {"layer_norm": {"normalized_shape": shape, "eps": 1e-3, **fields}}
    assert_equals_torch(form, expected, [random_tensor((2, 3, 4), seed=1)], kernel)


@kernels
@pytest.mark.parametrize("eps", [None, 0.1])
@pytest.mark.parametrize("affine", [True, False])
def test_rms_norm_equals_torch(kernel: str, eps: float | None, affine: bool) -> None:
    def expected(x: Tensor, *parameters: Tensor) -> Tensor:
        return F.rms_norm(x, (3, 4), *parameters, eps=eps)

    form = {"rms_norm": {"normalized_shape": [3, 4], "eps": eps, "elementwise_affine": affine}}
    assert_equals_torch(form, expected, [random_tensor((2, 3, 4), seed=1)], kernel)


@kernels
@pytest.mark.parametrize("dim", [-1, 1, 0])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_equals_torch(kernel: str, dim: int, name: str) -> None:
    x = 30 * random_tensor((2, 3, 4), seed=1)
    assert_equals_torch({name: {"dim": dim}}, lambda x: getattr(F, name)(x, dim), [x], kernel)


@pytest.mark.parametrize("bias", [True, False])
@kernels
@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
@pytest.mark.parametrize("steps", [1, 5])
def test_recurrent_layers_equal_torch(
    kind: type[torch.nn.RNNBase], kernel: str, bias: bool, steps: int
) -> None:
    theirs = kind(3, 4, bias=bias, batch_first=True, dtype=torch.float64)
    names = [name for name, _ in theirs.named_parameters()]

    def expected(x: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        y: Tensor = torch.func.functional_call(theirs, given, (x,))[0]
        return y

    form = {kind.__name__.lower(): {"hidden_size": 4, "bias": bias}}
    assert_equals_torch(form, expected, [random_tensor((2, steps, 3), seed=1)], kernel)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"flatten": {}}, lambda x: x.flatten(1)),
        ({"flatten": {"start_dim": 0, "end_dim": -2}}, lambda x: x.flatten(0, -2)),
        ({"reshape": {"shape": [4, -1]}}, lambda x: x.reshape(2, 4, 3)),
        ({"permute": {"dims": [2, 0, 1]}}, lambda x: x.permute(2, 0, 1)),
        ({"mean": {"dim": 1}}, lambda x: x.mean(1)),
        ({"mean": {"dim": [0, -1], "keepdim": True}}, lambda x: x.mean((0, -1), keepdim=True)),
        ({"linear": {"out_features": 3, "bias": False}}, F.linear),
        ({"position_embedding": {"max_length": 7}}, lambda x, weight: x + weight[:3]),
    ],
)
def test_layers_on_axes_equal_torch(form: Any, expected: Callable[..., Tensor]) -> None:
    assert_equals_torch(form, expected, [random_tensor((2, 3, 4), seed=1)], "reference")


@kernels
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_equals_torch(kernel: str, smoothing: float) -> None:
    form = {"cross_entropy": {"label_smoothing": smoothing}}

    def expected(x: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(x, target, label_smoothing=smoothing)

    x = random_tensor((2, 3, 4), seed=1)
    assert_equals_torch(form, expected, [x, LABELS], kernel)
    assert_equals_torch(form, expected, [x[:, :, 0], LABELS[:, 0]], kernel)


@kernels
def test_nll_equals_torch(kernel: str) -> None:
    inputs = [random_tensor((2, 3, 4), seed=1), LABELS]
    form = {"nll": {"ignore_index": 2}}
    inputs[1] = inputs[1].clamp_min(0)
    assert_equals_torch(form, lambda x, t: F.nll_loss(x, t, ignore_index=2), inputs, kernel)


@kernels
def test_cross_entropy_of_places_that_do_not_count_is_zero(kernel: str) -> None:
    module = as_torch_module({"cross_entropy": {}}, (2, 3), LABELS[:, 0], kernels=kernel)
    x = random_tensor((2, 3), seed=1, dtype=torch.float32).requires_grad_()
    loss = module(x, torch.full((2,), -100))
    loss.backward()
    assert loss.item() == 0.0
    assert x.grad is not None
    assert not x.grad.any()


@kernels
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_binary_cross_entropy_equals_torch(kernel: str, weight: float) -> None:
    form = {"binary_cross_entropy_with_logits": {"pos_weight": weight}}
    target = random_tensor((2, 3), seed=2).sigmoid()

    def expected(x: Tensor, target: Tensor) -> Tensor:
        given = torch.tensor(weight, dtype=torch.float64)
        return F.binary_cross_entropy_with_logits(x, target, pos_weight=given)

    for scale in (1.0, 500.0):
        inputs = [scale * random_tensor((2, 3), seed=1), target]
        assert_equals_torch(form, expected, inputs, kernel)


@pytest.mark.parametrize(
    ("form", "shapes", "message"),
    [
        ({"embedding": {"num_embeddings": 3, "embedding_dim": 2}}, [(2, 3)], "int64 or int32"),
        ({"attention": {"num_heads": 4}}, [(2, 3, 6)] * 3, "multiples of num_heads"),
        ({"layer_norm": {"normalized_shape": 5}}, [(2, 4)], r"the last axes \[5\]"),
        ({"lstm": {"hidden_size": 5}}, [(2, 4)], "N x T x I"),
        ({"softmax": {"dim": 3}}, [(2, 4)], "an axis 3"),
        (
            {"flatten": {"start_dim": 2, "end_dim": 1}},
            [(2, 4, 3)],
            "the axes 2 to 1, in this order",
        ),
        ({"reshape": {"shape": [5]}}, [(2, 4)], "samples have 4 elements"),
        ({"permute": {"dims": [0, 1]}}, [(2, 4, 3)], "an input of 2 axes"),
        ({"mean": {"dim": [1, -1]}}, [(2, 4)], "each named once"),
        ({"position_embedding": {"max_length": 2}}, [(2, 4, 3)], r"at most max_length \(2\)"),
        ({"cross_entropy": {}}, [(2, 4), (2,)], "expected a target 2 int64"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(form: Any, shapes: Any, message: str) -> None:
    (name,) = form
    module = make(name, **form[name])
    with pytest.raises((GraphError, InputError), match=message):
        module(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"embedding": {"num_embeddings": 3, "embedding_dim": 2, "padding_idx": 3}}, "-3 to 2"),
        ({"reshape": {"shape": [-1, -1]}}, "-1 at most once"),
        ({"permute": {"dims": [0, 2]}}, "each axis from 0 once"),
    ],
)
def test_fields_that_are_wrong_are_refused(form: Any, message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        default_registry().make("layers", form)


def test_modules_of_sequences_train_like_torch() -> None:
    recurrent = nn.LSTM(8, 6, batch_first=True)
    net = nn.Sequential(nn.Embedding(5, 8), recurrent, nn.LayerNorm(6), nn.Linear(6, 3))
    criterion = nn.CrossEntropy()
    pieces = {n: p.clone().requires_grad_() for n, p in net.named_parameters()}
    lstm = torch.nn.LSTM(8, 6, batch_first=True)
    given = {n: pieces[f"1.{n}"] for n, _ in recurrent.named_parameters()}
    h, _ = torch.func.functional_call(lstm, given, (F.embedding(TOKENS, pieces["0.weight"]),))
    h = F.layer_norm(h, (6,), pieces["2.weight"], pieces["2.bias"])
    logits = F.linear(h, pieces["3.weight"], pieces["3.bias"])
    F.cross_entropy(logits.mT, LABELS).backward()
    loss = criterion(net(TOKENS).mT, LABELS)
    net.backward(criterion.backward().mT)
    assert float(loss) == pytest.approx(F.cross_entropy(logits.mT, LABELS).item(), rel=1e-5)
    for name, parameter in net.named_parameters():
        assert relative_error(parameter.grad, pieces[name].grad) < 1e-4, name

"""ssim and ms_ssim against windows as torch's convolutions, scikit-image, differences and by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from graphnet.builtin import SGD
from graphnet.builtin.losses.ssim import MSSSIM, SSIM, SimilarityLoss
from graphnet.errors import DescriptionError, GraphError
from graphnet.graph import as_tuple
from graphnet.model import Model
from graphnet.sdk import Spec
from tests.support.models import SEED
from tests.support.oracle import STRIDES, central_differences, random_tensor, relative_error


def maps(
    x: Tensor, y: Tensor, *, size: int = 11, sigma: float = 1.5, span: float = 1.0
) -> tuple[Tensor, Tensor]:
    """SSIM and its factor without luminance at each place: the textbook's formula, with a 2-D window."""
    at = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    bell = torch.exp(-(at[:, None] ** 2 + at**2) / (2 * sigma**2))
    window = (bell / bell.sum()).expand(x.shape[1], 1, size, size)

    def mean(image: Tensor) -> Tensor:
        return F.conv2d(image, window, groups=x.shape[1])

    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    variance_x, variance_y = mean(x * x) - mean(x) ** 2, mean(y * y) - mean(y) ** 2
    covariance = mean(x * y) - mean(x) * mean(y)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    luminance = (2 * mean(x) * mean(y) + c1) / (mean(x) ** 2 + mean(y) ** 2 + c1)
    return luminance * structure, structure


def ssim(x: Tensor, y: Tensor, **window: Any) -> Tensor:
    return 1 - maps(x, y, **window)[0].mean()


def ms_ssim(x: Tensor, y: Tensor, weights: Sequence[float], **window: Any) -> Tensor:
    total = torch.ones(x.shape[:2], dtype=x.dtype, device=x.device)
    for scale, weight in enumerate(weights):
        whole, structure = maps(x, y, **window)
        part = whole if scale == len(weights) - 1 else structure
        total = total * part.mean((2, 3)) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return 1 - total.mean()


def images(*shape: int, strides: str = "contiguous", **options: Any) -> tuple[Tensor, Tensor]:
    """A target with structures, and a prediction that resembles it."""
    target = random_tensor(shape, seed=1, **options).sigmoid()
    prediction = target + 0.1 * random_tensor(shape, seed=2, strides=strides, **options)
    return prediction, target


def forward(layer: SimilarityLoss, prediction: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = as_tuple(layer.forward(prediction, target))[0]
    return loss


def backward(
    layer: SimilarityLoss, grad_loss: Tensor, prediction: Tensor, target: Tensor
) -> Tensor:
    _, *saved = as_tuple(layer.forward(prediction, target))
    named = dict(zip(layer.saves, saved, strict=True))
    specs = {"prediction": Spec(tuple(prediction.shape))}
    everything = {
        "grad_loss": grad_loss, "prediction": prediction, "target": target, "specs": specs, **named,
    }  # fmt: skip
    asked = {name: everything[name] for name in layer.signature.backward}
    grad, none = layer.backward(**asked)
    assert none is None
    assert isinstance(grad, Tensor)
    return grad


THREE = (0.3, 0.2, 0.5)
CASES: dict[str, tuple[SimilarityLoss, Any, tuple[int, ...]]] = {
    "ssim": (SSIM(), ssim, (2, 3, 17, 20)),
    "ssim small": (SSIM(), ssim, (1, 1, 11, 11)),
    "ssim even window": (
        SSIM(window_size=4, sigma=0.8, data_range=255.0),
        lambda x, y: ssim(x, y, size=4, sigma=0.8, span=255.0),
        (3, 2, 4, 9),
    ),
    "ms_ssim 3 scales": (
        MSSSIM(window_size=3, weights=THREE, sigma=1.0),
        lambda x, y: ms_ssim(x, y, THREE, size=3, sigma=1.0),
        (2, 3, 23, 14),
    ),
    "ms_ssim one scale": (
        MSSSIM(weights=(0.7,)),
        lambda x, y: ms_ssim(x, y, (0.7,)),
        (2, 1, 12, 13),
    ),
}
every = pytest.mark.parametrize(("layer", "oracle", "shape"), CASES.values(), ids=list(CASES))


def agrees(layer: SimilarityLoss, oracle: Any, prediction: Tensor, target: Tensor) -> None:
    """Value and gradient are those of the oracle; nothing that went in has changed."""
    bound = 1e-11 if prediction.dtype is torch.float64 else 2e-4
    kept = prediction.clone(), target.clone()
    leaf = prediction.detach().clone().requires_grad_()
    grad_loss = torch.full((), 0.7, dtype=prediction.dtype, device=prediction.device)
    loss = oracle(leaf, target)
    (true,) = torch.autograd.grad(loss, leaf, grad_loss)
    assert relative_error(forward(layer, prediction, target), loss.detach()) <= bound
    assert relative_error(backward(layer, grad_loss, prediction, target), true) <= bound
    assert torch.equal(prediction, kept[0])
    assert torch.equal(target, kept[1])


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_value_and_gradient_equal_torch(
    layer: SimilarityLoss,
    oracle: Any,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    agrees(layer, oracle, *images(*shape, dtype=dtype, device=device))


@every
@pytest.mark.parametrize("strides", STRIDES)
def test_any_strides_are_accepted(
    layer: SimilarityLoss, oracle: Any, shape: tuple[int, ...], strides: str
) -> None:
    agrees(layer, oracle, *images(*shape, strides=strides))


@pytest.mark.parametrize("side", [(176, 176), (191, 183)])
def test_the_papers_five_scales_equal_torch(side: tuple[int, int]) -> None:
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    agrees(MSSSIM(), lambda x, y: ms_ssim(x, y, weights), *images(1, 2, *side))


@every
def test_gradient_equals_central_differences(
    layer: SimilarityLoss, oracle: Any, shape: tuple[int, ...]
) -> None:
    prediction, target = images(1, 1, *shape[2:])
    grad_loss = torch.tensor(1.5, dtype=torch.float64)
    numeric = central_differences(lambda x: forward(layer, x, target), prediction, grad_loss)
    assert relative_error(backward(layer, grad_loss, prediction, target), numeric) <= 1e-6


def test_ssim_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    prediction, target = images(1, 3, 30, 25)
    expected = metrics.structural_similarity(
        prediction[0].numpy(), target[0].numpy(), channel_axis=0, data_range=1.0, sigma=1.5,
        gaussian_weights=True, use_sample_covariance=False,
    )  # fmt: skip
    assert 1 - float(forward(SSIM(), prediction, target)) == pytest.approx(expected, abs=1e-12)


def test_worked_example_of_flat_images() -> None:
    # without structure: luminance = (2 * 0.5 * 0.25 + c1) / (0.25 + 0.0625 + c1)
    target = torch.full((1, 1, 11, 11), 0.25, dtype=torch.float64)
    prediction = 2 * target
    expected = 1 - (0.25 + 1e-4) / (0.3125 + 1e-4)
    assert forward(SSIM(), prediction, target).item() == pytest.approx(expected, rel=1e-12)
    # by the prediction's level, the sum of the gradient: 2 (0.25 - 0.5 luminance) / (0.3125 + c1)
    grad = backward(SSIM(), torch.ones((), dtype=torch.float64), prediction, target)
    slope = 2 * (0.25 - 0.5 * (1 - expected)) / (0.3125 + 1e-4)
    assert float(grad.sum()) == pytest.approx(-slope, rel=1e-9)
    assert math.isclose(
        float(grad[0, 0, 5, 5]), float(grad.max()) if slope < 0 else float(grad.min())
    )


@pytest.mark.parametrize("layer", [SSIM(), MSSSIM(window_size=3, weights=THREE)], ids=str)
def test_equal_images_are_at_the_minimum(layer: SimilarityLoss) -> None:
    _, target = images(2, 1, 16, 16)
    assert forward(layer, target, target).item() == pytest.approx(0.0, abs=1e-14)
    grad = backward(layer, torch.ones((), dtype=torch.float64), target, target)
    assert float(grad.abs().max()) < 1e-14


def test_opposed_structures_have_no_slope_and_no_nan() -> None:
    _, target = images(1, 2, 12, 12)
    prediction = 1 - target  # covariances below 0: every factor of the product is held at 1e-6
    layer = MSSSIM(window_size=3, weights=THREE)
    assert forward(layer, prediction, target).item() == pytest.approx(1 - 1e-6)
    grad = backward(layer, torch.ones((), dtype=torch.float64), prediction, target)
    assert not grad.any()
    # one channel that is opposed takes nothing from another that is not
    mixed = torch.cat((target[:, :1] + 0.01, prediction[:, 1:]), 1)
    grad = backward(layer, torch.ones((), dtype=torch.float64), mixed, target)
    alone = backward(layer, torch.ones((), dtype=torch.float64), mixed[:, :1], target[:, :1])
    assert relative_error(2 * grad[:, :1], alone) < 1e-14
    assert not grad[:, 1].any()


@pytest.mark.parametrize(
    ("layer", "shapes", "message"),
    [
        (
            SSIM(),
            [(1, 1, 32, 10)] * 2,
            "expected images of at least 11 x 11 pixels, so that the image holds the window of 11, got "
            "32 x 10. Give larger images, or a smaller window_size.",
        ),
        (
            MSSSIM(),
            [(1, 3, 175, 200)] * 2,
            "expected images of at least 176 x 176 pixels, so that the smallest scale holds the window "
            "of 11, got 175 x 200. Give larger images, or a smaller window_size or fewer weights.",
        ),
        (
            SSIM(),
            [(1, 3, 20, 20), (1, 1, 20, 20)],
            "expected two images N x C x H x W of one shape, got (1, 3, 20, 20) and (1, 1, 20, 20)",
        ),
        (SSIM(), [(20, 20)] * 2, "expected two images N x C x H x W of one shape, got (20, 20)"),
    ],
)
def test_ssim_refuses_images_that_do_not_fit(
    layer: SimilarityLoss, shapes: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(GraphError) as caught:
        layer.forward(*(torch.zeros(shape) for shape in shapes))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (SSIM, {"window_size": 0}, "window_size: expected greater than 0"),
        (SSIM, {"sigma": 0.0}, "sigma: expected greater than 0"),
        (SSIM, {"data_range": -1.0}, "data_range: expected greater than 0"),
        (MSSSIM, {"weights": ()}, "weights: "),
        (MSSSIM, {"weights": (0.5, -0.5)}, "weights.1: expected greater than 0"),
    ],
)
def test_wrong_fields_are_errors(
    cls: type[SimilarityLoss], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(DescriptionError) as caught:
        cls(**fields)
    assert message in str(caught.value)


def test_steps_of_a_network_on_a_sum_with_ssim_equal_torch(device: torch.device) -> None:
    """The network's kernels keep pixels in blocks where they can; ssim wants N C H W."""
    shape = (2, 3, 16, 12)
    loss = ["mse", {"ssim": {}, "weight": 0.2}]
    program = Model(SEED).compile(
        shape, loss=loss, optimizer=SGD(lr=0.5), device=device, dtype=torch.float64
    )
    leaves = {n: t.clone().requires_grad_() for n, t in program.weights.items()}
    optimizer = torch.optim.SGD(leaves.values(), lr=0.5)

    def layer(name: str) -> tuple[Tensor, Tensor]:
        return leaves[f"{name}.weight"], leaves[f"{name}.bias"]

    for step in range(3):
        x = random_tensor(shape, seed=step, device=device)
        target = random_tensor(shape, seed=step + 9, device=device).sigmoid()
        y = F.conv2d(x, *layer("conv2d_1"), stride=2).relu()
        y = F.conv2d(y, *layer("conv2d_2"), stride=2).relu()
        y = F.conv_transpose2d(y, *layer("upsampling_1"), stride=2).relu()
        y = F.conv_transpose2d(y, *layer("upsampling_2"), stride=2).sigmoid()
        expected = F.mse_loss(y, target) + 0.2 * ssim(y, target)
        optimizer.zero_grad()
        expected.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        found = program.step(x, target)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-11, atol=0)
    for name, leaf in leaves.items():
        torch.testing.assert_close(program.weights[name], leaf.detach(), rtol=1e-10, atol=1e-12)

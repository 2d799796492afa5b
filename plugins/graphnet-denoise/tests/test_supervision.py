"""Learning from single noisy images: what is hidden, what is compared, and the gradients that follow."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphnet_denoise import plugin
from graphnet_denoise.patches import Patches, PatchStream
from graphnet_denoise.supervision import Neighbor2Neighbor, ZeroShotNoise2Noise
from graphnet_denoise.supervision.neighbors import sub_image
from torch import Tensor

from graphnet.errors import DataError, DescriptionError
from graphnet.sdk import load_registry
from graphnet.training import Epoch, Trainer
from graphnet.training.config import make_job

REGISTRY = load_registry(plugins=[plugin], entry_points=False)
SIDE = 32


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """One noisy image, all of whose pixels differ: the first channel is the pixel's number."""
    numbers = np.arange(SIDE * SIDE, dtype=np.float32).reshape(1, 1, SIDE, SIDE) / (SIDE * SIDE)
    np.savez(tmp_path / "a.npz", noisy=np.concatenate((numbers, 1 - numbers), 1), clean=numbers * 0)
    return tmp_path / "a.npz"


def stream(path: Path, supervision: Any, **fields: Any) -> PatchStream:
    fields = {"size": SIDE, "supervision": supervision, **fields}
    dataset = REGISTRY.dataset({"patches": {"path": str(path), **fields}})
    assert isinstance(dataset, Patches)
    return dataset.load()


def places(images: Tensor) -> Tensor:
    """The pixels' numbers, from their first channel: (N, H, W)."""
    return (images[:, 0] * (SIDE * SIDE)).round().long()


# -- noise2void --------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [1, 3, 40])
def test_hidden_pixels_show_another_pixel_of_their_surroundings(noisy: Path, radius: int) -> None:
    shown, target, mask = stream(noisy, {"noise2void": {"radius": radius}}).batch(0, 0, range(40))
    own = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    assert torch.equal(places(target), own.expand(40, -1, -1))
    assert set(mask.flatten().tolist()) == {0, 1}
    assert torch.equal(mask[:, 0], mask[:, 1])
    hidden = mask[:, 0].bool()
    assert torch.equal(shown[~mask.bool()], target[~mask.bool()])
    assert torch.equal(shown[:, 0] != target[:, 0], hidden)  # never the pixel itself
    torch.testing.assert_close(shown[:, 1], 1 - shown[:, 0])  # all channels from one pixel
    source, there = places(shown)[hidden], own.expand(40, -1, -1)[hidden]
    for distance in ((source // SIDE - there // SIDE).abs(), (source % SIDE - there % SIDE).abs()):
        assert distance.max() <= radius


def test_one_pixel_of_each_box_is_hidden_anywhere_in_it(noisy: Path) -> None:
    # Boxes of 8 x 8: 16 of them in each patch.
    made = stream(noisy, {"noise2void": {"masked": 1 / 64}})
    mask = made.batch(0, 0, range(500))[2][:, 0]
    boxes = mask.reshape(500, 4, 8, 4, 8).permute(0, 1, 3, 2, 4).reshape(-1, 64)
    assert torch.equal(boxes.sum(1), torch.ones(8000))
    counts = boxes.sum(0)
    assert float(((counts - 125) ** 2 / 125).sum()) < 103.4  # 63 degrees of freedom, p = 0.001


@pytest.mark.parametrize("masked", [0.005, 0.015, 0.1, 0.25])
def test_the_share_of_hidden_pixels_is_the_one_asked_for(noisy: Path, masked: float) -> None:
    mask = stream(noisy, {"noise2void": {"masked": masked}}).batch(0, 0, range(200))[2]
    box = round(masked**-0.5)  # what a whole number of pixels a side makes of the share
    assert float(mask.mean()) == pytest.approx(1 / box**2, rel=0.1)


def test_neighbors_are_equally_likely_at_corners_too(noisy: Path) -> None:
    made = stream(noisy, {"noise2void": {"radius": 1, "masked": 0.25}})
    shown, _, mask = made.batch(0, 0, range(4000))
    for (row, column), count in (((5, 6), 8), ((0, 6), 5), ((0, 0), 3), ((31, 31), 3)):
        hidden = mask[:, 0, row, column].bool()
        found = Counter(places(shown)[hidden, row, column].tolist())
        assert len(found) == count
        expected = found.total() / count
        assert all(abs(n - expected) < 5 * expected**0.5 for n in found.values())


def test_copying_the_input_costs_twice_the_noise(tmp_path: Path) -> None:
    """On an even image the shown pixel and the hidden one differ by two independent draws."""
    np.savez(tmp_path / "a.npz", clean=np.full((1, 3, 40, 40), 128, np.uint8))
    made = stream(tmp_path / "a.npz", "noise2void", noise={"gaussian": {"std": 25}})
    shown, target, mask = made.batch(0, 0, range(300))
    error = float(((shown - target).square() * mask).sum() / mask.sum())
    assert error == pytest.approx(2 * (25 / 255) ** 2, rel=5 * (2 / float(mask.sum())) ** 0.5)


# -- neighbor2neighbor -------------------------------------------------------------------------------


def forbidden(x: Tensor) -> Tensor:
    raise AssertionError("the network is not needed before the second term counts")


def test_input_and_target_are_neighbours_in_each_cell(noisy: Path) -> None:
    made = stream(noisy, "neighbor2neighbor")
    assert made.input_shape == (2, 16, 16)
    assert made.target_shapes == {"target": (2, 16, 16)}
    batch = made.finish(made.batch(0, 0, range(60)), forbidden, 0.0)
    first, second = (places(part) for part in batch)
    rows, columns = torch.arange(16)[:, None], torch.arange(16)
    for part in (first, second):
        assert torch.equal(part // SIDE // 2, rows.expand(60, 16, 16))
        assert torch.equal(part % SIDE // 2, columns.expand(60, 16, 16))
    assert set((second - first).flatten().tolist()) == {1, -1, SIDE, -SIDE}
    corner = first // SIDE % 2 * 2 + first % 2  # of the first pixel in its cell
    ways = Counter((corner * 100 + second - first).flatten().tolist())
    assert len(ways) == 8
    assert all(abs(n - 1920) < 5 * 1920**0.5 for n in ways.values())


@pytest.mark.parametrize("progress", [0.25, 1.0])
def test_the_corrected_target_has_the_gradient_of_both_terms(progress: float) -> None:
    """Against torch's gradient of the paper's loss, times the factor that the docstring states."""
    draw = torch.Generator().manual_seed(0)
    y = torch.rand(2, 3, 8, 8, generator=draw, dtype=torch.float64)
    pairs = torch.tensor([(0, 1), (3, 1), (2, 0)])[torch.randint(3, (2, 1, 4, 4), generator=draw)]
    weight = torch.rand(3, 3, 3, 3, generator=draw, dtype=torch.float64).requires_grad_()

    def network(x: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(x, weight, padding=1).tanh()

    first, second = pairs.unbind(-1)
    prediction = network(sub_image(y, first))
    with torch.no_grad():
        clean = network(y)
    rest = prediction - sub_image(y, second)
    gamma = 2.0 * progress
    regular = rest - (sub_image(clean, first) - sub_image(clean, second))
    both = rest.square().mean() + gamma * regular.square().mean()
    (true,) = torch.autograd.grad(both, weight, retain_graph=True)

    supervision = Neighbor2Neighbor(gamma=2.0)
    with torch.no_grad():
        shown, target = supervision.finish((y, y, pairs), network, progress)
    assert torch.equal(shown, sub_image(y, first))
    (found,) = torch.autograd.grad(torch.nn.functional.mse_loss(prediction, target), weight)
    torch.testing.assert_close((1 + gamma) * found, true, rtol=1e-12, atol=1e-15)


def test_sub_images_by_hand() -> None:
    image = torch.arange(16).reshape(1, 1, 4, 4)
    picked = sub_image(image, torch.tensor([[[[0, 1], [2, 3]]]]))
    assert picked.tolist() == [[[[0, 3], [12, 15]]]]


# -- zero_shot_noise2noise ---------------------------------------------------------------------------


def test_input_and_target_are_the_means_of_both_diagonals_in_either_order(noisy: Path) -> None:
    made = stream(noisy, "zero_shot_noise2noise")
    assert made.input_shape == (2, 16, 16)
    assert made.target_shapes == {"target": (2, 16, 16)}
    images, _, exchanged = made.batch(0, 0, range(400))
    squares = images.square()  # of which the diagonals differ
    given, target = made.finish((squares, squares, exchanged), lambda x: x, 0.0)
    cells = squares[0].reshape(2, 16, 2, 16, 2).permute(2, 4, 0, 1, 3)  # all images are the same
    falling, rising = (cells[0, 0] + cells[1, 1]) / 2, (cells[0, 1] + cells[1, 0]) / 2
    fell = torch.tensor([torch.equal(image, falling) for image in given])
    assert all(torch.equal(image, rising) for image in given[~fell])
    assert abs(int(fell.sum()) - 200) < 5 * 100**0.5
    # f is the identity here: what D1 f(y) adds to D2 y is the input itself
    torch.testing.assert_close(target, (given + (falling + rising - given)) / 2)


def test_the_target_of_halves_has_the_gradient_of_both_terms() -> None:
    """Against torch's gradient of the paper's loss with f(y) held, times the factor of the docstring."""
    draw = torch.Generator().manual_seed(0)
    y = torch.rand(2, 3, 8, 8, generator=draw, dtype=torch.float64)
    weight = torch.rand(3, 3, 3, 3, generator=draw, dtype=torch.float64).requires_grad_()

    def network(x: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(x, weight, padding=1).tanh()

    def halves(x: Tensor) -> tuple[Tensor, Tensor]:
        kernels = torch.tensor([[[0, 0.5], [0.5, 0]], [[0.5, 0], [0, 0.5]]], dtype=torch.float64)
        one, two = (k.expand(3, 1, 2, 2) for k in kernels)
        conv2d = torch.nn.functional.conv2d
        return conv2d(x, one, stride=2, groups=3), conv2d(x, two, stride=2, groups=3)

    exchanged = torch.tensor([False, True]).reshape(2, 1, 1, 1)
    with torch.no_grad():
        clean = halves(network(y))
        shown, target = ZeroShotNoise2Noise().finish((y, y, exchanged), network, 0.5)
    first, second = halves(y)
    assert torch.equal(shown, torch.stack((first[0], second[1])))
    wanted, whole = torch.stack((second[0], first[1])), torch.stack((clean[0][0], clean[1][1]))
    prediction = network(shown)
    both = (prediction - wanted).square().mean() + (prediction - whole).square().mean()
    (true,) = torch.autograd.grad(both, weight, retain_graph=True)
    (found,) = torch.autograd.grad(torch.nn.functional.mse_loss(prediction, target), weight)
    torch.testing.assert_close(2 * found, true, rtol=1e-12, atol=1e-15)


# -- all, in training -----------------------------------------------------------------------------------


def job(path: Path, supervision: Any, loss: str) -> Any:
    fields = {"path": str(path), "size": 16, "per_epoch": 32, "supervision": supervision}
    conv = {"conv2d": {"out_channels": 2, "kernel_size": 3, "padding": 1}}
    data = {
        "model": {"layers": [conv]},
        "data": {"train": {"patches": {**fields, "augment": True}}},
        "loss": loss,
        "optimizer": {"adam": {"lr": 0.01}},
        "epochs": 3,
        "batch_size": 8,
        "device": "cpu",
    }
    return make_job(data, registry=REGISTRY)


@pytest.mark.parametrize(
    ("supervision", "loss"),
    [("noise2void", "masked_mse"), ("neighbor2neighbor", "mse"), ("zero_shot_noise2noise", "mse")],
)
def test_networks_learn_from_noisy_images_alone_and_resume(
    noisy: Path, supervision: str, loss: str
) -> None:
    whole = Trainer(job(noisy, supervision, loss))
    losses = [record.loss for record in whole.run() if isinstance(record, Epoch)]
    assert losses[2] < 0.7 * losses[0]
    first = Trainer(job(noisy, supervision, loss))
    list(first.run(lambda: first.program.steps_done >= 6))
    second = Trainer(job(noisy, supervision, loss), resume=first.checkpoint())
    list(second.run())
    for name, weight in whole.program.weights.items():
        assert torch.equal(weight, second.program.weights[name]), name


def test_the_wrong_loss_is_refused_with_the_right_one(noisy: Path) -> None:
    with pytest.raises(DataError, match=r"target and mask, but 'mse' takes target.*: masked_mse\."):
        Trainer(job(noisy, "noise2void", "mse"))


@pytest.mark.parametrize(
    "fields", [{"masked": 0.0}, {"masked": 0.5}, {"radius": 0}, {"share": 0.1}]
)
def test_wrong_fields_are_refused(fields: dict[str, Any]) -> None:
    place = rf"supervision\.noise2void\.{next(iter(fields))}"
    with pytest.raises(DescriptionError, match=place):
        Patches(path="photos", supervision={"noise2void": fields})  # type: ignore[arg-type]

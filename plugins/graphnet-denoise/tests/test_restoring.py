"""Images through models of other sizes, channels and manners."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from graphnet_denoise.restoring import Restorer, Settings, turned
from torch import Tensor

from graphnet.errors import CheckpointError, DataError
from graphnet.plan import CompileOptions


class FakeModel:
    """Applies a function, and refuses what a network of that divisor would."""

    def __init__(
        self,
        function: Callable[[Tensor], Any] = lambda x: 0.5 * x,
        *,
        channels: int | None = 3,
        divisor: int = 4,
    ) -> None:
        self.weights: Mapping[str, Tensor] | None = {}
        self._function, self._channels, self._divisor = function, channels, divisor
        self.asked: list[CompileOptions] = []

    @property
    def input_channels(self) -> int | None:
        return self._channels

    def divisor(self) -> int:
        return self._divisor

    def predict(self, *inputs: Tensor, options: CompileOptions) -> Any:
        (x,) = inputs
        assert x.shape[1] == (self._channels or x.shape[1])
        assert x.shape[2] % self._divisor == x.shape[3] % self._divisor == 0
        self.asked.append(options)
        return self._function(x)


def random_images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(8, 4), (5, 7), (1, 1), (3, 17), (32, 1)])
def test_any_size_is_padded_and_cropped_back(size: tuple[int, int]) -> None:
    images = random_images(2, 3, *size)
    restored = Restorer.of(FakeModel()).restore(images)
    assert torch.equal(restored, images * 0.5)


def test_options_reach_the_model() -> None:
    model, options = FakeModel(), CompileOptions(device="cpu", kernels="reference")
    Restorer.of(model, Settings(options)).restore(random_images(1, 3, 4, 4))
    assert model.asked == [options]


def test_grey_images_pass_a_colour_model_as_the_mean_of_its_channels() -> None:
    model = FakeModel(lambda x: x * torch.tensor([0.1, 0.2, 0.6]).reshape(1, 3, 1, 1))
    images = torch.tensor([0.25, 0.5]).reshape(2, 1, 1, 1).expand(2, 1, 5, 5)  # without noise
    torch.testing.assert_close(Restorer.of(model).restore(images), images * 0.3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("told", [None, 20.0])
def test_a_colour_model_sees_independent_noise_in_the_channels_of_grey_images(
    channels: int, told: float | None
) -> None:
    """Noise of deviation s, equal in all channels, becomes independent noise of sqrt(3) s, of equal mean."""
    seen: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        seen.append(x)
        return x[:, :3]

    std = 20 / 255
    generator = torch.Generator().manual_seed(0)
    noisy = 0.5 + std * torch.randn(2, 1, 256, 256, generator=generator)
    images = noisy.expand(2, channels, 256, 256)
    model = FakeModel(note, channels=3 if told is None else 4)
    restored = Restorer.of(model).restore(images, noise_level=told)
    torch.testing.assert_close(restored, images.clamp(0, 1))
    _, x = seen  # the first call tries what the model does with grey noise
    torch.testing.assert_close(x[:, :3].mean(1, keepdim=True), noisy)
    for image in x[:, :3]:
        found = torch.cov(image.reshape(3, -1)) / (3 * std**2)
        torch.testing.assert_close(found, torch.eye(3), rtol=0, atol=0.04)
    if told is not None:
        torch.testing.assert_close(x[:, 3:], torch.full((2, 1, 256, 256), 3**0.5 * std))
    again = Restorer.of(model).restore(images[1:], noise_level=told)
    assert torch.equal(again, restored[1:])  # the same at each call, in whatever batch


def test_colour_images_get_no_noise_beside_grey_ones() -> None:
    seen: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    images = random_images(2, 3, 8, 8)
    images[1] = images[1, :1]
    Restorer.of(FakeModel(note)).restore(images)
    assert torch.equal(seen[1][0], images[0])
    assert float((seen[1][1] - images[1]).abs().max()) > 0.01


def test_a_model_that_removes_grey_noise_sees_grey_images_repeated() -> None:
    seen: list[Tensor] = []

    def blurred(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2)

    restorer = Restorer.of(FakeModel(blurred))
    images = random_images(1, 1, 8, 8)
    for _ in range(2):  # it is tried once
        restorer.restore(images)
    assert len(seen) == 3
    assert torch.equal(seen[1], images.expand(1, 3, 8, 8))
    assert torch.equal(seen[2], seen[1])


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_strength_blends_the_image_and_the_result(strength: float) -> None:
    images = random_images(2, 3, 5, 6)
    restored = Restorer.of(FakeModel(lambda x: x.square()), Settings(strength=strength)).restore(
        images
    )
    torch.testing.assert_close(restored, (1 - strength) * images + strength * images.square())


def test_a_model_trained_on_the_image_itself_sees_it_repeated() -> None:
    seen: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    images = random_images(1, 1, 8, 8)
    restorer = Restorer.of(FakeModel(note))
    restorer.restore_part(images, restorer.look_repeated(images))
    assert torch.equal(seen[0], images.expand(1, 3, 8, 8))


def test_colour_images_pass_a_grey_model_channel_by_channel() -> None:
    images = random_images(2, 3, 5, 6)
    restored = Restorer.of(FakeModel(lambda x: x.square(), channels=1)).restore(images)
    torch.testing.assert_close(restored, images.square())


def test_model_without_stated_channels_takes_grey_and_colour() -> None:
    images = random_images(1, 2, 4, 4)
    assert torch.equal(Restorer.of(FakeModel(channels=None)).restore(images), images * 0.5)


def test_self_ensemble_is_the_mean_over_all_flips_and_turns() -> None:
    """A model that moves pixels one to the right: laid down again, it moves them in all four directions."""
    model = FakeModel(lambda x: x.roll(1, 3), divisor=1)
    images = random_images(2, 3, 6, 5)
    restored = Restorer.of(model, Settings(self_ensemble=True)).restore(images)
    expected = [images.roll(step, axis) for axis in (2, 3) for step in (1, -1)]
    torch.testing.assert_close(restored, torch.stack(expected).mean(0))
    assert len(model.asked) == 8


@pytest.mark.parametrize("turn", range(8))
def test_every_flip_and_rotation_is_undone(turn: int) -> None:
    images = random_images(1, 2, 3, 4)
    assert torch.equal(turned(turned(images, turn), turn, back=True), images)
    others = [turned(images, other) for other in range(8) if other != turn]
    assert not any(torch.equal(turned(images, turn), other) for other in others)


def test_results_are_clamped() -> None:
    restored = Restorer.of(FakeModel(lambda x: 4 * x - 1)).restore(random_images(1, 3, 8, 8))
    assert restored.min() == 0
    assert restored.max() == 1


def test_other_channel_counts_are_refused() -> None:
    with pytest.raises(DataError, match=r"takes images of 3 channels, found 4\. Give images of 3"):
        Restorer.of(FakeModel()).restore(random_images(1, 4, 8, 8))


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: x[:, :1], r"\(1, 1, 8, 8\)"),
        (lambda x: x[..., ::2], r"\(1, 3, 8, 4\)"),
        (lambda x: (x, x), "2 outputs"),
    ],
)
def test_models_of_another_kind_are_refused(function: Callable[[Tensor], Any], found: str) -> None:
    with pytest.raises(DataError, match=rf"no denoiser of images: .* makes {found}"):
        Restorer.of(FakeModel(function)).restore(random_images(1, 3, 8, 8))


def test_results_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        Restorer.of(FakeModel(lambda x: x / 0)).restore(random_images(1, 3, 8, 8))


def test_a_model_without_weights_is_refused() -> None:
    model = FakeModel()
    model.weights = None
    with pytest.raises(CheckpointError, match="has no weights"):
        Restorer.of(model)

"""Which of the included models an image gets."""

from pathlib import Path

import pytest
import torch
from graphnet_denoise.models import MODELS, Kind
from graphnet_denoise.noise.development import blur
from graphnet_denoise.restoring import Settings
from graphnet_denoise.shipped import Shipped
from torch import Tensor

from graphnet.model import inspect_file, read_checkpoint

_MOST_BYTES = 6_000_000


def noise(channels: int = 3) -> Tensor:
    return torch.randn(1, channels, 96, 96, generator=torch.Generator().manual_seed(0)) * 0.05


def test_independent_noise_gets_the_gaussian_model() -> None:
    for channels in (1, 3):
        choice = Shipped().choose((0.5 + noise(channels))[0])
        assert choice.kind == "gaussian"
        assert "independent from pixel to pixel; model: gaussian" in choice.describe()


def test_noise_that_pixels_share_gets_the_camera_model() -> None:
    correlated = blur(noise(), torch.full((1, 1, 1, 1), 0.8))
    choice = Shipped().choose((0.5 + correlated)[0])
    assert choice.kind == "camera"
    assert "between neighbouring pixels" in choice.describe()


@pytest.mark.parametrize("kind", ["gaussian", "camera"])
def test_a_kind_that_was_asked_for_is_taken(kind: str) -> None:
    shipped = Shipped(noise=kind)  # type: ignore[arg-type]
    assert shipped.choose((0.5 + noise())[0]).kind == kind


def test_a_model_is_loaded_once_with_the_settings() -> None:
    shipped = Shipped(settings=Settings(strength=0.5))
    first = shipped.restorer("camera")
    assert first.settings.strength == 0.5
    assert shipped.restorer("camera") is first


@pytest.mark.parametrize("kind", MODELS)
def test_models_are_small_and_name_their_recipe_data_and_licence(kind: str) -> None:
    file: Path = MODELS[kind]  # type: ignore[index]
    assert file.stat().st_size <= _MOST_BYTES
    assert inspect_file(file).has_digests
    about = read_checkpoint(file).about
    for word in ("recipe", "data", "trained", "license"):
        assert about[word], word


@pytest.mark.parametrize("kind", MODELS)
def test_models_denoise_grey_pictures_by_themselves(kind: Kind) -> None:
    assert Shipped().restorer(kind)._removes_grey_noise(False)

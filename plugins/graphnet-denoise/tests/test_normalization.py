"""Models that know the range of their images get the numbers of the files, wherever a model is used."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner
from graphnet_denoise import denoise as denoise_array
from graphnet_denoise.commands.denoise import denoise
from graphnet_denoise.normalization import (
    knows_range,
    normalization_of,
    takes_numbers,
    with_normalization,
)
from graphnet_denoise.restoring import Restorer

import graphnet


def shifting(path: Path, by: float) -> Path:
    """A model that adds a number to those of the file: its network adds 1 to normalized images."""
    conv = {"conv2d": {"out_channels": 1, "kernel_size": 1}}
    network = {"name": "inner", "layers": [{"id": "c", **conv}]}
    description = with_normalization(network, channels=1, mean=5000.0, deviation=by)
    weights = {"denoised.c.weight": torch.ones(1, 1, 1, 1), "denoised.c.bias": torch.ones(1)}
    graphnet.Model(description).with_weights(weights).save(path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return shifting(tmp_path / "model.safetensors", 250.0)


def test_a_network_normalizes_and_returns_to_the_numbers_of_the_file(model: Path) -> None:
    loaded = graphnet.load(model)
    assert knows_range(loaded.description)
    assert takes_numbers(loaded)
    image = torch.tensor([0.0, 4095.0, 70000.0, -3.5]).reshape(1, 1, 2, 2)
    torch.testing.assert_close(loaded.predict(image), image + 250, rtol=0, atol=0.01)
    torch.testing.assert_close(Restorer.of(loaded).restore(image), image + 250, rtol=0, atol=0.01)


def test_what_lies_outside_the_limits_is_not_seen_and_stays(tmp_path: Path) -> None:
    """The network returns 1 in place of what it sees, which is 250 numbers above the mean 5000."""
    conv = {"conv2d": {"out_channels": 1, "kernel_size": 1}}
    description = with_normalization(
        {"name": "inner", "layers": [{"id": "c", **conv}]},
        channels=1,
        mean=5000.0,
        deviation=250.0,
        limits=(4000.0, 6000.0),
    )
    weights = {"denoised.c.weight": torch.zeros(1, 1, 1, 1), "denoised.c.bias": torch.ones(1)}
    graphnet.Model(description).with_weights(weights).save(tmp_path / "model.safetensors")
    loaded = graphnet.load(tmp_path / "model.safetensors")
    assert knows_range(loaded.description)
    assert normalization_of(loaded.description) == (5000.0, 250.0)
    image = torch.tensor([4000.0, 5800.0, 70000.0, -3.5]).reshape(1, 1, 2, 2)
    expected = torch.tensor([5250.0, 5250.0, 70000.0 - 750, 1250.0 - 3.5]).reshape(1, 1, 2, 2)
    torch.testing.assert_close(loaded.predict(image), expected, rtol=0, atol=0.01)
    torch.testing.assert_close(Restorer.of(loaded).restore(image), expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int16"])
def test_files_of_any_dtype_are_denoised_in_their_numbers(
    tmp_path: Path, model: Path, dtype: str
) -> None:
    """12 bits in 16, and floating point of that range: neither is scaled by what its numbers are."""
    pixels = np.random.default_rng(0).integers(3, 3800, (20, 24)).astype(dtype)
    pixels[0, 0] = 30000  # a hot pixel
    tifffile.imwrite(tmp_path / "x.tif", pixels)
    arguments = [str(model), str(tmp_path / "x.tif"), "-o", str(tmp_path / "y.tif")]
    result = CliRunner().invoke(denoise, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = tifffile.imread(tmp_path / "y.tif")
    assert found.dtype == pixels.dtype
    np.testing.assert_allclose(found.astype(float), pixels.astype(float) + 250, atol=0.6)
    again = denoise_array(pixels, axes="YX", model=model)
    np.testing.assert_allclose(again.astype(float), pixels.astype(float) + 250, atol=0.6)

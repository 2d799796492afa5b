"""Whole noisy images: the same at each look, of any size, and measured as papers do."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphnet_denoise import metrics, plugin
from graphnet_denoise.gallery import NoisyGallery, WholeImages
from graphnet_denoise.noise import parse_noise
from graphnet_denoise.restoring import Restorer, Settings
from graphnet_denoise.scoring import compare
from PIL import Image

from graphnet.errors import DataError, DescriptionError
from graphnet.model import Model
from graphnet.plan import CompileOptions
from graphnet.sdk import load_registry
from graphnet.training import Epoch, Trainer
from graphnet.training.config import make_job

REGISTRY = load_registry(plugins=[plugin], entry_points=False)
SIZES = [(41, 30), (30, 41), (12, 57)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of several sizes; none is a multiple of 4."""
    draw = np.random.default_rng(0)
    for index, shape in enumerate(SIZES):
        pixels = draw.integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


def gallery(path: Path, **fields: Any) -> NoisyGallery:
    noise = {"gaussian": {"std": 25}}
    dataset = REGISTRY.dataset({"images": {"path": str(path), "noise": noise, **fields}})
    assert isinstance(dataset, WholeImages)
    return dataset.load()


def test_each_image_has_its_own_noise_the_same_at_each_look(folder: Path) -> None:
    images, again, other = gallery(folder), gallery(folder), gallery(folder, seed=1)
    assert len(images) == 3
    for index, (height, width) in enumerate(SIZES):
        noisy, clean = images[index]
        assert noisy.shape == clean.shape == (3, height, width)
        pixels = np.asarray(Image.open(folder / f"{index}.png")).transpose(2, 0, 1)
        np.testing.assert_array_equal(clean, pixels.astype(np.float32) / np.float32(255))
        assert torch.equal(noisy, again[index][0])
        assert not torch.equal(noisy, other[index][0])
        error = float((noisy - clean).double().std())
        assert abs(error - 25 / 255) < 5 * 25 / 255 / math.sqrt(2 * noisy.numel())
    assert noisy.min() < 0
    assert noisy.max() > 1


def test_a_model_may_be_told_the_level_of_each_image(folder: Path) -> None:
    noise = {"gaussian": {"std": (5, 55)}}
    told = [gallery(folder, noise=noise, noise_level_map=True)[i][0][3] for i in range(3)]
    assert len({float(level[0, 0]) for level in told}) == 3
    assert all(5 / 255 <= float(level.min()) == float(level.max()) <= 55 / 255 for level in told)


class Keep:
    """A model that is told the level, which it subtracts, and wants multiples of 4."""

    weights: Mapping[str, torch.Tensor] | None = {}
    input_channels = 4

    def divisor(self) -> int:
        return 4

    def predict(self, *inputs: torch.Tensor, options: CompileOptions) -> Any:
        (x,) = inputs
        assert x.shape[1] == 4
        assert x.shape[2] % 4 == x.shape[3] % 4 == 0
        return x[:, :3] - x[:, 3:]


def test_scores_are_means_over_images_of_any_size(folder: Path) -> None:
    images = gallery(folder, noise_level_map=True)
    result = compare(Restorer.of(Keep()), images)
    pairs = [(noisy[None, :3], clean[None]) for noisy, clean in (images[i] for i in range(3))]
    kept = [((noisy - 25 / 255).clamp(0, 1), clean) for noisy, clean in pairs]
    for scores, expected in ((result.noisy, pairs), (result.denoised, kept)):
        mean = sum(metrics.psnr(*pair) for pair in expected) / 3
        assert scores.psnr_db == pytest.approx(mean, abs=1e-4)
        assert scores.ssim == pytest.approx(
            sum(metrics.ssim(*pair) for pair in expected) / 3, abs=1e-5
        )
        everything = [
            torch.cat([half.flatten() for half in halves]) for halves in zip(*expected, strict=True)
        ]
        flat = [half.reshape(1, 1, 1, -1) for half in everything]
        assert scores.psnr_pooled_db == pytest.approx(metrics.psnr(*flat), abs=1e-4)


def test_a_training_file_measures_on_images_of_any_size(folder: Path) -> None:
    """A network that copies its input has the noisy images' own PSNR, once they are clamped."""
    layer = {"conv2d": {"out_channels": 3, "kernel_size": 4, "stride": 4, "bias": False}}
    back = {"upsampling": {"out_channels": 3, "kernel_size": 4, "stride": 4}}
    noise = {"gaussian": {"std": 25}}
    images = {"path": str(folder), "noise": noise}
    data: dict[str, Any] = {
        "model": {"layers": [layer, back]},
        "data": {
            "train": {"patches": {**images, "size": 8, "per_epoch": 8}},
            "validation": {"images": images},
        },
        "loss": "mse",
        "optimizer": {"sgd": {"lr": 0.0}},
        "epochs": 1,
        "batch_size": 8,
        "device": "cpu",
        "metrics": ["psnr", "ssim"],
    }
    trainer = Trainer(make_job(data, registry=REGISTRY))
    (record,) = (record for record in trainer.run() if isinstance(record, Epoch))
    model = Model(data["model"], weights=trainer.program.weights, registry=REGISTRY)
    expected = compare(
        Restorer.of(model, Settings(CompileOptions(device="cpu"))), gallery(folder)
    ).denoised
    assert record.metrics["psnr"] == pytest.approx(expected.psnr_db, abs=1e-4)
    assert record.metrics["ssim"] == pytest.approx(expected.ssim, abs=1e-5)
    data["data"]["validation"]["images"]["noise_level_map"] = True
    with pytest.raises(
        DataError, match="inputs of 3 channels, but those of the validation set have 4"
    ):
        Trainer(make_job(data, registry=REGISTRY))


def test_wrong_fields_and_folders_are_refused(folder: Path) -> None:
    with pytest.raises(DescriptionError, match="noise: must be given"):
        REGISTRY.dataset({"images": {"path": "photos"}})
    with pytest.raises(DescriptionError, match="noise: BlockSampling makes small images of large"):
        REGISTRY.dataset({"images": {"path": "photos", "noise": "block_sampling"}})
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="empty: expected a folder with images"):
        gallery(folder / "empty")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gaussian:", "expected noise such as gaussian:25, or JSON .* found 'gaussian:'"),
        ("gaussian:much", "found 'gaussian:much'"),
        ("gaussian:-3", r"gaussian\.std: expected a number of 0 or more"),
        ("gaussian", r"gaussian\.std: must be given"),
        ("gausian:25", "Did you mean 'gaussian'"),
        ("{gaussian: 25}", "expected noise such as"),
        ('{"gaussian": 25}', "expected a name or"),
    ],
)
def test_noise_on_the_command_line_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        parse_noise(text)

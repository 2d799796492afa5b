"""Patches: where they come from, that each is a function of (seed, epoch, index), and what is refused."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphnet_denoise import plugin
from graphnet_denoise.patches import Patches, PatchStream, turned
from graphnet_denoise.supervision import SUPERVISIONS
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from graphnet.errors import DataError, DescriptionError
from graphnet.sdk import load_registry
from graphnet.training import Epoch, Trainer
from graphnet.training.config import make_job

GAUSSIAN = {"gaussian": {"std": (5, 55)}}
REGISTRY = load_registry(plugins=[plugin], entry_points=False)


def places(height: int, width: int, blue: int = 0) -> NDArray[np.uint8]:
    """A photo whose pixels say where they are: red the row, green the column; blue says which photo."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, blue)], axis=-1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, shape in enumerate([(40, 50), (32, 90), (33, 33), (31, 200)]):
        Image.fromarray(places(*shape, index)).save(tmp_path / f"{index}.png")
    return tmp_path


def stream(path: Path, **fields: Any) -> PatchStream:
    dataset = REGISTRY.dataset({"patches": {"path": str(path), "size": 32, **fields}})
    assert isinstance(dataset, Patches)
    return dataset.load()


def clean_patches(made: PatchStream, count: int, *, epoch: int = 0) -> NDArray[np.int64]:
    """The clean patches of an epoch's first pairs, in 255ths: (N, H, W, C)."""
    _, clean = made.batch(0, epoch, range(count))
    return torch.round(clean * 255).long().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    "fields",
    [
        *({"supervision": name} for name in SUPERVISIONS.builtin),
        *({"supervision": name, "noise_level_map": True} for name in SUPERVISIONS.builtin),
        {"noise": {"poisson_gaussian": {"peak": (1, 50), "std": 5}}},
        {"noise": {"salt_and_pepper": {"share": 0.3}}},
        {"noise": {"correlated": {"std": (5, 55)}}},
        {"noise": "block_sampling", "size": 8},
    ],
)
def test_a_pair_is_a_function_of_seed_epoch_and_index(folder: Path, fields: dict[str, Any]) -> None:
    fields = {"noise": GAUSSIAN, "augment": True, **fields}
    made = stream(folder, **fields)
    together = made.batch(5, 2, [8, 3, 11])
    again = stream(folder, **fields)
    for place, index in enumerate([8, 3, 11]):
        for tensor, alone in zip(together, again.batch(5, 2, [index]), strict=True):
            assert torch.equal(tensor[place], alone[0])
    for other in ((6, 2, 8), (5, 3, 8), (5, 2, 9)):
        assert not torch.equal(again.batch(*other[:2], [other[2]])[0][0], together[0][0])


def test_patches_are_cut_from_all_images_that_are_large_enough(folder: Path) -> None:
    made = stream(folder, noise=GAUSSIAN, supervision="noise2clean", per_epoch=7)
    assert len(made) == 7
    patches = np.concatenate([clean_patches(made, 1000, epoch=epoch) for epoch in range(6)])
    counts = Counter(patches[:, 0, 0, 2].tolist())
    assert set(counts) == {0, 1, 2}  # the fourth is one pixel too low
    assert all(abs(count - 2000) < 185 for count in counts.values())  # 5 sigma
    corners = {tuple(corner) for corner in patches[:, 0, 0].tolist()}
    positions = [(40, 50), (32, 90), (33, 33)]
    assert len(corners) == sum((h - 31) * (w - 31) for h, w in positions)
    expected = patches[:, :1, :1, :2] + places(32, 32)[None, :, :, :2]
    np.testing.assert_array_equal(patches[..., :2], expected)


def test_augmentation_turns_patches_in_all_8_ways(folder: Path) -> None:
    made = stream(folder, noise=GAUSSIAN, supervision="noise2clean", augment=True)
    patches = clean_patches(made, 800)
    steps = Counter(
        tuple((p[1, 0] - p[0, 0])[:2].tolist() + (p[0, 1] - p[0, 0])[:2].tolist()) for p in patches
    )
    assert len(steps) == 8
    assert all(abs(count - 100) < 48 for count in steps.values())  # 5 sigma
    square = places(4, 4)
    ways = {turned(square, turn).tobytes() for turn in range(8)}
    assert len(ways) == 8
    np.testing.assert_array_equal(turned(square, 0), square)


def noise_of(image: Tensor, clean: Tensor) -> Tensor:
    return (image[:, : clean.shape[1]] - clean).double()


def test_noise2noise_adds_noise_of_one_deviation_twice_independently(folder: Path) -> None:
    fields = {"noise": GAUSSIAN, "noise_level_map": True}
    inputs, targets = stream(folder, **fields).batch(0, 0, range(64))
    with_clean, clean = stream(folder, **fields, supervision="noise2clean").batch(0, 0, range(64))
    assert torch.equal(inputs, with_clean)
    assert inputs.shape == (64, 4, 32, 32)
    first, second = noise_of(inputs, clean), noise_of(targets, clean)
    level = inputs[:, 3]
    assert torch.equal(level, level[:, :1, :1].expand_as(level))
    stated = level[:, 0, 0].double()
    assert stated.min() < 15 / 255 < 45 / 255 < stated.max()
    for noise in (first, second):
        found = noise.std(dim=(1, 2, 3))
        torch.testing.assert_close(found, stated, rtol=0.07, atol=0)  # 5 sigma of 3072 numbers
    correlation = (first * second).mean(dim=(1, 2, 3)) / stated**2
    assert abs(float(correlation.mean())) < 5 / (64 * 3072) ** 0.5


def test_noise2noise_of_a_burst_has_a_target_with_less_noise(folder: Path) -> None:
    fields = {"noise": {"gaussian": {"std": 40}}}
    inputs, single = stream(folder, **fields).batch(0, 0, range(32))
    burst = {"noise2noise": {"targets": 16}}
    same, mean = stream(folder, **fields, supervision=burst).batch(0, 0, range(32))
    _, clean = stream(folder, **fields, supervision="noise2clean").batch(0, 0, range(32))
    assert torch.equal(inputs, same)
    assert float((single - clean).std() * 255) == pytest.approx(40, rel=0.02)
    assert float((mean - clean).std() * 255) == pytest.approx(10, rel=0.02)
    with pytest.raises(DescriptionError, match="targets"):
        stream(folder, **fields, supervision={"noise2noise": {"targets": 0}})


def test_block_sampling_needs_images_of_several_pixels_a_block(folder: Path) -> None:
    made = stream(folder, noise="block_sampling", size=8, supervision="noise2clean")
    noisy, clean = made.batch(0, 0, range(200))
    # Rows grow from block to block by its side, 4 or 5 source pixels (the image of 31 rows is too low).
    steps = Counter((255 * (clean[:, 0, 1, 0] - clean[:, 0, 0, 0])).round().long().tolist())
    assert set(steps) == {4, 5}
    assert not torch.equal(noisy, clean)
    with pytest.raises(
        DataError, match="at least 128 x 128 pixels, but the largest of 4 is 40 x 50"
    ):
        stream(folder, noise="block_sampling")


def test_shapes_are_those_of_the_batches(folder: Path) -> None:
    for fields in ({}, {"noise_level_map": True}, {"channels": 1}):
        made = stream(folder, noise=GAUSSIAN, **fields)
        found = [tuple(tensor.shape[1:]) for tensor in made.batch(0, 0, [1, 2])]
        assert found == [made.input_shape, *made.target_shapes.values()]


def test_arrays_and_grey_and_deep_images_are_read(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (4, 1, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", clean=grey, noisy=255 - grey)
    np.save(tmp_path / "b.npy", grey)
    (tmp_path / "c").mkdir()
    for index, image in enumerate(grey[:, 0]):
        Image.fromarray(image.astype(np.uint16) * 257).save(tmp_path / f"c/{index}.png")
    for name in ("a.npz", "b.npy", "c"):
        made = stream(tmp_path / name, size=16, noise=GAUSSIAN, supervision="noise2clean")
        patches = {patch.tobytes() for patch in clean_patches(made, 60).astype(np.uint8)[..., 0]}
        assert patches == {image.tobytes() for image in grey[:, 0]}
    colour = stream(tmp_path / "a.npz", size=16, noise=GAUSSIAN, channels=3)
    assert colour.input_shape == (3, 16, 16)


def test_colour_becomes_grey_as_pillow_does_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    made = stream(tmp_path, size=8, noise=GAUSSIAN, channels=1, supervision="noise2clean")
    expected = np.asarray(Image.fromarray(pixels).convert("L")).astype(int)
    assert np.abs(clean_patches(made, 1)[0, ..., 0] - expected).max() <= 1  # it truncates


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {},
            r"supervision: Noise2Noise needs noise to be added: give `noise`, or, where the images",
        ),
        ({"supervision": "noise2clean"}, "supervision: Noise2Clean needs noise"),
        ({"supervision": "noise2nois", "noise": GAUSSIAN}, "Did you mean 'noise2noise'"),
        ({"noise_level_map": True, "supervision": "noise2noise"}, "noise"),
        (
            {"supervision": "neighbor2neighbor", "size": 33},
            "size: neighbor2neighbor halves patches: expected an even number, found 33",
        ),
        (
            {"supervision": "zero_shot_noise2noise", "size": 7},
            "size: zero_shot_noise2noise halves patches: expected an even number, found 7",
        ),
        ({"noise": GAUSSIAN, "size": 0}, "size: expected greater than 0, found 0"),
        ({"noise": GAUSSIAN, "per_epoch": -1}, "per_epoch"),
        ({"noise": GAUSSIAN, "channels": 2}, "channels"),
        ({"noise": GAUSSIAN, "augmentation": True}, "Did you mean 'augment'"),
    ],
)
def test_wrong_fields_are_refused_in_words(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        REGISTRY.dataset({"patches": {"path": "photos", **fields}})


def test_folders_without_fitting_images_are_refused(folder: Path, tmp_path: Path) -> None:
    for path, fields, message in (
        (folder / "absent", {}, "absent: no such file or folder"),
        (folder / "0.png", {}, r"0\.png: expected a folder of images, an \.npz or an \.npy"),
        (folder, {"size": 64}, r"at least 64 x 64 pixels, but the largest of 4 is 40 x 50. Give l"),
    ):
        with pytest.raises(DataError, match=message):
            stream(path, noise=GAUSSIAN, **fields)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="empty: expected a folder with images"):
        stream(folder / "empty", noise=GAUSSIAN)
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 1, 32, 32), np.uint8))
    with pytest.raises(DataError, match="called clean or target; found images"):
        stream(tmp_path / "a.npz", noise=GAUSSIAN)
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:100])
    with pytest.raises(DataError, match=r"0\.png: cannot be read as a PNG"):
        stream(folder, noise=GAUSSIAN)


def test_a_training_file_trains_on_patches(folder: Path) -> None:
    """One convolution learns to average: its loss falls, and a second run gives the same bits."""
    data: dict[str, Any] = {
        "model": {"layers": [{"conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}}]},
        "data": {"train": {"patches": {"path": str(folder), "size": 16, "noise": GAUSSIAN}}},
        "loss": "mse",
        "optimizer": {"adam": {"lr": 0.01}},
        "epochs": 2,
        "batch_size": 8,
        "device": "cpu",
    }
    data["data"]["train"]["patches"] |= {"per_epoch": 80, "augment": True}
    runs = [Trainer(make_job(data, registry=REGISTRY)) for _ in range(2)]
    (first, second) = (
        [record.loss for record in run.run() if isinstance(record, Epoch)] for run in runs
    )
    assert first == second
    assert first[1] < 0.8 * first[0]
    for name, weight in runs[0].program.weights.items():
        assert torch.equal(weight, runs[1].program.weights[name])


def test_several_paths_are_one_bank(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(places(64, 64, 9)).save(other / "a.png")
    form = {"path": [str(folder), str(other)], "noise": GAUSSIAN, "size": 32}
    dataset = REGISTRY.dataset({"patches": form})
    assert isinstance(dataset, Patches)
    blues = [int(image[0, 0, 2]) for image in dataset.load().images]
    assert blues == [0, 1, 2, 9]  # 3 is smaller than a patch


def test_of_several_paths_the_one_that_fails_is_named(folder: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(DataError, match="missing"):
        REGISTRY.dataset(
            {"patches": {"path": [str(folder), str(missing)], "noise": GAUSSIAN}}
        ).load()
    with pytest.raises(DescriptionError, match="path"):
        REGISTRY.dataset({"patches": {"path": [], "noise": GAUSSIAN}})

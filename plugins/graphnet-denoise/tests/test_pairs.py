"""Ready pairs: every form that is read, and every file that is refused."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphnet_denoise import metrics
from graphnet_denoise.pairs import PairFiles, as_pairs
from numpy.typing import NDArray
from PIL import Image

from graphnet.errors import DataError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "ee559_val.npz"


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fill(folder: Path, images: dict[str, NDArray[Any]]) -> None:
    folder.mkdir(parents=True)
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / name)


@pytest.mark.parametrize("names", [("noisy", "clean"), ("input", "target"), ("noisy1", "noisy2")])
def test_npz_by_any_of_its_names(tmp_path: Path, names: tuple[str, str]) -> None:
    first, second = noise(4, 3, 5, 6), noise(4, 3, 5, 6, seed=1)
    path = tmp_path / "pairs.npz"
    np.savez(path, **{names[0]: first, names[1]: second, "other": noise(1)})  # type: ignore[arg-type]
    assert PairFiles.claims(path)
    loaded = PairFiles(path=str(path)).load()
    assert loaded.inputs.dtype == loaded.targets.dtype == torch.uint8
    np.testing.assert_array_equal(loaded.inputs.numpy(), first)
    np.testing.assert_array_equal(loaded.targets.numpy(), second)


def test_npy_of_pairs(tmp_path: Path) -> None:
    array = noise(4, 2, 3, 5, 6)
    path = tmp_path / "pairs.npy"
    np.save(path, array)
    assert PairFiles.claims(path)
    loaded = PairFiles(path=str(path)).load()
    np.testing.assert_array_equal(loaded.inputs.numpy(), array[:, 0])
    np.testing.assert_array_equal(loaded.targets.numpy(), array[:, 1])
    assert loaded.inputs.is_contiguous()


@pytest.mark.parametrize("names", [("noisy", "clean"), ("input", "target")])
def test_two_folders_of_equal_names(tmp_path: Path, names: tuple[str, str]) -> None:
    first = {f"{i}.png": noise(5, 6, 3, seed=i) for i in (2, 0, 1)}
    second = {f"{i}.png": noise(5, 6, 3, seed=10 + i) for i in (0, 1, 2)}
    fill(tmp_path / names[0], first)
    fill(tmp_path / names[1], second)
    assert PairFiles.claims(tmp_path)
    loaded = PairFiles(path=str(tmp_path)).load()
    for index in range(3):
        expected = (
            first[f"{index}.png"].transpose(2, 0, 1),
            second[f"{index}.png"].transpose(2, 0, 1),
        )
        np.testing.assert_array_equal(loaded.inputs[index].numpy(), expected[0])
        np.testing.assert_array_equal(loaded.targets[index].numpy(), expected[1])


def test_grey_folders_stay_grey_and_mixed_ones_become_colour(tmp_path: Path) -> None:
    grey = {"0.png": noise(5, 6), "1.png": noise(5, 6, seed=1)}
    fill(tmp_path / "grey/noisy", grey)
    fill(tmp_path / "grey/clean", grey)
    assert PairFiles(path=str(tmp_path / "grey")).load().inputs.shape == (2, 1, 5, 6)
    mixed = {"0.png": noise(5, 6), "1.png": noise(5, 6, 3)}
    fill(tmp_path / "mixed/noisy", mixed)
    fill(tmp_path / "mixed/clean", mixed)
    loaded = PairFiles(path=str(tmp_path / "mixed")).load()
    np.testing.assert_array_equal(loaded.inputs[0].numpy(), np.stack([mixed["0.png"]] * 3))


def test_sixteen_bits_become_floating_point_on_both_sides(tmp_path: Path) -> None:
    fill(tmp_path / "noisy", {"0.png": np.full((2, 2), 13107, np.uint16)})
    fill(tmp_path / "clean", {"0.png": np.full((2, 2), 102, np.uint8)})
    loaded = PairFiles(path=str(tmp_path)).load()
    torch.testing.assert_close(loaded.inputs, torch.full((1, 1, 2, 2), 0.2))
    torch.testing.assert_close(loaded.targets, torch.full((1, 1, 2, 2), 0.4))


@pytest.mark.parametrize(
    ("dtype", "scale"), [("uint16", 65535), ("float16", 1), ("float32", 1), ("float64", 1)]
)
def test_other_dtypes_become_float32_in_unit_range(dtype: str, scale: float) -> None:
    array = (np.array([0, 0.25, 1]) * scale).astype(dtype).reshape(1, 1, 1, 3)
    loaded = as_pairs(array, array, where="here")
    assert loaded.inputs.dtype == torch.float32
    torch.testing.assert_close(
        loaded.inputs.flatten(), torch.tensor([0, 0.25, 1]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (noise(2, 3, 4, 4), noise(3, 3, 4, 4), r"of one shape, found \(2, 3, 4, 4\) and \(3,"),
        (noise(2, 4, 4), noise(2, 4, 4), r"arrays \(N, C, H, W\).* found \(2, 4, 4\)\. Grey"),
        (noise(0, 3, 4, 4), noise(0, 3, 4, 4), r"at least one pixel, found \(0, 3, 4, 4\)"),
        (noise(2, 3, 4, 4) * 1.0, noise(2, 3, 4, 4), r"inputs: .* 0\.\.1, found a mean of 1\d\d"),
        (noise(2, 3, 4, 4), np.full((2, 3, 4, 4), np.nan), "targets: expected finite numbers"),
        (noise(2, 3, 4, 4), np.zeros((2, 3, 4, 4), np.int64), "floating point, found int64"),
        (noise(2, 3, 4, 4), np.zeros((2, 3, 4, 4), bool), "floating point, found bool"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    inputs: NDArray[Any], targets: NDArray[Any], message: str
) -> None:
    with pytest.raises(DataError, match="here.*" + message):
        as_pairs(inputs, targets, where="here")


def test_npz_with_other_names_lists_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", noisy=noise(1, 1, 2, 2), average=noise(1, 1, 2, 2))
    with pytest.raises(DataError, match=r"noisy and clean, .*; found noisy, average"):
        PairFiles(path=str(tmp_path / "a.npz")).load()


def test_npy_of_another_shape_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(4, 3, 5, 6))
    with pytest.raises(DataError, match=r"\(N, 2, C, H, W\), found \(4, 3, 5, 6\)"):
        PairFiles(path=str(tmp_path / "a.npy")).load()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._path),)


def test_pickled_objects_are_not_run(tmp_path: Path) -> None:
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(tmp_path / "a.npz", noisy=trap, clean=trap)
    np.save(tmp_path / "a.npy", trap)
    for name in ("a.npz", "a.npy"):
        with pytest.raises(DataError, match=rf"{name}: .*cannot be read as numpy arrays"):
            PairFiles(path=str(tmp_path / name)).load()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_damaged_files_are_data_errors(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, noisy=noise(2, 1, 4, 4), clean=noise(2, 1, 4, 4))
    else:
        np.save(path, noise(2, 2, 1, 4, 4))
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=f"a{suffix}"):
            PairFiles(path=str(path)).load()


def test_files_with_each_others_ending_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", noisy=noise(1, 1, 2, 2))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"Rename it to \.npz"):
        PairFiles(path=str(tmp_path / "a.npy")).load()
    np.save(tmp_path / "b.npy", noise(1, 2, 1, 2, 2))
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"Rename it to \.npy"):
        PairFiles(path=str(tmp_path / "b.npz")).load()


def test_absent_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.npz: there is no such file"):
        PairFiles(path=str(tmp_path / "a.npz")).load()
    with pytest.raises(DataError, match=r"or a folder, found '\.txt'"):
        PairFiles(path=str(tmp_path / "a.txt")).load()
    assert not PairFiles.claims(tmp_path / "a.txt")


def test_a_pickle_is_claimed_to_say_how_it_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "val_data.pkl"
    assert PairFiles.claims(path)
    with pytest.raises(DataError, match=r"graphnet convert-pairs \S+val_data.pkl \S+val_data.npz"):
        PairFiles(path=str(path)).load()


def test_folders_that_do_not_pair_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "noisy", {"0.png": noise(4, 4), "1.png": noise(4, 4)})
    assert not PairFiles.claims(tmp_path)
    with pytest.raises(DataError, match="expected two folders of images"):
        PairFiles(path=str(tmp_path)).load()
    fill(tmp_path / "clean", {"0.png": noise(4, 4), "2.png": noise(4, 4)})
    with pytest.raises(DataError, match=r"2 are in one only: 1\.png, 2\.png"):
        PairFiles(path=str(tmp_path)).load()


def test_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "noisy", {"0.png": noise(4, 4), "1.png": noise(4, 5)})
    fill(tmp_path / "clean", {"0.png": noise(4, 4), "1.png": noise(4, 4)})
    with pytest.raises(DataError, match=r"1\.png: expected 4 x 4 pixels .* found 4 x 5"):
        PairFiles(path=str(tmp_path)).load()


def test_halves_of_different_size_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "noisy", {"0.png": noise(4, 4)})
    fill(tmp_path / "clean", {"0.png": noise(8, 8)})
    with pytest.raises(DataError, match=r"found \(1, 1, 4, 4\) and \(1, 1, 8, 8\)"):
        PairFiles(path=str(tmp_path)).load()


def test_the_stand_in_for_the_course_has_its_noise() -> None:
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is absent: the development data are no part of the project")
    loaded = PairFiles(path=str(SHARED)).load()
    assert loaded.inputs.shape == loaded.targets.shape == (990, 3, 32, 32)
    psnr_db = metrics.psnr(loaded.inputs / 255, loaded.targets / 255)
    assert psnr_db == pytest.approx(20.79, abs=0.01)

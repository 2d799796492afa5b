"""Block sampling against the rule done slowly, and every folder it refuses."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from graphnet_denoise import metrics, photos
from graphnet_denoise.images import list_images, read_rgb
from graphnet_denoise.photos import Photos, sample_blocks
from numpy.typing import NDArray
from PIL import Image

from graphnet.errors import DataError, DescriptionError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "photos"


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def coordinates(height: int, width: int) -> NDArray[np.uint8]:
    """A photo whose pixels say where they are: red the row, green the column, blue their sum."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)


def crops_of(clean: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(s, top, left) of each crop of `coordinates`, since a block's mean is where its middle is."""
    rows, columns = clean[:, 0].astype(np.int64), clean[:, 1].astype(np.int64)
    side = rows[:, 1, 0] - rows[:, 0, 0]
    return np.stack([side, rows[:, 0, 0] - side // 2, columns[:, 0, 0] - side // 2], axis=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(3):
        Image.fromarray(noise(40, 30 + index, 3, seed=index)).save(tmp_path / f"{index}.png")
    return tmp_path


def test_noisy_pixels_come_whole_from_their_own_block() -> None:
    photo = coordinates(60, 80)
    _, clean = sample_blocks(photo, count=400, size=5, seed=1, target="clean")
    first, second = sample_blocks(photo, count=400, size=5, seed=1)
    side, top, left = crops_of(clean)[:, :, None, None].transpose(1, 0, 2, 3)
    for noisy in (first.astype(np.int64), second.astype(np.int64)):
        rows, columns, both = noisy.transpose(1, 0, 2, 3)
        np.testing.assert_array_equal(both, rows + columns)  # all channels from the same pixel
        np.testing.assert_array_equal((rows - top) // side, np.arange(5)[:, None] + 0 * rows)
        np.testing.assert_array_equal((columns - left) // side, np.arange(5) + 0 * columns)
    assert (first != second).mean() > 0.8


def test_crops_have_all_sides_and_positions_equally_often() -> None:
    _, clean = sample_blocks(coordinates(31, 36), count=9000, size=5, seed=2, target="clean")
    crops = crops_of(clean)
    sides = Counter(crops[:, 0].tolist())  # 4..31 // 5
    assert set(sides) == {4, 5, 6}
    assert all(abs(count - 3000) < 200 for count in sides.values())  # 4.5 sigma
    for side in sides:
        top, left = crops[crops[:, 0] == side, 1:].T
        assert set(top) == set(range(31 - 5 * side + 1))
        assert set(left) == set(range(36 - 5 * side + 1))


def test_source_pixels_of_a_block_are_equally_likely() -> None:
    first, second = sample_blocks(coordinates(12, 12), count=4000, size=3, seed=3)
    for noisy in (first, second):  # of side 4, so each block is the same in every crop
        rows, columns = noisy[:, 0, 1, 2], noisy[:, 1, 1, 2]
        offsets = Counter(zip((rows - 4).tolist(), (columns - 8).tolist(), strict=True))
        assert set(offsets) == {(row, column) for row in range(4) for column in range(4)}
        chi_squared = sum((count - 250) ** 2 / 250 for count in offsets.values())
        assert chi_squared < 37.7  # 15 degrees of freedom, p = 0.001


def test_the_two_draws_are_independent() -> None:
    first, second = sample_blocks(noise(64, 64, 3), count=64, size=16, seed=4)
    mean = noise(64, 64, 3).mean()
    _, clean = sample_blocks(noise(64, 64, 3), count=64, size=16, seed=4, target="clean")
    errors = first.astype(float) - clean, second.astype(float) - clean
    assert abs(np.corrcoef(errors[0].ravel(), errors[1].ravel())[0, 1]) < 0.01
    assert abs(errors[0].mean()) < 1.5
    assert mean == pytest.approx(clean.mean(), abs=1)


def test_clean_pixels_are_block_means_rounded_half_up() -> None:
    photo = noise(20, 20, 3)
    _, clean = sample_blocks(photo, count=2, size=5, target="clean")  # of side 4: all of the photo
    means = photo.reshape(5, 4, 5, 4, 3).astype(float).mean(axis=(1, 3))
    expected = np.floor(means + 0.5).astype(np.uint8).transpose(2, 0, 1)
    np.testing.assert_array_equal(clean, np.stack([expected, expected]))


def test_inputs_do_not_depend_on_the_target() -> None:
    photo, count = noise(50, 40, 3), photos._CROPS + 5
    noisy, _ = sample_blocks(photo, count=count, size=4, seed=5)
    again, _ = sample_blocks(photo, count=count, size=4, seed=5, target="clean")
    np.testing.assert_array_equal(noisy, again)


def test_a_photo_too_small_is_refused() -> None:
    with pytest.raises(DataError, match="15 x 40 pixels is too small for 4 x 4 blocks"):
        sample_blocks(noise(15, 40, 3), count=1, size=4)


@pytest.mark.parametrize("pairs", [1, 2, 3, 10, 100])
def test_exactly_the_pairs_asked_for(folder: Path, pairs: int) -> None:
    loaded = Photos(path=str(folder), pairs=pairs, size=4).load()
    for half in (loaded.inputs, loaded.targets):
        assert half.shape == (pairs, 3, 4, 4)
        assert half.dtype == torch.uint8


def test_each_photo_gives_its_share_and_neighbours_differ(tmp_path: Path) -> None:
    for level in (10, 20, 30):
        Image.new("RGB", (40, 30), (level,) * 3).save(tmp_path / f"{level}.png")
    loaded = Photos(path=str(tmp_path), pairs=11, size=4).load()
    levels = loaded.inputs[:, 0, 0, 0].tolist()
    assert sorted(Counter(levels).values()) == [3, 4, 4]
    assert all(len(set(levels[i : i + 3])) == 3 for i in range(9))
    orders = {
        tuple(Photos(path=str(tmp_path), pairs=3, size=4, seed=seed).load().inputs[:, 0, 0, 0])
        for seed in range(20)
    }
    assert len(orders) > 1  # not always the first photos by name


def test_equal_seeds_give_equal_pairs_and_others_do_not(folder: Path) -> None:
    def load(seed: int) -> torch.Tensor:
        loaded = Photos(path=str(folder), pairs=20, size=4, seed=seed).load()
        return torch.cat([loaded.inputs, loaded.targets])

    assert torch.equal(load(7), load(7))
    assert not torch.equal(load(7), load(8))


def test_the_noisy_target_is_another_draw_of_the_clean_one(folder: Path) -> None:
    noisy = Photos(path=str(folder), pairs=50, size=4).load()
    clean = Photos(path=str(folder), pairs=50, size=4, target="clean").load()
    assert torch.equal(noisy.inputs, clean.inputs)
    assert not torch.equal(noisy.targets, clean.targets)
    difference = noisy.targets.double() - clean.targets.double()
    assert abs(float(difference.mean())) < 6  # 2400 pixels of sigma 74: 4 sigma


def test_photos_of_all_kinds_are_sampled(tmp_path: Path) -> None:
    Image.fromarray(noise(20, 20)).save(tmp_path / "grey.png")
    Image.fromarray(noise(20, 20, 4)).save(tmp_path / "alpha.png")
    Image.fromarray((noise(20, 20).astype(np.uint16) << 8) + 3).save(tmp_path / "deep.png")
    Image.fromarray(noise(20, 20, 3)).save(tmp_path / "photo.JPEG")
    (tmp_path / "notes.txt").write_text("not a photo")
    loaded = Photos(path=str(tmp_path), pairs=8, size=4).load()
    grey = (loaded.inputs[:, :1] == loaded.inputs).all(dim=(1, 2, 3))
    assert int(grey.sum()) == 4  # the grey and the deep one


def test_small_photos_are_passed_over_unless_there_is_no_other(folder: Path) -> None:
    Image.new("RGB", (15, 15)).save(folder / "small.png")
    inputs = Photos(path=str(folder), pairs=30, size=4).load().inputs
    assert bool((inputs.amax(dim=(1, 2, 3)) > 0).all())
    with pytest.raises(DataError, match=r"at least 48 x 48 .* is 40 x 3\d\. .* size to at most 8"):
        Photos(path=str(folder), size=12).load()


def test_a_damaged_photo_is_named(folder: Path) -> None:
    path = folder / "1.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"1\.png: cannot be read as a PNG"):
        Photos(path=str(folder), pairs=30, size=4).load()
    (folder / "2.png").write_text("no image")
    with pytest.raises(DataError, match=r"2\.png: cannot be read as an image"):
        Photos(path=str(folder), pairs=30, size=4).load()


def test_folders_without_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder with images"):
        Photos(path=str(tmp_path)).load()
    with pytest.raises(DataError, match="absent: cannot be listed"):
        Photos(path=str(tmp_path / "absent")).load()


def test_more_pairs_than_memory_is_an_error_in_words(folder: Path) -> None:
    with pytest.raises(DataError, match="do not fit into the memory"):
        Photos(path=str(folder), pairs=10**15, size=4).load()


@pytest.mark.parametrize("field", [{"pairs": 0}, {"size": -1}, {"seed": -1}, {"target": "blurred"}])
def test_wrong_fields_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(DescriptionError, match=next(iter(field))):
        Photos(path="photos", **field)  # type: ignore[arg-type]


def test_folders_with_images_are_claimed(folder: Path) -> None:
    assert Photos.claims(folder)
    assert not Photos.claims(folder / "0.png")
    assert not Photos.claims(folder / "absent")
    (folder / "empty").mkdir()
    assert not Photos.claims(folder / "empty")


def test_real_photos_are_as_noisy_as_the_rule_makes_them() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: the development photos are no part of the project")
    loaded = Photos(path=str(SHARED), pairs=2000, target="clean").load()
    errors = metrics.squared_error(loaded.inputs / 255, loaded.targets / 255)
    psnr_db = metrics.mean_psnr(errors[errors > 0])
    assert psnr_db == pytest.approx(slow_psnr_db(every=7), abs=0.6)
    assert 20.5 < psnr_db < 22.5


def slow_psnr_db(*, every: int) -> float:
    """The same mean from some photos, by the rule written out for one crop at a time."""
    rng = np.random.default_rng(0)
    values = []
    for path in list_images(SHARED)[::every]:
        photo = read_rgb(path).astype(float)
        for _ in range(5):
            s = rng.integers(4, min(photo.shape[:2]) // 32 + 1)
            top = rng.integers(0, photo.shape[0] - 32 * s + 1)
            left = rng.integers(0, photo.shape[1] - 32 * s + 1)
            crop = photo[top : top + 32 * s, left : left + 32 * s]
            blocks = crop.reshape(32, s, 32, s, 3).transpose(0, 2, 1, 3, 4).reshape(1024, s * s, 3)
            noisy = blocks[np.arange(1024), rng.integers(0, s * s, 1024)]
            error = ((noisy - np.rint(blocks.mean(axis=1))) ** 2).mean() / 255**2
            values += [-10 * np.log10(error)] if error > 0 else []
    return float(np.mean(values))

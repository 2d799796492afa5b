"""Images that need more memory than they may take: the regions that are held."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from graphnet_denoise.commands.learn import learn
from graphnet_denoise.images import ImageFile, open_image
from graphnet_denoise.learning import findings as findings_module
from graphnet_denoise.learning import scene_images as scenes_module
from graphnet_denoise.learning.findings import find
from graphnet_denoise.learning.frames import Frame
from graphnet_denoise.learning.regions import Scene, choose_regions
from graphnet_denoise.learning.scene_images import SceneImages, read_scenes, write_scenes
from graphnet_denoise.learning.scenes import HeldOut, OwnScenes
from graphnet_denoise.learning.statistics import Image, NoiseStatistics, noise_statistics
from graphnet_denoise.supervision import Noise2Noise, Noise2Void
from PIL import Image as PillowImage

from graphnet.errors import DataError, InputError
from tests.support import own_images
from tests.support.own_images import Writer


def held(images: SceneImages) -> int:
    return sum(image.nbytes for scene in images.scenes for image in scene)


def scene(images: int, height: int, width: int, *, number: int = 0, itemsize: int = 2) -> Scene:
    frames = tuple(Frame(Path(f"{number}.tif"), plane) for plane in range(images))
    return Scene(frames, (1, height, width), itemsize)


def test_scenes_that_fit_are_held_whole() -> None:
    scenes = [scene(3, 100, 90), scene(1, 400, 300, number=1)]
    found = choose_regions(scenes, sum(each.size_bytes for each in scenes))
    assert found.side is None
    assert [region.frames for region in found.regions] == [each.frames for each in scenes]
    assert [(r.rows, r.columns) for r in found.regions] == [
        (slice(0, 100), slice(0, 90)),
        (slice(0, 400), slice(0, 300)),
    ]


@pytest.mark.parametrize(
    ("scenes", "memory", "side"),
    [
        ([scene(1, 20_000, 20_000)], 1 << 30, None),
        ([scene(1, 20_000, 20_000)], 100 << 20, 512),
        ([scene(400, 2048, 2048)], 1 << 30, 512),
        ([scene(400, 2048, 2048)], 50 << 20, 256),
        ([scene(2, 3000, 3000, number=k, itemsize=4) for k in range(50)], 20 << 20, 256),
        ([scene(1, 64, 64, number=k) for k in range(1000)], 1 << 20, 512),
    ],
)
def test_regions_keep_to_the_bound_and_use_most_of_it(
    scenes: list[Scene], memory: int, side: int | None
) -> None:
    found = choose_regions(scenes, memory)
    assert found.side == side
    assert choose_regions(scenes, memory) == found
    sizes = [
        len(r.frames)
        * (r.rows.stop - r.rows.start)
        * (r.columns.stop - r.columns.start)
        * scenes[0].itemsize
        for r in found.regions
    ]
    assert memory / 2 < sum(sizes) <= memory or side is None
    assert len({(r.frames, r.rows.start, r.columns.start) for r in found.regions}) == len(sizes)
    if side is not None:
        assert min(r.rows.stop - r.rows.start for r in found.regions) >= min(side, 64)
        several = len(scenes[0].frames) > 1
        assert all((len(r.frames) > 1) == several for r in found.regions)


def test_regions_are_spread_over_scenes_and_places() -> None:
    scenes = [scene(1, 4096, 4096, number=k) for k in range(4)]
    found = choose_regions(scenes, 40 << 20)
    assert {region.frames[0].file.name for region in found.regions} == {
        f"{k}.tif" for k in range(4)
    }
    columns = np.bincount([region.columns.start // 512 for region in found.regions], minlength=8)
    assert columns.min() >= len(found.regions) // 8 // 2


def test_a_bound_below_the_smallest_region_is_refused() -> None:
    with pytest.raises(DataError, match=r"the smallest region of a scene takes .* Allow more"):
        choose_regions([scene(1, 1000, 1000)], 1000)


def test_only_regions_of_a_large_file_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = Writer(tmp_path / "large")
    to.tiff("large.tif", np.tile(to.noisy(own_images.scene(0)), (8, 8)))
    whole = tifffile.imread(tmp_path / "large" / "large.tif")
    memory = whole.nbytes // 4
    found = find(tmp_path / "large", memory=memory)
    assert "take more than 800.0 KiB (--memory)" in found.lines("")[0]
    assert "25 regions of up to 128 x 128 pixels" in found.lines("")[0]
    path = tmp_path / "scenes.json"
    write_scenes(path, tmp_path / "large", found.arrangement, memory=memory)

    asked: list[int] = []
    read = ImageFile.read

    def spy(
        self: ImageFile, plane: int = 0, rows: slice = slice(None), columns: slice = slice(None)
    ) -> object:
        pixels = read(self, plane, rows, columns)
        asked.append(pixels.nbytes)
        return pixels

    monkeypatch.setattr(ImageFile, "read", spy)
    images = read_scenes(path)
    assert held(images) == sum(asked) <= memory
    assert max(asked) < 40_000  # no read of the whole image
    places = choose_regions(
        [Scene(found.arrangement.scenes[0], (1, *whole.shape), 2)], memory
    ).regions
    for (image,), region in zip(images.scenes, places, strict=True):
        np.testing.assert_array_equal(image[..., 0], whole[region.rows, region.columns])
    stream = OwnScenes(path=str(path), supervision=Noise2Void()).load()
    assert stream.batch(0, 0, range(4))[0].shape == (4, 1, 64, 64)
    HeldOut(path=str(path)).load()


def test_a_file_that_is_decoded_as_a_whole_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PillowImage.fromarray(np.zeros((512, 512), np.uint8)).save(tmp_path / "a.png")
    path = tmp_path / "scenes.json"
    data = {
        "folder": str(tmp_path),
        "kind": "singles",
        "ordered": False,
        "scenes": [[["a.png", 0]]],
    }
    path.write_text(json.dumps({**data, "memory": 100_000}))
    opened: list[Path] = []

    def spy(file: Path) -> ImageFile:
        opened.append(file)
        return open_image(file)

    monkeypatch.setattr(scenes_module, "open_image", spy)
    images = read_scenes(path)
    assert len(images.scenes) == 6
    assert held(images) <= 100_000
    assert len(opened) == 2  # the header, then the pixels of all regions


def test_long_scenes_are_cut_into_images_that_follow_one_another(tmp_path: Path) -> None:
    to = Writer(tmp_path / "movie")
    frames = np.stack([np.full((130, 130), t / 4095) for t in range(40)])
    to.tiff("movie.tif", frames, imagej=True, metadata={"axes": "TYX"})
    path = tmp_path / "scenes.json"
    names = [["movie.tif", t] for t in range(40)]
    data = {"folder": str(to.folder), "kind": "movie", "ordered": False, "scenes": [names]}
    path.write_text(json.dumps({**data, "memory": 700_000}))
    images = read_scenes(path)
    first = [[int(image[0, 0, 0]) for image in scene] for scene in images.scenes]
    assert first == [list(range(20, 40))]
    stream = OwnScenes(path=str(path), supervision=Noise2Noise()).load()
    one, two = stream.batch(0, 0, range(32))
    assert set((one - two).abs().flatten().tolist()) == {1.0}


def test_the_command_takes_a_bound(tmp_path: Path) -> None:
    folder = own_images.write(tmp_path, own_images.grey_16_bits)

    def output(*options: str) -> str:
        arguments = [str(folder), "--dry-run", *options]
        return CliRunner().invoke(learn, arguments, catch_exceptions=False).output

    assert "--memory" not in output()
    assert "--memory" not in output("--memory", "100%")
    said = output("--memory", "75%")
    assert "so the network learns from 3 regions of up to 160 x 160 pixels" in said
    with pytest.raises(InputError, match="expected an amount of memory"):
        output("--memory", "much")
    with pytest.raises(DataError, match="Allow more with --memory"):
        output("--memory", "10kB")


def test_noise_is_measured_on_a_bounded_number_of_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_images.write(tmp_path, own_images.grey_16_bits)
    monkeypatch.setattr(findings_module, "_AREA", 4 * 64 * 64)
    measured: list[int] = []

    def spy(images: Sequence[Image], again: Sequence[Image] | None = None) -> NoiseStatistics:
        measured.extend(image.size for image in images)
        return noise_statistics(images, again)

    monkeypatch.setattr(findings_module, "noise_statistics", spy)
    find(folder)
    assert measured == [64 * 64] * 4

"""What `graphnet learn` finds in a folder, what it chooses, and what it trains."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import dask.array
import graphnet_denoise
import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner
from graphnet_denoise import plugin
from graphnet_denoise.commands.learn import learn
from graphnet_denoise.images import open_image
from graphnet_denoise.learning import own_images as own_images_module
from graphnet_denoise.learning import recipe
from graphnet_denoise.learning.array_files import write_arrays
from graphnet_denoise.learning.findings import find
from graphnet_denoise.learning.frames import sources_in
from graphnet_denoise.learning.own_images import Learning
from graphnet_denoise.learning.sameness import compare_images
from graphnet_denoise.learning.scene_images import SceneImages, read_scenes, write_scenes
from graphnet_denoise.learning.scenes import HeldOut, OwnScenes
from graphnet_denoise.learning.statistics import noise_statistics
from graphnet_denoise.learning.training import Progress, plan_length, step_seconds
from graphnet_denoise.metrics import HeldOutPSNR
from graphnet_denoise.normalization import knows_range
from graphnet_denoise.supervision import Noise2Noise, Noise2Void

import graphnet
from graphnet.errors import CheckpointError, DataError, GraphnetError, InputError, TrainingError
from graphnet.sdk import Pairs, load_registry
from graphnet.training import Steps, Trainer, read_job
from tests.support import own_images
from tests.support.own_images import SIDE, Writer

NOISE2VOID = {"noise2void": {"masked": 0.11}}
BURST = {"noise2noise": {"targets": 16}}
REGISTRY = load_registry(plugins=[plugin], entry_points=False)


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_images_module, "default_registry", lambda: REGISTRY)


def run(command: click.Command, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if isinstance(result.exception, GraphnetError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


# -- what is in a folder -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "kind", "scenes", "supervision"),
    [
        (own_images.pairs_by_name, "pairs", 4, "noise2noise"),
        (own_images.pairs_by_folder, "pairs", 4, "noise2noise"),
        (own_images.noisy_and_clean, "pairs", 4, "noise2noise"),
        (own_images.bursts, "bursts", 4, BURST),
        (own_images.bursts_by_folder, "bursts", 3, BURST),
        (own_images.grey_16_bits, "singles", 4, NOISE2VOID),
        (own_images.single_colour, "singles", 4, NOISE2VOID),
        (own_images.stack, "stack", 8, NOISE2VOID),
        (own_images.movie_that_stands_still, "bursts", 1, BURST),
        (own_images.movie_that_flickers, "bursts", 1, BURST),
        (own_images.long_burst, "bursts", 1, BURST),
        (own_images.movie_that_drifts, "movie", 1, "noise2noise"),
        (own_images.movie_that_bleaches, "movie", 1, "noise2noise"),
        (own_images.movie_of_one_thing_that_moves, "movie", 3, "noise2noise"),
        (own_images.scenes_with_hot_pixels, "singles", 4, NOISE2VOID),
        (own_images.movie_that_moves, "movie", 12, NOISE2VOID),
        (own_images.row_noise, "singles", 4, {"noise2void": {"masked": 0.03, "hidden": [0, 2]}}),
        (
            own_images.pixel_noise,
            "singles",
            4,
            {"noise2void": {"masked": 0.0167, "hidden": [1, 1]}},
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_folder_is_learned_from_as_a_specialist_would(
    tmp_path: Path,
    images: Callable[[Writer], None],
    kind: str,
    scenes: int,
    supervision: str | Mapping[str, Any],
) -> None:
    found = find(own_images.write(tmp_path, images))
    assert (found.arrangement.kind, len(found.arrangement.scenes)) == (kind, scenes)
    assert found.choice.supervision == supervision


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (own_images.far_pixel_noise, "correlated in both directions, over up to 3 pixels"),
        (own_images.stripes, "stripes along the rows"),
    ],
)
def test_noise_that_one_image_cannot_tell_from_the_picture_is_refused(
    tmp_path: Path, images: Callable[[Writer], None], words: str
) -> None:
    with pytest.raises(DataError, match=f"{words}.*two or more images of each scene"):
        find(own_images.write(tmp_path, images))


def test_correlated_noise_does_no_harm_where_a_scene_has_two_images(tmp_path: Path) -> None:
    to = Writer(tmp_path)
    for k in range(3):
        for end in "ab":
            noise = own_images.smoothed(to.draws.normal(size=(SIDE, SIDE)), 2)
            to.tiff(f"x{k}_{end}.tif", own_images.scene(k) + 0.08 * noise / noise.std())
    choice = find(tmp_path).choice
    assert choice.supervision == "noise2noise"
    assert "correlated between pixels does no harm" in choice.learns


def test_the_image_with_less_noise_is_the_target_whatever_its_name(tmp_path: Path) -> None:
    arrangement = find(own_images.write(tmp_path, own_images.noisy_and_clean)).arrangement
    assert arrangement.ordered
    assert {scene[-1].file.parent.name for scene in arrangement.scenes} == {"gt"}
    assert {frame.file.parent.name for frame in arrangement.noisy} == {"lq"}
    assert not find(own_images.write(tmp_path, own_images.pairs_by_name)).arrangement.ordered


def test_pairs_of_a_scene_that_moves_count_as_single_images(tmp_path: Path) -> None:
    to = Writer(tmp_path)
    for k in range(4):
        wide = own_images.scene(k, SIDE + 8)
        to.png(f"x{k}_a.png", to.noisy(wide[:SIDE, :SIDE]))
        to.png(f"x{k}_b.png", to.noisy(wide[4 : SIDE + 4, 3 : SIDE + 3]))
    found = find(tmp_path)
    assert (found.arrangement.kind, len(found.arrangement.scenes)) == ("singles", 8)
    assert "the scene moves between their images" in found.arrangement.reason


def test_a_folder_without_images_or_of_two_kinds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        find(tmp_path / "absent")
    with pytest.raises(DataError, match="expected a folder with images"):
        find(tmp_path)
    to = Writer(tmp_path)
    to.png("a.png", to.noisy(own_images.scene(0)))
    to.png("b.png", to.noisy(own_images.coloured(own_images.scene(1))))
    with pytest.raises(DataError, match="of 1 and of 3 channels"):
        find(tmp_path)
    to.png("b.png", np.full((8, 40), 0.5))
    with pytest.raises(DataError, match="a side of 8 pixels"):
        find(tmp_path)
    to.png("a.png", np.full((40, 40), 0.5))
    to.png("b.png", np.full((40, 40), 0.5))
    with pytest.raises(DataError, match="all pixels .* are equal"):
        find(tmp_path)


def test_images_in_folders_of_any_depth_are_found_and_links_to_folders_are_named(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a/b/c/d/e"
    folder.mkdir(parents=True)
    for name in ("x10.png", "x9.png"):
        Writer(folder).png(name, np.full((4, 4), 0.5))
    (tmp_path / "a/again").symlink_to(folder)
    found = sources_in(tmp_path)
    assert [source.file for source in found.files] == [folder / "x9.png", folder / "x10.png"]
    link = tmp_path / "a/again"
    assert found.left_out == [f"{link}: is a link to a folder and is not followed"]


def test_earlier_results_are_not_learned_from(tmp_path: Path) -> None:
    folder = own_images.write(tmp_path, own_images.grey_16_bits)
    before = find(folder)
    own_images.Writer(folder).tiff("im_0-denoised.tif", own_images.scene(0))
    own_images.Writer(folder).tiff("other-denoised.tif", own_images.scene(9))  # of no image here
    files = [source.file.name for source in find(folder).sources]
    assert files == [*(source.file.name for source in before.sources), "other-denoised.tif"]


# -- noise and sameness ------------------------------------------------------------------------------


def test_noise_is_measured_in_smooth_parts_and_exactly_from_two_images() -> None:
    draws = np.random.default_rng(0)
    scenes = [own_images.scene(k)[None] for k in range(3)]
    first, second = (
        [(s + draws.normal(0, 0.1, s.shape)).astype(np.float32) for s in scenes] for _ in range(2)
    )
    alone, exact = noise_statistics(first), noise_statistics(first, second)
    assert alone.level == pytest.approx(0.1, rel=0.08)
    assert exact.level == pytest.approx(0.1, rel=0.02)
    assert max(map(abs, exact.along_rows + exact.along_columns)) < 0.02
    assert not exact.grows


def test_noise_is_told_from_a_picture_that_has_structure_everywhere_but_in_its_background() -> None:
    draws = np.random.default_rng(0)
    scenes = [np.maximum(own_images.scene(k) - 0.5, 0)[None] for k in range(8)]
    noise = noise_statistics(
        [(s + draws.normal(0, 0.02, s.shape)).astype(np.float32) for s in scenes]
    )
    assert noise.level == pytest.approx(0.02, rel=0.1)
    assert max(map(abs, noise.along_rows + noise.along_columns)) < 0.1


def test_noise_of_counted_photons_grows_with_brightness() -> None:
    draws = np.random.default_rng(0)
    ramp = np.linspace(0.1, 0.9, 256)[None, None].repeat(256, axis=1)
    counted = noise_statistics([(draws.poisson(100 * ramp) / 100).astype(np.float32)])
    assert counted.grows
    # The classes are eighths of the ramp: their middles are at 0.15 and 0.85.
    assert counted.dark == pytest.approx(math.sqrt(0.15 / 100), rel=0.1)
    assert counted.bright == pytest.approx(math.sqrt(0.85 / 100), rel=0.1)


@pytest.mark.parametrize(("shift", "still"), [((0, 0), True), ((0, 2), False), ((9, 5), False)])
@pytest.mark.parametrize("std", [0.02, 0.1])
def test_motion_is_told_from_noise(shift: tuple[int, int], still: bool, std: float) -> None:
    draws = np.random.default_rng(0)
    wide = own_images.scene(1, SIDE + 16)
    first = wide[:SIDE, :SIDE]
    second = wide[shift[0] : SIDE + shift[0], shift[1] : SIDE + shift[1]]
    images = [(s + draws.normal(0, std, s.shape))[None].astype(np.float32) for s in (first, second)]
    compared = compare_images(*images)
    assert compared.same
    assert compared.still is still


def test_other_scenes_are_not_the_same() -> None:
    images = [own_images.scene(k)[None].astype(np.float32) for k in range(4)]
    pairs = [(a, b) for i, a in enumerate(images) for b in images[:i]]
    assert max(compare_images(a, b).correlation for a, b in pairs) < 0.3
    assert not compare_images(images[0], images[0][:, 1:]).same


# -- the data sets -----------------------------------------------------------------------------------


def learned(folder: Path, run_folder: Path, *options: object) -> str:
    return run(learn, folder, "--run", run_folder, *options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a few steps on four 16-bit images."""
    folder = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_images_module, "default_registry", lambda: REGISTRY)
        patch.chdir(folder)
        learned(own_images.write(folder, own_images.grey_16_bits), Path("run"), "--steps", 4)
    return folder / "run"


def test_held_out_patches_are_not_trained_on(trained: Path) -> None:
    images = read_scenes(trained / "scenes.json")
    kept, held = images.to_train(64), images.held_out(64)
    assert images.split(64) == "rows"
    assert {image.shape for scene in kept for image in scene} == {(SIDE - 64, SIDE, 1)}
    assert len(held) == len(kept) * (SIDE // 64)
    whole = read_scenes(trained / "scenes.json").scenes[0][0]
    np.testing.assert_array_equal(held[0][0], whole[-64:, :64])


@pytest.mark.parametrize(
    ("scenes", "size", "split", "left"), [(16, 40, "scenes", 14), (5, 40, "nothing", 5)]
)
def test_whole_scenes_are_held_out_where_images_are_small(
    scenes: int, size: int, split: str, left: int
) -> None:
    zeros = [[np.full((64, 64, 1), k, np.uint8)] for k in range(scenes)]
    images = SceneImages(zeros, neighbours=False, ordered=False)
    assert images.split(size) == split
    trained_on = {int(scene[0][0, 0, 0]) for scene in images.to_train(size)}
    held = {int(scene[0][0, 0, 0]) for scene in images.held_out(size)}
    assert len(trained_on) == left
    assert not trained_on & held


def test_held_out_targets_are_the_hidden_pixels_alone(trained: Path) -> None:
    pairs = HeldOut(path=str(trained / "scenes.json"), size=64).load()
    assert isinstance(pairs, Pairs)
    hidden = ~pairs.targets.isnan()
    assert 0.02 < hidden.float().mean() < 0.06
    assert pairs.inputs.shape == (8, 1, 64, 64)
    whole = read_scenes(trained / "scenes.json").scenes[0][0]
    tile = torch.from_numpy(whole[-64:, :64, 0].astype(np.float32))
    torch.testing.assert_close(pairs.targets[0, 0][hidden[0, 0]], tile[hidden[0, 0]])
    torch.testing.assert_close(pairs.inputs[0, 0][~hidden[0, 0]], tile[~hidden[0, 0]])


def test_pairs_of_a_scene_are_two_different_images_at_one_place(tmp_path: Path) -> None:
    folder = own_images.write(tmp_path, own_images.bursts)
    path = str(tmp_path / "scenes.json")
    write_scenes(Path(path), folder, find(folder).arrangement)
    stream = OwnScenes(path=path, size=32, supervision=Noise2Noise()).load()
    first, second = stream.batch(0, 0, range(64))
    difference = (first - second).flatten(1)
    assert float(difference.std(1).min()) > 255 * own_images.STD  # sqrt(2) times, and never itself
    assert float(difference.mean(1).abs().max()) < 12
    many = OwnScenes(path=path, size=32, supervision=Noise2Noise(targets=16)).load()
    same, mean = many.batch(0, 0, range(64))
    torch.testing.assert_close(same, first)
    assert float((mean - first).std(1).mean()) < float((second - first).std(1).mean())
    with pytest.raises(DataError, match="a patch 300"):
        OwnScenes(path=path, size=300, supervision=Noise2Noise()).load()


def test_neighbours_and_ordered_scenes_choose_their_images() -> None:
    scenes = [[np.zeros((64, 64, 1), np.uint8)] * 5]
    uniform = np.random.default_rng(0).random((200, 2), np.float32)
    movie = SceneImages(scenes, neighbours=True, ordered=False)
    assert {abs(a - b[0]) for a, b in (movie.chosen(5, u, targets=3) for u in uniform)} == {1}
    burst = SceneImages(scenes, neighbours=False, ordered=False)
    pairs = {(a, *b) for a, b in (burst.chosen(5, u) for u in uniform)}
    assert pairs == {(a, b) for a in range(5) for b in range(5) if a != b}
    for targets, expected in [(3, 3), (4, 4), (16, 4)]:
        for at, others in (burst.chosen(5, u, targets=targets) for u in uniform):
            assert len({at, *others}) == 1 + expected == 1 + len(others)
    ordered = SceneImages(scenes, neighbours=False, ordered=True)
    assert [ordered.chosen(2, u, targets=3) for u in uniform[:9]] == [(0, [1])] * 9


def test_a_list_of_images_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scenes.json"
    path.write_text(json.dumps({"scenes": [["a.png"]]}))
    with pytest.raises(DataError, match="expected the list of images that `graphnet learn` writes"):
        OwnScenes(path=str(path), supervision=Noise2Void()).load()


# -- the command -------------------------------------------------------------------------------------


def test_a_dry_run_says_five_lines_and_writes_nothing(tmp_path: Path) -> None:
    folder = own_images.write(tmp_path, own_images.grey_16_bits)
    output = learned(folder, tmp_path / "run", "--dry-run", "--minutes", 3)
    assert [line.split()[0] for line in output.splitlines()] == [
        "found",
        "noise",
        "learns",
        "network",
        "time",
    ]
    assert "4 grey images of 160 x 160 pixels, uint16" in output
    assert not (tmp_path / "run").exists()


def test_a_damaged_file_is_left_out_and_named(tmp_path: Path) -> None:
    folder = own_images.write(tmp_path, own_images.single_colour)
    whole = sorted(folder.iterdir())[0].read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    output = learned(folder, tmp_path / "run", "--dry-run").splitlines()
    assert "4 colour images" in output[0]
    assert [line.split(":")[0] for line in output[5:]] == [
        f"left out {folder / name}" for name in ("cut.png", "text.png")
    ]


@pytest.mark.parametrize(
    ("count", "side", "size", "said"),
    [
        (4, 96, 48, "patches that are held out no longer rises"),
        (9, 96, 64, "patches that are held out no longer rises"),
        (4, 24, 16, "no patches are held out"),
    ],
)
def test_patches_leave_room_for_others_that_are_held_out(
    tmp_path: Path, count: int, side: int, size: int, said: str
) -> None:
    to = Writer(tmp_path)
    for k in range(count):
        to.tiff(f"x{k}.tif", to.noisy(own_images.scene(k, 160)[:side, :side]))
    found = find(tmp_path)
    assert found.choice.size == size
    assert said in found.lines("1 minute")[-1]


def test_the_model_takes_and_gives_the_numbers_of_the_files(trained: Path) -> None:
    model = graphnet.load(trained / "model.safetensors")
    assert knows_range(model.description)
    image = tifffile.imread(trained.parent / "grey_16_bits" / "im_0.tif").astype(np.float32)
    denoised = model.predict(torch.from_numpy(image)[None, None])[0, 0].numpy()
    assert np.corrcoef(denoised.ravel(), image.ravel())[0, 1] > 0.9
    assert denoised.mean() == pytest.approx(image.mean(), rel=0.05)


def test_the_training_file_trains_again_from_every_folder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(
        read_job(trained / "learn.yaml", settings=["reporters=[]"], registry=REGISTRY)
    )
    records = [record for record in trainer.run() if isinstance(record, Steps)]
    log = (trained / "log.jsonl").read_text().splitlines()
    before = [json.loads(line) for line in log if '"kind": "steps"' in line]
    assert [record.loss for record in records] == [record["loss"] for record in before]
    assert records[0].loss == pytest.approx(1, abs=0.9)  # the numbers are normalized


def test_the_best_model_by_the_held_out_score_is_kept(trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    scores = [next(iter(line["metrics"].values())) for line in log if line["kind"] == "epoch"]
    assert len(scores) == 4
    peak = find(trained.parent / "grey_16_bits").choice.peak
    pairs = HeldOut(path=str(trained / "scenes.json"), size=64).load()
    result = graphnet.load(trained / "model.safetensors").predict(pairs.inputs)
    score = HeldOutPSNR(peak=peak)(result, pairs.targets)  # in float32, the log's is in bfloat16
    assert score == pytest.approx(max(scores), abs=0.05)


@pytest.fixture
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is one convolution, and a training has 8 steps in 4 epochs."""
    conv = "{id: change, conv2d: {out_channels: 1, kernel_size: 3, padding: 1}}"
    (tmp_path / "unet.yaml").write_text(f"name: small\nlayers: [{conv}]\n")
    monkeypatch.setattr(recipe, "NETWORKS", tmp_path)
    monkeypatch.setattr(own_images_module, "step_seconds", lambda *_, **__: 1.0)
    monkeypatch.setattr(own_images_module, "plan_length", lambda *_: recipe.Length(4, 2, 1))


def small_movie() -> Any:
    """Four frames of 40 x 16 pixels: enough for patches of 16 x 16, and for a part that is held out."""
    draws = np.random.default_rng(0)
    frames = own_images.scene(0)[:40, :16] + draws.normal(0, 0.1, (4, 40, 16))
    return frames.astype(np.float32)


@pytest.mark.usefixtures("_small")
def test_a_training_ends_when_its_time_is_over(tmp_path: Path) -> None:
    assert plan_length(60, 0.05).steps == pytest.approx(60 / 0.05 * 0.94, abs=20)
    to = Writer(tmp_path / "small")
    for k in range(2):
        to.png(f"x{k}.png", to.noisy(own_images.scene(k)[:20, :20]))
    output = learned(tmp_path / "small", tmp_path / "run", "--minutes", 1e-6)
    assert "stopped after step 1: the time is over" in output
    assert (tmp_path / "run" / "model.safetensors").exists()
    with pytest.raises(CheckpointError, match="already holds a model"):
        learned(tmp_path / "small", tmp_path / "run")


# -- from Python -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_small")
def test_an_array_is_learned_from_in_one_call(tmp_path: Path) -> None:
    movie, told = small_movie(), list[Progress]()
    found = graphnet_denoise.learn(movie, "TYX", run=tmp_path / "run", progress=told.append)
    assert found.findings.arrangement.kind == "movie"
    assert (told[-1].step, told[-1].steps, found.trained.steps) == (8, 8, 8)
    scores = [one.score for one in told if one.score is not None]
    assert told[0].score is None  # nothing is measured before the end of the first epoch
    assert found.trained.score == told[-1].best == max(scores)
    calm = graphnet_denoise.denoise(movie, "TYX", model=found.model)
    assert calm.shape == movie.shape
    np.testing.assert_array_equal(
        calm, graphnet_denoise.denoise(movie, "TYX", model=tmp_path / "run" / "model.safetensors")
    )
    with pytest.raises(CheckpointError, match="already holds a model"):
        graphnet_denoise.learn(movie, "TYX", run=tmp_path / "run")


@pytest.mark.usefixtures("_small")
def test_the_best_model_stays_when_a_training_is_stopped_or_left(tmp_path: Path) -> None:
    movie = small_movie()

    told: list[Progress] = []
    found = graphnet_denoise.learn(
        movie, "TYX", run=tmp_path / "a", progress=told.append, should_stop=lambda: len(told) == 4
    )
    assert (found.trained.steps, found.trained.stopped) == (3, "a stop was requested")

    learning = Learning(movie, "TYX", run=tmp_path / "b")
    learning.prepare()
    training = learning.training()
    before = next(one for one in training if one.score is not None)
    training.close()
    assert before.step == 2
    assert graphnet.load(tmp_path / "b" / "model.safetensors").weights

    with pytest.raises(TrainingError, match="before its first step"):
        graphnet_denoise.learn(movie, "TYX", run=tmp_path / "c", should_stop=lambda: True)
    assert not (tmp_path / "c" / "model.safetensors").exists()


def test_the_speed_is_not_measured_to_the_end_if_it_is_stopped(trained: Path) -> None:
    with pytest.raises(TrainingError, match="before its first step"):
        step_seconds(trained / "learn.yaml", REGISTRY, should_stop=lambda: True)


@pytest.mark.parametrize(
    ("axes", "shape", "stated"),
    [
        ("YX", (20, 24), "YX"),
        ("IYX", (3, 20, 24), "IYX"),
        ("YXT", (20, 24, 3), "TYX"),
        ("ZCYX", (3, 2, 20, 24), "ZCYX"),
        ("TYXS", (2, 20, 24, 4), "TYXC"),
        ("YXS", (20, 24, 2), "YX"),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "dask", "torch"])
def test_arrays_become_files_that_state_their_axes(
    tmp_path: Path, axes: str, shape: tuple[int, ...], stated: str, kind: str
) -> None:
    dtype = np.int16 if kind == "torch" else np.uint16
    numbers = np.random.default_rng(0).integers(0, 30000, shape).astype(dtype)
    made: dict[str, Callable[[Any], Any]] = {"dask": dask.array.from_array, "torch": torch.tensor}
    write_arrays(tmp_path / "arrays", [made.get(kind, np.array)(numbers)] * 2, axes)
    files = sorted((tmp_path / "arrays").iterdir())
    assert len(files) == 2
    with open_image(files[1]) as source:
        assert (source.axes, source.dtype) == (stated, np.dtype(dtype))
        outer = [axes.index(letter) for letter in axes if letter not in "CSYX"]
        channels = [axes.index(letter) for letter in "CS" if letter in axes]
        images = numbers.transpose([*outer, *channels, axes.index("Y"), axes.index("X")])
        images = images.reshape(source.planes, -1, 20, 24)[:, : source.channels]  # without alpha
        for plane, image in enumerate(images):
            np.testing.assert_array_equal(source.read(plane), image)


def test_what_cannot_be_learned_from_is_refused_in_words(tmp_path: Path) -> None:
    for images, axes, words in (
        (3, None, "expected a folder, an image file, or arrays"),
        (np.zeros((20, 24), bool), None, "truth values"),
        (np.zeros((3, 20, 24)), None, "cannot be guessed"),
    ):
        with pytest.raises(InputError, match=words):
            graphnet_denoise.learn(images, axes, run=tmp_path / "run")
    with pytest.raises(InputError, match="minutes: expected a number above 0"):
        graphnet_denoise.learn(tmp_path, minutes=0)

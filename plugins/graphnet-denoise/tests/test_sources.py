"""Which images arguments name, and where their results go."""

import os
from pathlib import Path

import pytest
from graphnet_denoise.images import Names
from graphnet_denoise.jobs import (
    STDIN,
    Existing,
    Job,
    Source,
    find_sources,
    plan_jobs,
    split_done,
)

from graphnet.errors import DataError

NAMES = Names((".png", ".jpg", ".tif", ".zarr", ".dng"), (".zarr",), {".dng": ".tif"})


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(*inputs: Path, recursive: bool = False, output: Path | None = None) -> list[Path]:
    sources = find_sources(inputs, NAMES, recursive=recursive, output=output).sources
    return [source.path for source in sources]


def test_a_folder_gives_its_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.TIF", "notes.txt", ".hidden.png", "sub/c.png")
    (tmp_path / "stack.zarr/0").mkdir(parents=True)
    touch(tmp_path / "stack.zarr", "x.png")
    assert found(tmp_path) == [tmp_path / name for name in ("a.TIF", "b.png", "stack.zarr")]
    recursive = found(tmp_path, recursive=True)
    assert recursive == [*found(tmp_path), tmp_path / "sub/c.png"]


def test_a_result_of_an_earlier_run_is_no_image_beside_its_original(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a-denoised.png", "b-denoised.png", "sub/a-denoised.png")
    listed = find_sources([tmp_path], NAMES, recursive=True)
    kept = [tmp_path / name for name in ("a.jpg", "b-denoised.png", "sub/a-denoised.png")]
    assert [source.path for source in listed.sources] == kept
    assert listed.notes == ["left out 1 earlier result (*-denoised.*)"]
    assert found(tmp_path / "a-denoised.png") == [tmp_path / "a-denoised.png"]  # asked for alone


def test_an_earlier_result_that_is_named_itself_is_an_image_for_another_place(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "a.tif", "a-denoised.tif")
    both = [tmp_path / "a.tif", tmp_path / "a-denoised.tif"]
    listed = find_sources(both, NAMES, output=tmp_path / "out")
    assert [source.path for source in listed.sources] == both
    assert listed.notes == []
    assert found(tmp_path, output=tmp_path / "out") == both[:1]
    assert found(tmp_path / "a*.tif", output=tmp_path / "out") == both[:1]
    # Without a place, the result of a.tif would replace it, and a shell makes both names of a*.tif.
    assert found(*both) == both[:1]


def test_the_folder_of_the_results_is_not_searched(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "out/a.png", "sub/b.png")
    images = found(tmp_path, recursive=True, output=tmp_path / "sub/../out")
    assert images == [tmp_path / "a.png", tmp_path / "sub/b.png"]


def test_links_to_images_count_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "elsewhere/b.png")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "a.png")
    (folder / "broken.png").symlink_to(tmp_path / "absent.png")
    (folder / "round").symlink_to(folder)
    listed = find_sources([folder], NAMES, recursive=True)
    paths = [source.path for source in listed.sources]
    assert paths == [folder / "broken.png", folder / "link.png"]
    assert listed.notes == [f"{folder / 'round'}: is a link to a folder and is not followed"]
    assert found(folder / "round") == [folder / "round/broken.png", folder / "round/link.png"]


def test_a_pattern_gives_the_images_that_match_it(tmp_path: Path) -> None:
    touch(tmp_path, "a1.png", "a2.png", "a3.txt", "b1.png", "sub/a4.png", "odd[1].png", "odd1.png")
    assert found(tmp_path / "a*") == [tmp_path / "a1.png", tmp_path / "a2.png"]
    assert tmp_path / "sub/a4.png" in found(tmp_path / "**/a*.png")
    # A name that exists is no pattern.
    assert found(tmp_path / "odd[1].png") == [tmp_path / "odd[1].png"]
    with pytest.raises(DataError, match=r"c\*.png: no image has such a name. Check the pattern"):
        found(tmp_path / "c*.png")
    with pytest.raises(DataError, match=r"no image has such a name \(1 other files do\)"):
        found(tmp_path / "a3*")


def test_a_pattern_that_no_image_matches_gives_the_folders(tmp_path: Path) -> None:
    touch(tmp_path, "bird/b.png", "bike/a.png", "bin.txt", "bi-out/a.png")
    images = found(tmp_path / "bi*", output=tmp_path / "bi-out")
    assert images == [tmp_path / "bike/a.png", tmp_path / "bird/b.png"]
    assert found(tmp_path / "b*/*") == [
        tmp_path / "bi-out/a.png",
        tmp_path / "bike/a.png",
        tmp_path / "bird/b.png",
    ]


def test_an_image_that_is_named_twice_is_done_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    assert found(tmp_path / "a.png", tmp_path, tmp_path / "a.png") == [tmp_path / "a.png"]


def test_what_is_missing_or_empty_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "outer/inner/a.png")
    with pytest.raises(DataError, match=r"no such file or folder: \S+/x.png, \S+/y. Check"):
        found(tmp_path / "x.png", tmp_path / "y")
    with pytest.raises(
        DataError, match=r"empty: expected a folder with images, .* directly in it\.$"
    ):
        found(tmp_path / "empty")
    with pytest.raises(DataError, match=r"It holds folders \('inner'\): .* or add --recursive"):
        found(tmp_path / "outer")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_noted_and_the_others_are_taken(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    listed = find_sources([tmp_path], NAMES, recursive=True)
    (tmp_path / "closed").chmod(0o700)
    assert [source.path for source in listed.sources] == [tmp_path / "a.png"]
    assert listed.unreadable == [(tmp_path / "closed", "cannot be listed (Permission denied)")]


def planned(*inputs: Path, output: Path | None = None, recursive: bool = False) -> list[Path]:
    sources = find_sources(inputs, NAMES, recursive=recursive).sources
    return [job.target for job in plan_jobs(sources, output, NAMES)]


def test_a_result_is_beside_its_image_in_its_format(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg", "b.ome.TIF", "c.dng", "-d.png", "e")
    names = ["a.png", "a.jpg", "b.ome.TIF", "c.dng", "-d.png", "e"]
    results = planned(*(tmp_path / name for name in names))
    assert [path.name for path in results] == [
        "a-denoised.png",
        "a-denoised.jpg",
        "b-denoised.ome.TIF",
        "c-denoised.tif",
        "-d-denoised.png",
        "e-denoised",
    ]
    assert {path.parent for path in results} == {tmp_path}


def test_a_result_gets_the_ending_of_the_format_if_the_name_does_not_say_it(tmp_path: Path) -> None:
    touch(tmp_path, "e", "scan.001", "c.png")
    named = [Source(tmp_path / name, Path(name)) for name in ("e", "scan.001", "c.png")]
    jobs = plan_jobs(named, None, NAMES, ending_of=lambda path: f".{len(path.name)}")
    results = [job.target.name for job in jobs]
    assert results == ["e-denoised.1", "scan.001-denoised.8", "c-denoised.png"]
    jobs = plan_jobs(named, tmp_path / "out", NAMES, ending_of=lambda _path: ".tif")
    assert [job.target.name for job in jobs] == ["e.tif", "scan.001.tif", "c.png"]


def test_results_in_a_folder_keep_their_names_and_folders(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "in/deep/er/b.dng", "c.tif")
    out = tmp_path / "out"
    results = planned(tmp_path / "in", tmp_path / "c.tif", output=out, recursive=True)
    assert results == [out / "a.png", out / "deep/er/b.tif", out / "c.tif"]


def test_one_image_can_become_a_file_of_another_format(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    assert planned(tmp_path / "a.png", output=tmp_path / "b.tif") == [tmp_path / "b.tif"]
    assert planned(tmp_path / "a.png", output=tmp_path / "b.zarr") == [tmp_path / "b.zarr"]
    assert planned(tmp_path / "a.png", output=STDIN) == [STDIN]
    (tmp_path / "c.zarr").mkdir()  # an image that is a folder, not a folder for images
    assert planned(tmp_path / "a.png", output=tmp_path / "c.zarr") == [tmp_path / "c.zarr"]


def test_the_standard_input_needs_a_place_for_its_result(tmp_path: Path) -> None:
    assert planned(STDIN, output=STDIN) == [STDIN]
    with pytest.raises(DataError, match="-: say where the result goes: -o FILE, or -o -"):
        planned(STDIN)
    with pytest.raises(DataError, match="has no name for a result in a folder: give -o FILE"):
        planned(STDIN, output=tmp_path / "folder")


def test_results_that_exist_are_refused_skipped_or_replaced(tmp_path: Path) -> None:
    jobs = [Job.of(tmp_path / f"{i}.png", tmp_path / f"out{i}.png") for i in range(6)]
    for job in jobs[:4]:
        job.target.touch()
    (tmp_path / "out4.png").symlink_to(tmp_path / "absent")  # a name that is taken
    assert split_done(jobs, Existing.REPLACE) == (jobs, [])
    assert split_done(jobs, Existing.SKIP) == (jobs[5:], jobs[:5])
    with pytest.raises(DataError, match=r"out0.png, \S+out1.png, \S+out2.png and 2 more exist"):
        split_done(jobs, Existing.REFUSE)
    assert split_done(jobs[5:], Existing.REFUSE) == (jobs[5:], [])

"""The cache: entries are found by their key alone, a miss says why, and nobody else may write there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from graphnet.errors import CacheError, CacheWarning
from graphnet.system import Cache, Hit, Miss, open_cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path / "cache"))
    return open_cache()


def key(**changes: Any) -> dict[str, Any]:
    return {
        "model": "m1",
        "arguments": {"input": "float32 32x3x8x8", "target": "float32 32x3x8x8"},
        "versions": {"torch": "2.13.0"},
        **changes,
    }


def add(cache: Cache, wanted: dict[str, Any], content: bytes = b"code") -> Path:
    partial = cache.begin()
    (partial / "compiled" / "sub").mkdir()
    (partial / "compiled" / "sub" / "code.so").write_bytes(content)
    return cache.keep(wanted, partial)


def test_an_entry_is_found_by_an_equal_key_only(cache: Cache) -> None:
    folder = add(cache, key())
    assert cache.find(key()) == Hit(folder)
    assert (folder / "sub" / "code.so").read_bytes() == b"code"
    assert isinstance(cache.find(key(versions={"torch": "2.13.1"})), Miss)
    assert [path.name for path in (cache.folder / "plans").iterdir()] == [folder.parent.name]


def test_a_miss_says_what_differs_from_the_nearest_entry(cache: Cache) -> None:
    assert cache.find(key()) == Miss("no plan of this model is cached")
    add(cache, key())
    add(cache, key(arguments={"input": "float32 8x3x9x9"}, versions={"torch": "2.12.0"}))
    add(cache, key(model="another"))
    arguments = {"input": "float32 64x3x8x8", "target": "float32 32x3x8x8"}
    assert cache.find(key(arguments=arguments)) == Miss(
        "no plan cached for input: cached float32 32x3x8x8, wanted float32 64x3x8x8"
    )
    assert cache.find(key(versions={"torch": "2.14.0"})) == Miss(
        "no plan cached for torch: cached 2.13.0, wanted 2.14.0"
    )
    add(cache, key(model="counts", threads=0))
    assert cache.find(key(model="counts", threads=None)) == Miss(
        "no plan cached for threads: cached 0, wanted none"
    )
    assert cache.find(key(operations="changed")) == Miss(
        "no plan cached for the changed code of its layers"
    )


@pytest.mark.parametrize("fault", ["changed", "gone", "no key", "not json", "other json"])
def test_a_damaged_entry_is_a_miss_and_removed(cache: Cache, fault: str) -> None:
    folder = add(cache, key())
    match fault:
        case "changed":
            (folder / "sub" / "code.so").write_bytes(b"evil")
        case "gone":
            (folder / "sub" / "code.so").unlink()
        case "no key":
            (folder.parent / "key.json").unlink()
        case "not json":
            (folder.parent / "key.json").write_text("{")
        case "other json":
            (folder.parent / "key.json").write_text("[1]")
            assert "no plan of this model" in str(cache.find(key(model="another")))
    found = cache.find(key())
    assert isinstance(found, Miss)
    assert "the cached plan is damaged" in found.reason
    assert not folder.exists()
    assert cache.find(key()) == Miss("no plan of this model is cached")


def test_the_entries_used_longest_ago_are_dropped_above_the_limit(cache: Cache) -> None:
    small = Cache(cache.folder, limit_bytes=5000)
    for number in range(3):
        folder = add(small, key(model=str(number)), b"x" * 2000)
        os.utime(folder.parent / "key.json", (1000 + number, 1000 + number))
    assert isinstance(small.find(key(model="0")), Miss)  # dropped when 2 came
    assert isinstance(small.find(key(model="1")), Hit)  # and this use makes it the newest but one
    add(small, key(model="3"), b"x" * 2000)
    kept = [n for n in "0123" if isinstance(small.find(key(model=n)), Hit)]
    assert kept == ["1", "3"]


def test_another_process_that_was_sooner_keeps_its_entry(cache: Cache) -> None:
    first = add(cache, key(), b"first")
    second = add(cache, key(), b"second")
    assert first == second
    assert (second / "sub" / "code.so").read_bytes() == b"first"
    assert not list((cache.folder / "plans").glob("partial-*"))


def test_leftovers_of_killed_processes_are_removed_after_a_day(cache: Cache) -> None:
    old, new = cache.begin(), cache.begin()
    os.utime(old, (1000, 1000))
    add(cache, key())
    assert (old.exists(), new.exists()) == (False, True)
    shutil.rmtree(new)


def test_the_folder_is_made_for_its_owner_alone(cache: Cache) -> None:
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    add(cache, key())
    assert (cache.folder / "plans").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_to_is_refused(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.folder.chmod(0o777)
    with pytest.raises(
        CacheError, match=r"others may write to it \(run chmod go-w .*GRAPHNET_CACHE"
    ):
        open_cache()
    cache.folder.chmod(0o755)
    open_cache()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(CacheError, match="it belongs to user"):
        open_cache()


@pytest.mark.parametrize("fault", ["no folder", "read-only"])
def test_a_cache_that_cannot_be_written_is_said_and_replaced_by_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    warm = key(model="warm")
    if fault == "no folder":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path / "file" / "cache"))
    else:
        monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path / "cache"))
        add(open_cache(), warm)

        def refuse(*arguments: object, **more: object) -> str:
            raise PermissionError(13, "Permission denied")

        made = tempfile.mkdtemp
        monkeypatch.setattr(
            tempfile,
            "mkdtemp",
            lambda prefix, dir=None: refuse() if dir else made(prefix=prefix),
        )
    with pytest.warns(CacheWarning, match=r"cache.* cannot be written .*compiled .* in each run"):
        folder = add(open_cache(), key())
    cache = open_cache()
    assert (folder / "sub" / "code.so").read_bytes() == b"code"
    assert not folder.is_relative_to(cache.folder)
    assert isinstance(cache.find(key()), Miss)
    if fault == "read-only":
        assert isinstance(cache.find(warm), Hit)
    cache.record_choice(key(), 5)


def test_choices_are_kept_by_key(cache: Cache) -> None:
    site = {"kernel": "conv2d(x, weight, bias)", "shapes": ["8x3x9x9"], "torch": "2.13.0"}
    assert cache.choice(site) is None
    cache.record_choice(site, {"kernel": "aten/conv2d", "ms": 1.5})
    assert cache.choice(site) == {"kernel": "aten/conv2d", "ms": 1.5}
    assert cache.choice({**site, "torch": "2.14.0"}) is None
    (path,) = (cache.folder / "choices").iterdir()
    path.write_text("{")
    assert cache.choice(site) is None

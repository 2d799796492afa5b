"""Small files cannot ask for much work or memory, and messages about large ones are short."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from graphnet.description import expand, parse, parse_text, read_description, read_text, undotted
from graphnet.errors import MOST_CHARACTERS, DescriptionError, Problem, nearest, shown
from graphnet.sdk import Registry, load_registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(entry_points=False)


@contextmanager
def at_most(size_bytes: int) -> Iterator[None]:
    """Check that Python allocates at most so many bytes in the `with` block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= size_bytes
    finally:
        tracemalloc.stop()


def doubling(levels: int) -> dict[str, Any]:
    """Blocks of which each has the next one twice: 2^levels nodes."""
    blocks: dict[str, Any] = {f"b{i}": {"layers": [f"b{i + 1}"] * 2} for i in range(levels - 1)}
    blocks[f"b{levels - 1}"] = {"layers": ["relu", "relu"]}
    return {"blocks": blocks, "layers": ["b0"]}


def test_doubling_blocks_are_counted_before_they_are_unrolled(registry: Registry) -> None:
    assert len(expand(parse(doubling(5)), registry).nodes) == 32
    for levels, found in ((21, "2,097,152"), (30, "1,073,741,824")):
        with (
            at_most(4 << 20),
            pytest.raises(DescriptionError, match=f"at most 20,000 nodes .* found {found}"),
        ):
            expand(parse(doubling(levels)), registry)


@pytest.mark.parametrize("levels", [33, 64, 500])
def test_blocks_in_blocks_have_a_limited_depth(registry: Registry, levels: int) -> None:
    names = [f"b{i}" for i in range(levels)]
    blocks = {
        name: {"layers": [inner]} for name, inner in zip(names, [*names[1:], "relu"], strict=True)
    }
    for first in (names, names[::-1]):  # also where the deepest block is counted first
        layers = [{"id": f"x{i}", name: {}} for i, name in enumerate(first)]
        with pytest.raises(DescriptionError, match="at most 32 levels of blocks in blocks"):
            expand(parse({"blocks": blocks, "layers": layers}), registry)


def test_large_arguments_cannot_be_repeated_without_bound(registry: Registry) -> None:
    block = {"arguments": {"a": None}, "layers": [{"relu": {}}] * 1000}
    layers = [{"b": {"a": list(range(10_000))}}]
    with pytest.raises(DescriptionError, match=r"at most 1,000,000 values .* found 10,00\d,000"):
        expand(parse({"blocks": {"b": block}, "layers": layers}), registry)


def test_an_anchor_may_be_used_again() -> None:
    data, _ = read_text("a: &x 1\nb: *x\nc: &x 2\nd: *x")
    assert data == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_aliases_cannot_grow_a_document_without_bound() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    assert len(text) < 700
    with (
        at_most(128 << 20),
        pytest.raises(DescriptionError, match="expected at most 250,000 values"),
    ):
        read_text(text)


def test_data_that_contains_itself_is_refused() -> None:
    config: dict[str, Any] = {}
    config["a"] = config
    with pytest.raises(DescriptionError, match="expected at most 64 levels"):
        parse({"layers": [{"relu": config}]})
    values: list[Any] = []
    values += [values, values]
    with pytest.raises(DescriptionError, match="expected at most"):
        parse({"layers": values})


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000])
def test_deeply_nested_yaml_is_refused(text: str) -> None:
    with pytest.raises(DescriptionError):
        read_text(text)


def test_deeply_nested_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(DescriptionError, match=r"deep\.toml: expected at most 64 levels"):
        load_registry(entry_points=False).readers[".toml"].value(path)


def test_a_large_file_and_a_device_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 31)
    with pytest.raises(DescriptionError, match="at most 16,000,000 bytes, found 2,147,483,648"):
        read_description(path)
    for other in (Path("/dev/zero"), tmp_path):
        with pytest.raises(DescriptionError, match="it is a folder or a device"):
            read_description(other)
    with pytest.raises(DescriptionError, match="cannot be read: embedded null byte"):
        read_description(Path("a\0b.yaml"))
    with pytest.raises(DescriptionError, match="cannot be read: File name too long"):
        read_description(Path("a" * 5000))


def test_numbers_of_thousands_of_digits_are_told_in_short(registry: Registry) -> None:
    text = f"layers: [{{conv2d: {{out_channels: {'9' * 5000}, kernel_size: 3}}}}]"
    with pytest.raises(DescriptionError) as caught:
        parse_text(text)
    assert len(str(caught.value)) < 300
    layers = [{"conv2d": {"out_channels": "x", "kernel_size": -(10**5000)}}]
    with pytest.raises(DescriptionError) as caught:
        expand(parse({"layers": layers}), registry)
    assert "a very long integer" in str(caught.value)


def test_a_message_has_a_limited_number_of_short_problems(registry: Registry) -> None:
    layers = [{"conv2d": {"out_channels": 1, "kernel_size": [*range(100_000)]}}]
    with pytest.raises(DescriptionError) as caught:
        expand(parse({"layers": layers}), registry)
    assert len(str(caught.value)) < 21 * MOST_CHARACTERS
    problems = [Problem("x" * 10_000, f"a{i}") for i in range(1000)]
    error = DescriptionError(problems)
    assert len(error.problems) == 1000
    lines = str(error).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 980 more"
    assert all(len(line) <= MOST_CHARACTERS for line in lines)


def test_a_very_long_name_is_not_compared_with_the_known_ones() -> None:
    assert nearest("x" * 1_000_000, ["relu"]) == "Known: relu."
    assert nearest("y", [f"{i:05}" for i in range(1000)]).endswith(" and 800 more.")


def test_only_digits_0_to_9_are_a_number_in_a_path() -> None:
    assert undotted("layers[3].conv2d.0") == ("layers", 3, "conv2d", 0)
    assert undotted("a.²") == ("a", "²")


def test_a_value_whose_text_fails_is_named_by_its_type() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shown(Broken()) == "<Broken>"
    assert len(shown({"a": ["b" * 1000] * 1000})) < 300

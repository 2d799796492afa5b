"""The tour is true: its quotes stand in the files named above them, its outputs are what its code prints.

docs/tour.md has quotes of files and a program. A quote is a block behind a line "From [FILE](../FILE):"; a
line "..." in it stands for lines that are left out. All other Python blocks are the program, run from top to
bottom; the block of text behind one is what it prints, where "..." stands for lines left out too.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "docs" / "tour.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
_BLOCK = re.compile(r"^(?P<above>[^\n]*)\n\n?```(?P<language>\w+)\n(?P<text>.*?)^```", re.M | re.S)
_FROM = re.compile(r"From \[(?P<file>[^\]]+)\]\(\.\./(?P<link>[^)]+)\).*:$")


@dataclass(frozen=True)
class Quote:
    """A part of a file, as the page shows it."""

    file: str
    text: str


@dataclass(frozen=True)
class Part:
    """A block of the page's program, and what the page says that it prints."""

    code: str
    output: str


def read(page: str) -> tuple[list[Quote], list[Part]]:
    """The quotes of a page and its program, in order."""
    quotes: list[Quote] = []
    parts: list[Part] = []
    for block in _BLOCK.finditer(page):
        named, text = _FROM.match(block["above"]), block["text"]
        if named:
            assert named["file"] == named["link"], f"{named['file']} links to {named['link']}"
            quotes.append(Quote(named["file"], text))
        elif block["language"] == "python":
            parts.append(Part(text, ""))
        elif block["language"] == "text":
            assert parts, f"no code prints this:\n{text}"
            assert not parts[-1].output, f"the code before it has an output already:\n{text}"
            parts[-1] = Part(parts[-1].code, text)
    return quotes, parts


def pieces(text: str) -> list[list[str]]:
    """The lines between those that are "...", without their indentation and spacing."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        words = " ".join(line.split())
        if words == "...":
            found.append([])
        elif words:
            found[-1].append(words)
    return [piece for piece in found if piece]


def missing(quoted: str, whole: str) -> str | None:
    """The first piece of a quote that does not stand in the text behind the pieces before it."""
    lines = [words for line in whole.splitlines() if (words := " ".join(line.split()))]
    for piece in pieces(quoted):
        places = range(len(lines) - len(piece) + 1)
        at = next((i for i in places if lines[i : i + len(piece)] == piece), None)
        if at is None:
            return "\n".join(piece)
        lines = lines[at + len(piece) :]
    return None


QUOTES, PARTS = read(TOUR)


@pytest.mark.parametrize("quote", QUOTES, ids=[quote.file for quote in QUOTES])
def test_quote_stands_in_its_file(quote: Quote) -> None:
    path = ROOT / quote.file
    assert path.is_file(), f"docs/tour.md quotes {quote.file}, which does not exist"
    lost = missing(quote.text, path.read_text())
    assert lost is None, f"docs/tour.md quotes this from {quote.file}, where it is not:\n{lost}"


def test_shown_output_is_what_the_code_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    namespace: dict[str, object] = {}
    for part in PARTS:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(part.code, namespace)
        assert_shown(part, printed.getvalue())


def assert_shown(part: Part, printed: str) -> None:
    if not part.output:
        assert printed == "", f"docs/tour.md shows no output of:\n{part.code}\n{printed}"
    elif (lost := missing(part.output, printed)) is not None:
        difference = "\n".join(difflib.ndiff(part.output.splitlines(), printed.splitlines()))
        pytest.fail(
            f"docs/tour.md shows an output that this code does not print:\n{part.code}\n"
            f"the first part that is missing:\n{lost}\n\nshown (-) and printed (+):\n{difference}"
        )
    elif not any(line.strip() == "..." for line in part.output.splitlines()):
        assert pieces(part.output) == pieces(printed), "the page leaves lines out without a '...'"


def test_tour_walks_through_the_rooms_in_the_order_of_the_data() -> None:
    rooms = rooms_in_order()
    walked = [quote.file.split("/")[1] for quote in QUOTES if quote.file.startswith("graphnet/")]
    path = [room for room in dict.fromkeys(walked) if room != "builtin"]
    assert path == sorted(path, key=rooms.index)
    assert set(path) >= {"sdk", "description", "graph", "passes", "plan", "executors", "model"}
    assert len(TOUR.splitlines()) <= 410


@pytest.mark.parametrize(
    ("quoted", "whole", "lost"),
    [
        ("a = 1\n  b = 2\n", "def f():\n    a = 1\n    b  = 2\n", None),
        ("a\nc\n", "a\nb\nc\n", "a\nc"),
        ("a\n...\nc\n", "a\nb\nc\n", None),
        ("c\n...\na\n", "a\nb\nc\n", "a"),
        ("aa\n", "a\n", "aa"),
        ("a\n", "aa\n", "a"),
    ],
)
def test_quote_is_compared_line_by_line(quoted: str, whole: str, lost: str | None) -> None:
    assert missing(quoted, whole) == lost


def test_output_that_changed_is_named() -> None:
    with pytest.raises(pytest.fail.Exception, match="does not print"):
        assert_shown(Part("print(2)", "1\n"), "2\n")
    with pytest.raises(AssertionError, match=r"without a '\.\.\.'"):
        assert_shown(Part("print(1, 2)", "1\n"), "1\n2\n")


# -- the page on the architecture -----------------------------------------------------------------


def rooms_in_order() -> list[str]:
    """The rooms, lowest first, as the import contract of pyproject.toml has them."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (contract,) = (one for one in tools["importlinter"]["contracts"] if one["type"] == "layers")
    layers: Sequence[str] = contract["layers"]
    return list(reversed(layers))


def test_architecture_names_every_room_and_what_is_in_it() -> None:
    described = dict(re.findall(r"^\*\*(\w+)/\*\* (.*?)\n\n", ARCHITECTURE, flags=re.M | re.S))
    rooms = [room for room in rooms_in_order() if (ROOT / "graphnet" / room).is_dir()]
    assert set(described) == {*rooms, "builtin"}
    for room, text in described.items():
        module = importlib.import_module(f"graphnet.{room}")
        (names,) = re.findall(r"Names: ([^.]+)\.", text) or [""]
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(module, name), f"docs/architecture.md: {room} has no {name}"


def test_architecture_names_files_that_exist() -> None:
    known = {path.relative_to(ROOT).as_posix() for path in (ROOT / "graphnet").rglob("*.py")}
    for name in re.findall(r"`([\w/]+\.py)`", ARCHITECTURE):
        assert any(path.endswith(f"/{name}") for path in known), f"there is no {name}"


def test_glossary_has_at_most_25_words() -> None:
    glossary = ARCHITECTURE.partition("## Words")[2]
    words = re.findall(r"^\| ([^|]+) \|", glossary, flags=re.M)[1:]
    assert 20 <= len(words) <= 25
    assert len(set(words)) == len(words)

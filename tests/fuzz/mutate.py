"""Mutate: small random changes of a text or of bytes, as a fuzzer makes them."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

_INTERESTING = [
    *("0", "-1", "1e400", "-1e-400", "nan", ".inf", "1_000", "0x7f", "0o17", "1" * 30, "9" * 5000),
    *("null", "true", "~", "''", '"\\0"', "[]", "{}", "[[[[]]]]", "!!python/none", "*x", "&x a"),
    *(
        "$input",
        "$",
        "$$",
        "a.b.c",
        "²",
        "\u2028",
        "é",
        "😀",
        "x" * 300,
        "[/red]",
        ":smile:",
        "%s{}",
    ),
    *("2024-01-01", "1:30", "<<: {}", "? a", "|\n  b", ">-", "- ", ": ", "#", "---", "..."),
]


def mutated_text(draw: random.Random, corpus: Sequence[str]) -> str:
    """A text of a corpus with a few changes: other words and numbers, moved, doubled or joined lines."""
    text = draw.choice(corpus)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        text = draw.choice(_CHANGES)(draw, text, draw.choice(corpus))
    return text


def mutated_bytes(draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Bytes of a corpus with a few changes: flipped bits, cut, doubled, overwritten or joined parts."""
    data = bytearray(draw.choice(corpus))
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        at = draw.randrange(len(data) + 1)
        size = draw.choice((1, 2, 4, 8, 64, 1000))
        match draw.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << draw.randrange(8)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size]
            case 3:
                data[at : at + size] = draw.choice((b"\0", b"\xff", b"\x7f")) * size
            case 4:
                value = draw.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1))
                data[at : at + 8] = value.to_bytes(8, draw.choice(("little", "big")))
            case 5:
                other = draw.choice(corpus)
                data[at:] = other[draw.randrange(len(other) + 1) :]
    return bytes(data)


def _word(draw: random.Random, text: str, other: str) -> str:
    found = [*re.finditer(r"[\w.$-]+", text)]
    if not found:
        return draw.choice(_INTERESTING)
    one = draw.choice(found)
    words = re.findall(r"[\w.$-]+", other) or [""]
    new = draw.choice(_INTERESTING) if draw.random() < 0.5 else draw.choice(words)
    return text[: one.start()] + new + text[one.end() :]


def _lines(draw: random.Random, text: str, other: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    at = draw.randrange(len(lines))
    match draw.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            lines.insert(at, draw.choice(other.splitlines(keepends=True) or [""]))
        case 3:
            lines[at] = draw.choice((" ", "  ", "\t")) + lines[at]
    return "".join(lines)


def _characters(draw: random.Random, text: str, other: str) -> str:
    at, size = draw.randrange(len(text) + 1), draw.choice((1, 1, 2, 10))
    new = draw.choice(
        ("", text[at : at + size] * 2, draw.choice("{}[]:,-&*!|>'\"%@`#\0\n\t "), "\r\n")
    )
    return text[:at] + new + text[at + size :]


_CHANGES = (_word, _word, _lines, _characters)


def mutated_data(draw: random.Random, corpus: Sequence[Any]) -> Any:
    """Plain data of a corpus with a few changes: other values, keys, and parts of others."""
    data = copy.deepcopy(draw.choice(corpus))
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        others = [*_places(draw.choice(corpus))]
        places = [*_places(data)]
        if not places:
            return draw.choice(_PLAIN)
        holder, key = draw.choice(places)
        part, other = draw.choice(others) if others else ([None], 0)
        match draw.randrange(6):
            case 0:
                holder[key] = draw.choice(_PLAIN)
            case 1:
                holder[key] = copy.deepcopy(part[other])
            case 2:
                del holder[key]
            case 3 if isinstance(holder, dict):
                holder[
                    draw.choice([other, *_KEYS]) if isinstance(part, dict) else draw.choice(_KEYS)
                ] = holder.pop(key)
            case 3:
                holder.insert(key, copy.deepcopy(holder[draw.randrange(len(holder))]))
            case 4:
                holder[key] = draw.choice(
                    ([holder[key]], {"relu": holder[key]}, {str(key): holder[key]})
                )
            case 5 if isinstance(holder[key], (int, float)):
                holder[key] = draw.choice(
                    (-1, 0, holder[key] + 1, holder[key] * 1000, -holder[key], 0.5, 2**63, 1e300)
                )
            case 5:
                holder[key] = str(holder[key])[: draw.randrange(1, 40)]
    return data


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in plain data: the dict or list, and the key or index."""
    left = [data]
    while left:
        holder = left.pop()
        items = (
            holder.items()
            if isinstance(holder, dict)
            else enumerate(holder)
            if isinstance(holder, list)
            else ()
        )
        for key, value in items:
            yield holder, key
            left.append(value)


_PLAIN = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    0.5,
    -0.0,
    1e400,
    2**31,
    2**64,
    "",
    "x",
    "$input",
    "$",
    "a.b",
    "²",
    [],
    {},
    [[]],
    {"": None},
    "relu",
    {"relu": {}},
    "é" * 300,
    "\0",
)
_KEYS = (
    "id",
    "inputs",
    "share",
    "layers",
    "name",
    "input",
    "blocks",
    "outputs",
    "",
    "match",
    "0",
    "$input",
)

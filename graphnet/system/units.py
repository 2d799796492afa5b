"""Units: numbers of bytes, seconds and operations as text, and amounts of memory read from text."""

from __future__ import annotations

import math
import re

from graphnet.errors import InputError

_DIGITS = {"B": 0, "KiB": 1, "MiB": 1, "GiB": 2}


def bytes_text(count: int) -> str:
    """Format a number of bytes with its unit, a power of 1024.

    >>> bytes_text(1536)
    '1.5 KiB'
    """
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.{_DIGITS[unit]}f} {unit}"
        size /= 1024
    return f"{size:,.2f} TiB"


def short_bytes(count: int) -> str:
    """Format a number of bytes for a narrow column; K, M, G and T are powers of 1024.

    >>> [short_bytes(count) for count in (0, 12, 1536, 12 * 2**20)]
    ['-', '12', '1.5K', '12M']
    """
    return _short(count, 1024)


def short_count(count: int) -> str:
    """Format a number for a narrow column; K, M, G and T are powers of 1000.

    >>> short_count(12_800_000)
    '12.8M'
    """
    return _short(count, 1000)


def _short(count: int, base: int) -> str:
    if count == 0:
        return "-"
    size = float(count)
    for unit in ("", "K", "M", "G"):
        if size < base:
            return (f"{size:.1f}".removesuffix(".0") if size < 99.5 else f"{size:.0f}") + unit
        size /= base
    return f"{size:.1f}T"


def seconds_text(seconds: float) -> str:
    """Format a duration in us, ms or s.

    >>> [seconds_text(seconds) for seconds in (2.5e-6, 1.25e-3, 2.0)]
    ['2.5us', '1.25ms', '2.00s']
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.{0 if seconds >= 1e-5 else 1}f}us"
    return (
        f"{seconds * 1e3:.{0 if seconds >= 1e-1 else 2}f}ms" if seconds < 1 else f"{seconds:.2f}s"
    )


def whole_number(text: str) -> int | None:
    """The number that a text of one to nine digits 0 to 9 states; None for any other text.

    >>> whole_number("12"), whole_number("-1"), whole_number("²")
    (12, None, None)
    """
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


_BYTES = {
    "": 1, "B": 1,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip


def parse_bytes(text: int | str, *, whole: int) -> int:
    """Turn an amount of memory into a number of bytes.

    Args:
        text: a number of bytes, or text such as "2GiB", "500 MB" or "50%".
        whole: the number of bytes that "100%" stands for.

    Raises:
        InputError: the text is not an amount of memory, or is less than one byte.

    >>> parse_bytes("1.5 KiB", whole=0), parse_bytes("50%", whole=4096)
    (1536, 2048)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(%|[a-z]*)\s*", str(text), re.IGNORECASE | re.ASCII)
    unit = found[2].upper() if found else "?"
    factor, parts = (whole, 100) if unit == "%" else (_BYTES.get(unit), 1)
    amount = 0 if found is None or factor is None else float(found[1]) * factor / parts
    if isinstance(text, bool) or not 1 <= amount < math.inf:
        raise InputError(
            f"expected an amount of memory such as '2GiB', '500MB', '50%' or a number of bytes, "
            f"found {text!r}. Units: KiB, MiB, GiB, TiB (powers of 1024), kB, MB, GB, TB (of 1000)."
        )
    return int(amount)

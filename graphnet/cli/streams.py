"""Streams: a command goes on when nobody reads its messages any more."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Tolerant:
    """A stream of text that drops what cannot be written: its reader is gone, or its terminal is closed.

    >>> import io
    >>> closed = io.StringIO()
    >>> closed.close()
    >>> Tolerant(closed).write("dropped")
    7
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except (OSError, ValueError):  # ValueError: the stream is closed
            return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tolerant_streams() -> Iterator[None]:
    """Let messages that nobody reads be dropped in the `with` block, instead of ending the command.

    stdout stays as it is, except if there is none: a command whose result nobody reads ends.
    """
    before = sys.stdout, sys.stderr
    # Python has None for a stream that was closed when it started, as by `2>&-`.
    nowhere = open(os.devnull, "w") if None in before else None  # noqa: SIM115
    sys.stdout = before[0] if before[0] is not None else nowhere
    sys.stderr = Tolerant(before[1] if before[1] is not None else nowhere)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        if nowhere is not None:
            nowhere.close()

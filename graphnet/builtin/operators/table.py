"""Table: enters rows of operators under their names."""

from __future__ import annotations

from collections.abc import Callable

from graphnet.sdk import Row


def row_of(rows: dict[str, Row], *names: str) -> Callable[[Row], Row]:
    """Enter a function in a table, as the row of these operators."""

    def enter(function: Row) -> Row:
        for name in names:
            rows[name] = function
        return function

    return enter

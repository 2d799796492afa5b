"""Storages: in which value's storage each value of a graph or plan lies."""

from __future__ import annotations

from collections.abc import Container, Mapping

from graphnet.errors import PlanError
from graphnet.graph import Value


def storages(values: Mapping[str, Value], *, written: Container[str] = ()) -> dict[str, str]:
    """Value -> the value whose storage it uses: itself, unless it is a view.

    Args:
        values: the table of values of a graph or plan.
        written: the values that calls have written into storages of others; views of one of these lead to it
            and no further.

    Raises:
        PlanError: a value is a view of itself, or of a value that is not in the table.
    """
    found: dict[str, str] = {}
    for name in values:
        chain = [name]
        while (last := chain[-1]) not in found:
            base = None if last in written else values[last].view_of
            if base is None:
                found[last] = last
            elif base not in values:
                raise PlanError(f"plan rejected: {last!r} is a view of {base!r}, which is no value")
            elif len(chain) > len(values):
                raise PlanError(f"plan rejected: {name!r} is a view of itself")
            else:
                chain.append(base)
        found.update(dict.fromkeys(chain, found[last]))
    return found

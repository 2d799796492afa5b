"""Level: what the results of the checks let one rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_DERIVATIVE = ("gradient_numerical", "accumulates", "executors")
_SLOW = "executors"
_DEVICE = ("cuda", "rule_cuda")
_EXAMPLES = "examples"


@dataclass(frozen=True, slots=True)
class Level:
    """Something to rely on: whether the checks have shown it, and if not, why.

    >>> str(Level("documented with examples", False, "the docstring has no example"))
    'documented with examples: no, the docstring has no example'
    """

    name: str
    reached: bool
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {'yes' if self.reached else f'no, {self.why}'}"


def levels_of(statuses: Mapping[str, tuple[str, str]], *, ok: bool) -> tuple[Level, ...]:
    """Compute the levels from the status and the message of each check, by the check's name."""
    failed = [name for name, (status, _) in statuses.items() if status == "failed"]
    why = f"{', '.join(failed)} failed" if failed else "no check ran"
    conforms = Level("conforms", ok, "" if ok else why)
    found = [conforms]
    derivative = [name for name in _DERIVATIVE if name in statuses]
    if derivative:
        found.append(_differentiates(statuses, derivative))
    for name in _DEVICE:
        if name in statuses:
            status, message = statuses[name]
            why = _why(name, status, message)
            found.append(Level("equal on the device", status == "passed", why))
    if _EXAMPLES in statuses:
        status, message = statuses[_EXAMPLES]
        why = _why(_EXAMPLES, status, message)
        found.append(Level("documented with examples", status == "passed", why))
    return tuple(found)


def _differentiates(statuses: Mapping[str, tuple[str, str]], names: list[str]) -> Level:
    name = "differentiates under every executor"
    for one in names:
        status, message = statuses[one]
        if status != "passed":
            return Level(name, False, _why(one, status, message))
    if _SLOW not in names:
        interpreted = "differentiates under reference and eager"
        return Level(interpreted, True)
    return Level(name, True)


def _why(check: str, status: str, message: str) -> str:
    """Return why a check has not passed; an empty text if it has."""
    if status == "passed":
        return ""
    return message.split("\n", 1)[0] if status == "skipped" else f"{check} {status}"

"""Trace the calls between the rooms of graphnet, from a model file to its first training step.

    python -m tests.support.rooms_walk --checkout DIR

Data walks from room to room: description, graph, passes, plan, executors. A call back goes from one of them,
or from a room above them, into an earlier one of them; calls into errors, system and sdk are no calls back,
since every room rests on these. `model` and the face conduct: their calls are counted apart.

A call counts from the nearest function of graphnet below it, through networkx, torch or pluggy; a generator
counts once, when it starts. What runs while a module is imported does not count.
"""

from __future__ import annotations

import argparse
import dis
import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.support.rooms import FACE, ROOMS, room_of, use

ORDER = [FACE, *ROOMS]
RESTS_ON = ("errors", "system", "sdk")
"""What every room rests on: no step of the walk, and neither are the plugins that sdk finds."""

CONDUCTORS = ("model", FACE)
_SHAPE = (4, 3, 32, 32)


@dataclass
class Walk:
    """The calls between rooms, as they happen."""

    checkout: Path
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    functions: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    entered: list[tuple[str, str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    _stack: list[tuple[str, bool]] = field(default_factory=list)
    _rooms: dict[str, tuple[str, str] | None] = field(default_factory=dict)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """What `sys.setprofile` takes."""
        if event == "call":
            self._enter(frame)
        elif event == "return" and self._stack:
            self._stack.pop()

    def _enter(self, frame: FrameType) -> None:
        room, importing = self._stack[-1] if self._stack else ("", False)
        code = frame.f_code
        importing = importing or code.co_name == "<module>"
        place = self._place(code.co_filename)
        if place is None or importing:
            self._stack.append((room, importing))
            return
        here, module = place
        if here != room and not _resumed(frame):
            self._note(room, here, f"{module}: {code.co_qualname}")
        self._stack.append((here, importing))

    def _note(self, caller: str, room: str, function: str) -> None:
        if room not in (name for name, _ in self.entered):
            self.entered.append((room, function))
        if caller:
            self.calls[caller, room] += 1
            self.functions.setdefault((caller, room), Counter())[function] += 1
        if (
            caller in CONDUCTORS
            and not (is_ground(room) or room in CONDUCTORS)
            and self.steps[-1:] != [room]
        ):
            self.steps.append(room)

    def _place(self, filename: str) -> tuple[str, str] | None:
        """The room and the module of a file; None for a file that is not graphnet's."""
        if filename not in self._rooms:
            path = Path(filename)
            room = room_of(path, self.checkout)
            self._rooms[filename] = (room, self.module(path)) if room else None
        return self._rooms[filename]

    def module(self, path: Path) -> str:
        """The path of a file of graphnet or a plugin, from there on."""
        parts = path.relative_to(self.checkout).with_suffix("").parts
        return "/".join(parts[3:] if parts[0] == "plugins" else parts[1:])


def _resumed(frame: FrameType) -> bool:
    """Whether a generator goes on, rather than starts."""
    code = frame.f_code
    return bool(code.co_flags & inspect.CO_GENERATOR) and frame.f_lasti > _start(code)


@functools.cache
def _start(code: CodeType) -> int:
    """The place in a generator's code where it starts."""
    return next(i.offset for i in dis.get_instructions(code) if i.opname == "RESUME")


def trace(work: Callable[[], None], checkout: Path) -> Walk:
    """Run `work`, and return the calls between rooms in it."""
    walk = Walk(checkout)
    before = sys.getprofile()
    sys.setprofile(walk)
    try:
        work()
    finally:
        sys.setprofile(before)
    return walk


def is_ground(room: str) -> bool:
    """Whether a room is one that all others rest on, or a plugin."""
    return room in RESTS_ON or room not in ORDER


def is_back(caller: str, room: str) -> bool:
    """Whether a call from one room into another goes against the walk.

    >>> is_back("plan", "graph"), is_back("graph", "plan"), is_back("plan", "sdk")
    (True, False, False)
    """
    if is_ground(room) or is_ground(caller) or caller in CONDUCTORS or room == FACE:
        return False
    return ORDER.index(caller) > ORDER.index(room)


def kind_of(caller: str, room: str) -> str:
    """What a call between two rooms is called in the report."""
    if is_ground(room):
        return "ground"
    if is_ground(caller):
        return "from the ground"
    if caller in CONDUCTORS:
        return "conducted"
    return "back" if is_back(caller, room) else "on"


def report(walk: Walk) -> str:
    """The order in which rooms are entered, the calls between them, and those that go back."""
    lines = ["rooms in the order in which they are first entered, and the function that enters:"]
    lines += [
        f"  {i:>2}. {room:<16} {name}" for i, (room, name) in enumerate(walk.entered, start=1)
    ]
    found = [room for room, _ in walk.entered if not (is_ground(room) or room in CONDUCTORS)]
    expected = sorted(found, key=ORDER.index)
    agreement = "as data walks" if found == expected else f"data walks {' > '.join(expected)}"
    lines.append(f"  of those that data walks through: {' > '.join(found)} ({agreement})")
    lines += ["", "the rooms that the conductors (the face, model) call, one after the other:"]
    lines.append(f"  {' > '.join(walk.steps)}")

    totals: Counter[str] = Counter()
    lines += ["", f"{'from':<16} {'into':<16} {'calls':>8} {'functions':>9}  direction"]
    ranks = {room: f"{i:2}" for i, room in enumerate(ORDER)}
    for caller, room in sorted(walk.calls, key=lambda pair: [ranks.get(one, one) for one in pair]):
        count = walk.calls[caller, room]
        kind = kind_of(caller, room)
        totals[kind] += count
        different = len(walk.functions[caller, room])
        lines.append(f"{caller:<16} {room:<16} {count:>8} {different:>9}  {kind}")
    lines += ["", f"calls between rooms: {walk.calls.total()}"]
    lines += [f"  {kind:<16} {count:>8}" for kind, count in sorted(totals.items())]
    lines += ["", "the functions that are called back into, most often called first:"]
    for (caller, room), functions in sorted(
        walk.functions.items(), key=lambda item: -item[1].total()
    ):
        if is_back(caller, room):
            lines.append(f"  {caller} -> {room}: {functions.total()}")
            lines += [f"    {count:>7}  {name}" for name, count in functions.most_common(12)]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Trace the calls between rooms.")
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[2])
    checkout = parser.parse_args().checkout.resolve()
    use(checkout)
    import torch

    import graphnet as gn

    def work() -> None:
        model = gn.load(checkout / "examples" / "denoisers" / "seed.yaml")
        program = model.compile(_SHAPE, loss="mse", optimizer=gn.SGD(lr=10.0), device="cpu")
        program.step(x, target)

    assert gn.__file__ is not None
    assert Path(gn.__file__).is_relative_to(checkout), f"graphnet comes from {gn.__file__}"
    generator = torch.Generator().manual_seed(0)
    x, target = (torch.rand(_SHAPE, generator=generator) for _ in range(2))
    print(report(trace(work, checkout)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Mutants: make every built-in layer, loss and kernel wrong in many ways, and see which the kit notices.

    python -m tests.support.mutants --most 1000

Each mutant is the source of one module of graphnet.builtin with one change (tests/support/mutations.py). In a
process of its own, graphnet.builtin is imported anew with that source, and the kit checks the layers, losses
and kernels that the change can reach: on the samples that it generates or the class gives, then on those of
tests/testing/test_builtin.py. It prints the share that the kit catches, how many each check catches, and the
survivors. A survivor computes something else and passes, or it is equal to the original: then EQUAL says why.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import json
import multiprocessing
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.machinery import ModuleSpec
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from graphnet.sdk import Entry, Kernel, Registry, load_registry
from graphnet.testing import CHECKS, Sample, checks_for, run_checks
from tests.support.equal_mutants import EQUAL
from tests.support.mutations import Mutant, mutants_of
from tests.support.references import all_with_expected

ROOT = Path(__file__).parents[2]
PACKAGE = "graphnet.builtin"
PLACES = ("layers", "losses", "kernels")
LIMIT_S = 60.0
_LAST = "compiles"  # it takes as long as all other checks together
Samples = Mapping[str, Sequence[Sample]]


@dataclass(frozen=True)
class Outcome:
    """What the kit said of a mutant: the checks that failed, and whether those of its own class did.

    `how` is "kit" (the samples that the kit generates), "samples" (those that the author states), "loading"
    (the class or its module could not be made), "time" or "death" (of the process), or empty for a survivor.
    """

    name: str
    kind: str
    module: str
    line: int
    how: str
    failed: tuple[str, ...] = ()
    seconds: float = 0.0


def sources() -> dict[str, str]:
    """The source of each module of the built-in plugin that defines something to check, by name.

    What registers operators of torch is left out: a process can do so once, and they need a GPU. So are
    optimizers: the kit has nothing to compare an update rule with.
    """
    found = {}
    for place in PLACES:
        for file in sorted((ROOT / "graphnet" / "builtin" / place).rglob("*.py")):
            text = file.read_text()
            if file.name != "__init__.py" and "register_operator" not in text:
                found[".".join(file.relative_to(ROOT).with_suffix("").parts)] = text
    return found


def reach(texts: Mapping[str, str]) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """For each thing at the top of a module, the things of all modules that it may change: what names it."""
    names: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    trees = {module: ast.parse(text) for module, text in texts.items()}
    mentions: dict[tuple[str, str], set[str]] = {}
    for module, tree in trees.items():
        known: dict[str, tuple[str, str]] = {}
        for part in tree.body:
            if isinstance(part, ast.ImportFrom):
                known |= {a.asname or a.name: (str(part.module), a.name) for a in part.names}
        for part in tree.body:
            for name in _defined(part):
                known[name] = (module, name)
                words = {n.id for n in ast.walk(part) if isinstance(n, ast.Name)}
                mentions[module, name] = words
        for part in tree.body:
            for name in _defined(part):
                names[module, name] = known
    users: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for user, words in mentions.items():
        for word in words:
            used = names[user].get(word)
            if used is not None and used != user:
                users[used].add(user)
    return {thing: _closure(thing, users) for thing in mentions}


def _defined(part: ast.stmt) -> list[str]:
    match part:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _closure(
    thing: tuple[str, str], users: Mapping[tuple[str, str], set[tuple[str, str]]]
) -> set[tuple[str, str]]:
    found, ahead = {thing}, [thing]
    while ahead:
        for user in users.get(ahead.pop(), ()):
            if user not in found:
                found.add(user)
                ahead.append(user)
    return found


def targets(
    mutant: Mutant, known: Sequence[Entry], reached: set[tuple[str, str]], *, most: int = 4
) -> list[str]:
    """The registered names that a mutant is checked by: what it reaches, the nearest first."""
    classes = [e for e in known if (e.value.__module__, e.value.__name__) in reached]
    # A kernel is compared with its layer: this may notice what the layer's own checks do not.
    mine = {e.name for e in classes}
    compared = [e for e in known if e not in classes and _replaces(e.value) & mine]
    classes.sort(
        key=lambda e: e.value.__name__ != mutant.owner or e.value.__module__ != mutant.module
    )
    return [e.name for e in (*classes[:most], *compared[:2])]


def _replaces(value: Any) -> set[str]:
    return set(re.findall(r"\w+", value.replaces)) if issubclass(value, Kernel) else set()


class _Altered(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from another source."""

    def __init__(self, module: str, source: str) -> None:
        self.module, self.source = module, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin="mutant")

    def get_source(self, fullname: str) -> str:
        return self.source


def altered_registry(module: str, source: str) -> Registry:
    """Import the built-in plugin anew, with another source for one module. It changes this process."""
    for name in [f"{PACKAGE}.plugin", *sources()]:
        if sys.modules.pop(name, None) is not None:
            package, _, own = name.rpartition(".")
            delattr(sys.modules[package], own)  # else `from package import own` finds the old one
    sys.meta_path.insert(0, _Altered(module, source))
    return load_registry(entry_points=False)


def judge_mutant(
    mutant: Mutant, names: Sequence[str], samples: Samples
) -> tuple[str, tuple[str, ...]]:
    """Run the kit on a mutant in this process; return how it was caught, and by which checks."""
    try:
        registry = altered_registry(mutant.module, mutant.source)
    except Exception as error:  # whatever a mutant raises when it is imported
        return "loading", (type(error).__name__,)
    found = {name: _entry(registry, name) for name in names}
    for how in ("kit", "samples"):
        for name, entry in found.items():
            given = None if how == "kit" else [_anew(one) for one in samples.get(name, ())]
            if given is None or given:
                failed = failures(entry.value, given, registry, late=how == "kit")
                if failed:
                    return how, failed
    return "", ()


def _entry(registry: Registry, name: str) -> Entry:
    for place in PLACES:
        entry = registry.of_kind(place).get(name)
        if entry is not None:
            return entry
    raise KeyError(name)


def _anew(sample: Sample) -> Sample:
    """The sample with layers of the classes that were imported last."""
    several = isinstance(sample.layer, tuple)
    layers = sample.layer if isinstance(sample.layer, tuple) else (sample.layer,)
    made = []
    for layer in layers:
        module = importlib.import_module(type(layer).__module__)
        made.append(getattr(module, type(layer).__name__)(**layer.configuration()))
    return replace(sample, layer=tuple(made) if several else made[0])


def failures(
    target: type[Any], samples: Sequence[Sample] | None, registry: Registry, *, late: bool
) -> tuple[str, ...]:
    """The checks that fail, in their order; the check of torch.compile is run only if no other fails."""
    checks = [check for check in checks_for(target) if not check.slow]
    early = [check for check in checks if check.name != _LAST]
    last = [check for check in checks if check.name == _LAST]
    for some in (early, last) if late else (early,):
        report = run_checks(target, samples, registry=registry, checks=some)
        if report.failures:
            return tuple(row.check for row in report.failures)
    return ()


def run_mutants(
    work: Sequence[tuple[Mutant, Sequence[str]]],
    samples: Samples,
    *,
    jobs: int,
    limit_s: float = LIMIT_S,
) -> Iterator[Outcome]:
    """Judge each mutant in a process of its own; yield the outcomes as they come."""
    context = multiprocessing.get_context("fork")  # torch and graphnet are imported once

    def child(connection: Connection, mutant: Mutant, names: Sequence[str]) -> None:
        sys.stderr = sys.stdout = open("/dev/null", "w")  # noqa: SIM115  # what a mutant prints
        connection.send(judge_mutant(mutant, names, samples))
        connection.close()

    waiting = list(reversed(work))
    running: dict[Connection, tuple[Any, Mutant, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant, names = waiting.pop()
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=child, args=(theirs, mutant, names), daemon=True)
            process.start()
            theirs.close()
            running[ours] = (process, mutant, time.monotonic())
        for connection in wait(list(running), timeout=0.2):
            assert isinstance(connection, Connection)
            process, mutant, started = running.pop(connection)
            try:
                how, failed = connection.recv()
            except EOFError:
                how, failed = "death", ()
            process.join()
            yield _outcome(mutant, how, failed, started)
        for connection, (process, mutant, started) in list(running.items()):
            if time.monotonic() - started > limit_s:
                process.kill()
                process.join()
                del running[connection]
                yield _outcome(mutant, "time", (), started)


def _outcome(mutant: Mutant, how: str, failed: tuple[str, ...], started: float) -> Outcome:
    seconds = round(time.monotonic() - started, 2)
    return Outcome(mutant.name, mutant.kind, mutant.module, mutant.line, how, failed, seconds)


def chosen(mutants: Iterable[Mutant], most: int, seed: int) -> list[Mutant]:
    """Draw mutants so that each kind has the same share, as far as there are so many of it."""
    groups: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        groups[mutant.kind].append(mutant)
    source = random.Random(seed)
    for group in groups.values():
        source.shuffle(group)
    found: list[Mutant] = []
    while len(found) < most and any(groups.values()):
        for kind in sorted(groups):
            if groups[kind] and len(found) < most:
                found.append(groups[kind].pop())
    return found


def _by_module(
    work: Sequence[tuple[Mutant, Sequence[str]]],
) -> dict[str, list[tuple[Mutant, str]]]:
    """The mutants of each module, with each name that they are checked by."""
    found: dict[str, list[tuple[Mutant, str]]] = defaultdict(list)
    for mutant, names in work:
        found[mutant.module] += [(mutant, name) for name in names]
    return found


def table(outcomes: Sequence[Outcome]) -> str:
    """The score, how many each check caught, and the survivors."""
    lines = []
    aside = [one for one in outcomes if not one.how and one.name in EQUAL]
    counted = [one for one in outcomes if one not in aside]
    caught = [one for one in counted if one.how]
    share = 100.0 * len(caught) / max(1, len(counted))
    lines.append(f"{len(caught)} of {len(counted)} mutants caught: {share:.1f} %")
    ways = Counter(one.how for one in caught)
    words = {
        "kit": "by the kit's own samples",
        "samples": "by the author's samples",
        "loading": "when the class was made",
        "time": f"because it took more than {LIMIT_S:g} s",
        "death": "because its process died",
    }
    lines += [f"  {ways[how]} {text}" for how, text in words.items() if ways[how]]
    lines.append(f"{len(aside)} more are set aside, since they compute the same")
    lines += ["", "kind: caught of all"]
    for kind in sorted({one.kind for one in counted}):
        mine = [one for one in counted if one.kind == kind]
        lines.append(f"  {kind}: {sum(bool(one.how) for one in mine)} of {len(mine)}")
    first = Counter(one.failed[0] for one in caught if one.failed)
    every = Counter(check for one in caught for check in one.failed)
    lines += ["", "check: caught first, caught at all"]
    order = [check.name for check in CHECKS]
    names = sorted(every, key=lambda name: (order.index(name) if name in order else 99, name))
    lines += [f"  {name}: {first[name]}, {every[name]}" for name in names]
    lines += ["", "survivors:"]
    survivors = sorted((one for one in counted if not one.how), key=lambda o: (o.module, o.line))
    lines += [f"  {one.kind}, line {one.line}: {one.name}" for one in survivors]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Mutate the built-in layers, and see what the kit catches."
    )
    parser.add_argument("--most", type=int, default=600, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", metavar="TEXT", help="mutants whose name has this text")
    parser.add_argument(
        "--least", type=float, default=0.0, help="the share to be caught, in percent"
    )
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--again", type=Path, help="JSON of a run: only its survivors are tried")
    given = parser.parse_args()
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")
    from tests.testing.test_builtin import SAMPLES  # imported late, for torch._dynamo

    registry = load_registry(entry_points=False)
    known = [e for place in PLACES for e in registry.of_kind(place).values()]
    texts = sources()
    reached = reach(texts)
    where, colon, _ = (given.only or "").partition(":")
    some = [module for module in texts if not colon or where in module]
    everything = [m for module in some for m in mutants_of(module, texts[module])]
    usable = []
    for mutant in everything:
        names = targets(mutant, known, reached.get((mutant.module, mutant.owner), set()))
        if names and (not given.only or given.only in mutant.name):
            usable.append((mutant, names))
    drawn = {id(m) for m in chosen([m for m, _ in usable], given.most, given.seed)}
    work = [(mutant, names) for mutant, names in usable if id(mutant) in drawn]
    if given.again:
        left = {one["name"] for one in json.loads(given.again.read_text()) if not one["how"]}
        work = [(mutant, names) for mutant, names in usable if mutant.name in left]
    print(f"{len(work)} of {len(usable)} mutants are tried", flush=True)
    samples = all_with_expected(SAMPLES, registry)
    originals = [
        (Mutant(m, "", "", "original", 0, ("", m), texts[m]), sorted({n for _, n in pairs}))
        for m, pairs in _by_module(work).items()
    ]
    for outcome in run_mutants(originals, samples, jobs=given.jobs, limit_s=10 * LIMIT_S):
        if outcome.how:
            print(
                f"without a change: {outcome.module}: {outcome.how} {outcome.failed}",
                file=sys.stderr,
            )
            return 2
    outcomes: list[Outcome] = []
    for outcome in run_mutants(work, samples, jobs=given.jobs):
        outcomes.append(outcome)
        if len(outcomes) % 100 == 0:
            print(f"{len(outcomes)} of {len(work)}", file=sys.stderr, flush=True)
    print(table(outcomes))
    if given.output:
        given.output.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    counted = [one for one in outcomes if one.how or one.name not in EQUAL]
    share = 100.0 * sum(bool(one.how) for one in counted) / max(1, len(counted))
    return 0 if share >= given.least else 1


if __name__ == "__main__":
    sys.exit(main())

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
import functools
import importlib
import importlib.abc
import importlib.machinery
import json
import multiprocessing
import random
import re
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.machinery import ModuleSpec
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from graphnet.sdk import Entry, Kernel, Registry, load_registry
from graphnet.testing import CHECKS, Sample, Status, checks_for, varied_cases_for
from graphnet.testing.checks.purity import runs
from graphnet.testing.report import judge
from tests.support.equal_mutants import EQUAL
from tests.support.mutations import Mutant, mutants_of
from tests.support.references import all_with_expected

ROOT = Path(__file__).parents[2]
PACKAGE = "graphnet.builtin"
PLACES = ("layers", "losses", "kernels")
LIMIT_S = 60.0
MOST_TARGETS = 8
ORIGINAL = "original"  # the kind of a source without a change
_LAST = "compiles"  # it takes as long as all other checks together
NOT_MUTATED = (
    "optimizers, schedules and metrics; kernels that register operators of torch, which run on a GPU only; "
    "`match`; what only decides which inputs are refused"
)
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


def reach(texts: Mapping[str, str]) -> dict[tuple[str, str], dict[tuple[str, str], int]]:
    """For each thing at the top of a module, the things of all modules that it may change, with a distance.

    What names it has the distance 1, what names that has 2, and so on.
    """
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
    return {thing: _distances(thing, users) for thing in mentions}


def _defined(part: ast.stmt) -> list[str]:
    match part:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _distances(
    thing: tuple[str, str], users: Mapping[tuple[str, str], set[tuple[str, str]]]
) -> dict[tuple[str, str], int]:
    found, ahead = {thing: 0}, [thing]
    for one in ahead:  # it grows, in the order of the distances
        for user in sorted(users.get(one, ())):
            if user not in found:
                found[user] = found[one] + 1
                ahead.append(user)
    return found


def targets(
    mutant: Mutant,
    known: Sequence[Entry],
    reached: Mapping[tuple[str, str], int],
    *,
    most: int = MOST_TARGETS,
) -> list[str]:
    """The registered names that a mutant is checked by: what it reaches, the nearest first.

    Among those of the same distance, each family such as conv1d to conv3d has its turn, and each module: one
    helper may serve layers of many kinds.
    """
    places = {e.name: (e.value.__module__, e.value.__name__) for e in known}
    ahead = sorted(
        (name for name in places if places[name] in reached),
        key=lambda name: (reached[places[name]], not name.endswith("2d")),  # 2d has most samples
    )
    turns: Counter[tuple[int, str]] = Counter()
    order: dict[str, tuple[int, int, int]] = {}
    for name in ahead:
        distance, module = reached[places[name]], places[name][0]
        family = re.sub("[123]d$", "", name)
        turns.update([(distance, family), (distance, module)])
        order[name] = (distance, turns[distance, family], turns[distance, module])
    classes = sorted(ahead, key=order.__getitem__)[:most]
    # A kernel is compared with its layer: this may notice what the layer's own checks do not.
    kernels = [e.name for e in known if e.name not in classes and _replaces(e.value) & set(order)]
    families = Counter[str]()
    ranks: dict[str, int] = {}
    for name in kernels:
        family = re.sub("[123]d$", "", name)
        families[family] += 1
        ranks[name] = families[family]
    return [*classes, *sorted(kernels, key=ranks.__getitem__)[:most]]


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
    """Import what rests on a module of the built-in plugin anew, with another source for that module.

    It changes this process.
    """
    for name in [f"{PACKAGE}.plugin", *_resting_on(module)]:
        if sys.modules.pop(name, None) is not None:
            package, _, own = name.rpartition(".")
            delattr(sys.modules[package], own)  # else `from package import own` finds the old one
    sys.meta_path.insert(0, _Altered(module, source))
    return load_registry(entry_points=False)


@functools.cache  # each process inherits it
def _imports() -> dict[str, set[str]]:
    return {
        name: {str(p.module) for p in ast.parse(text).body if isinstance(p, ast.ImportFrom)}
        for name, text in sources().items()
    }


def _resting_on(module: str) -> set[str]:
    """The module itself, and those that import it or one that does."""
    imports = _imports()
    found = {module}
    while more := {name for name in imports if imports[name] & found} - found:
        found |= more
    return found


def judge_mutant(
    mutant: Mutant, names: Sequence[str], samples: Samples, *, most: int | None = None
) -> tuple[str, tuple[str, ...]]:
    """Run the kit on a mutant in this process; return how it was caught, and by which checks.

    `most` is how many failed checks are enough; None runs all checks of the layer that one fails on.
    """
    try:
        registry = altered_registry(mutant.module, mutant.source)
    except Exception as error:  # whatever a mutant raises when it is imported
        return "loading", (type(error).__name__,)
    found = {name: _entry(registry, name).value for name in names}
    stated = {name: [_anew(one) for one in samples.get(name, ())] for name in names}
    tries: list[tuple[str, type[Any], list[Sample] | None, bool]] = [
        *(("kit", target, None, False) for target in found.values()),
        *(("samples", found[name], stated[name], False) for name in names if stated[name]),
    ]
    if mutant.kind != ORIGINAL:  # Dynamo takes its time
        tries += [("kit", target, None, True) for target in [*found.values()][:1]]
    for how, target, given, last in tries:
        failed = tuple(islice(failures(target, given, registry, last=last), most))
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
    target: type[Any], samples: Sequence[Sample] | None, registry: Registry, *, last: bool
) -> Iterator[str]:
    """Yield the checks that fail, in their order: of the check of torch.compile, or of all others."""
    try:
        cases, _ = varied_cases_for(target, samples, registry=registry)
    except Exception:  # the mutant's own: in `samples`, `match` or a pattern
        yield runs.name
        return
    for check in checks_for(target):
        due = not check.slow and (check.name == _LAST) is last
        if due and judge(check, cases).status is Status.FAILED:
            yield check.name


def run_mutants(
    work: Sequence[tuple[Mutant, Sequence[str]]],
    samples: Samples,
    *,
    jobs: int,
    limit_s: float = LIMIT_S,
    most: int | None = None,
) -> Iterator[Outcome]:
    """Judge each mutant in a process of its own; yield the outcomes as they come."""
    context = multiprocessing.get_context("fork")  # torch and graphnet are imported once

    def child(connection: Connection, mutant: Mutant, names: Sequence[str]) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (round(limit_s), round(limit_s) + 1))
        sys.stderr = sys.stdout = open("/dev/null", "w")  # noqa: SIM115  # what a mutant prints
        how, failed = judge_mutant(mutant, names, samples, most=most)
        connection.send((how, failed, time.process_time()))
        connection.close()

    waiting = list(reversed(work))
    running: dict[Connection, tuple[Any, Mutant]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant, names = waiting.pop()
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=child, args=(theirs, mutant, names), daemon=True)
            process.start()
            theirs.close()
            running[ours] = (process, mutant)
        for connection in wait(list(running)):
            assert isinstance(connection, Connection)
            process, mutant = running.pop(connection)
            try:
                how, failed, seconds = connection.recv()
                process.join()
            except EOFError:
                process.join()
                how = "time" if process.exitcode == -signal.SIGXCPU else "death"
                failed, seconds = (), limit_s
            yield Outcome(
                mutant.name, mutant.kind, mutant.module, mutant.line, how, failed, round(seconds, 2)
            )


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
        "time": f"because it took more than {LIMIT_S:g} s of a processor",
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
    lines += ["", f"not mutated: {NOT_MUTATED}"]
    spent = sum(one.seconds for one in outcomes)
    lines.append(f"{spent / 60:.1f} minutes of one processor were spent on {len(outcomes)} mutants")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Mutate the built-in layers, and see what the kit catches."
    )
    parser.add_argument("--most", type=int, default=600, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", metavar="TEXT", help="mutants whose name has this text")
    parser.add_argument(
        "--least", type=float, default=0.0, help="the share to be caught, in percent"
    )
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument(
        "--first", action="store_true", help="stop at the first check that fails, which is faster"
    )
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
        names = targets(mutant, known, reached.get((mutant.module, mutant.owner), {}))
        if names and (not given.only or given.only in mutant.name):
            usable.append((mutant, names))
    names_of = {mutant.name: names for mutant, names in usable}
    drawn = chosen([mutant for mutant, _ in usable], given.most, given.seed)
    work = [(mutant, names_of[mutant.name]) for mutant in drawn]
    if given.again:
        left = {one["name"] for one in json.loads(given.again.read_text()) if not one["how"]}
        work = [(mutant, names) for mutant, names in usable if mutant.name in left]
    print(f"{len(work)} of {len(usable)} mutants are tried", flush=True)
    samples = all_with_expected(SAMPLES, registry)
    _imports()
    originals = [
        (Mutant(module, "", "", ORIGINAL, 0, ("", module), texts[module]), names[:1])
        for module, names in {mutant.module: names for mutant, names in work}.items()
    ]
    for outcome in run_mutants(originals, {}, jobs=given.jobs, limit_s=10 * LIMIT_S):
        if outcome.how:
            print(
                f"without a change: {outcome.module}: {outcome.how} {outcome.failed}",
                file=sys.stderr,
            )
            return 2
    outcomes: list[Outcome] = []
    for outcome in run_mutants(work, samples, jobs=given.jobs, most=1 if given.first else None):
        outcomes.append(outcome)
        if given.output:
            given.output.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
        if len(outcomes) % 100 == 0:
            print(f"{len(outcomes)} of {len(work)}", file=sys.stderr, flush=True)
    print(table(outcomes))
    counted = [one for one in outcomes if one.how or one.name not in EQUAL]
    share = 100.0 * sum(bool(one.how) for one in counted) / max(1, len(counted))
    return 0 if share >= given.least else 1


if __name__ == "__main__":
    sys.exit(main())

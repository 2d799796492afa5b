"""Guided: a fuzzer that keeps what reaches new code (atheris): `python -m tests.fuzz.guided TARGET --runs N`.

Inputs that reach new code are kept in the folder of the corpus, and the next run starts from them. An input
that raises an undocumented exception, takes too long or takes too much memory is kept as well, and counted;
the run goes on. `make guided` installs atheris and runs all targets.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import atheris

from tests.fuzz.kept import kept

with atheris.instrument_imports(include=["graphnet", "graphnet_denoise"]):
    from tests.fuzz.targets import TARGETS, Target

_SLOW_S = 2.0
_ENDED_S = 20.0  # a run that takes longer is ended
_TOLD = 50_000  # runs between two messages


class Run:
    """Runs a target on each input that the fuzzer makes, and counts what happens."""

    def __init__(self, target: Target, runs: int, found: Path) -> None:
        self.target = target
        self.runs = runs
        self.found = found
        self.done = 0
        self.times = array.array("d")
        self.faults: dict[str, str] = {}
        self._peak = _peak_kib()

    def __call__(self, data: bytes) -> None:
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, _ENDED_S)
        try:
            self.target.run(data)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self._keep(
                f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}", data
            )
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        took = time.process_time() - started
        self.times.append(took)
        if took > _SLOW_S:
            self._keep(f"takes {took:.0f} s", data)
        peak = _peak_kib()
        if peak - self._peak > self.target.most_mib << 10:
            self._keep(f"takes more than {self.target.most_mib} MiB", data)
        self._peak = peak
        self.done += 1
        if self.done % _TOLD == 0:
            print(f"{self.done:,} of {self.runs:,} runs", file=sys.stderr, flush=True)
        if self.done == self.runs:
            self.end()

    def _keep(self, what: str, data: bytes) -> None:
        """Write the first input of each fault."""
        if what not in self.faults:
            path = self.found / f"fault-{len(self.faults)}"
            path.write_bytes(data)
            self.faults[what] = str(path)
            print(f"{what}: {path}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Print what happened, and end the process: the fuzzer itself never returns."""
        times = sorted(self.times)
        print(
            json.dumps(
                {
                    "runs": self.done,
                    "p99_ms": 1e3 * times[int(0.99 * len(times))],
                    "slowest_s": times[-1],
                    "peak_mib": _peak_kib() >> 10,
                    "corpus": len(os.listdir(self.found.parent / "corpus")),
                    "faults": self.faults,
                }
            ),
            flush=True,
        )
        os._exit(bool(self.faults))


def _end(*_: object) -> NoReturn:
    raise TimeoutError(f"takes more than {_ENDED_S:.0f} s")


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def mutator(target: Target) -> Callable[[bytes, int, int], bytes]:
    """How the fuzzer changes an input: mostly as the target says, else byte by byte."""
    starts = target.corpus()

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)
        if draw.random() < 0.1:
            return bytes(atheris.Mutate(data, most))
        return target.mutate(draw, [data, data, draw.choice(starts)])[:most]

    return mutate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=[*TARGETS])
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("build") / "fuzz")
    given = parser.parse_args()
    target = TARGETS[given.target]
    folder = given.folder / given.target
    corpus, found = folder / "corpus", folder / "found"
    for one in (corpus, found):
        one.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate([*target.corpus(), *kept(given.target)]):
        (corpus / f"start-{number}").write_bytes(start)
    signal.signal(signal.SIGPROF, _end)
    run = Run(target, given.runs, found)
    options = [f"-max_len={1 << 16}", "-rss_limit_mb=0", "-timeout=3600", "-verbosity=0"]
    options.append(f"-artifact_prefix={found}{os.sep}")  # else it writes into the current folder
    atheris.Setup([sys.argv[0], *options, str(corpus)], run, custom_mutator=mutator(target))
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Reports: the reporters of a training while it runs; each record goes to all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from graphnet.errors import GraphnetError, TrainingError
from graphnet.model import SINGLE, Joined
from graphnet.sdk import (
    Epoch,
    Record,
    Registry,
    Report,
    Reporter,
    Running,
    Steps,
    Stopped,
)


class Reports:
    """The reporters of a training, with the states that they have between two runs of it.

    Args:
        reporters: in the order in which they get each record.
        states: the states of a checkpoint, as `states` returned them.
        registry: has the reporters' names.
    """

    def __init__(
        self,
        reporters: Sequence[Reporter],
        states: Mapping[str, Mapping[str, Any]],
        registry: Registry,
    ) -> None:
        self._reporters: dict[str, Reporter] = {}
        for reporter in reporters:
            name, count = registry.name_of(reporter), 1
            while (label := name if count == 1 else f"{name} {count}") in self._reporters:
                count += 1
            self._reporters[label] = reporter
        self._states = dict(states)
        self._open: dict[str, Report] = {}
        self._kept: dict[str, str] = {}  # file -> the reporter whose it is

    def start(self, running: Running) -> None:
        """Start all reporters.

        Raises:
            TrainingError: a reporter's own code failed; the message names the reporter.
        """
        for label, reporter in self._reporters.items():
            with _named(label):
                state, keep = self._states.get(label, {}), partial(self._keep, label, running.keep)
                report = reporter.start(replace(running, state=state, keep=keep))
                if not isinstance(report, Report):
                    raise TrainingError(
                        f"start must return a graphnet.sdk.Report, found {type(report).__name__}"
                    )
                self._open[label] = report

    def _keep(self, label: str, keep: Callable[[str], None], file: str) -> None:
        other = self._kept.setdefault(file, label)
        if other != label:
            raise TrainingError(
                f"{file} is the file of the reporter {other!r} already. Give one of them another `file`."
            )
        keep(file)

    def record(self, record: Record) -> str:
        """Give a record to all; returns why the training has to stop, or an empty text."""
        reasons: list[str] = []
        for label, report in self._open.items():
            with _named(label):
                if reason := report.record(record):
                    reasons.append(f"{label}: {reason}")
        return "; ".join(reasons)

    def follow(
        self, running: Running, records: Iterator[Record], processes: Joined = SINGLE
    ) -> Iterator[Record]:
        """Give each record to all, then yield it; a record Stopped ends a training that a reporter stops.

        The reporters of one process end the training in all.
        """
        self.start(running)
        try:
            for record in records:
                reason = self.record(record)
                yield record
                if not isinstance(record, (Steps, Epoch)):
                    continue
                if reason := "; ".join(filter(None, processes.texts(reason))):
                    stopped = Stopped(record.epoch, record.step, reason)
                    self.record(stopped)
                    yield stopped
                    return
        finally:
            self.close()

    def states(self) -> dict[str, dict[str, Any]]:
        """The state of each reporter that has one."""
        for label, report in self._open.items():
            with _named(label):
                state = dict(report.state())
                json.dumps(state)  # a checkpoint could not hold anything else
                self._states[label] = state
        return {label: dict(state) for label, state in self._states.items() if state}

    def close(self) -> None:
        """Close all; they can be started again."""
        self.states()
        for label, report in self._open.items():
            with _named(label):
                report.close()
        self._open = {}


@contextmanager
def _named(label: str) -> Iterator[None]:
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"reporter {label!r}: {error}") from error
    except GraphnetError:
        raise
    except Exception as error:  # somebody else's code: anything may come
        raise TrainingError(
            f"reporter {label!r} failed: {type(error).__name__}: {error}. Leave it out of `reporters`; "
            f"the last checkpoint is unchanged."
        ) from error

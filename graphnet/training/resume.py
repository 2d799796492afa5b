"""Resume: compare a checkpoint with the job that continues it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphnet.errors import CheckpointError
from graphnet.graph import Kind
from graphnet.model import Checkpoint, Program
from graphnet.plan import AUTO
from graphnet.sdk import MultiTensorKernel
from graphnet.training.config import Job
from graphnet.training.fingerprint import difference, is_comparable
from graphnet.training.state import Fingerprint, TrainerState

MAY_CHANGE = (
    *("bucket", "checkpoints", "device", "epochs", "log_every", "metrics", "reporters", "shard"),
)
"""The fields of a training file that a resumed run may change."""


def check_same_run(saved: Checkpoint, state: TrainerState, job: Job) -> list[str]:
    """Compare a checkpoint's configuration and model with those of the job that continues it.

    A resumed run may change the fields MAY_CHANGE, the paths of data sets that are equal, and the path of a
    model that is equal.

    Returns:
        Notes for the log: what has changed.

    Raises:
        CheckpointError: something else has changed, or the checkpoint has more epochs than the job.
    """
    mine, theirs = job.record(), state.config
    changed = [key for key in mine if _stated(mine, key) != _stated(theirs, key)]
    differing = [key for key in changed if key not in (*MAY_CHANGE, "model", "data")]
    if _without_paths(mine["data"]) != _without_paths(theirs.get("data")):
        differing.append("data")
    if differing:
        raise CheckpointError(
            f"the checkpoint was made with another configuration: {', '.join(differing)} differ. Use the "
            f"same file and settings, or start a new run. A resumed run may change "
            f"{', '.join(MAY_CHANGE)}."
        )
    if saved.description.to_data() != job.model.description.to_data():
        raise CheckpointError(
            "the checkpoint was made with another model than the file describes now. Put the model "
            "back as it was, or start a new run."
        )
    if job.config.epochs < state.epochs_done:
        raise CheckpointError(
            f"the checkpoint has {state.epochs_done} epochs, expected at most {job.config.epochs}, the "
            f"epochs of the training file. Give more epochs, or start a new run."
        )
    return [_note(key, theirs.get(key), mine[key]) for key in changed]


def _note(field: str, before: Any, now: Any) -> str:
    after = ""
    if field == "epochs":
        after = "; the schedule spans all epochs, so learning rates are not those of the run so far"
    return f"{field} was {before!r}, is now {now!r}{after}"


def _without_paths(data: Any) -> Any:
    """The forms of data sets without their paths: a form that is a text, and the field `path` of another."""
    if not isinstance(data, Mapping):
        return data
    return {name: None if isinstance(form, str) else _cut(form) for name, form in data.items()}


def _cut(form: Any) -> Any:
    if not isinstance(form, Mapping):
        return form
    return {key: None if key == "path" else _cut(value) for key, value in form.items()}


def check_same_data(state: TrainerState, fingerprints: Mapping[str, Fingerprint]) -> list[str]:
    """Raise CheckpointError if a checkpoint has other data sets; return notes for the log.

    `fingerprints` are those of the data sets of this run, by their names in a training file.
    """
    saved, notes = state.data or {}, []
    for name, now in fingerprints.items():
        then = saved.get(name)
        if then is None or not is_comparable(then):
            notes.append(
                f"the checkpoint, of an older version, does not identify data.{name}: a change of the data "
                f"since then is not noticed"
            )
        elif found := difference(then, now):
            raise CheckpointError(
                f"data.{name} is not the data set that the checkpoint was made with: {found}. Put the "
                f"data back as they were, or start a new run."
            )
    return notes


def _stated(record: Mapping[str, Any], key: str) -> Any:
    """Return a field of a recorded training file; a missing field has its default."""
    value = record.get(key) or None
    return "float32" if key == "precision" and value is None else value


def chosen_precision(job: Job, resume: TrainerState | None) -> str:
    """Return the precision of a run; a resumed run with "auto" keeps the precision of its checkpoint."""
    if job.options.precision != AUTO:
        return job.options.target.precision
    if resume is None:
        return job.options.target.precision
    recorded = resume.precision
    if recorded not in ("bfloat16", "float32"):
        raise CheckpointError(
            f"the checkpoint was made with the precision auto, and should say which that was, bfloat16 or "
            f"float32; it says {recorded!r}. Start a new run."
        )
    return recorded


def kernels_of(program: Program) -> dict[str, str]:
    """The layer and kernel of each node, and the rule and kernel of each call for many parameters."""
    found: dict[str, str] = {}
    plans = (program.accumulation.adding, program.accumulation.updating)
    calls = (step.call for ready in plans if ready is not None for step in ready.plan.steps)
    for call in calls:
        if isinstance(call.layer, MultiTensorKernel):
            found[call.name] = call.title
        elif call.kind in (Kind.LAYER, Kind.LOSS):
            found[call.node] = call.title
    return found


def changed_kernels(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say which kernels differ from those of the checkpoint; an empty text if none does."""
    nodes = [node for node in {**before, **now} if before.get(node) != now.get(node)]
    if not nodes:
        return ""
    changes = [f"{n}: {before.get(n, 'nothing')} -> {now.get(n, 'nothing')}" for n in nodes[:4]]
    more = f" and {len(nodes) - 4} more" if len(nodes) > 4 else ""
    return (
        f"kernels are not those that the checkpoint was made with, so bits will differ: "
        f"{'; '.join(changes)}{more}"
    )

"""Resume: compare a checkpoint with the job that continues it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphnet.errors import CheckpointError
from graphnet.graph import Kind
from graphnet.model import Checkpoint
from graphnet.plan import AUTO, Plan
from graphnet.sdk import MultiTensorKernel
from graphnet.training.config import Job
from graphnet.training.fingerprint import difference


def check_same_run(saved: Checkpoint, job: Job) -> None:
    """Raise CheckpointError if a checkpoint has another configuration or model than this job."""
    mine = job.record()
    theirs = saved.training.get("config", {})
    differing = [key for key in mine if _stated(mine, key) != _stated(theirs, key)]
    if differing:
        raise CheckpointError(
            f"the checkpoint was made with another configuration: {', '.join(differing)} differ. "
            f"Use the same file and settings, or start a new run."
        )
    if saved.description.to_data() != job.model.description.to_data():
        raise CheckpointError(
            "the checkpoint was made with another model than the file describes now. Put the model "
            "back as it was, or start a new run."
        )


def check_same_data(saved: Checkpoint, fingerprints: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Raise CheckpointError if a checkpoint has other data sets; return notes for the log.

    `fingerprints` are those of the data sets of this run, by their names in a training file.
    """
    then = saved.training.get("data")
    if then is None:  # written before checkpoints held fingerprints
        return [
            "the checkpoint does not say which data it was made with: a change of the data set since "
            "then is not noticed"
        ]
    for name, now in fingerprints.items():
        if found := difference(then.get(name, {}), now):
            raise CheckpointError(
                f"data.{name} is not the data set that the checkpoint was made with: {found}. Put the "
                f"data back as they were, or start a new run."
            )
    return []


def _stated(record: Mapping[str, Any], key: str) -> Any:
    """Return a field of a recorded training file; a missing field has its default."""
    value = record.get(key) or None
    return "float32" if key == "precision" and value is None else value


def chosen_precision(job: Job, resume: Checkpoint | None) -> str:
    """Return the precision of a run; a resumed run with "auto" keeps the precision of its checkpoint."""
    if job.options.precision != AUTO:
        return job.options.target.precision
    if resume is None or resume.training.get("config", {}).get("precision") != AUTO:
        return job.options.target.precision  # a checkpoint with another configuration is refused
    recorded = resume.training.get("precision")
    if recorded not in ("bfloat16", "float32"):
        raise CheckpointError(
            f"the checkpoint was made with the precision auto, and should say which that was, bfloat16 or "
            f"float32; it says {recorded!r}. Start a new run."
        )
    return str(recorded)


def kernels_of(plans: Iterable[Plan]) -> dict[str, str]:
    """The layer and kernel of each node, and the rule and kernel of each call for many parameters."""
    found: dict[str, str] = {}
    for call in (step.call for plan in plans for step in plan.steps):
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

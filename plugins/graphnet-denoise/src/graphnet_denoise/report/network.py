"""Network: what a model computes for one image, and in a step of its training, with time and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphnet.description import split_updates
from graphnet.graph import SLOTS, load_machine, machine_path, stated_machine
from graphnet.inspection import Heading, breakdown, page, to_data
from graphnet.model import Model
from graphnet.plan import CompileOptions, Plan, split_options
from graphnet.system import cache_folder
from graphnet_denoise.report.run import Run

_SIDE = 256

_PARTS = {
    "forward": "forward pass",
    "loss": "loss",
    "recompute": "forward pass, recomputed",
    "reverse": "reverse pass",
    "update": "optimizer",
}
"""The parts of a training step, in the order in which they begin, and what the page calls them."""


def network_data(model: Model, options: CompileOptions) -> Mapping[str, Any]:
    """Plan the model for one image of about 256 x 256 pixels, and return what the page shows of the plan.

    Raises GraphnetError or DescriptionError for a model that takes no such image.
    """
    divisor = model.divisor()
    side = -(-_SIDE // divisor) * divisor
    shape = (1, model.input_channels or 3, side, side)
    plan = model.plan(shape, options=replace(options, memory=None))
    data, shown = _plan_data(plan, model, shape, options, training=False)
    return {**shown, "layers": [_layer(step) for step in data["steps"]]}


def training_data(model: Model, run: Run, options: CompileOptions) -> Mapping[str, Any] | None:
    """Plan a step of the run's training, and return what the page shows of the plan, part by part.

    Args:
        model: the run's model.
        run: the run; its log says with what optimizer, loss, batch and precision was trained.
        options: of these, the device counts, since the device of the training may not be here.

    Returns:
        None if the log does not say the loss, the optimizer and the shape of a batch, as older logs do not.

    Raises:
        GraphnetError or DescriptionError: there is no such plan, such as for a loss of a plugin that is gone.
    """
    if "input" not in run.start or not {"loss", "optimizer"} <= run.config.keys():
        return None
    shape = tuple(run.start["input"])
    compiling, fields = split_options(run.config)
    updating, fields = split_updates(fields)
    settings = {"precision": run.start["precision"], "device": options.device}
    chosen = CompileOptions(**{**compiling, **settings})
    optimizer = model.registry.make("optimizers", fields["optimizer"])
    plan = model.plan(shape, loss=fields["loss"], optimizer=optimizer, options=chosen, **updating)
    data, shown = _plan_data(plan, model, shape, chosen, training=True)
    steps = data["steps"]
    return {
        **shown,
        "parts": [_part(steps, part) for part in _PARTS if any(_of(one) == part for one in steps)],
        "memory": [[one["step"], one["alive_bytes"]] for one in steps],
        "loss": next((one["step"] for one in steps if one["kind"] == "loss"), None),
    }


def _plan_data(
    plan: Plan, model: Model, shape: tuple[int, ...], options: CompileOptions, *, training: bool
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """All numbers of a plan, and what the page shows of every plan."""
    device = plan.device
    machine = load_machine(machine_path(device, cache_folder())) or stated_machine(device)
    data = to_data(breakdown(plan, machine))
    text = "x".join(map(str, shape))
    heading = Heading(model.description.name, [text], options.target.precision, training)
    peak = data["peak"]
    return data, {
        "title": str(heading),
        "machine": machine.device,
        "steps": len(data["steps"]),
        "total": data["totals"]["total"],
        "peak": {"bytes": peak["bytes"], "step": peak["step"], "holds": _held(data)},
        "page": page(data, heading),
    }


def _of(step: Mapping[str, Any]) -> str:
    """The part of a training step to which a step of the plan belongs."""
    return "loss" if step["kind"] == "loss" else str(step["phase"])


def _part(steps: list[Mapping[str, Any]], part: str) -> dict[str, Any]:
    """The steps of one part together, as a row of the table."""
    own = [one for one in steps if _of(one) == part]
    return {
        "part": _PARTS[part],
        "steps": len(own),
        "seconds": sum(one["at_least_s"] for one in own),
        "flops": sum(one["flops"] for one in own),
        "bytes": sum(one["bytes_read"] + one["bytes_written"] for one in own),
        "alive": max(one["alive_bytes"] for one in own),
    }


def _held(data: Mapping[str, Any]) -> dict[str, int]:
    """What the memory holds at the peak, in bytes; the rest is the temporary memory of the step."""
    alive, steps = set(data["peak"]["alive"]), data["steps"]
    held: dict[str, int] = {}
    for one in data["storages"]:
        if one["name"] in alive:
            kind = _contents(one, steps)
            held[kind] = held.get(kind, 0) + one["bytes"]
    return dict(sorted(held.items(), key=lambda item: -item[1]))


def _contents(storage: Mapping[str, Any], steps: list[Mapping[str, Any]]) -> str:
    if storage["first"] < 0:
        if storage["kind"] in SLOTS:
            return "parameters and states"
        return "inputs" if storage["kind"] == "input" else "constants and scalars"
    if steps[storage["first"]]["phase"] in ("reverse", "update"):
        return "gradients"
    return "values kept for the reverse pass" if storage["kept_for"] else "values between steps"


def _layer(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step of the plan as a row of the table."""
    made = step["makes"]
    return {
        "step": step["step"],
        "layer": step["node"],
        "kernel": step["title"],
        "shape": "x".join(map(str, made[0]["shape"])) if made else "",
        "seconds": step["at_least_s"],
        "bytes": step["bytes_read"] + step["bytes_written"],
        "alive": step["alive_bytes"],
    }

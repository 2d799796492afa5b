"""Network: what a model computes for one image, layer by layer, with its time and its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphnet.graph import load_machine, machine_path, stated_machine
from graphnet.inspection import Heading, breakdown, device_of, page, to_data
from graphnet.model import Model
from graphnet.plan import CompileOptions
from graphnet.system import cache_folder

_SIDE = 256


def network_data(model: Model, options: CompileOptions) -> Mapping[str, Any]:
    """Plan the model for one image of about 256 x 256 pixels, and return what the page shows of the plan.

    Raises GraphnetError or DescriptionError for a model that takes no such image.
    """
    divisor = model.divisor()
    side = -(-_SIDE // divisor) * divisor
    shape = (1, model.input_channels or 3, side, side)
    plan = model.plan(shape, options=replace(options, memory=None))
    device = device_of(plan)
    machine = load_machine(machine_path(device, cache_folder())) or stated_machine(device)
    data = to_data(breakdown(plan, machine))
    text = "x".join(map(str, shape))
    heading = Heading(model.description.name, [text], options.target.precision, training=False)
    return {
        "title": str(heading),
        "machine": machine.device,
        "layers": [_layer(step) for step in data["steps"]],
        "total": data["totals"]["total"],
        "peak": {"bytes": data["peak"]["bytes"], "step": data["peak"]["step"]},
        "page": page(data, heading),
    }


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

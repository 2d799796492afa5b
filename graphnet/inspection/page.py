"""Page: a plan as one self-contained HTML page: its graph, the timeline of its memory, its table.

The page holds the plan as JSON and a small script that draws it; it asks the network for nothing.
"""

from __future__ import annotations

import html
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Heading:
    """What the page is about: the model, its inputs' shapes, and how its plan was made."""

    model: str
    shapes: Sequence[str]
    precision: str
    training: bool
    executor: str = "eager"

    def __str__(self) -> str:
        what = "training step" if self.training else "inference"
        return (
            f"{self.model}: {what} on {', '.join(self.shapes)}, {self.precision}, {self.executor} "
            f"executor"
        )


def page(data: Mapping[str, Any], heading: Heading) -> str:
    """The page for `plandata.to_data`."""
    text = _file("plan.html")
    parts = {
        "TITLE": html.escape(str(heading)),
        "STYLE": _file("plan.css"),
        "SCRIPT": _file("plan.js"),
        "DATA": _embedded(data),
    }
    for name, part in parts.items():
        before, after = text.split(f"<!--{name}-->")
        text = f"{before}{part}{after}"
    return text


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that no name in it can end early: a script element is closed by "</" and by nothing else."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _file(name: str) -> str:
    return (importlib.resources.files("graphnet.inspection") / "web" / name).read_text(
        encoding="utf-8"
    )

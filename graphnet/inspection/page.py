"""Page: show a plan as one HTML file with its graph, the timeline of its memory, and the table of its steps.

The file holds the plan as JSON, and a small script that draws it. It loads nothing from the network.
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
    """The title of a page.

    Args:
        model: the model's name.
        shapes: the shapes of its inputs as text.
        precision: the precision of the plan, such as "float32".
        training: whether the plan is a training step.
        executor: the executor that the plan is for.
    """

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
    """Make the HTML text of the page.

    Args:
        data: the plan as `graphnet.inspection.to_data` returns it.
        heading: the title.
    """
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
    """Return JSON without "<", so that no name in it can end the script element that holds it."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _file(name: str) -> str:
    return (importlib.resources.files("graphnet.inspection") / "web" / name).read_text(
        encoding="utf-8"
    )

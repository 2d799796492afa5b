"""Page: a run as one HTML file, which loads nothing from anywhere."""

from __future__ import annotations

import html
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from graphnet_denoise.report.run import Run


def page(run: Run, pictures: Sequence[Mapping[str, Any]], *, remark: str = "") -> str:
    """Make the text of the page.

    Args:
        run: the run.
        pictures: what `Pictured.data` returns for each image.
        remark: a sentence about the images, such as why there are none.
    """
    data = {
        "title": f"{run.path.resolve().name}: {run.config.get('name') or 'training run'}",
        "steps": [_chosen(one, "step", "loss", "lr") for one in run.steps],
        "epochs": [
            _chosen(one, "epoch", "step", "loss", "metrics", "elapsed_s") for one in run.epochs
        ],
        "stopped": run.stopped,
        "start": {key: value for key, value in run.start.items() if key != "kernels"},
        "pictures": list(pictures),
        "remark": remark,
    }
    text = _file("report.html")
    parts = {
        "TITLE": html.escape(str(data["title"])),
        "STYLE": _file("report.css"),
        "SCRIPT": _file("report.js"),
        "DATA": _embedded(data),
    }
    for name, part in parts.items():
        before, after = text.split(f"<!--{name}-->")
        text = f"{before}{part}{after}"
    return text


def _chosen(record: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: record[key] for key in keys if key in record}


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON without "<", so that no name in it can end the script element that holds it."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _file(name: str) -> str:
    folder = importlib.resources.files("graphnet_denoise.report") / "web"
    return (folder / name).read_text(encoding="utf-8")

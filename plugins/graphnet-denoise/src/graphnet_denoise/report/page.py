"""Page: a run, or a folder of images, as one HTML page that loads nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from graphnet import inspection
from graphnet_denoise.report.run import Run


def page_data(
    title: str,
    *,
    run: Run | None = None,
    pictures: Sequence[Mapping[str, Any]] = (),
    network: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    remarks: Sequence[str] = (),
    version: int | None = None,
) -> dict[str, Any]:
    """All that the page shows.

    Args:
        title: its heading.
        run: the training run, if there is one.
        pictures: what `Pictured.data` returns for each image; or, on a page that is served, its `name` and
            the `address` at which this is found.
        network: what `network_data` returns.
        training: what `training_data` returns.
        remarks: sentences for the reader, such as why there are no images.
        version: the number of the last change, on a page that is served.
    """
    return {
        "title": title,
        "run": None if run is None else _run_data(run),
        "pictures": [
            {**one, "name": name}
            for one, name in zip(
                pictures, _different([one["name"] for one in pictures]), strict=True
            )
        ],
        "network": network,
        "training": training,
        "remark": " ".join(remarks),
        "version": version,
    }


def title_of(run: Run) -> str:
    """The heading for a run."""
    name = run.config.get("name") or run.config.get("model") or "training run"
    return f"{run.path.resolve().name}: {name}"


def page(data: Mapping[str, Any], *, policy: str = "") -> str:
    """Make the text of the page.

    Args:
        data: what `page_data` returns.
        policy: further directives of its `content_policy`, on a page that is served.
    """
    parts = {
        "TITLE": html.escape(str(data["title"])),
        "STYLE": _file("report.css"),
        "SCRIPT": _file("report.js"),
        "DATA": embedded(data),
        "POLICY": html.escape(content_policy(policy)),
    }
    text = _file("report.html")
    for name, part in parts.items():
        before, after = text.split(f"<!--{name}-->")
        text = f"{before}{part}{after}"
    return text


def content_policy(more: str = "") -> str:
    """The Content-Security-Policy of the page: its own scripts alone may run, and nothing is loaded.

    The graph of the steps is a page of its own inside the page, a blob, whose script is allowed too, also if
    the network is not known when the page is made.

    Args:
        more: further directives, separated by "; ".
    """
    graph = inspection.page({}, inspection.Heading("", [], "", training=False))
    scripts = [_file("report.js"), *re.findall("<script>(.*?)</script>", graph, re.DOTALL)]
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        f"frame-src blob:; base-uri 'none'; form-action 'none'{more and '; '}{more}"
    )


def embedded(data: Mapping[str, Any]) -> str:
    """JSON without "<", so that no name in it can end the script element that holds it."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _different(names: Sequence[str]) -> list[str]:
    """The names, with a number where one comes again: the page knows an image by its name."""
    found: list[str] = []
    for name in names:
        number, new = 1, name
        while new in found:
            number += 1
            new = f"{name} ({number})"
        found.append(new)
    return found


def _run_data(run: Run) -> dict[str, Any]:
    return {
        "steps": [_chosen(one, "step", "loss", "lr") for one in run.steps],
        "epochs": [
            _chosen(one, "epoch", "step", "loss", "metrics", "elapsed_s") for one in run.epochs
        ],
        "stopped": run.stopped,
        "start": {key: value for key, value in run.start.items() if key != "kernels"},
    }


def _chosen(record: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: record[key] for key in keys if key in record}


def _file(name: str) -> str:
    folder = importlib.resources.files("graphnet_denoise.report") / "web"
    return (folder / name).read_text(encoding="utf-8")

"""The training file of `graphnet learn`: a network that knows the range of its images, and its training."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from graphnet.system import write_text
from graphnet_denoise.learning.choice import Choice
from graphnet_denoise.normalization import with_normalization

NETWORKS = Path(__file__).parent / "networks"
SCENES, MODEL, RECIPE = "scenes.json", "model.yaml", "learn.yaml"
EPOCHS = 20
"""The held-out score is measured so many times."""

BATCH = 16
LOG_EVERY = 100
"""Steps between two records of the log, at most."""

_PATIENCE = 12  # epochs without a better score; most of the gain comes when the learning rate falls
_DIGITS = 7  # of the numbers in the files


@dataclass(frozen=True, slots=True)
class Length:
    """How long a training is."""

    epochs: int
    steps_per_epoch: int
    log_every: int = LOG_EVERY

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


def network_for(choice: Choice) -> dict[str, Any]:
    """Describe the network for these images, with their normalization as its first and last layers."""
    text = (NETWORKS / f"{choice.network}.yaml").read_text(encoding="utf-8")
    network = YAML(typ="safe").load(text)
    for layer in network["layers"]:
        if layer.get("id") == "change":
            layer["conv2d"]["out_channels"] = choice.channels
    mean, deviation = _rounded(choice.mean), _rounded(choice.deviation)
    return with_normalization(
        network,
        channels=choice.channels,
        mean=mean,
        deviation=deviation,
        limits=choice.limits and (_rounded(choice.limits[0]), _rounded(choice.limits[1])),
    )


def training_file(
    choice: Choice, folder: Path, length: Length, *, held_out: bool
) -> dict[str, Any]:
    """Describe the training; `folder` is the run's folder, which has the list of images and the network."""
    scenes = str((folder / SCENES).resolve())  # the file can be used from every folder
    data: dict[str, Any] = {
        "train": {
            "scenes": {
                "path": scenes,
                "size": choice.size,
                "per_epoch": length.steps_per_epoch * BATCH,
                "supervision": _plain(choice.supervision),
                "augment": True,
                "weighted": True,
            }
        }
    }
    watched: dict[str, Any] = {}
    if held_out:
        hidden = {"hidden": list(choice.hidden)} if any(choice.hidden) else {}
        data["validation"] = {"held_out": {"path": scenes, "size": choice.size, **hidden}}
        watched = {
            "metrics": [{"held_out_psnr": {"peak": _rounded(choice.peak)}}],
            "reporters": [
                {"early_stopping": {"metric": held_out_metric(choice), "patience": _PATIENCE}},
                {"best_checkpoint": {"metric": held_out_metric(choice)}},
            ],
        }
    return {
        "model": MODEL,
        "data": data,
        # The loss in units of the normalized images, so that its gradients do not depend on their range.
        "loss": [{choice.loss: {}, "weight": _rounded(choice.deviation**-2)}],
        "optimizer": {"muon": {"lr": 0.01, "weight_decay": 0.0, "adamw_lr": 0.002}},
        "schedule": {"one_cycle": {"pct_start": 0.1}},
        "epochs": length.epochs,
        "batch_size": BATCH,
        "log_every": length.log_every,
        "precision": "auto",
        **watched,
    }


def held_out_metric(choice: Choice) -> str:
    """The name of the held-out score in the records of the training."""
    return f"held_out_psnr(peak={_rounded(choice.peak)})"


def write_yaml(path: Path, data: Mapping[str, Any], comment: str) -> None:
    """Write plain data as YAML under a comment of several lines."""
    yaml = YAML(typ="rt")
    yaml.default_flow_style = None
    yaml.width = 100
    text = io.StringIO()
    yaml.dump(data, text)
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    write_text(path, head + text.getvalue())


def _plain(supervision: str | Mapping[str, Any]) -> Any:
    return supervision if isinstance(supervision, str) else dict(supervision)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")

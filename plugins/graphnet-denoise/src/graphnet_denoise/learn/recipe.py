"""The training file of `graphnet learn`: a network that knows the range of its images, and its training."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from graphnet.description import ModelDescription
from graphnet.model import Model
from graphnet.system import write_text
from graphnet_denoise.learn.choice import Choice

NETWORKS = Path(__file__).parent / "networks"
NORMALIZED = "normalized"
"""The node whose output is the normalized image, in a network that knows the range of its images."""

SCENES, MODEL, RECIPE = "scenes.json", "model.yaml", "learn.yaml"
EPOCHS = 20
"""The held-out score is measured so many times."""

BATCH = 16
_PATIENCE = 8  # epochs without a better score
_DIGITS = 7  # of the numbers in the files


@dataclass(frozen=True, slots=True)
class Length:
    """How long a training is."""

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


def network_for(choice: Choice) -> dict[str, Any]:
    """Describe the network with the normalization of the images as its first and last layers.

    It takes images as the numbers of their file, and returns such: x becomes (x - mean) / deviation, the
    network denoises that, and its result becomes deviation * y + mean. So a model file holds all that a
    program needs.
    """
    inner = YAML(typ="safe").load((NETWORKS / f"{choice.network}.yaml").read_text(encoding="utf-8"))
    layers = inner["layers"]
    for layer in layers:
        if layer.get("id") == "change":
            layer["conv2d"]["out_channels"] = choice.channels
    mean, deviation = _rounded(choice.mean), _rounded(choice.deviation)
    return {
        "name": "learned",
        "input": {"channels": choice.channels},
        "blocks": {**inner.get("blocks", {}), inner["name"]: {"layers": layers}},
        "layers": [
            {"id": "centred", "add_scalar": {"value": -mean}},
            {"id": NORMALIZED, "rescale": {"factor": _rounded(1 / deviation)}},
            {"id": "denoised", inner["name"]: {}},
            {"id": "rescaled", "rescale": {"factor": deviation}},
            {"id": "result", "add_scalar": {"value": mean}},
        ],
    }


def knows_range(description: ModelDescription) -> bool:
    """Whether a network normalizes its images itself, as those of `graphnet learn` do.

    Such a network takes the numbers of a file as they are, such as 0..65535, and not 0..1.
    """
    return any(node.id == NORMALIZED for node in description.layers)


def training_file(
    choice: Choice, folder: Path, length: Length, *, held_out: bool
) -> dict[str, Any]:
    """Describe the training; `folder` is the run's folder, which has the list of images and the network."""
    scenes = str(folder / SCENES)
    data: dict[str, Any] = {
        "train": {
            "scenes": {
                "path": scenes,
                "size": choice.size,
                "per_epoch": length.steps_per_epoch * BATCH,
                "supervision": _plain(choice.supervision),
                "augment": True,
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


def check_network(choice: Choice) -> Model:
    """Make the model that is trained, without weights."""
    return Model(network_for(choice))


def _plain(supervision: str | Mapping[str, Any]) -> Any:
    return supervision if isinstance(supervision, str) else dict(supervision)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")

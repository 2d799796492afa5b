"""Checkpoints: tensors in a safetensors file, whose header holds the description and the plugins' versions.

A checkpoint is written to a temporary file, which then replaces the old checkpoint in one step, so there is
always a complete file. Reading a checkpoint executes no code from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from graphnet.description import ModelDescription, parse
from graphnet.errors import CheckpointError, DescriptionError, WriteError
from graphnet.sdk import Registry
from graphnet.system import atomic_write

FORMAT = 1
_MODEL, _TRAINING = "model/", "training/"
_METADATA = "__metadata__"  # what a safetensors header calls the texts beside its tensors


@dataclass(frozen=True)
class Checkpoint:
    """A saved model, and what a resumed training needs.

    Args:
        description: the model's description.
        weights: the tensors by name; where the training averages weights, the averages.
        versions: the versions of torch, the plugins and the layers that the model was made with.
        training: plain data: the step, the epoch, the configuration.
        training_state: the optimizer's tensors, and the weights themselves where `weights` holds averages.
    """

    description: ModelDescription
    weights: Mapping[str, Tensor]
    versions: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    training_state: Mapping[str, Tensor] = field(default_factory=dict)


def versions_of(registry: Registry, description: ModelDescription) -> dict[str, Any]:
    """Return the versions of torch, of every plugin, and of the layers that a description uses."""
    blocks = (block.layers for block in description.blocks.values())
    used = {node.layer for nodes in (description.layers, *blocks) for node in nodes}
    return {
        "torch": torch.__version__,
        "plugins": {p.distribution: p.version for p in registry.plugins if p.status == "loaded"},
        "layers": {
            name: {"version": entry.version, "plugin": entry.plugin.distribution}
            for name, entry in registry.layers.items()
            if name in used
        },
    }


def write_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint completely or not at all.

    Raises:
        CheckpointError: the file's name does not end with .safetensors, two names have one tensor, or the
            file cannot be written; an older file at `path` is unchanged.
    """
    if Path(path).suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: a model is saved as a .safetensors file. Give a name such as "
            f"{Path(path).stem}.safetensors."
        )
    header = {
        "format": FORMAT,
        "description": checkpoint.description.to_data(),
        "versions": checkpoint.versions,
        "training": checkpoint.training,
    }
    tensors = {_MODEL + name: _plain(t) for name, t in checkpoint.weights.items()}
    tensors |= {_TRAINING + name: _plain(t) for name, t in checkpoint.training_state.items()}
    metadata = {"graphnet": json.dumps(header)}
    _check_separate(path, tensors)
    try:
        with atomic_write(Path(path)) as temporary:
            save_file(tensors, temporary, metadata)
    except (WriteError, SafetensorError) as error:
        raise CheckpointError(str(error)) from error


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint.

    The tensors are copies: later changes of the file do not reach them. The file is not mapped into memory:
    if another process shortened it, the next read of a tensor would end this process.

    Raises:
        CheckpointError: the file is missing or damaged, or not a checkpoint of this format.
    """
    try:
        data = Path(path).read_bytes()
        tensors = load(data)  # checks the header and all sizes
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get(_METADATA, {})
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file. Give the path of a saved model.") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from None
    try:
        header = json.loads(metadata["graphnet"])
        if header["format"] != FORMAT:
            raise CheckpointError(
                f"{path}: expected checkpoint format {FORMAT}, found {header['format']}. "
                f"Read it with the version of graphnet that wrote it."
            )
        description = parse(header["description"])
    except (KeyError, TypeError, json.JSONDecodeError, DescriptionError) as error:
        raise CheckpointError(
            f"{path}: a safetensors file, but not a model saved by graphnet ({error!r})"
        ) from None
    return Checkpoint(
        description=description,
        weights=_under(_MODEL, tensors),
        versions=header.get("versions", {}),
        training=header.get("training", {}),
        training_state=_under(_TRAINING, tensors),
    )


def mismatches(checkpoint: Checkpoint, registry: Registry) -> list[str]:
    """List the layers that are missing or whose version differs from the checkpoint's, one sentence each."""
    found = []
    plugins = checkpoint.versions.get("plugins", {})
    for name, saved in checkpoint.versions.get("layers", {}).items():
        entry = registry.layers.get(name)
        if entry is None and plugins.get(saved["plugin"], "local") == "local":
            found.append(
                f"layer {name!r} was registered by {saved['plugin']} in the program that saved the model, "
                f"and no file can hold it. Make it again in the same way, and give its registry: "
                f"Model.load(path, registry=...)"
            )
        elif entry is None:
            found.append(
                f"layer {name!r} came from {saved['plugin']}: pip install {saved['plugin']}"
            )
        elif entry.version != saved["version"]:
            found.append(
                f"layer {name!r} was version {saved['version']}, is now {entry.version} "
                f"({entry.plugin.distribution} {entry.plugin.version})"
            )
    return found


def _check_separate(path: Path | str, tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError if two names have the same memory: a loaded model would have two tensors."""
    owners: dict[int, str] = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        if tensor.numel() and owners.setdefault(memory, name) != name:
            raise CheckpointError(
                f"{path}: {_short(owners[memory])!r} and {_short(name)!r} are views of one tensor. "
                f"Nothing was written. Let nodes have one parameter by `share` in the description, or save "
                f"tensor.clone()."
            )


def _short(name: str) -> str:
    return name.partition("/")[2]


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

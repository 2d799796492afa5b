"""Checkpoints: tensors in a safetensors file, whose header holds the description and the plugins' versions.

A checkpoint is written to a temporary file, which then replaces the old checkpoint in one step, so there is
always a complete file. Reading a checkpoint finds any damage, and executes no code from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from torch import Tensor

from graphnet.description import ModelDescription, parse
from graphnet.errors import CheckpointError, DescriptionError
from graphnet.model.tensor_file import TensorFile, damaged, read_tensors, write_tensors
from graphnet.sdk import Registry, first_fault
from graphnet.system import as_path

FORMAT = 2  # 1 had no digests
_MODEL, _TRAINING = "model/", "training/"


@dataclass(frozen=True)
class Checkpoint:
    """A saved model, and what a resumed training needs.

    Args:
        description: the model's description.
        weights: the tensors by name; where the training averages weights, the averages.
        versions: the versions of torch, the plugins and the layers that the model was made with.
        training: plain data: the step, the epoch, the configuration.
        training_state: the optimizer's tensors, and the weights themselves where `weights` holds averages.
        about: texts about the model by name, such as its "license".
    """

    description: ModelDescription
    weights: Mapping[str, Tensor]
    versions: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    training_state: Mapping[str, Tensor] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)


_CHECKED = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Format(BaseModel):
    """The field of a header that all formats have."""

    model_config = ConfigDict(strict=True)
    format: int


class _LayerVersion(BaseModel):
    model_config = _CHECKED
    version: int
    plugin: str


class _Versions(BaseModel):
    model_config = _CHECKED
    torch: str = ""
    plugins: dict[str, str] = {}
    layers: dict[str, _LayerVersion] = {}


class _Header(BaseModel):
    """The text in the header of a file."""

    model_config = _CHECKED
    format: int
    description: dict[str, JsonValue]
    versions: _Versions = _Versions()
    about: dict[str, str] = {}
    training: dict[str, JsonValue] = {}


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


def write_checkpoint(
    path: Path | str, checkpoint: Checkpoint, *, older: Sequence[Path] = ()
) -> None:
    """Write a checkpoint completely or not at all; `older` is that of `atomic_write`.

    Raises:
        CheckpointError: the file's name does not end with .safetensors, two names have one tensor, or the
            file cannot be written; an older file at `path` is unchanged.
    """
    path = as_path(path, "save")
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: a model is saved as a .safetensors file. Give a name such as "
            f"{path.stem}.safetensors."
        )
    header = {
        "format": FORMAT,
        "description": checkpoint.description.to_data(),
        "versions": checkpoint.versions,
        "about": checkpoint.about,
        "training": checkpoint.training,
    }
    tensors = {_MODEL + name: _plain(t) for name, t in checkpoint.weights.items()}
    tensors |= {_TRAINING + name: _plain(t) for name, t in checkpoint.training_state.items()}
    _check_separate(path, tensors)
    write_tensors(path, tensors, header, older=older)


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint.

    The tensors are copies: later changes of the file do not reach them.

    Raises:
        CheckpointError: the file is missing or damaged, or not a checkpoint of a format up to this one.
    """
    return _as_checkpoint(path, read_tensors(as_path(path, "read_checkpoint")))


def inspect_file(path: Path | str) -> TensorFile:
    """Read and check the file of a model or checkpoint. Raises CheckpointError as `read_checkpoint` does."""
    file = read_tensors(as_path(path, "inspect_file"))
    _as_checkpoint(path, file)
    return file


def _as_checkpoint(path: Path | str, file: TensorFile) -> Checkpoint:
    if file.data is None:
        raise CheckpointError(f"{path}: a safetensors file, but not a model saved by graphnet")
    try:
        version = _Format.model_validate(file.data).format
        if version > FORMAT:
            raise CheckpointError(
                f"{path}: expected checkpoint format {FORMAT} or older, found {version}. Read it with the "
                f"version of graphnet that wrote it, or with a newer one."
            )
        if version > 1 and not file.has_digests:
            raise CheckpointError(f"{path}: {damaged('its header')}")
        header = _Header.model_validate(file.data)
        description = parse(header.description)
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: not a model saved by graphnet: in its header, {first_fault(error)}"
        ) from None
    except DescriptionError as error:
        raise CheckpointError(
            f"{path}: the description in its header is not one of a model: {error}"
        ) from None
    return Checkpoint(
        description=description,
        weights=_under(_MODEL, file.tensors),
        versions=header.versions.model_dump(exclude_unset=True),
        about=header.about,
        training=header.training,
        training_state=_under(_TRAINING, file.tensors),
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

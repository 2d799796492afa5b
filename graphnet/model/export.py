"""Export: a file's ending selects the writer that writes a model into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from graphnet.errors import GraphnetError, InputError, LayerError
from graphnet.model.model import Model
from graphnet.sdk import Registry, Writer, Written, ending_advice
from graphnet.system import as_path


def export(model: Model, path: Path | str, *shapes: tuple[int, ...], **fields: object) -> Written:
    """Write a model's inference into a file of another format, which the file's ending names.

    A model without weights gets those that `predict` draws from its seed.

    Args:
        model: the model.
        path: the file to write, such as net.onnx. An older file is replaced.
        shapes: a shape for each input, such as (1, 3, 64, 64).
        fields: the fields of the writer, such as fixed=["height"] of graphnet-onnx's.

    Returns:
        The names and sizes of inputs and outputs, and the size of the file.

    Raises:
        InputError: no writer is registered for the ending.
        DescriptionError: the writer has no such field, or the field has another type.
        LayerError: the writer failed with an error that is no GraphnetError.

    >>> from graphnet.sdk import load_registry
    >>> registry = load_registry(entry_points=False)
    >>> export(Model({"layers": ["relu"]}, registry=registry), "net.abc", (1, 3))
    Traceback (most recent call last):
    graphnet.errors.InputError: net.abc: nothing writes a name that ends in .abc. None is known.
    """
    path = as_path(path, "export")
    check_model(model)
    writer = writer_for(path, model.registry)(**fields)
    try:
        return told(writer.write(model, path, shapes), model)
    except GraphnetError:
        raise
    except Exception as error:  # somebody else's code: anything may come
        plugin = model.registry.writers[path.suffix.lower()].plugin
        raise LayerError(
            f"{path}: the writer of {path.suffix.lower()} ({plugin.distribution} {plugin.version}) failed: "
            f"{type(error).__name__}: {error}"
        ) from error


def check_model(model: object) -> None:
    """Raise InputError unless something is a Model."""
    if not isinstance(model, Model):
        raise InputError(
            f"export: expected a Model, got a {type(model).__name__}. Make one of a module of graphnet.nn "
            f"with gn.from_nn(module), of a torch module with gn.from_torch(module, shape)."
        )


def writer_for(path: Path, registry: Registry) -> type[Writer]:
    """The writer for a file's ending. Raises InputError if there is none."""
    ending = path.suffix.lower()
    if ending in registry.writers:
        found: type[Writer] = registry.writers[ending].value
        return found
    advice = ending_advice(ending, registry.writers, registry)
    folder = "" if ending else " For a folder that runs with torch alone, export it standalone."
    raise InputError(f"{path}: nothing writes {advice}{folder}")


def told(written: Written, model: Model) -> Written:
    """Return what was written, with a note if the model has no weights of its own."""
    if model.weights is not None:
        return written
    return replace(written, note=", ".join(filter(None, [written.note, "random weights"])))

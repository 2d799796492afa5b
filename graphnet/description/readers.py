"""Readers: a file's ending selects the reader of a model file; this module has those of YAML and TOML."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphnet.description.model import ModelDescription, parse, read_description
from graphnet.description.yamlfile import MAX_DEPTH, read_utf8
from graphnet.errors import MOST_CHARACTERS, DescriptionError, GraphnetError, Problem, elide
from graphnet.sdk import ModelFile, Register, Registry, ending_advice, hookimpl

_OF_TORCH = (".pt", ".pth", ".ckpt", ".bin")


def read_model(path: Path, registry: Registry, *, others: tuple[str, ...] = ()) -> ModelFile:
    """Read a model file by the reader that is registered for its ending.

    Args:
        path: the file.
        registry: has the readers.
        others: endings that the caller reads itself, for the error.

    Returns:
        The file, with a ModelDescription.

    Raises:
        DescriptionError: no reader is registered for the ending, the file is wrong, or the reader failed.
    """
    ending = path.suffix.lower()
    entry = registry.readers.get(ending)
    if entry is None:
        if path.is_dir():
            raise _wrong("is a folder. Give the path of a model file in it.", path)
        if ending in _OF_TORCH:
            raise _wrong(
                "a file that torch saved. Load it with torch, and give the module to "
                "gn.from_torch(module, example).",
                path,
            )
        advice = ending_advice(ending, {*registry.readers, *others}, registry)
        raise _wrong(f"nothing reads {advice}", path)
    of = f"the reader of {ending} ({entry.plugin.distribution} {entry.plugin.version})"
    try:
        made: Any = entry.value(path)
    except GraphnetError:
        raise
    except OSError as error:
        raise _wrong(f"cannot be read: {error.strerror or error}", path) from error
    except Exception as error:  # somebody else's code: anything may come
        raise _wrong(f"{of} failed: {type(error).__name__}: {error}", path) from error
    file = made if isinstance(made, ModelFile) else ModelFile(made)
    if isinstance(file.description, ModelDescription):
        return file
    try:
        return replace(file, description=parse(file.description))
    except DescriptionError as error:
        raise DescriptionError([replace(p, where=str(path)) for p in error.problems]) from None


def read_toml(path: Path) -> Any:
    """The content of a TOML file, which has the fields of a YAML model file.

    Raises:
        DescriptionError: the file is no TOML; the error says in which line.
    """
    try:
        return tomllib.loads(read_utf8(path, "a TOML file"))
    except RecursionError:
        raise _wrong(f"expected at most {MAX_DEPTH} levels", path) from None
    except ValueError as error:  # a TOMLDecodeError, or a number that Python cannot read
        raise _wrong(f"not TOML: {elide(str(error), MOST_CHARACTERS)}", path) from None


def _wrong(message: str, path: Path) -> DescriptionError:
    return DescriptionError([Problem(message, where=str(path))])


@hookimpl
def graphnet_readers(register: Register) -> None:
    for ending in (".yaml", ".yml", ".json"):  # a JSON text is a YAML text too
        register(ending, read_description)
    register(".toml", read_toml)

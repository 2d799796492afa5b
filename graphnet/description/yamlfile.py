"""Read YAML 1.2 as plain data plus the place of each field, within limits, and executing nothing.

ruamel.yaml parses and resolves scalars; this module turns its nodes into dictionaries, lists and
scalars, and refuses tags, duplicate keys, keys that are not text, and documents grown by aliases.
"""

from __future__ import annotations

import io
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter

from graphnet.errors import DescriptionError, Problem, shown
from graphnet.system import whole_number

MAX_CHARACTERS = 16_000_000
MAX_VALUES = 250_000
MAX_DEPTH = 64

Place = tuple[str | int, ...]
_SCALARS = {"str", "int", "float", "bool", "null", "timestamp"}


@dataclass(frozen=True)
class Locations:
    """Where each field of a document stands; knows nothing of data that came from Python.

    `places` are line and column, or words for a field that was set from elsewhere.
    """

    name: str = ""
    places: Mapping[Place, tuple[int, int] | str] = field(default_factory=dict)

    def where(self, path: Place) -> str:
        """file:line:column of the field, or of the nearest field around it."""
        while path and path not in self.places:
            path = path[:-1]
        match self.places.get(path):
            case (line, column):
                return f"{self.name}:{line}:{column}"
            case str() as words:
                return words
        return self.name

    def below(self, path: Place) -> Locations:
        """The places of what stands in a field, as of a document of its own."""
        inside = {p[len(path) :]: at for p, at in self.places.items() if p[: len(path)] == path}
        return Locations(self.name, inside)

    def but(self, path: Place, words: str) -> Locations:
        """The same, but for a field that was set from elsewhere, and all that stands in it."""
        rest = {p: at for p, at in self.places.items() if p[: len(path)] != path}
        return Locations(self.name, {**rest, path: words})


def read_file(path: Path) -> tuple[Any, Locations]:
    """Read a YAML file. Raises DescriptionError for a missing file or bad YAML."""
    return read_text(read_utf8(path, "a YAML file"), name=str(path))


def read_utf8(path: Path, kind: str) -> str:
    """Read a text file of at most MAX_CHARACTERS bytes; `kind` is what it should be, for the message.

    Raises DescriptionError if the file is missing, larger, no file but a device, or not in UTF-8.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            reason = "it is a folder or a device"
        elif found.st_size > MAX_CHARACTERS:
            reason = f"expected at most {MAX_CHARACTERS:,} bytes, found {found.st_size:,}"
        else:
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except (OSError, ValueError) as error:  # ValueError: the path has the character NUL
        reason = getattr(error, "strerror", None) or str(error)
    raise DescriptionError(
        [Problem(f"cannot be read: {reason}. Give the path of {kind}.", where=str(path))]
    )


def read_text(text: str, *, name: str = "<text>") -> tuple[Any, Locations]:
    """Read YAML text. Raises DescriptionError with every problem of the document."""
    if len(text) > MAX_CHARACTERS:
        raise DescriptionError(
            [
                Problem(
                    f"expected at most {MAX_CHARACTERS} characters, found {len(text)}", where=name
                )
            ]
        )
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # an alias means the last anchor before it
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise DescriptionError([Problem(_not_yaml(str(error.problem)), where=where)]) from None
    except (YAMLError, RecursionError, ValueError) as error:
        raise DescriptionError([Problem(f"not YAML: {error}", where=name)]) from None
    reader = _Reader(yaml, name)
    data = None if root is None else reader.read(root, ())
    if reader.problems:
        raise DescriptionError(reader.problems)
    return data, Locations(name, reader.places)


_ADVICE = {  # words of the YAML parser: what is probably wrong, and what to do
    "\\t": "a tab is used to indent. Indent with spaces",
    "<block end>": "this line is not indented as the lines that it belongs to",
    "mapping values": "a second ':' in one line. Start a new line, or put quotes around the value",
    "could not find": "the line before has no ':' after its key, or is not indented as the others",
    "end of stream": "a quote or a bracket is opened, and not closed",
    "<stream end>": "a bracket is opened, and not closed",
    "expected ',' or": "a bracket is opened, and not closed",
    "cannot start": "a value must not begin with this character. Put quotes around the value",
    "another document": "the file has a line '---'. Write one document for each file",
}


def _not_yaml(problem: str) -> str:
    advice = next((words for part, words in _ADVICE.items() if part in problem), "")
    return f"not YAML: {advice} ({problem})" if advice else f"not YAML: {problem}"


class _Reader:
    def __init__(self, yaml: YAML, name: str) -> None:
        self.name = name
        self.constructor = yaml.constructor
        self.places: dict[Place, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.count = 0

    def read(self, node: Any, path: Place) -> Any:
        mark = node.start_mark
        self.places[path] = (mark.line + 1, mark.column + 1)
        self.count += 1
        if self.count > MAX_VALUES or len(path) > MAX_DEPTH:
            limit = f"{MAX_VALUES:,} values" if self.count > MAX_VALUES else f"{MAX_DEPTH} levels"
            where = f"{self.name}:{mark.line + 1}:{mark.column + 1}"
            raise DescriptionError(
                [Problem(f"expected at most {limit}, aliases counted", where=where)]
            )
        tag = str(node.tag).rpartition(":")[2]
        match node:
            case ScalarNode() if tag in _SCALARS:
                return self.scalar(node, tag, path)
            case SequenceNode() if tag == "seq":
                return [self.read(item, (*path, i)) for i, item in enumerate(node.value)]
            case MappingNode() if tag == "map":
                return self.mapping(node, path)
        self.problem(path, f"tags such as {node.tag!r} are not allowed; write plain values")
        return None

    def scalar(self, node: Any, tag: str, path: Place) -> Any:
        if tag in ("str", "timestamp"):
            return str(node.value)
        try:
            return getattr(self.constructor, f"construct_yaml_{tag}")(node)
        except ValueError:
            self.problem(path, f"expected {tag}, found {shown(node.value)}")
            return None

    def mapping(self, node: Any, path: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self.problem(path, "keys must be plain text")
                continue
            name = str(key.value)
            if name in found:
                mark = key.start_mark
                where = f"{self.name}:{mark.line + 1}:{mark.column + 1}"
                self.problems.append(
                    Problem(f"the key {name!r} is given twice", dotted(path), where)
                )
                continue
            found[name] = self.read(value, (*path, name))
        return found

    def problem(self, path: Place, message: str) -> None:
        line, column = self.places[path]
        self.problems.append(Problem(message, dotted(path), f"{self.name}:{line}:{column}"))


def dotted(path: Sequence[str | int]) -> str:
    """A path as people write it: layers[3].conv2d.kernel_size."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def undotted(path: str) -> Place:
    """The place that a path means.

    >>> undotted("layers[3].conv2d.kernel_size")
    ('layers', 3, 'conv2d', 'kernel_size')
    """
    parts = re.findall(r"[^.\[\]]+", path)
    numbers = [whole_number(part) for part in parts]
    return tuple(p if n is None else n for p, n in zip(parts, numbers, strict=True))


class _Writer(SafeRepresenter):
    """Quotes text that begins with a colon, which would not read back within {braces}."""

    def text(self, data: str) -> Any:
        style = "'" if data.startswith(":") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Writer.add_representer(str, _Writer.text)


def dump(data: Any) -> str:
    """Plain data as YAML text that reads back equal."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Writer
    yaml.default_flow_style = None  # short lists on one line
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 1_000_000  # no folding: folded escapes would not always read back
    yaml.allow_unicode = False  # escapes: some line breaks of Unicode would not read back
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()

"""Writer: writes a model into a file of another program's format; registered under the file's ending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphnet.errors import ContractError
from graphnet.sdk.definition import Definition


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer wrote; `graphnet export` prints it.

    Attributes:
        path: the file or folder.
        inputs, outputs: the names, and the sizes as text: numbers, and the names of free sizes.
        size_bytes: the size of all files.
        note: a further remark in one line; empty if there is none.

    >>> print(Written(Path("net.onnx"), {"input": "batch x 3"}, {"output": "batch x 1"}, 512, "2 nodes"))
    input input: batch x 3
    output output: batch x 1
    wrote net.onnx: 512 bytes, 2 nodes
    """

    path: Path
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    size_bytes: int
    note: str = ""

    def __str__(self) -> str:
        lines = [f"input {name}: {sizes}" for name, sizes in self.inputs.items()]
        lines += [f"output {name}: {sizes}" for name, sizes in self.outputs.items()]
        note = f", {self.note}" if self.note else ""
        return "\n".join([*lines, f"wrote {self.path}: {self.size_bytes} bytes{note}"])


class Writer(Definition):
    """Writes a model; its fields are its options, which `graphnet export --set FIELD=VALUE` sets.

    >>> class Names(Writer):
    ...     separator: str = ","
    ...
    ...     def write(self, model, path, shapes):
    ...         text = self.separator.join(model.graph(*shapes).calls)
    ...         path.write_text(text)
    ...         return Written(path, {}, {}, len(text))
    >>> from graphnet import Model
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Names().write(Model({"layers": ["relu"]}), Path(folder, "a.names"), [(1, 3)]).size_bytes
    6
    """

    def write(self, model: Any, path: Path, shapes: Sequence[tuple[int, ...]]) -> Written:
        """Write a model's inference.

        Args:
            model: a graphnet.Model.
            path: the file to write. Use graphnet.system.atomic_write, so that an older file stays whole.
            shapes: a shape for each input, such as (1, 3, 64, 64).

        Raises:
            GraphnetError: the model cannot be written; the message says which node is the reason, and why.
        """
        raise ContractError(f"{type(self).__name__} defines no write(model, path, shapes)")

"""Standalone: write a model as a folder of source and weights that runs with torch alone."""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from graphnet.errors import InputError, WriteError
from graphnet.model.export import check_model, told
from graphnet.model.model import Model
from graphnet.model.run_standalone import check
from graphnet.model.slots import set_up
from graphnet.model.standalone_files import MARK, write_files
from graphnet.model.standalone_sizes import OFF, find
from graphnet.sdk import Writer, Written
from graphnet.system import as_path, temporary_folder


class StandaloneFolder(Writer):
    """Writes a folder with source and weights that runs with torch alone.

    kernels: "aten" computes with torch's operators where there are kernels for it; "reference" with each
      layer's own arithmetic. Default: "aten".
    overwrite: whether a folder with other files in it may be written to. An earlier export is always
      replaced. Default: false.
    """

    kernels: Literal["aten", "reference"] = "aten"
    overwrite: bool = False

    def write(self, model: Any, path: Path, shapes: Sequence[tuple[int, ...]]) -> Written:
        """Write the folder.

        Raises:
            SourceError: a layer's code cannot be copied; the error names every such node, and why.
            InputError: the folder's name cannot be imported, or it has other files.
            WriteError: the folder cannot be written.
        """
        _check_folder(path, overwrite=self.overwrite)
        found = find(model, shapes, self.kernels)
        weights = set_up(
            [found.plan.values[name] for name in found.plan.slots],
            seed=model.seed,
            given=model.weights,
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_folder(path) as folder:
                size = write_files(folder, path.name, model, found, weights, self.kernels)
                check(
                    folder,
                    lambda *x: model.predict(*x, kernels=self.kernels, without=OFF),
                    found.tried,
                )
                path.mkdir(exist_ok=True)
                for file in sorted(folder.iterdir()):
                    file.replace(path / file.name)
        except OSError as error:
            raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
        return Written(path, found.sizes(found.plan.inputs), found.outputs(), size)


def export_standalone(
    model: Model, folder: Path | str, *shapes: tuple[int, ...], **fields: object
) -> Written:
    """Write a model's inference as a folder of source and weights that runs with torch alone.

    The folder is a package of Python: `from FOLDER import Network`, then `Network().predict(x)`. README.md in
    it says more. A model without weights gets those that `predict` draws from its seed.

    Args:
        model: the model.
        folder: the folder to write. Its name is that of a package, such as my_network.
        shapes: a shape for each input, such as (1, 3, 64, 64). Other batches and, as far as the same code
            fits them, other sizes may come later.
        fields: `kernels` ("aten" for torch's operators, "reference" for the layers' own arithmetic) and
            `overwrite` (whether the folder may have other files).

    Raises:
        SourceError: a layer's code needs more than torch; the error names every such node.
        DescriptionError: a field is unknown, or has another type.
        InputError: the folder's name cannot be imported, or it has other files.

    >>> model = Model({"input": {"channels": 3}, "layers": ["relu"]})
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     export_standalone(model, Path(place, "net"), (1, 3, 8, 8)).inputs
    {'input': 'batch x 3 x height x width'}
    """
    check_model(model)
    writer = StandaloneFolder(**fields)  # type: ignore[arg-type]  # it checks the types
    return told(writer.write(model, as_path(folder, "export_standalone"), shapes), model)


def _check_folder(path: Path, *, overwrite: bool) -> None:
    if not path.name.isidentifier() or keyword.iskeyword(path.name):
        raise InputError(
            f"{path}: expected a folder whose name can be imported, such as my_network: letters, digits and "
            f"'_'"
        )
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: expected a folder, found a file")
    if overwrite or not path.exists() or not any(path.iterdir()):
        return
    code = path / "model.py"
    if not code.is_file() or MARK not in code.read_text(encoding="utf-8", errors="replace")[:300]:
        raise InputError(
            f"{path}: has other files, and is no earlier export. Name another folder, or set "
            f"overwrite=true"
        )

"""Standalone files: the text of each file in the folder of an exported network."""

from __future__ import annotations

import hashlib
import importlib.resources
import keyword
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from graphnet.graph import Value
from graphnet.model.free_sizes import BATCH
from graphnet.model.model import Model
from graphnet.model.origins import origins
from graphnet.model.standalone_sizes import Network
from graphnet.plan import Plan, check_names
from graphnet.sdk import dtype_name

MARK = "a network in plain torch, written by graphnet"
"""A text in the code of every export, by which a later one knows that it may replace it."""
_TEMPLATES = importlib.resources.files("graphnet.model") / "standalone_template"
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_files(
    folder: Path,
    package: str,
    model: Model,
    found: Network,
    weights: Mapping[str, Tensor],
    kernels: str,
) -> int:
    """Write all files, and return their size in bytes."""
    data, source = found.plan, found.source
    title = " ".join(model.description.name.split()).replace('"', "'").replace("\\", "/")
    given = _arguments(data)
    arguments = ", ".join(given)
    outputs = ", ".join(_identifiers(found.names))
    of_code = origins(source.modules, model.registry)
    several = len(found.names) > 1
    words = {
        "title": title,
        "package": package,
        "version": of_code.version,
        "arguments": arguments,
        "parameters": ", ".join(f"{name}: Tensor" for name in given),
        "outputs": outputs,
        "told": "the outputs " + ", ".join(found.names) if several else "the output",
        "returns": "tuple[Tensor, ...]" if several else "Tensor",
        "found": "found" if several else "found[0]",
        "imports": source.imports,
        "step": source.step.rstrip() + "\n",
        "layers": source.layers.rstrip(),
        "dtypes": ", ".join(
            f'{dtype}: "{_DTYPES[dtype]}"'
            for dtype in dict.fromkeys(weights[name].dtype for name in source.slots.values())
        ),
        "sizes": "\n".join(
            f'    "{data.values[value].label}": {_tuple(found.axes(value))},'
            for value in data.inputs
        ),
        "weights": "\n".join(
            _weight(name, slot, weights[slot], data.values[slot])
            for name, slot in source.slots.items()
        ),
    }
    code = string.Template(_template("model")).substitute(words)
    check_names(code)
    free = [name for name in found.free if name != BATCH]
    words |= {
        "example": _example(found, outputs),
        "rows": "\n".join(_rows(found)),
        "free": _free(found, free),
        "kernels": "by torch's operators" if kernels == "aten" else "by graphnet's own arithmetic",
        "versions": of_code.versions,
        "origins": "\n".join(f"- {one}" for one in of_code.told),
        "licence_rows": "\n".join(
            f"| `{name}` | the licence of the code from {of} |"
            for name, (of, _) in of_code.licences.items()
        ),
    }
    files = {
        "__init__.py": _INIT.encode(),
        "model.py": code.encode(),
        "README.md": string.Template(_template("readme")).substitute(words).encode(),
        "weights.safetensors": _weights(weights),
        **{name: text.encode() for name, (_, text) in of_code.licences.items()},
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return sum(map(len, files.values()))


def _weight(name: str, slot: str, tensor: Tensor, value: Value) -> str:
    """The row of a weight in WEIGHTS."""
    order = value.memory_format if tensor.ndim == 4 else None
    facts = f'"{slot}", {tuple(tensor.shape)}, {tensor.dtype}, {order}'
    row = f'    "{name}": ({facts}),'
    return row if len(row) <= 100 else f'    "{name}": (\n        {facts},\n    ),'


_INIT = '''"""A network in plain torch; README.md says how to use it."""

from .model import Network as Network
'''


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _weights(weights: Mapping[str, Tensor]) -> bytes:
    """A safetensors file with a checksum of its numbers."""
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    data = save(tensors)
    numbers = data[8 + int.from_bytes(data[:8], "little") :]
    return save(tensors, {"sha256": hashlib.sha256(numbers).hexdigest()})


def _identifiers(names: Sequence[str]) -> list[str]:
    fits = all(name.isidentifier() and not keyword.iskeyword(name) for name in names)
    return list(names) if fits else [f"output_{i}" for i in range(len(names))]


def _arguments(plan: Plan) -> list[str]:
    """The arguments of `predict`: x, or where there are several inputs their names."""
    if len(plan.inputs) == 1:
        return ["x"]
    names = [plan.values[value].label for value in plan.inputs]
    fits = all(name.isidentifier() and not keyword.iskeyword(name) for name in names)
    taken = {"self", "torch", "network", "step", "check_inputs"} & set(names)
    return names if fits and not taken else [f"input_{i}" for i in range(len(names))]


def _tuple(axes: Sequence[int | str]) -> str:
    return repr(tuple(axis if isinstance(axis, int) else None for axis in axes))


def _example(found: Network, outputs: str) -> str:
    made = []
    names = _arguments(found.plan)
    for name, value in zip(names, found.plan.inputs, strict=True):
        spec = found.plan.values[value].spec
        kind = "rand" if spec.dtype.is_floating_point else "zeros"
        dtype = "" if kind == "rand" else f", dtype={spec.dtype}"
        made.append(f"{name} = torch.{kind}({tuple(spec.shape)}{dtype})")
    return "\n".join([*made, f"{outputs} = network.predict({', '.join(names)})"])


def _rows(found: Network) -> list[str]:
    sizes = {"input": found.sizes(found.plan.inputs), "output": found.outputs()}
    values = {"input": found.plan.inputs, "output": found.plan.outputs}
    return [
        f"| {word} | `{name}` | {text} | {dtype_name(found.plan.values[value].spec.dtype)} |"
        for word, table in sizes.items()
        for (name, text), value in zip(table.items(), values[word], strict=True)
    ]


def _free(found: Network, names: Sequence[str]) -> str:
    if not found.free:
        return "All sizes are fixed: the code is for these only."
    every = [*([BATCH] if BATCH in found.free else []), *names]
    return (
        f"Free sizes: {', '.join(every)}. Any numbers may come for them that fit the layers; where one does\n"
        f"not fit, an error says so. All numbers in the table are fixed. The comments in `step` show the\n"
        f"sizes for the inputs that the export was given."
    )

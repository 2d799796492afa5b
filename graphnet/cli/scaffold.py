"""Write the project of a new plugin: one layer, its test, packaging, a README and a CI script."""

from __future__ import annotations

import re
from pathlib import Path

from graphnet.errors import PluginError

_NAME = re.compile(r"[a-z][a-z0-9]*-[a-z][a-z0-9-]*[a-z0-9]")

_FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
description = "The layer {layer} for graphnet"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["graphnet-framework"]

[project.entry-points."graphnet.plugins"]
{name} = "{module}"

[tool.setuptools.packages.find]
where = ["src"]
""",
    "src/{module}/__init__.py": '''\
"""The layer {layer} for graphnet."""

import torch
from torch import Tensor

import graphnet as gn
from graphnet.sdk import Register, Specs

GRAPHNET_CONTRACT = 1


class {title}(gn.Layer):
    """x * sigmoid(beta * x), elementwise, with a trained beta (Ramachandran et al. 2017, eq. 1).

    x, y: any shape, any floating dtype; beta: (1,). Backward keeps x and the gate.
    """

    saves = ("gate",)
    start: float = 1.0

    def parameters(self, specs: Specs) -> dict[str, gn.ParameterSpec]:
        return {{"beta": gn.ParameterSpec((1,), gn.Constant(self.start))}}

    def forward(self, x: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(beta * x)
        return x * gate, gate

    def backward(
        self, grad_y: Tensor, x: Tensor, beta: Tensor, gate: Tensor
    ) -> tuple[Tensor, Tensor]:
        slope = gate * (1 - gate)
        grad_x = grad_y * (gate + beta * x * slope)
        return grad_x, (grad_y * x * x * slope).sum().reshape(1)


@gn.hookimpl
def graphnet_layers(register: Register) -> None:
    register("{layer}", {title}, version=1)
''',
    "tests/test_{short}.py": """\
from graphnet.testing import LayerTests
from {module} import {title}


class Test{title}(LayerTests):
    layer = {title}()
""",
    "README.md": """\
# {name}

The layer `{layer}` for graphnet. After
`pip install {name}` it can be used in any model:

```yaml
layers:
  - conv2d: {{out_channels: 8, kernel_size: 3, padding: 1}}
  - {layer}: {{start: 1.0}}
```

`graphnet check {layer}` runs the conformance checks, `pytest` the tests.
""",
    ".ci/run": """\
#!/usr/bin/env bash
set -euo pipefail
python -m pip install --quiet -e . pytest
graphnet check {layer}
python -m pytest
""",
}


def write_project(name: str, into: Path) -> Path:
    """Write the project for a plugin `acme-swish` with the layer acme/swish; returns its folder.

    Raises PluginError for a name that is no "namespace-layer", and when the folder is there already.
    """
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"expected a name such as acme-swish (who, a hyphen, what; small letters and digits), "
            f"found {name!r}"
        )
    space, _, short = name.partition("-")
    words = {
        "name": name,
        "module": name.replace("-", "_"),
        "short": short.replace("-", "_"),
        "layer": f"{space}/{short.replace('-', '_')}",
        "title": "".join(word.capitalize() for word in short.split("-")),
    }
    folder = into / name
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise PluginError(f"{folder} is there already; choose another name or --into") from None
    for place, text in _FILES.items():
        path = folder / place.format(**words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(**words), encoding="utf-8")
    (folder / ".ci" / "run").chmod(0o755)
    return folder

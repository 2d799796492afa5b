"""Plugins that are broken, each in another way, as installed distributions; and a healthy one beside them.

`python -m tests.support.broken_plugins` installs all of them in one folder and prints what `graphnet plugins`
says of each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

LAYER = """
import graphnet as gn


class Double(gn.Layer):
    '''2 x, elementwise.'''

    def forward(self, x):
        return 2 * x

    def backward(self, grad_y):
        return 2 * grad_y
"""
HEALTHY_TEXT = f"""{LAYER}

def graphnet_version():
    raise RuntimeError("is a helper of the plugin, and no hook")


@gn.hookimpl
def graphnet_layers(register):
    register("healthy/double", Double)
"""


def hook(body: str, name: str = "graphnet_layers", before: str = "", kind: str = "def") -> str:
    """The text of a module with a layer and one hook."""
    lines = "\n".join(f"    {line}" for line in body.split("\n"))
    return f"{LAYER}\n{before}\n@gn.hookimpl\n{kind} {name}(register):\n{lines}\n"


@dataclass(frozen=True)
class Broken:
    """A way to be broken: the module's text, what must be said of it, and the metadata where they differ."""

    text: str
    cause: str
    points: str = "{module} = {module}"
    metadata: str = "Name: {name}\nVersion: 1.0"
    info: str = "{module}-1.0.dist-info"


_OBJECT = (
    "\n\nclass Acme:\n    @gn.hookimpl\n    def graphnet_layers(self, register):\n        pass\n"
)
_PROPERTY = "\n\nclass Acme:\n    @property\n    def graphnet_layers(self):\n        1 / 0\n\nacme = Acme()\n"
_LATE = "\n@gn.hookimpl\ndef graphnet_losses(register):\n    kept[0]('late/double', Double)\n"
BROKEN: dict[str, Broken] = {
    "import": Broken("from graphnet import Lyaer", "ImportError: cannot import name 'Lyaer'"),
    "dependency": Broken("import not_installed_anywhere", "No module named 'not_installed_anywhere'"),
    "syntax": Broken("def forward(:", "SyntaxError: invalid syntax"),
    "error": Broken("print('noise')\n1 / 0", "ZeroDivisionError: division by zero"),
    "recursion": Broken("def f():\n    f()\nf()", "RecursionError: maximum recursion depth"),
    "exit": Broken("raise SystemExit(3)", "SystemExit(3): ends the process when it is loaded"),
    "base-exception": Broken(
        "class Stop(BaseException):\n    pass\nraise Stop('now')", "Stop: now"
    ),
    "unreadable-error": Broken(
        "class Odd(Exception):\n    def __str__(self):\n        1 / 0\nraise Odd()",
        "Odd: its message cannot be read: ZeroDivisionError",
    ),
    "no-hook": Broken("x = 1", "implements no hook. Known: graphnet_kinds, graphnet_layers, "),
    "hook-signature": Broken(
        LAYER + "\n@gn.hookimpl\ndef graphnet_layers(registry):\n    pass\n",
        "Argument(s) {'registry'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "hook-name": Broken(
        hook("pass", name="graphnet_layer"),
        "implements 'graphnet_layer', which is no hook. Did you mean 'graphnet_layers'?",
    ),
    "hook-mark": Broken(
        LAYER + "\ndef graphnet_layers(register):\n    pass\n",
        "graphnet_layers is not marked; put @graphnet.hookimpl above it",
    ),
    "hook-mark-and-name": Broken(
        hook("pass") + "\ndef graphnet_optimiser(register):\n    pass\n",
        "defines 'graphnet_optimiser', which is no hook. Did you mean 'graphnet_optimizers'?",
    ),
    "hook-yields": Broken(
        hook("register('a/b', Double)\nyield"),
        "graphnet_layers has a `yield`, so calling it runs nothing",
    ),
    "hook-async": Broken(
        hook("register('a/b', Double)", kind="async def"),
        "graphnet_layers is async, so calling it runs nothing",
    ),
    "hook-async-yields": Broken(
        hook("register('a/b', Double)\nyield", kind="async def"),
        "graphnet_layers is async, so calling it runs nothing",
    ),
    "hook-wrapper": Broken(
        hook("return (yield)").replace("@gn.hookimpl", "@gn.hookimpl(wrapper=True)"),
        "graphnet_layers has a `yield`",
    ),
    "hook-returns": Broken(
        hook("return [('a/b', Double)]"),
        "graphnet_layers returns list, and what a hook returns is not used",
    ),
    "hook-fails": Broken(hook("register('a/b', Double)\n{}['x']"), "KeyError: 'x'"),
    "hook-exits": Broken(hook("register('a/b', Double)\nraise SystemExit(0)"), "SystemExit(0)"),
    "hook-late": Broken(
        hook("kept.append(register)", before="kept = []") + _LATE,
        "layer 'late/double' is registered after graphnet_layers has returned",
    ),
    "object-is-a-class": Broken(
        LAYER + _OBJECT, "Acme is a class; give an instance, Acme()", points="{module} = {module}:Acme"
    ),
    "object-has-a-property": Broken(
        LAYER + _PROPERTY,
        "graphnet_layers is a property; write a method",
        points="{module} = {module}:acme",
    ),
    "thing": Broken(
        hook("register('a/b', 3)"),
        "layer 'a/b' must be a subclass of graphnet.Layer that is no Loss or Kernel, found 3",
    ),
    "thing-of-another-kind": Broken(
        hook("register('a/b', Double)", name="graphnet_losses"),
        "loss 'a/b' must be a subclass of graphnet.Loss, found",
    ),
    "thing-lacks-a-method": Broken(
        hook("register('a/b', type('Empty', (gn.Layer,), {}))"),
        "ContractError: layer 'a/b' (Empty) defines no forward",
    ),
    "thing-breaks-the-contract": Broken(
        "import graphnet as gn\n\nclass Wrong(gn.Layer):\n    def forward(self, x):\n        return x\n"
        "    def backward(self, grad_z):\n        return grad_z\n",
        "ContractError: Wrong.backward names 'grad_z'",
    ),
    "kernel-priority": Broken(
        LAYER + "\n\nclass Fast(gn.Kernel):\n    replaces = 'relu(x)'\n    priority = 'high'\n",
        "ContractError: Fast.priority must be a whole number, found 'high'",
    ),
    "pass-after-nothing": Broken(
        hook("register('a/b', gn.Pass(Double, after='dead'))", name="graphnet_passes"),
        "a pass is to run after 'dead', which is no pass. Did you mean 'dead_code'?",
    ),
    "metric-is-a-function": Broken(
        hook("register('a/b', lambda prediction, target: 0.0)", name="graphnet_metrics"),
        "metric 'a/b' must be a subclass of graphnet.Metric",
    ),
    "command-target": Broken(
        hook("register('a', gn.Command('One.', 'nowhere'))", name="graphnet_commands"),
        "the target of a command must be 'module:attribute', found 'nowhere'",
    ),
    "command-taken": Broken(
        hook("register('train', gn.Command('One.', 'a:b'))", name="graphnet_commands"),
        "command name 'train' is registered by graphnet-framework 0.1.0 and by broken-command-taken 1.0",
    ),
    "name-bare": Broken(
        hook("register('double', Double)"),
        "layer name 'double' needs a namespace, such as 'broken_name_bare/double'",
    ),
    "name-spelled": Broken(
        hook("register('A/Double', Double)"), "layer name 'A/Double' must be 'namespace/name'"
    ),
    "name-taken": Broken(
        hook("register('healthy/double', Double)").replace("2 *", "3 *"),
        "layer name 'healthy/double' is registered by aaa-healthy-plugin",
    ),
    "name-twice": Broken(
        hook("register('a/b', Double)\nregister('a/b', Double)"),
        "layer name 'a/b' is registered by broken-name-twice 1.0 and by broken-name-twice 1.0",
    ),
    "version": Broken(
        hook("register('a/b', Double, version=0)"),
        "layer 'a/b': version must be 1 or more, found 0",
    ),
    "contract-newer": Broken(
        "GRAPHNET_CONTRACT = 99\n" + hook("register('a/b', Double)"),
        "was written for contract 99, this graphnet has 2. Upgrade graphnet-framework.",
    ),
    "contract-older": Broken(
        "GRAPHNET_CONTRACT = 1\n" + hook("register('a/b', Double)"),
        "was written for contract 1, this graphnet has 2. Install a newer version of "
        "broken-contract-older. Its author: change what is named here, then state GRAPHNET_CONTRACT = 2. "
        "Since 1: a metric is a class: derive it from graphnet.Metric",
    ),
    "contract-zero": Broken(
        "GRAPHNET_CONTRACT = 0\n" + hook("register('a/b', Double)"),
        "GRAPHNET_CONTRACT must be a whole number of 1 or more",
    ),
    "contract-text": Broken(
        "GRAPHNET_CONTRACT = '1'\n" + hook("register('a/b', Double)"),
        "GRAPHNET_CONTRACT must be a whole number",
    ),
    "point-spelled": Broken(
        LAYER,
        "its entry point is '-/-', expected 'module' or 'module:attribute'",
        points="{module} = -/-",
    ),
    "point-attribute": Broken(LAYER, "has no attribute 'gone'", points="{module} = {module}:gone"),
    "point-twice": Broken(
        hook("register('twice/double', Double)"),
        "has two entry points called 'broken_point_twice'",
        points="{module} = {module}\n{module} = {module}:x",
    ),
    "metadata-name": Broken(LAYER, "its metadata have no Name", metadata="Version: 1.0"),
    "metadata-version": Broken(LAYER, "its metadata have no Version", metadata="Name: {name}"),
    "left-over": Broken(
        LAYER,
        "aaa-healthy-plugin is installed twice: the metadata of version 0.1 lie in the folder of version "
        "1.0, and are left over",
        metadata="Name: aaa-healthy-plugin\nVersion: 0.1",
        info="aaa_healthy_plugin-0.1.egg-info",
    ),
}  # fmt: skip


def install(folder: Path) -> None:
    """Install all of them, and the healthy one, as they lie in a folder of Python's path."""
    _write(folder, "aaa-healthy-plugin", Broken(HEALTHY_TEXT, ""))
    for way, broken in BROKEN.items():
        _write(folder, f"broken-{way}", broken)


def _write(folder: Path, name: str, broken: Broken) -> None:
    names = {"name": name, "module": name.replace("-", "_")}
    info = folder / broken.info.format(**names)
    info.mkdir()
    metadata = "PKG-INFO" if info.suffix == ".egg-info" else "METADATA"
    (info / metadata).write_text(f"Metadata-Version: 2.1\n{broken.metadata.format(**names)}\n")
    (info / "entry_points.txt").write_text(f"[graphnet.plugins]\n{broken.points.format(**names)}\n")
    (folder / f"{names['module']}.py").write_text(broken.text)


def statuses(folder: Path) -> tuple[dict[str, dict[str, str]], str]:
    """The folder's rows in `graphnet plugins --json` by distribution, and what was printed on stderr."""
    env = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "graphnet", "plugins", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return {f"{r['distribution']} {r['version']}": r for r in json.loads(done.stdout)}, done.stderr


def row_of(way: str, rows: dict[str, dict[str, str]]) -> dict[str, str]:
    """The row of a broken plugin; one without a name or version is called as its metadata's folder."""
    broken = BROKEN[way]
    names = {"name": f"broken-{way}", "module": f"broken_{way.replace('-', '_')}"}
    stated = dict(line.split(": ") for line in broken.metadata.format(**names).split("\n"))
    own = f"{broken.info.format(**names)} unknown"
    found = rows.get(f"{stated.get('Name')} {stated.get('Version')}", rows.get(own))
    assert found is not None, f"{way}: not in {sorted(rows)}"
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        install(Path(place))
        found, _ = statuses(Path(place))
        for each in BROKEN:
            row = row_of(each, found)
            print(f"{each:26} {row['status']:8} {row['error']}")
        healthy = found["aaa-healthy-plugin 1.0"]
        print(f"{'(beside them)':26} {healthy['status']:8} {healthy['adds']}")

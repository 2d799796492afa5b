"""Discovery: twelve kinds of broken plugin, installed for real, stop neither the host nor each other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet.errors import ContractError, DescriptionError, PluginError, UnknownNameError
from graphnet.sdk import (
    KINDS,
    Kernel,
    Layer,
    OwnKind,
    Register,
    Registry,
    Reporter,
    Site,
    hookimpl,
    load_registry,
    summary,
)
from tests.support.models import Acme, Swish

ROOT = Path(__file__).parents[2]
LAYER = """
import graphnet as gn


class Double(gn.Layer):
    '''2 x, elementwise.'''

    def forward(self, x):
        return 2 * x

    def backward(self, grad_y):
        return 2 * grad_y
"""
HOOK = """

@gn.hookimpl
def graphnet_layers(register):
    register("{space}/double", Double)
"""

# distribution -> (the module's text, what `graphnet plugins` must say of it)
PLUGINS = {
    "good": (LAYER + HOOK.format(space="good"), None),
    "bad-import": ("from graphnet import Lyaer", "ImportError: cannot import name 'Lyaer'"),
    "bad-dependency": ("import not_installed_anywhere", "No module named 'not_installed_anywhere'"),
    "bad-syntax": ("def forward(:", "SyntaxError: invalid syntax"),
    "bad-error": ("print('noise')\n1 / 0", "ZeroDivisionError: division by zero"),
    "bad-exit": ("raise SystemExit(3)", "SystemExit(3): ends the process when it is loaded"),
    "bad-signature": (
        LAYER + "\n@gn.hookimpl\ndef graphnet_layers(registry):\n    pass\n",
        "Argument(s) {'registry'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "bad-hook": (
        LAYER + "\n@gn.hookimpl\ndef graphnet_layer(register):\n    pass\n",
        "implements 'graphnet_layer', which is no hook. Did you mean 'graphnet_layers'",
    ),
    "bad-mark": (
        LAYER + "\ndef graphnet_layers(register):\n    pass\n",
        "graphnet_layers is not marked; put @graphnet.hookimpl above it",
    ),
    "bad-inside": (
        LAYER + "\n@gn.hookimpl\ndef graphnet_layers(register):\n    register('a/b', Double)\n    {}['x']\n",
        "KeyError: 'x'",
    ),
    "bad-thing": (
        "import graphnet as gn\n\n@gn.hookimpl\ndef graphnet_layers(register):\n    register('a/b', 3)\n",
        "layer 'a/b' must be a subclass of graphnet.Layer that is no Loss or Kernel, found 3",
    ),
    "bad-contract": (
        "GRAPHNET_CONTRACT = 99\n" + LAYER + HOOK.format(space="bad"),
        "was written for contract 99, this graphnet has 2. Upgrade graphnet-framework.",
    ),
    "bad-clash": (
        LAYER + HOOK.format(space="good"),
        "layer name 'good/double' is registered by {first} 1.0 and by {second} 1.0; "
        "one of them has to change it",
    ),
    "bad-bare": (
        LAYER + "\n@gn.hookimpl\ndef graphnet_layers(register):\n    register('double', Double)\n",
        "layer name 'double' needs a namespace, such as 'bad_bare/double'",
    ),
    "bad-layer": (
        "import graphnet as gn\n\nclass Wrong(gn.Layer):\n    def forward(self, x):\n        return x\n"
        "    def backward(self, grad_z):\n        return grad_z\n",
        "ContractError: Wrong.backward names 'grad_z'",
    ),
    "bad-empty": ("x = 1", "implements no hook. Known: graphnet_kinds, graphnet_layers, "),
}  # fmt: skip


def write_wheel(folder: Path, name: str, text: str, version: str = "1.0") -> Path:
    """A distribution of one module, as a build would have made it: pip installs many in one go."""
    folder.mkdir(exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[graphnet.plugins]\n{module} = {module}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
    return path


def install(target: Path, *wheels: Path) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-compile"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target)]
    done = subprocess.run([*command, *map(str, wheels)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def graphnet(
    *arguments: object, path: list[Path], **environment: str
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **environment}
    command = [sys.executable, "-m", "graphnet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders of installed distributions; "good" stands in both, in two versions."""
    folder = tmp_path_factory.mktemp("plugins")
    first, second = folder / "first", folder / "second"
    install(
        first, *(write_wheel(folder / "new", name, text) for name, (text, _) in PLUGINS.items())
    )
    install(second, write_wheel(folder / "old", "good", PLUGINS["good"][0], version="0.9"))
    return [first, second]


@pytest.mark.slow
def test_every_broken_plugin_is_named_with_its_cause_and_the_good_one_works(
    site: list[Path],
) -> None:
    done = graphnet("plugins", "--json", path=site)
    assert done.returncode == 0, done.stderr
    rows = [row for row in json.loads(done.stdout) if row["version"] == "1.0"]
    found = {row["distribution"]: row for row in rows}
    assert set(PLUGINS) <= set(found)
    for name, (_, cause) in PLUGINS.items():
        if name == "bad-clash":  # whoever comes first by name has the layer
            cause = str(cause).format(first="bad-clash", second="good")
            assert found["bad-clash"]["status"] == "loaded"
            assert found["good"]["error"] == cause
        elif name != "good":
            assert found[name]["status"] == "broken", name
            assert str(cause) in found[name]["error"], name
    twin = [row for row in json.loads(done.stdout) if row["version"] == "0.9"]
    assert "good is installed twice: version 0.9 is hidden by version 1.0" in twin[0]["error"]
    assert "noise" in done.stderr  # what a plugin prints does not spoil our output


@pytest.mark.slow
def test_broken_plugins_stop_neither_layers_nor_training(site: list[Path], tmp_path: Path) -> None:
    listed = graphnet("layers", "--json", path=site)
    names = [row["name"] for row in json.loads(listed.stdout)]
    assert "conv2d" in names
    assert "good/double" in names
    help_text = graphnet("--help", path=site)
    assert help_text.returncode == 0

    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (16, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "pairs.npz", noisy=images, clean=images)
    config = {
        "model": {"layers": [{"conv2d": {"out_channels": 3, "kernel_size": 1}}, "good/double"]},
        "data": {"train": str(tmp_path / "pairs.npz")},
        "loss": "mse",
        "optimizer": {"sgd": {"lr": 0.1}},
        "epochs": 1,
        "batch_size": 8,
    }
    (tmp_path / "train.yaml").write_text(json.dumps(config))
    done = graphnet("train", tmp_path / "train.yaml", "--run", tmp_path / "run", path=site)
    assert done.returncode == 0, done.stderr
    # Without the plugin, the saved model says which one it needs.
    lost = graphnet(
        "explain", tmp_path / "run" / "model.safetensors", "--input", "1x3x8x8", path=[]
    )
    assert lost.returncode == 2
    assert "layer 'good/double' came from bad-clash: pip install bad-clash" in lost.stderr


@pytest.mark.slow
def test_environment_variables_switch_plugins_off_and_make_broken_ones_errors(
    site: list[Path],
) -> None:
    def statuses(**environment: str) -> dict[str, str]:
        done = graphnet("plugins", "--json", path=site[:1], **environment)
        return {row["distribution"]: row["status"] for row in json.loads(done.stdout)}

    assert set(statuses(GRAPHNET_NO_PLUGINS="1")) == {"graphnet-framework"}
    # With the one that takes its name switched off, the good one is good.
    off = statuses(GRAPHNET_DISABLE_PLUGINS="bad_clash, cpu")
    assert (off["bad-clash"], off["graphnet-cpu"], off["good"]) == (
        "disabled",
        "disabled",
        "loaded",
    )
    strict = graphnet("layers", path=site[:1], GRAPHNET_STRICT_PLUGINS="1")
    assert strict.returncode == 2
    assert "bad_syntax (bad-syntax 1.0): SyntaxError" in strict.stderr


def test_plugins_given_in_python_raise_at_once() -> None:
    class Wrong:
        @hookimpl
        def graphnet_layers(self, register: Register) -> None:
            register("acme/swish", Swish)
            register("acme/swish", Swish)

    with pytest.raises(
        PluginError, match="layer name 'acme/swish' is registered by Wrong local and by"
    ):
        load_registry(plugins=[Wrong()], entry_points=False)


def test_unknown_namespace_says_that_a_plugin_is_missing() -> None:
    registry = load_registry(entry_points=False)
    with pytest.raises(UnknownNameError, match="No loaded plugin has the namespace 'acme'"):
        registry.find("layers", "acme/swish")


def test_registry_keeps_versions_and_origins() -> None:
    registry = load_registry(plugins=[Acme()], entry_points=False)
    entry = registry.find("layers", "acme/swish")
    assert (entry.value, entry.version, entry.plugin.distribution) == (Swish, 1, "Acme")
    assert registry.name_of(Swish(beta=3.0)) == "acme/swish"
    assert registry.find("losses", "mse").plugin.name == "builtin"


# kind -> (what a message calls one, what it has to be, a built-in one, a class that lacks something)
KIND_WORDS = {
    "kinds": ("kind", "an instance of graphnet.OwnKind", None, None, None),
    "layers": (
        "layer", "a subclass of graphnet.Layer that is no Loss or Kernel", "relu",
        type("Empty", (Layer,), {}), "forward",
    ),
    "losses": (
        "loss", "a subclass of graphnet.Loss", "mse", type("Empty", (gn.Loss,), {}), "forward",
    ),
    "kernels": (
        "kernel", "a subclass of graphnet.Kernel or graphnet.MultiTensorKernel", "aten/relu",
        type("Empty", (Kernel,), {"replaces": "relu(x)"}), "match",
    ),
    "optimizers": (
        "optimizer", "a subclass of graphnet.Optimizer", "sgd",
        type("Empty", (gn.Optimizer,), {}), "update",
    ),
    "schedules": (
        "schedule", "a subclass of graphnet.Schedule", "cosine",
        type("Empty", (gn.Schedule,), {}), "factor",
    ),
    "executors": (
        "executor", "a subclass of graphnet.Executor", "eager",
        type("Empty", (gn.Executor,), {}), "prepare",
    ),
    "datasets": (
        "data set", "a subclass of graphnet.DataSet", None,
        type("Empty", (gn.DataSet,), {}), "load",
    ),
    "reporters": (
        "reporter", "a subclass of graphnet.Reporter", "log", type("Empty", (Reporter,), {}), "start",
    ),
    "readers": (
        "reader", "a function (path) that returns a graphnet.ModelFile, or only its description",
        ".yaml", None, None,
    ),
    "writers": (
        "writer", "a subclass of graphnet.Writer", None, type("Empty", (gn.Writer,), {}), "write",
    ),
    "operators": (
        "operator",
        "a function that takes the operator's arguments by name and returns a graphnet.sdk.Node",
        "aten.relu.default", None, None,
    ),
    "passes": ("pass", "an instance of graphnet.Pass", "common_subexpressions", None, None),
    "commands": ("command", "an instance of graphnet.Command", "train", None, None),
    "metrics": (
        "metric", "a subclass of graphnet.Metric", None,
        type("Empty", (gn.Metric,), {}), "measure",
    ),
}  # fmt: skip


NAMES = {
    "commands": "a-b",
    "readers": ".ab",
    "writers": ".ab",
    "kinds": "a_b",
    "operators": "a.b.c",
}
"""Names of kinds whose names are no "a/b"."""


def registering(kind: str, name: str, value: object) -> object:
    """A plugin that registers one thing."""

    def hook(self: object, register: Register) -> None:
        register(name, value)

    return type("Author", (), {KINDS[kind].hook: hookimpl(hook)})()


def test_table_of_kinds_has_every_hook_and_every_field_of_the_registry() -> None:
    from graphnet.sdk import hookspecs

    assert set(KIND_WORDS) == set(KINDS)
    hooks = {name for name in vars(hookspecs) if name.startswith("graphnet_")}
    assert hooks == {kind.hook for kind in KINDS.values()}
    assert {field.name for field in fields(Registry)} == {*KINDS, "own", "plugins"}


@pytest.mark.parametrize("kind", KIND_WORDS)
def test_a_thing_of_another_kind_is_refused_in_words(kind: str) -> None:
    registry = load_registry(entry_points=False)
    singular, expected, own, _, _ = KIND_WORDS[kind]
    name = NAMES.get(kind, "a/b")
    function = KINDS[kind].function  # two kinds of functions cannot be told apart
    others = {
        k: w for k, w in KIND_WORDS.items() if not (k == kind or (function and KINDS[k].function))
    }
    wrong = [registry.find(k, w[2]).value for k, w in others.items() if w[2]]
    for value in (*wrong, 3, *KINDS[kind].bases):
        message = f"{singular} {name!r} must be {expected}, found {value!r}"
        with pytest.raises(PluginError, match=re.escape(message)):
            load_registry(plugins=[registering(kind, name, value)], entry_points=False)
    for wrong_name in ("A/b", "a b", 3):
        message = f"{singular} name {wrong_name!r} must be {KINDS[kind].naming}"
        with pytest.raises(PluginError, match=re.escape(message)):
            load_registry(plugins=[registering(kind, wrong_name, own)], entry_points=False)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match=f"unknown {singular} 'a/b'"):
        registry.find(kind, "a/b")


@pytest.mark.parametrize("kind", [kind for kind in KIND_WORDS if KIND_WORDS[kind][3]])
def test_class_without_the_methods_of_its_kind_is_refused(kind: str) -> None:
    singular, _, _, empty, lacks = KIND_WORDS[kind]
    name = NAMES.get(kind, "a/b")
    message = f"{singular} {name!r} (Empty) defines no {lacks}"
    with pytest.raises(ContractError, match=re.escape(message)):
        load_registry(plugins=[registering(kind, name, empty)], entry_points=False)


@pytest.mark.parametrize("kind", KIND_WORDS)
def test_names_of_layers_losses_kernels_and_passes_alone_need_a_namespace(kind: str) -> None:
    builtin = load_registry(entry_points=False)
    own = KIND_WORDS[kind][2]
    value = builtin.find(kind, own).value if own else _LOADABLE[kind]
    name = {"readers": ".bare", "writers": ".bare", "kinds": "ba_re", "operators": "ba.r.e"}.get(
        kind, "bare"
    )
    plugin = registering(kind, name, value)
    if kind in ("layers", "losses", "kernels", "passes"):
        with pytest.raises(
            PluginError, match=f"{KIND_WORDS[kind][0]} name 'bare' needs a namespac"
        ):
            load_registry(plugins=[plugin], entry_points=False)
    else:
        registry = load_registry(plugins=[plugin], entry_points=False)
        assert registry.find(kind, name).value is value


class Zero(gn.Metric):
    higher_is_better = True

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        return torch.zeros(len(prediction))


Images = type("Images", (gn.DataSet,), {"load": lambda self: None})
_LOADABLE = {
    "datasets": Images,
    "metrics": Zero,
    "kinds": OwnKind("colour", Images),
    "writers": type("Text", (gn.Writer,), {"write": lambda self, model, path, shapes: None}),
}


def test_things_of_a_kind_that_a_plugin_declares_are_made_of_forms() -> None:
    class Colour(gn.DataSet):
        hue: int

        def load(self) -> gn.Pairs:
            return gn.Pairs(torch.zeros(1, 1), torch.zeros(1, 1))

    class Colours:
        @hookimpl
        def graphnet_kinds(self, register: Register) -> None:
            register("acme_colours", OwnKind("colour", gn.DataSet))

        @hookimpl
        def graphnet_acme_colours(self, register: Register) -> None:
            register("plain", Colour)

    registry = load_registry(plugins=[Colours()], entry_points=False)
    made = registry.make("acme_colours", {"plain": {"hue": 3}})
    assert made == Colour(hue=3) == registry.make("acme_colours", made)
    for kind, form, error, message in (
        ("acme_colours", 3, DescriptionError, "expected the name of a colour.* found 3"),
        ("acme_colours", gn.SGD(lr=1.0), DescriptionError, "expected the name of a colour"),
        (
            "acme_colours",
            "plain",
            DescriptionError,
            r"plain.hue: .* Write {'plain': {'hue': VALUE}}",
        ),
        (
            "colours",
            "plain",
            UnknownNameError,
            "unknown kind 'colours'. Did you mean 'acme_colours'",
        ),
        ("readers", ".yaml", UnknownNameError, r"a reader is not made .*registry.readers\[name\]"),
        ("passes", 3, UnknownNameError, "a pass is not made of a form"),
    ):
        with pytest.raises(error, match=message):
            registry.make(kind, form)


def test_a_class_registered_under_two_names_goes_by_the_first() -> None:
    class Twice:
        @hookimpl
        def graphnet_layers(self, register: Register) -> None:
            register("acme/swish", Swish)
            register("acme/silu", Swish)

    registry = load_registry(plugins=[Twice()], entry_points=False)
    assert registry.find("layers", "acme/silu").value is Swish
    assert registry.name_of(Swish()) == "acme/swish"


class SwishKernel(Kernel):
    """acme/swish, named by its alias."""

    replaces = "acme.silu(x)"

    @classmethod
    def match(cls, site: Site) -> SwishKernel:
        return cls()

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        gate = torch.sigmoid(x)
        return grad_y * (gate + x * gate * (1 - gate))


@pytest.mark.parametrize("name", ["acme/swish", "acme/silu"])
def test_a_kernel_of_one_name_of_a_layer_takes_the_place_of_every_other(name: str) -> None:
    class Twice:
        @hookimpl
        def graphnet_layers(self, register: Register) -> None:
            register("acme/swish", Swish)
            register("acme/silu", Swish)

        @hookimpl
        def graphnet_kernels(self, register: Register) -> None:
            register("acme/fast", SwishKernel)

    registry = load_registry(plugins=[Twice()], entry_points=False)
    plan = gn.Model({"layers": [name]}, registry=registry).plan((1, 3, 4, 4))
    assert [type(step.call.layer) for step in plan.steps] == [SwishKernel]


def test_every_hook_is_documented_and_has_a_user() -> None:
    from graphnet.sdk import hookspecs

    hooks = [name for name in vars(hookspecs) if name.startswith("graphnet_")]
    registry = load_registry()
    used = {hook for plugin in registry.plugins for hook in plugin.hooks}
    assert used == {kind.hook for kind in registry.every_kind.values()}
    assert used > set(hooks)  # plugins in this repository declare kinds of their own
    assert all("register(" in str(getattr(hookspecs, name).__doc__) for name in hooks)


def test_everything_registered_says_what_it_is() -> None:
    registry = load_registry()
    for kind in ("layers", "losses", "kernels", "optimizers", "schedules", "datasets"):
        for name, entry in getattr(registry, kind).items():
            assert summary(entry.value).endswith((".", ")")), name


def test_built_ins_can_come_from_an_outside_entry_point() -> None:
    """The core runs with the built-in plugin loaded as somebody else's object."""
    import graphnet.builtin.plugin as outside

    registry = load_registry(
        builtin=["tests.support.empty_builtin", "graphnet.executors.plugin"],
        plugins=[outside_plugin(outside)],
        entry_points=False,
    )
    model = gn.Model(
        {
            "input": {"channels": 3},
            "layers": [{"acme/conv2d": {"out_channels": 4, "kernel_size": 3}}, "acme/relu"],
        },
        registry=registry,
    )
    program = model.compile((1, 3, 6, 6), loss="acme/mse", optimizer="adam", kernels="reference")
    assert len(program.plan.steps) == 8
    assert all(
        isinstance(entry.value, type) and issubclass(entry.value, Layer)
        for entry in registry.layers.values()
    )


def outside_plugin(module: object) -> object:
    """The built-in plugin with every layer and loss under the namespace acme, and no kernels."""

    class Outside:
        @hookimpl
        def graphnet_layers(self, register: Register) -> None:
            module.graphnet_layers(lambda name, value, version=1: register(f"acme/{name}", value))  # type: ignore[attr-defined]

        @hookimpl
        def graphnet_losses(self, register: Register) -> None:
            module.graphnet_losses(lambda name, value, version=1: register(f"acme/{name}", value))  # type: ignore[attr-defined]

        @hookimpl
        def graphnet_optimizers(self, register: Register) -> None:
            module.graphnet_optimizers(register)  # type: ignore[attr-defined]

    return Outside()


@pytest.mark.slow
def test_core_suite_passes_with_the_built_ins_from_an_outside_entry_point(tmp_path: Path) -> None:
    info = tmp_path / "outside_builtins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-builtins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[graphnet.plugins]\nbuiltin = graphnet.builtin.plugin\nexecutors = graphnet.executors.plugin\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path}
    core = [
        "plan/test_plan.py",
        "system/test_device.py",
    ]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.support.outside",
        "-p",
        "no:xdist",
    ]
    done = subprocess.run(
        [*command, *(str(ROOT / "tests" / name) for name in core)],
        capture_output=True, text=True, env=env, cwd=ROOT, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "no tests ran" not in done.stdout


class Mine(Kernel):
    """What somebody installed for a layer that has a built-in kernel too."""

    replaces = "sigmoid(x)"

    @classmethod
    def match(cls, site: Site) -> Mine:
        return cls()

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y * y * (1 - y)


class Preferred(Mine):
    replaces = "sigmoid(x)"
    priority = 5


class Yielding(Mine):
    replaces = "sigmoid(x)"
    priority = -1


def test_priority_decides_between_kernels_whatever_their_distributions_are_called() -> None:
    def plugin(name: str, kernel: type[Kernel]) -> object:
        def hook(self: object, register: Register) -> None:
            register(f"{name}/sigmoid", kernel)

        return type(name, (), {"graphnet_kernels": hookimpl(hook)})()

    description = {"input": {"channels": 4}, "layers": ["sigmoid"]}

    def chosen(*plugins: object) -> str:
        registry = load_registry(plugins=plugins, entry_points=False)
        (step,) = gn.Model(description, registry=registry).plan((2, 4, 6, 6)).steps
        return step.call.title

    plain, preferred, yielding = (
        plugin("aaa", Mine),
        plugin("zzz", Preferred),
        plugin("b", Yielding),
    )
    assert chosen(plain, preferred) == chosen(preferred, plain) == "sigmoid [zzz]"
    assert chosen(plain, yielding) == "sigmoid [aaa]"
    assert chosen(yielding) == "sigmoid [aten]"  # the built-in kernel has priority 0


def test_installed_kernel_is_preferred_to_the_built_in_one() -> None:
    class Faster:
        @hookimpl
        def graphnet_kernels(self, register: Register) -> None:
            register("acme/sigmoid", Mine)

    description = {"input": {"channels": 4}, "layers": ["sigmoid"]}
    for plugins, title in (([], "sigmoid [aten]"), ([Faster()], "sigmoid [acme]")):
        registry = load_registry(plugins=plugins, entry_points=False)
        plan = gn.Model(description, registry=registry).plan((2, 4, 6, 6))
        assert [step.call.title for step in plan.steps] == [title]

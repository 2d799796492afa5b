"""The guide for authors is true: its files are written, installed, checked and trained with."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphnet.cli.scaffold import write_project
from graphnet.errors import PluginError
from graphnet.model import Model
from graphnet.sdk import Register, hookimpl, load_registry
from graphnet.testing import LayerTests

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "plugins.md").read_text()
HOOKS = [ROOT / "docs" / "hooks" / f"{kind}.md" for kind in ("layers", "kernels", "optimizers")]
TEXTS = "\n".join([GUIDE, *(page.read_text() for page in HOOKS)])
FILES = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', TEXTS, flags=re.M | re.S))
(PAIRS,) = re.findall(r"^```python\n(import numpy.*?)^```", GUIDE, flags=re.M | re.S)
COMMANDS = re.findall(r"^```sh\n(.*?)^```", GUIDE, flags=re.M | re.S)


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of its own, which sees what is installed here."""
    folder = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (path,) = folder.glob("lib/python*/site-packages")
    here = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    (path / "here.pth").write_text(f"import site; site.addsitedir({str(here)!r})\n")
    for tool in ("graphnet", "pytest", "pip"):
        module = {"graphnet": "graphnet", "pytest": "pytest", "pip": "pip"}[tool]
        script = folder / "bin" / tool
        script.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {module} "$@"\n')
        script.chmod(0o755)
    return folder


def shell(command: str, venv: Path, folder: Path) -> str:
    env = {
        **os.environ,
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env=env, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_guides_plugin_is_written_checked_installed_and_trained_with(
    venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    exec(PAIRS, {})
    install, train, _ = (shell(command, venv, tmp_path) for command in COMMANDS)
    assert "passed" in install
    assert "epoch 2/2" in train
    assert "acme/swish" in train
    assert (tmp_path / "dist" / "acme_swish-0.1.0-py3-none-any.whl").exists()
    assert "acme/swish" not in shell(
        "GRAPHNET_DISABLE_PLUGINS=acme-swish graphnet layers", venv, tmp_path
    )


def test_the_guides_plugin_is_at_most_40_lines() -> None:
    more = "acme-swish/tests/test_values.py"  # what one may add
    assert more in FILES
    plugin = [t for name, t in FILES.items() if name.startswith("acme-swish/") and name != more]
    assert len(plugin) == 3
    assert sum(len([line for line in text.splitlines() if line.strip()]) for text in plugin) <= 40


def test_the_guides_kernel_equals_the_layer() -> None:
    import torch

    from graphnet.builtin import Sigmoid
    from graphnet.sdk import Site, Spec

    namespace: dict[str, object] = {"__name__": __name__}
    exec(FILES["acme_fast_sigmoid.py"], namespace)
    kernel_class = namespace["FastSigmoid"]
    spec = Spec((3, 4))
    kernel = kernel_class.match(Site((Sigmoid(),), {"x": spec}, spec.device))  # type: ignore[attr-defined]
    x = torch.linspace(-3, 3, 12).reshape(3, 4)
    torch.testing.assert_close(kernel.forward(x), Sigmoid().forward(x))
    y = kernel.forward(x)
    torch.testing.assert_close(kernel.backward(x, y), Sigmoid().backward(x, y))


def test_the_guides_layer_for_signals_and_volumes_passes_the_kit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphnet.testing import Sample, assert_checks_pass

    (tmp_path / "acme_shrink.py").write_text(FILES["acme_shrink.py"])
    monkeypatch.syspath_prepend(tmp_path)
    module: Any = importlib.import_module("acme_shrink")
    for layer, shape in ((module.Shrink1d, (2, 3, 7)), (module.Shrink3d, (1, 2, 3, 4, 5))):
        assert_checks_pass(layer, [Sample(layer(), [shape])])


def test_the_guides_native_kernel_passes_the_kit(tmp_path: Path) -> None:
    import importlib.util

    from graphnet.testing import CHECKS, Status, cases_for
    from graphnet.testing.report import judge

    for name in ("halved.py", "halved.cpp"):
        (tmp_path / name).write_text(FILES[name])
    spec = importlib.util.spec_from_file_location("halved", tmp_path / "halved.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["halved"] = module
    spec.loader.exec_module(module)
    if problem := module.LIBRARY.problem():
        pytest.skip(problem)

    registry = load_registry(plugins=[module], entry_points=False)
    cases = cases_for(module.NativeHalve, registry=registry)
    rows = {check.name: judge(check, cases) for check in CHECKS if not check.slow}
    assert {name: row.message for name, row in rows.items() if row.status is Status.FAILED} == {}
    for name in ("runs", "kernel_equals_reference", "compiles"):
        assert rows[name].status is Status.PASSED


def test_the_guides_optimizer_and_its_kernel_pass_the_kit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    import torch

    from graphnet.testing import Status, run_checks

    for name in ("acme_lion.py", "acme_many_lions.py"):  # here the kernel is to run on a CPU too
        (tmp_path / name).write_text(FILES[name].replace('== "cuda"', 'in ("cpu", "cuda")'))
    monkeypatch.syspath_prepend(tmp_path)
    lion, many = (importlib.import_module(name) for name in ("acme_lion", "acme_many_lions"))
    registry = load_registry(plugins=[lion, many], entry_points=False)
    for rule in (registry.optimizers["acme/lion"].value, registry.kernels["acme/lion"].value):
        report = run_checks(rule, registry=registry)
        assert report.failures == ()
    passed = [row.check for row in report.rows if row.status is Status.PASSED]
    assert "kernel_equals_rule" in passed

    p, m, lr = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -0.1]), torch.tensor(0.25)
    lion.Lion(lr=0.25).update(p, torch.tensor([-9.0, 1.0]), lr, m)
    torch.testing.assert_close(p, torch.tensor([1.25, -2.25]))  # 0.45 - 0.9 < 0; -0.09 + 0.1 > 0
    torch.testing.assert_close(m, torch.tensor([0.405, -0.089]))


def test_the_guides_layer_folds_into_a_convolution() -> None:
    namespace: dict[str, object] = {"__name__": __name__}
    exec(FILES["folding.py"], namespace)

    class Plugin:
        @hookimpl
        def graphnet_layers(self, register: Register) -> None:
            register("guide/gain", namespace["Gain"])  # type: ignore[arg-type]

    registry = load_registry(plugins=[Plugin()], entry_points=False)
    layers = [{"conv2d": {"out_channels": 2, "kernel_size": 3}}, {"guide/gain": {}}]
    plan = Model({"layers": layers}, registry=registry).plan((1, 3, 8, 8))
    assert [step.call.name for step in plan.steps] == ["conv2d_1"]


@pytest.mark.slow
def test_a_new_project_is_installable_and_passes_its_own_tests(venv: Path, tmp_path: Path) -> None:
    shell("graphnet plugins new acme-soft-gate", venv, tmp_path)
    folder = tmp_path / "acme-soft-gate"
    install = "pip install --quiet --no-build-isolation --no-deps -e acme-soft-gate"
    shell(install, venv, tmp_path)
    assert "passed" in shell("pytest -q acme-soft-gate", venv, tmp_path)
    shell("pip uninstall --quiet --yes acme-soft-gate", venv, tmp_path)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "name", ["swish", "Acme-Swish", "acme_swish", "acme-", "-x", "a b-c", "../a-b"]
)
def test_a_name_that_is_no_project_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PluginError, match="expected a name such as acme-swish"):
        write_project(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_specimen_in_plugins_is_what_a_new_project_looks_like(tmp_path: Path) -> None:
    made = write_project("graphnet-example", tmp_path)
    kept = ROOT / "plugins" / "graphnet-example"
    files = sorted(p.relative_to(made) for p in made.rglob("*") if p.is_file())
    assert len(files) == 7
    for file in files:
        assert (kept / file).read_text() == (made / file).read_text(), file


@pytest.mark.parametrize("short", ["true", "none", "tensor", "register", "layer-tests", "test"])
def test_a_project_whose_name_python_or_the_template_uses_is_valid(
    short: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_project(f"acme-{short}", tmp_path)
    module = f"acme_{short.replace('-', '_')}"
    monkeypatch.syspath_prepend(str(made / "src"))
    registry = load_registry(plugins=[importlib.import_module(module)], entry_points=False)
    (layer,) = (entry.value for name, entry in registry.layers.items() if name.startswith("acme/"))
    tests: dict[str, Any] = {}
    exec(next((made / "tests").iterdir()).read_text(), tests)
    (suite,) = (value for name, value in tests.items() if name.startswith("Test"))
    assert issubclass(suite, LayerTests)
    assert isinstance(suite.layer, layer)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "acme-swish").mkdir()
    with pytest.raises(PluginError, match="exists already"):
        write_project("acme-swish", tmp_path)

"""Each page about a hook has an example that runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from graphnet.sdk import KINDS, Registry, hookspecs, load_registry

ROOT = Path(__file__).parents[2]
HOOKS = {path.stem: path for path in sorted((ROOT / "docs" / "hooks").glob("*.md"))}
TITLED = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```', re.M | re.S)
UNTITLED = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


@pytest.fixture
def shown(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Registry:
    """The registry with the plugin of a page, after the page's other code has run in its folder."""
    page = HOOKS[request.param].read_text()
    files = {name: text for _, name, text in TITLED.findall(page)}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = [name.removesuffix(".py") for name in files if name.endswith(".py")]
    hook = f"def {KINDS[request.param].hook}("
    plugins = [__import__(module) for module in modules if hook in files[f"{module}.py"]]
    assert plugins
    registry = load_registry(plugins=plugins, entry_points=False)
    names: dict[str, object] = {"registry": registry}
    for text in UNTITLED.findall(page):
        exec(text, names)
    for module in modules:
        sys.modules.pop(module, None)
    return registry


@pytest.mark.parametrize("kind", HOOKS)
def test_page_is_named_after_its_hook(kind: str) -> None:
    assert HOOKS[kind].read_text().startswith(f"# {KINDS[kind].hook}: ")


@pytest.mark.parametrize("kind", KINDS)
def test_each_hook_has_a_page_with_an_example(kind: str) -> None:
    assert f"def {KINDS[kind].hook}(register):" in HOOKS[kind].read_text()
    assert f"[`{KINDS[kind].hook}`](hooks/{kind}.md)" in (ROOT / "docs/plugins.md").read_text()
    assert "register(" in str(getattr(hookspecs, KINDS[kind].hook).__doc__)


@pytest.mark.parametrize("shown", ["commands"], indirect=True)
def test_the_command_of_the_page_counts_weights(shown: Registry) -> None:
    entry = shown.find("commands", "count-weights")
    module, _, attribute = entry.value.target.partition(":")
    command = getattr(__import__(module), attribute)
    Path("net.yaml").write_text("layers: [{conv2d: {out_channels: 2, kernel_size: 3}}]")
    done = CliRunner().invoke(command, ["net.yaml"])
    assert done.output == "56\n"  # 2 x 3 x 3 x 3 and 2


@pytest.mark.parametrize("shown", [kind for kind in HOOKS if kind != "commands"], indirect=True)
def test_the_example_of_a_page_runs_and_registers_something(
    shown: Registry, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["shown"]
    added = [n for n, e in shown.of_kind(kind).items() if e.plugin.distribution.startswith("acme")]
    assert added

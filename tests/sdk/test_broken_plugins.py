"""Each way in which a plugin can be broken is isolated and said; switching off works by any spelling."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from graphnet.errors import PluginError, PluginWarning, UnknownNameError
from graphnet.sdk import Plugin, Register, Registry, hookimpl, load_registry
from graphnet.system import installed
from tests.support.broken_plugins import BROKEN, LAYER, install, row_of, statuses
from tests.support.models import Swish

Rows = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rows, str]:
    folder = tmp_path_factory.mktemp("broken")
    install(folder)
    return statuses(folder)


@pytest.mark.slow
@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_plugin_is_isolated_and_its_cause_is_said(
    way: str, listed: tuple[Rows, str]
) -> None:
    row = row_of(way, listed[0])
    assert row["status"] == "broken"
    assert BROKEN[way].cause in row["error"]
    assert not row["adds"]


@pytest.mark.slow
def test_a_healthy_plugin_beside_forty_broken_ones_works(listed: tuple[Rows, str]) -> None:
    rows, said = listed
    assert len(BROKEN) >= 30
    assert rows["aaa-healthy-plugin 1.0"]["adds"] == {"layers": ["healthy/double"]}
    assert "noise" in said  # what a plugin prints does not spoil our output
    assert rows["graphnet-framework 0.1.0"]["status"] == "loaded"


class Careful:
    """Its property raises if anybody reads it, and one of its functions is no hook."""

    read = 0

    @property
    def graphnet_state(self) -> int:
        type(self).read += 1
        raise RuntimeError("is evaluated")

    @property
    def other(self) -> int:
        type(self).read += 1
        raise RuntimeError("is evaluated")

    def graphnet_version(self) -> str:
        return "1"

    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("acme/swish", Swish)


def test_properties_of_a_plugin_object_are_not_evaluated() -> None:
    registry = load_registry(plugins=[Careful()], entry_points=False)
    assert "acme/swish" in registry.layers
    assert Careful.read == 0


def test_a_class_is_refused_as_a_plugin_object() -> None:
    with pytest.raises(PluginError, match=r"^Careful is a class; give an instance, Careful\(\)$"):
        load_registry(plugins=[Careful], entry_points=False)


def write(folder: Path, name: str, text: str, *, module: str = "", version: str = "1.0") -> None:
    """One distribution of one module on a folder of Python's path."""
    module = module or name.replace("-", "_").lower()
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[graphnet.plugins]\n{module} = {module}\n")
    (folder / f"{module}.py").write_text(text)


HOOK = "\n@gn.hookimpl\ndef graphnet_layers(register):\n    register('{}/double', Double)\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def status(registry: Registry, distribution: str) -> Plugin:
    (found,) = [p for p in registry.plugins if p.distribution == distribution]
    return found


@pytest.mark.parametrize("spelled", ["Spelled_Layers", "spelled.layers", " SPELLED--layers"])
def test_a_plugin_is_switched_off_by_any_spelling_of_its_name(
    path: Path, spelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, "Spelled-Layers", "raise RuntimeError('is imported')")
    monkeypatch.setenv("GRAPHNET_DISABLE_PLUGINS", spelled)
    assert status(load_registry(), "Spelled-Layers").status == "disabled"


def test_an_unknown_name_among_those_to_switch_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHNET_DISABLE_PLUGINS", "graphnet-denois, denoise")
    message = (
        "names 'graphnet-denois', which is no installed plugin. Did you mean 'graphnet-denoise'"
    )
    with pytest.warns(PluginWarning, match=message) as said:
        load_registry()
    assert len(said) == 1
    monkeypatch.setenv("GRAPHNET_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match=message):
        load_registry()


def test_a_layer_of_a_broken_plugin_is_not_called_unknown_beside_all_names(path: Path) -> None:
    write(path, "lost-layers", "import graphnet as gn\ngn.Lyaer")
    registry = load_registry()
    with pytest.raises(UnknownNameError) as caught:
        registry.find("layers", "lost/double")
    assert str(caught.value) == (
        "unknown layer 'lost/double'. It may be of lost-layers 1.0, which is broken: AttributeError: "
        f"module 'graphnet' has no attribute 'Lyaer' [{path / 'lost_layers.py'}:2]."
    )
    with pytest.raises(UnknownNameError) as caught:
        registry.find("layers", "else/double")
    assert str(caught.value).startswith(
        "unknown layer 'else/double'. Plugins that are not loaded: lost-layers 1.0, which is broken: "
    )
    assert "conv2d" not in str(caught.value)
    with pytest.raises(UnknownNameError, match=r"^unknown layer 'conv2'. Did you mean 'conv2d'"):
        registry.find("layers", "conv2")


def test_metadata_that_a_newer_version_shadows_are_not_loaded(path: Path) -> None:
    """The old entry point has another name, which the new version does not have."""
    write(path, "shadow-layers", LAYER + HOOK.format("shadow"), version="1.10")
    stale = path / "shadow_layers.egg-info"
    stale.mkdir()
    (stale / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: shadow-layers\nVersion: 1.9\n")
    (stale / "entry_points.txt").write_text("[graphnet.plugins]\nold = shadow_old\n")
    (path / "shadow_old.py").write_text("raise RuntimeError('is imported')")
    registry = load_registry()
    new, old = (p for p in registry.plugins if p.distribution == "shadow-layers")
    if new.version == "1.9":
        new, old = old, new
    assert (new.version, new.status) == ("1.10", "loaded")
    assert "version 1.9 lie in the folder of version 1.10, and are left over" in str(old.error)


def test_damaged_metadata_are_said_and_stop_nothing(path: Path) -> None:
    write(path, "damaged-layers", LAYER)
    info = path / "damaged_layers-1.0.dist-info"
    (info / "entry_points.txt").write_text("[graphnet.plugins]\nno equals sign\n")
    found = {one.distribution: one for one in installed("graphnet.plugins")}
    assert "TypeError" in str(found["damaged_layers-1.0.dist-info"].error)
    assert found["graphnet-denoise"].error is None


def test_nothing_is_warned_of_where_all_names_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHNET_DISABLE_PLUGINS", "graphnet_denoise,")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_registry()


KINDS_TEXT = """
from graphnet.sdk import Definition, OwnKind, hookimpl

class Filter(Definition):
    pass

class Double(Filter):
    def apply(self, image):
        return 2 * image

@hookimpl
def graphnet_kinds(register):
    register("zzz_filters", OwnKind("filter", Filter, needs=("apply",)))

@hookimpl
def graphnet_zzz_filters(register):
    register("double", Double)
"""
ADDS_TEXT = """
from zzz_kinds import Double
from graphnet.sdk import hookimpl

class Again(Double):
    def apply(self, image):
        return 4 * image

@hookimpl
def graphnet_zzz_filters(register):
    register("again", Again)
"""


def test_a_kind_of_a_plugin_is_filled_by_others_and_gone_with_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin that declares the kind comes later by name, and is loaded first."""
    write(path, "zzz-kinds", KINDS_TEXT)
    write(path, "aaa-adds", ADDS_TEXT)
    registry = load_registry()
    assert list(registry.of_kind("zzz_filters")) == ["double", "again"]
    assert registry.make("zzz_filters", "again").apply(1) == 4
    monkeypatch.setenv("GRAPHNET_DISABLE_PLUGINS", "zzz_kinds")
    registry = load_registry()
    assert status(registry, "aaa-adds").error is not None
    assert "implements 'graphnet_zzz_filters', which is no hook" in str(
        status(registry, "aaa-adds").error
    )
    with pytest.raises(UnknownNameError, match="unknown kind 'zzz_filters'"):
        registry.of_kind("zzz_filters")


def test_an_optional_hook_is_left_out_where_its_kind_does_not_exist(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = "@hookimpl\ndef graphnet_layers(register):\n    pass\n"
    optional = ADDS_TEXT.replace("@hookimpl", "@hookimpl(optionalhook=True)")
    write(path, "zzz-kinds", KINDS_TEXT)
    write(path, "bbb-adds", optional + layers)
    registry = load_registry()
    assert list(registry.of_kind("zzz_filters")) == ["double", "again"]
    monkeypatch.setenv("GRAPHNET_DISABLE_PLUGINS", "zzz-kinds")
    (adding,) = (p for p in load_registry().plugins if p.distribution == "bbb-adds")
    assert (adding.status, adding.hooks) == ("loaded", ("graphnet_layers",))

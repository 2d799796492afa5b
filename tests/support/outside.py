"""A pytest plugin: the built-in layers come from an entry point of another distribution."""

from __future__ import annotations

from collections.abc import Sequence

from graphnet.sdk import Registry, discovery

_original = discovery.load_registry
_installed = discovery.installed


def load_registry(
    *, plugins: Sequence[object] = (), entry_points: bool = True, builtin: Sequence[str] = ()
) -> Registry:
    registry = _original(plugins=plugins, entry_points=True, builtin=())
    origins = {entry.plugin.distribution for entry in registry.kernels.values()}
    assert origins == {"outside-builtins"}
    return registry


discovery.load_registry = load_registry
discovery.installed = lambda group: [
    one for one in _installed(group) if one.distribution == "outside-builtins"
]

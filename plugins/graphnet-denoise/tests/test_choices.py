"""Noise of other distributions: registered by a hook of this one, taken by name, blamed when broken."""

from functools import cache

import pytest
from graphnet_denoise import choices, plugin
from graphnet_denoise.draws import Draws
from graphnet_denoise.noise import NOISES, Images, Noise, Scenes
from graphnet_denoise.patches import Patches
from graphnet_denoise.supervision import SUPERVISIONS

from graphnet.errors import ContractError, DescriptionError, PluginError
from graphnet.sdk import Register, Registry, hookimpl, load_registry


class Negative(Noise):
    gain: float = 1.0

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        return -self.gain * scenes.clean


class Acme:
    """Another distribution that adds a noise."""

    noise: object = Negative

    @hookimpl
    def graphnet_denoise_noises(self, register: Register) -> None:
        register("negative", self.noise)


@cache
def registry() -> Registry:
    return load_registry(plugins=[Acme(), plugin], entry_points=False)


@pytest.fixture(autouse=True)
def _loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "default_registry", registry)


def test_noise_of_another_distribution_is_taken_by_name() -> None:
    patches = Patches(path="photos", noise={"negative": {"gain": 2.0}})  # type: ignore[arg-type]
    assert patches.noise == Negative(gain=2.0)
    assert list(registry().of_kind("denoise_noises")) == [
        *NOISES.builtin,
        "grey",
        "mixture",
        "negative",
    ]
    assert list(registry().of_kind("denoise_supervisions")) == [*SUPERVISIONS.builtin]


def test_an_unknown_noise_is_a_description_error() -> None:
    message = "noise: unknown noise 'negativ'. Did you mean 'negative'"
    with pytest.raises(DescriptionError, match=message):
        Patches(path="photos", noise="negativ")  # type: ignore[arg-type]


def test_wrong_noises_are_refused_when_plugins_are_loaded() -> None:
    class Number(Acme):
        noise = 3

    class Silent(Acme):
        noise = type("Silent", (Noise,), {})

    message = "noise 'negative' must be a subclass of graphnet_denoise.Noise, found 3"
    with pytest.raises(PluginError, match=message):
        load_registry(plugins=[plugin, Number()], entry_points=False)
    with pytest.raises(ContractError, match="noise 'negative' .Silent. defines no noisy"):
        load_registry(plugins=[plugin, Silent()], entry_points=False)
    with pytest.raises(PluginError, match="implements 'graphnet_denoise_noises', which is no hook"):
        load_registry(plugins=[Acme()], entry_points=False)

"""Noise of other distributions: found by its entry point, loaded when it is named, blamed when broken."""

import importlib.metadata
import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType

import pytest
from graphnet_denoise.draws import Draws
from graphnet_denoise.noise import NOISES, Images, Noise, Scenes
from graphnet_denoise.patches import Patches

from graphnet.errors import DescriptionError


class Negative(Noise):
    gain: float = 1.0

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        return -self.gain * scenes.clean


@pytest.fixture(autouse=True)
def _acme(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("acme_noise")
    module.__dict__.update(Negative=Negative, number=3)
    monkeypatch.setitem(sys.modules, "acme_noise", module)
    points = {
        "negative": "acme_noise:Negative",
        "number": "acme_noise:number",
        "gone": "acme_gone:X",
    }
    found = EntryPoints(EntryPoint(n, v, NOISES.group) for n, v in points.items())
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found.select(group=group))


def test_noise_of_another_distribution_is_taken_by_name() -> None:
    patches = Patches(path="photos", noise={"negative": {"gain": 2.0}})  # type: ignore[arg-type]
    assert patches.noise == Negative(gain=2.0)
    assert NOISES.names() == [*NOISES.builtin, "negative", "number", "gone"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("negativ", "noise: unknown name 'negativ'. Did you mean 'negative'"),
        ("number", "noise: 'number' must be a subclass of Noise, found 3"),
        ("gone", r"noise: 'gone' \(acme_gone:X\) cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_wrong_noise_is_a_description_error(name: str, message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        Patches(path="photos", noise=name)  # type: ignore[arg-type]

"""The benchmark of recipes runs the steps that their files describe."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import recipes

NETWORK = """
input: {channels: 3}
layers: [{conv2d: {out_channels: 3, kernel_size: 1}}]
"""
SMALL = """
model: net.yaml
data: {train: {patches: {path: photos, size: 8}}}
loss: mse
optimizer: {sgd: {lr: 0.1}}
batch_size: 2
epochs: 1
"""


@pytest.mark.parametrize("recipe", ["dncnn", "unet"])
def test_a_step_of_each_recipe_runs_on_eager(recipe: str) -> None:
    loss = recipes.step_of(recipes.FOLDER / f"{recipe}-train.yaml", "eager")()
    assert loss.isfinite()


def test_both_executors_are_timed_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.yaml").write_text(NETWORK)
    (tmp_path / "small-train.yaml").write_text(SMALL)
    monkeypatch.setattr(recipes, "EXECUTORS", ("eager", "reference"))
    timings, first_s = recipes.measure(tmp_path / "small-train.yaml", budget_s=0.05)
    assert list(timings) == ["eager", "reference"]
    assert first_s > 0

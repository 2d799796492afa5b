"""What the plugin registers, by graphnet's own loader."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import graphnet_denoise
import pytest
import torch
from graphnet_denoise import metrics, plugin
from graphnet_denoise.gallery import WholeImages
from graphnet_denoise.pairs import PairFiles
from graphnet_denoise.patches import Patches
from graphnet_denoise.photos import Photos

from graphnet.sdk import load_registry


def test_data_sets_and_metrics_are_registered() -> None:
    registry = load_registry(plugins=[plugin], entry_points=False)
    assert registry.find("datasets", "photos").value is Photos
    assert registry.find("datasets", "pairs").value is PairFiles
    assert registry.find("datasets", "patches").value is Patches
    assert registry.find("datasets", "images").value is WholeImages
    for name, metric in (
        ("psnr", metrics.PSNR),
        ("psnr_pooled", metrics.PooledPSNR),
        ("ssim", metrics.SSIM),
    ):
        assert registry.find("metrics", name).value is metric
        assert metric.higher_is_better


@pytest.mark.parametrize(
    "name",
    [m.name for m in pkgutil.walk_packages(graphnet_denoise.__path__, "graphnet_denoise.")],
)
def test_docstring_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what lives there"
    failed, _ = doctest.testmod(module, extraglobs={"torch": torch})
    assert failed == 0


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, graphnet_denoise.plugin;"
        "print(*({'PIL', 'skimage', 'tifffile', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

"""What the plugin registers, by graphnet's own loader."""

import subprocess
import sys

from graphnet_denoise import metrics, plugin
from graphnet_denoise.pairs import PairFiles
from graphnet_denoise.photos import Photos

from graphnet.discovery import load_registry


def test_data_sets_and_metrics_are_registered() -> None:
    registry = load_registry(plugins=[plugin], entry_points=False)
    assert registry.find("datasets", "photos").value is Photos
    assert registry.find("datasets", "pairs").value is PairFiles
    for name in ("psnr", "psnr_pooled", "ssim"):
        assert registry.find("metrics", name).value is getattr(metrics, name)


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, graphnet_denoise.plugin;"
        "print(*({'torch', 'numpy', 'PIL', 'pydantic', 'networkx'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

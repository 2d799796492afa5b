"""What napari calls: the manifest, the reader and the widget, without a window."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

napari = pytest.importorskip("napari", reason="napari is not installed: make napari installs it")
tifffile = pytest.importorskip("tifffile")

from napari.components import ViewerModel  # noqa: E402
from napari.layers import Image as ImageLayer  # noqa: E402
from napari_graphnet.denoising import axes_of, denoise_widget, denoised_layer  # noqa: E402
from napari_graphnet.reading import read_layers, reader_of  # noqa: E402
from npe2 import PluginManifest  # noqa: E402


def noisy(*shape: int) -> Any:
    draw = np.random.default_rng(0)
    return (1000 + 60 * draw.standard_normal(shape)).astype(np.uint16)


def test_the_manifest_is_valid_and_its_functions_exist() -> None:
    manifest = PluginManifest.from_distribution("napari-graphnet")
    manifest.validate_imports()
    assert [widget.display_name for widget in manifest.contributions.widgets] == ["Denoise"]


def test_frames_of_a_stack_are_read_when_they_are_shown(tmp_path: Path) -> None:
    frames = noisy(3, 20, 24)
    tifffile.imwrite(tmp_path / "stack.tif", frames, photometric="minisblack")
    read = reader_of(str(tmp_path / "stack.tif"))
    assert read is not None
    ((data, settings, kind),) = read(str(tmp_path / "stack.tif"))
    assert kind == "image"
    assert settings == {"name": "stack"}
    assert data.chunks[0] == (1, 1, 1)
    np.testing.assert_array_equal(data.compute(), frames)


def test_colours_stay_one_layer_and_channels_become_several(tmp_path: Path) -> None:
    colour = noisy(20, 24, 3).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    ((data, settings, _),) = read_layers(str(tmp_path / "colour.png"))
    assert settings["rgb"]
    np.testing.assert_array_equal(data.compute(), colour)
    channels = noisy(2, 20, 24)
    tifffile.imwrite(
        tmp_path / "cells.ome.tif", channels, metadata={"axes": "CYX"}, photometric="minisblack"
    )
    viewer = ViewerModel()
    ((data, settings, _),) = read_layers(str(tmp_path / "cells.ome.tif"))
    layers = viewer.add_image(data, **settings)
    assert [layer.data.shape for layer in layers] == [(20, 24), (20, 24)]
    np.testing.assert_array_equal(np.asarray(layers[1].data), channels[1])


def test_a_file_of_another_kind_is_left_to_napari(tmp_path: Path) -> None:
    (tmp_path / "notes.tif").write_text("no image")
    assert reader_of(str(tmp_path / "notes.tif")) is None


@pytest.mark.parametrize(
    ("shape", "axes"), [((20, 24), "YX"), ((2, 20, 24), "ZYX"), ((20, 24, 3), "YXS")]
)
def test_a_layer_is_denoised_beside_itself(shape: tuple[int, ...], axes: str) -> None:
    layer = ImageLayer(
        noisy(*shape),
        rgb=axes.endswith("S"),
        name="cells",
        scale=[0.5] * (len(axes) - axes.count("S")),
    )
    assert axes_of(layer) == axes
    data, settings, kind = denoised_layer(layer)
    assert kind == "image"
    assert data.dtype == np.uint16
    assert data.shape == shape
    assert data.std() < layer.data.std() / 2
    added = ViewerModel().add_image(data, **settings)
    assert added.name == "cells denoised"
    assert list(added.scale) == list(layer.scale)


def test_the_widget_works_in_a_thread(qtbot: Any) -> None:
    layer = ImageLayer(noisy(20, 24), name="cells")
    widget = denoise_widget()
    widget.image.choices = [layer]
    with qtbot.waitSignal(widget().returned, timeout=60_000) as done:
        pass
    ((data, settings, _),) = done.args
    assert data.std() < layer.data.std() / 2
    assert settings["name"] == "cells denoised"

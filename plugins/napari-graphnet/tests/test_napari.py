"""What napari calls: the manifest, the reader and the widget, without a window."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

napari = pytest.importorskip("napari", reason="napari is not installed: make napari installs it")
tifffile = pytest.importorskip("tifffile")

from graphnet_denoise.learning import own_images, recipe  # noqa: E402
from graphnet_denoise.learning.recipe import Length  # noqa: E402
from napari.components import ViewerModel  # noqa: E402
from napari.layers import Image as ImageLayer  # noqa: E402
from napari_graphnet.denoising import denoise_widget, denoised_layer  # noqa: E402
from napari_graphnet.layers import axes_of, pixels_of  # noqa: E402
from napari_graphnet.reading import read_layers, reader_of  # noqa: E402
from napari_graphnet.training import Task, TrainWidget, unused  # noqa: E402
from npe2 import PluginManager, PluginManifest  # noqa: E402


def noisy(*shape: int) -> Any:
    draw = np.random.default_rng(0)
    return (1000 + 60 * draw.standard_normal(shape)).astype(np.uint16)


def test_the_manifest_is_valid_and_its_functions_exist() -> None:
    manifest = PluginManifest.from_distribution("napari-graphnet")
    manifest.validate_imports()
    assert [widget.display_name for widget in manifest.contributions.widgets] == [
        "Denoise",
        "Train",
    ]


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


def test_a_folder_of_zarr_is_read(tmp_path: Path) -> None:
    frames, path = noisy(5, 20, 24), tmp_path / "stack.zarr"
    pytest.importorskip("zarr").save_array(path, frames)
    plugins = PluginManager()
    plugins.register(PluginManifest.from_distribution("napari-graphnet"))
    assert list(plugins.iter_compatible_readers([str(path)]))
    ((data, _, _),) = read_layers(str(path))
    np.testing.assert_array_equal(data.compute(), frames)


def test_a_file_of_another_kind_is_left_to_napari(tmp_path: Path) -> None:
    (tmp_path / "notes.tif").write_text("no image")
    assert reader_of(str(tmp_path / "notes.tif")) is None


@pytest.mark.parametrize(
    ("shape", "axes"), [((20, 24), "YX"), ((2, 20, 24), "IYX"), ((20, 24, 3), "YXS")]
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


# -- training ----------------------------------------------------------------------------------------


def test_the_axes_of_a_layer_are_those_that_it_or_the_user_states() -> None:
    frames = noisy(3, 20, 24)
    assert axes_of(ImageLayer(frames)) == "IYX"
    assert axes_of(ImageLayer(frames, axis_labels=["t", "y", "x"])) == "TYX"
    assert axes_of(ImageLayer(frames, axis_labels=["t", "y", "x"]), "Z") == "ZYX"
    assert axes_of(ImageLayer(noisy(2, 3, 20, 24), axis_labels=["z", "t", "y", "x"])) == "ZTYX"
    assert axes_of(ImageLayer(noisy(20, 24), axis_labels=["t", "z"])) == "YX"
    pyramid = [noisy(3, 20, 24), noisy(3, 10, 12)]
    layer = ImageLayer(pyramid, multiscale=True)
    assert (axes_of(layer), pixels_of(layer).shape) == ("IYX", (3, 20, 24))
    with pytest.raises(ValueError, match="at most 4 axes"):
        axes_of(ImageLayer(noisy(1, 1, 1, 20, 24)))


def test_layers_of_different_axes_are_refused(tmp_path: Path) -> None:
    layers = [ImageLayer(noisy(20, 24)), ImageLayer(noisy(3, 20, 24))]
    task = Task(layers, None, "", 1.0, tmp_path / "run")
    with pytest.raises(ValueError, match="different axes .IYX and YX."):
        task.begin()


def test_a_model_gets_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert unused(tmp_path, "cells") == tmp_path / "learn-cells"
    (tmp_path / "learn-cells").mkdir()
    assert unused(tmp_path, "cells") == tmp_path / "learn-cells-2"


class Window:
    """What the widget that trains asks of napari's window: to show the widget that denoises."""

    def __init__(self) -> None:
        self.denoise = denoise_widget()

    def add_plugin_dock_widget(self, plugin: str, name: str) -> tuple[None, Any]:
        assert (plugin, name) == ("napari-graphnet", "Denoise")
        return None, self.denoise


def set_length(monkeypatch: pytest.MonkeyPatch, length: Length) -> None:
    monkeypatch.setattr(own_images, "plan_length", lambda *_: length)


@pytest.fixture
def widget(qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainWidget]:
    """The widget beside a viewer that has one movie, whose scene stands still; the network is small."""
    conv = "{id: change, conv2d: {out_channels: 1, kernel_size: 3, padding: 1}}"
    (tmp_path / "unet.yaml").write_text(f"name: small\nlayers: [{conv}]\n")
    monkeypatch.setattr(recipe, "NETWORKS", tmp_path)
    monkeypatch.setattr(own_images, "step_seconds", lambda *_, **__: 0.01)
    set_length(monkeypatch, Length(20, 1_000_000, 5))
    draw = np.random.default_rng(0)
    scene = np.kron(draw.random((16, 8)), np.ones((8, 8)))
    frames = 1000 + 1000 * scene + 60 * draw.standard_normal((6, 128, 64))
    viewer = ViewerModel()
    object.__setattr__(viewer, "window", Window())
    viewer.add_image(frames.astype(np.uint16), name="my movie")
    made = TrainWidget(viewer)
    made.place.value = tmp_path
    yield made
    if made.worker is not None:
        made.worker.quit()
        qtbot.waitUntil(lambda: made.train.enabled, timeout=120_000)


def test_training_says_what_it_found_and_adds_what_the_best_model_makes(
    widget: TrainWidget, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widget.images.value = [widget.viewer.layers["my movie"]]
    widget.frames.value = "a movie"
    set_length(monkeypatch, Length(4, 25, 5))
    widget.begin()
    assert not widget.train.enabled
    qtbot.waitUntil(lambda: widget.train.enabled, timeout=120_000)
    assert "6 grey images of 128 x 64 pixels, uint16" in widget.found.value
    assert "Noise2Noise" in widget.found.value
    assert "against hidden noisy pixels" in widget.found.value
    model = tmp_path / "learn-my-movie" / "model.safetensors"
    assert model.exists()
    assert str(model) in widget.told.value
    assert widget.viewer.window.denoise.model.value == model
    before, after = widget.viewer.layers
    assert after.name == "my movie denoised"
    assert (after.data.shape, after.data.dtype) == (before.data.shape, before.data.dtype)
    assert np.corrcoef(after.data.ravel(), before.data.ravel())[0, 1] > 0.7


def test_stop_keeps_the_best_model(widget: TrainWidget, qtbot: Any, tmp_path: Path) -> None:
    widget.images.value = list(widget.viewer.layers)
    widget.begin()
    qtbot.waitUntil(lambda: widget.told.value.startswith("step "), timeout=120_000)
    assert "about" in widget.told.value
    assert "left" in widget.told.value
    widget.stop.changed.emit(True)
    qtbot.waitUntil(lambda: widget.train.enabled, timeout=120_000)
    assert "a stop was requested" in widget.told.value
    assert (tmp_path / "learn-my-movie" / "model.safetensors").exists()
    assert len(widget.viewer.layers) == 2


def test_closing_napari_keeps_the_best_model(
    widget: TrainWidget, qtbot: Any, tmp_path: Path
) -> None:
    widget.images.value = list(widget.viewer.layers)
    widget.begin()
    qtbot.waitUntil(lambda: widget.told.value.startswith("step "), timeout=120_000)
    assert widget.worker is not None
    widget.worker.quit()
    qtbot.waitUntil(lambda: widget.train.enabled, timeout=120_000)
    assert (tmp_path / "learn-my-movie" / "model.safetensors").exists()


def test_what_cannot_be_learned_from_is_said_in_the_window(
    widget: TrainWidget, qtbot: Any, tmp_path: Path
) -> None:
    widget.images.value = []
    widget.begin()
    assert widget.told.value == "Choose one image layer or several, or a folder of images."
    widget.folder.value = tmp_path / "empty"
    (tmp_path / "empty").mkdir()
    with qtbot.capture_exceptions():
        widget.begin()
        qtbot.waitUntil(lambda: widget.train.enabled, timeout=60_000)
    assert "expected a folder with images" in widget.told.value

"""The widget that denoises an image layer. (magicgui reads the annotations, so none is a string.)"""

from pathlib import Path
from typing import Any

import napari.layers
import napari.types
from graphnet_denoise import denoise
from graphnet_denoise.models import Noise
from magicgui import magic_factory
from napari.qt.threading import FunctionWorker, thread_worker

from napari_graphnet.layers import axes_of, pixels_of


def denoised_layer(
    layer: napari.layers.Image,
    *,
    noise: Noise = "auto",
    strength: float = 1.0,
    model: Path | None = None,
) -> napari.types.LayerDataTuple:
    """Denoise the data of a layer: what napari needs to add the result as a layer beside it.

    A dask array is denoised frame by frame when it is shown.
    """
    result: Any = denoise(
        pixels_of(layer), axes=axes_of(layer), noise=noise, strength=strength, model=model
    )
    settings = {
        "name": f"{layer.name} denoised",
        "rgb": layer.rgb,
        "scale": layer.scale,
        "translate": layer.translate,
        "colormap": layer.colormap.name,
        "contrast_limits": layer.contrast_limits,
    }
    return napari.types.LayerDataTuple((result, settings, "image"))


@magic_factory(  # type: ignore[untyped-decorator]
    call_button="Denoise",
    strength={"widget_type": "FloatSlider", "min": 0.0, "max": 1.0},
    model={"filter": "*.safetensors", "nullable": True},
)
def denoise_widget(
    image: napari.layers.Image,
    noise: Noise = "auto",
    strength: float = 1.0,
    model: Path | None = None,
) -> FunctionWorker[napari.types.LayerDataTuple]:
    """Denoise a layer in a thread of its own; napari adds the result when it is there."""
    progress = {"desc": f"Denoising {image.name}"}
    work = thread_worker(denoised_layer, start_thread=True, progress=progress)
    return work(image, noise=noise, strength=strength, model=model)

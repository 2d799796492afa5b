"""The widget that denoises an image layer. (magicgui reads the annotations, so none is a string.)"""

from pathlib import Path
from typing import Any

import napari.layers
import napari.types
from graphnet_denoise import denoise
from graphnet_denoise.models import Noise
from magicgui import magic_factory
from napari.qt.threading import FunctionWorker, thread_worker

_AXES = ("YX", "ZYX", "TZYX")
"""The axes of a layer by their number, without colours; frames are denoised one by one."""


def axes_of(layer: napari.layers.Image) -> str:
    """Return one letter for each axis of a layer's data.

    Raises ValueError for a layer of more than four axes and the colours.
    """
    count = layer.data.ndim - bool(layer.rgb)
    if count - 2 >= len(_AXES):
        raise ValueError(
            f"{layer.name}: expected at most 4 axes besides the colours, found {count}"
        )
    return _AXES[count - 2] + "S" * bool(layer.rgb)


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
        layer.data, axes=axes_of(layer), noise=noise, strength=strength, model=model
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

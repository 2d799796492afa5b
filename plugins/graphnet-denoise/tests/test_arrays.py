"""Arrays in one line: numpy, dask and torch arrays of any dtype and axes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from graphnet_denoise import arrays, denoise, denoise_graphnet
from graphnet_denoise.images import Levels
from graphnet_denoise.models import MODELS, Kind
from graphnet_denoise.normalization import with_normalization
from graphnet_denoise.ranges import find_range
from graphnet_denoise.restoring import Restorer, Settings
from numpy.typing import NDArray
from torch import Tensor

import graphnet as gn
from graphnet.errors import CheckpointError, InputError

DTYPES = [
    "uint8", "int8", "uint16", ">u2", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "float32", "float64",
]  # fmt: skip


class Halving:
    """Halves each value of an image in 0..1; it notes the shapes that it was asked for."""

    def __init__(
        self, channels: int | None = 3, function: Callable[..., Any] = lambda x: x / 2
    ) -> None:
        self.weights: Mapping[str, Tensor] | None = {}
        self.shapes: list[tuple[int, ...]] = []
        self._channels, self._function = channels, function

    @property
    def input_channels(self) -> int | None:
        return self._channels

    def divisor(self) -> int:
        return 1

    def predict(self, *inputs: Tensor, options: gn.CompileOptions) -> Any:
        (x,) = inputs
        if x.shape[2:] != (64, 64):  # the example with which a Restorer tries a model for colour
            self.shapes.append(tuple(x.shape))
        return self._function(x)


def ramp(shape: tuple[int, ...], dtype: str, highest: float) -> NDArray[Any]:
    """Values from 0 to `highest`."""
    return np.linspace(0, highest, int(np.prod(shape))).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_result_has_the_type_dtype_shape_and_range_of_the_array(dtype: str) -> None:
    highest = 1.0 if "f" in dtype else 127 if dtype == "int8" else 200
    noisy = ramp((6, 5, 3), dtype, highest)
    before = noisy.copy()
    clean = denoise(noisy, axes="YXC", model=Halving())
    assert type(clean) is np.ndarray
    assert (clean.dtype, clean.shape) == (noisy.dtype, noisy.shape)
    expected = before.astype(np.float64) / 2
    # Integers are rounded: half a step, and half a step of float32 where values are halves.
    np.testing.assert_allclose(clean, expected, atol=1e-3 if "f" in dtype else 0.5001)
    np.testing.assert_array_equal(noisy, before)
    np.testing.assert_array_equal(denoise(noisy, "YXC", model=Halving(), strength=0), noisy)


@pytest.mark.parametrize("torch_dtype", [torch.uint8, torch.int16, torch.float64, torch.bfloat16])
def test_a_torch_tensor_comes_back_as_one(torch_dtype: torch.dtype) -> None:
    noisy = torch.arange(100).reshape(2, 5, 10).to(torch_dtype)
    clean = denoise(noisy, axes="TYX", model=Halving(1), value_range=(0, 100))
    assert (clean.dtype, clean.shape, clean.device) == (noisy.dtype, noisy.shape, noisy.device)
    torch.testing.assert_close(clean.double(), noisy.double() / 2, atol=0.5, rtol=0.01)


def test_strength_is_a_blend() -> None:
    noisy = ramp((4, 4), "float64", 1.0)
    quarter = denoise(noisy, model=Halving(1), strength=0.25)
    np.testing.assert_allclose(quarter, noisy * (1 - 0.25 / 2), rtol=1e-6)


@pytest.mark.parametrize("axes", ["TCZYX", "YXZCT", "CYX", "ZXY", "XTYC"])
def test_every_order_of_axes_denoises_the_same_images(axes: str) -> None:
    """The horizontal derivative of each image: other axes, or their order, would give other numbers."""
    sizes = dict(zip("TCZYX", (2, 2, 3, 4, 5), strict=True))
    noisy = np.random.default_rng(0).random([sizes[letter] for letter in axes])

    def derivative(x: Tensor) -> Tensor:
        return (x.roll(-1, dims=3) - x).clamp(0, 1)

    clean = denoise(noisy, axes=axes, model=Halving(1, derivative))
    x = axes.index("X")
    np.testing.assert_allclose(clean, np.clip(np.roll(noisy, -1, x) - noisy, 0, 1), atol=1e-6)


def test_channels_are_denoised_together_only_if_the_model_takes_as_many() -> None:
    for channels, taken, expected in [
        (3, 3, [(1, 3, 4, 5)]),
        (2, 1, [(1, 1, 4, 5)] * 2),
        (3, 1, [(1, 1, 4, 5)] * 3),
        (2, 3, [(1, 3, 4, 5)] * 2),  # each as a grey image
        (4, None, [(1, 4, 4, 5)]),
    ]:
        model = Halving(taken)
        denoise(np.ones((channels, 4, 5), np.float32), axes="CYX", model=model)
        assert model.shapes == expected


def test_alpha_stays_as_it_is() -> None:
    noisy = ramp((4, 5, 4), "uint8", 250)
    for axes in (None, "YXS"):
        clean = denoise(noisy, axes, model=Halving())
        np.testing.assert_array_equal(clean[..., 3], noisy[..., 3])
        np.testing.assert_allclose(clean[..., :3], noisy[..., :3] / 2, atol=0.5001)
    grey = denoise(noisy[..., :2], "YXS", model=Halving(1))
    np.testing.assert_array_equal(grey[..., 1], noisy[..., 1])
    assert not np.array_equal(grey[..., 0], noisy[..., 0])


def test_each_channel_has_levels_of_its_own_and_all_its_images_the_same() -> None:
    seen: list[float] = []

    def note(x: Tensor) -> Tensor:
        seen.append(round(float(x.max()), 4))
        return x

    movie = np.zeros((2, 2, 3, 3), np.uint16)
    movie[0, 0, 0, 0], movie[1, 0, 0, 0] = 4095, 2000  # channel 0 has 12 bits
    movie[0, 1, 0, 0], movie[1, 1, 0, 0] = 100, 255  # channel 1 has 8
    denoise(movie, axes="TCYX", model=Halving(1, note))
    assert seen == [1.0, round(2000 / 4095, 4), round(100 / 255, 4), 1.0]


def test_numbers_that_are_not_finite_stay_and_hot_pixels_keep_their_brightness() -> None:
    noisy = ramp((6, 5), "float32", 1.0)
    noisy[1, 2], noisy[3, 3], noisy[4, 4] = np.nan, np.inf, 50.0
    clean = denoise(noisy, model=Halving(1), value_range=(0, 1))
    expected = noisy / 2
    expected[4, 4] = 48 + 2 / 2  # a model sees 2 at most
    np.testing.assert_allclose(clean, expected, rtol=1e-5)


def test_range_is_that_of_the_command_line() -> None:
    """A few hot pixels, and the unit of a z-scored stack, mean the same in both."""
    seen: list[float] = []

    def note(x: Tensor) -> Tensor:
        seen.extend((float(x.min()), float(x.max())))
        return x

    z_scored = np.random.default_rng(0).normal(0, 1, (3, 800, 900)).astype(np.float32)
    own = find_range(z_scored.ravel(), Levels.of(z_scored.dtype))
    denoise(z_scored, "TYX", model=Halving(1, note))
    expected = (z_scored[0].min() - own.low) / (own.high - own.low)
    assert seen[0] == pytest.approx(expected, abs=0.02)


def on_numbers() -> gn.Model:
    """A model that knows its range, the mean 1000 and the deviation 100; it halves what is above the mean."""
    conv = {"out_channels": 1, "kernel_size": 1, "bias": False}
    network = {"name": "half", "layers": [{"id": "change", "conv2d": conv}]}
    description = with_normalization(network, channels=1, mean=1000.0, deviation=100.0)
    weights = {"denoised.change.weight": torch.full((1, 1, 1, 1), 0.5)}
    return gn.Model(description, weights=weights)


def test_a_model_that_knows_its_range_gets_the_numbers_of_the_image() -> None:
    noisy = np.random.default_rng(0).integers(800, 1200, (6, 7), dtype=np.uint16)
    expected = 1000 + (noisy - 1000.0) / 2
    np.testing.assert_allclose(denoise(noisy, model=on_numbers()), expected, atol=0.51)
    floats = denoise_graphnet(noisy, model=on_numbers(), preserve_range=True)
    np.testing.assert_allclose(floats, expected, rtol=1e-5)
    unit = denoise_graphnet(noisy, model=on_numbers())
    np.testing.assert_allclose(unit, expected / 65535, rtol=1e-5)


def test_dask_computes_later_the_same_as_numpy() -> None:
    da = pytest.importorskip("dask.array")
    calls: list[int] = []

    def note(x: Tensor) -> Tensor:
        calls.append(threading.get_ident())
        return (x.roll(-1, dims=3) + x) / 2

    noisy = np.random.default_rng(0).integers(0, 3000, (2, 2, 3, 8, 9), dtype=np.uint16)
    lazy = denoise(da.from_array(noisy, chunks=(1, 1, 2, 3, 4)), "TCZYX", model=Halving(1, note))
    assert isinstance(lazy, da.Array)
    assert (lazy.dtype, lazy.shape) == (noisy.dtype, noisy.shape)
    assert calls == []
    part = lazy[1, 0, 2].compute()
    assert len(calls) < 12
    expected = denoise(noisy, "TCZYX", model=Halving(1, note))
    np.testing.assert_array_equal(part, expected[1, 0, 2])
    np.testing.assert_array_equal(lazy.compute(), expected)


def test_dask_reads_all_values_only_where_the_range_depends_on_them() -> None:
    da = pytest.importorskip("dask.array")
    read: list[int] = []

    def plane(block_info: Any) -> NDArray[Any]:
        read.append(block_info[None]["chunk-location"][0])
        return np.zeros((1, 4, 4), block_info[None]["dtype"])

    for dtype, value_range, expected in [
        ("uint8", None, [2]),
        ("float32", (0, 3), [2]),
        ("uint16", None, [0, 1, 2, 3]),
    ]:
        planes = da.map_blocks(
            plane, chunks=((1,) * 4, 4, 4), dtype=dtype, meta=np.empty((0, 0, 0), dtype)
        )
        denoise(planes, "TYX", model=Halving(1), value_range=value_range)[2].compute()
        assert sorted(set(read)) == expected
        read.clear()


def test_a_model_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []

    def load(path: Path) -> Any:
        loaded.append(path)
        return Halving()

    monkeypatch.setattr(gn, "load", load)
    file = tmp_path / "model.safetensors"
    file.write_text("")
    arrays._loaded.cache_clear()
    for _ in range(3):
        denoise(np.zeros((3, 4, 4), np.uint8), "TYX", model=file)
        denoise(np.zeros((4, 4), np.uint8), model=str(file))
    assert loaded == [file]
    arrays._loaded.cache_clear()


def scaling(factor: float, path: Path) -> Path:
    """Save a model that multiplies all values by a factor."""
    conv = {"out_channels": 3, "kernel_size": 1, "bias": False}
    weight = factor * torch.eye(3).reshape(3, 3, 1, 1)
    description = {"input": {"channels": 3}, "layers": [{"conv2d": conv}]}
    gn.Model(description, weights={"conv2d_1.weight": weight}).save(path)
    return path


def test_the_noise_of_an_image_chooses_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    da = pytest.importorskip("dask.array")
    factors: dict[Kind, float] = {"gaussian": 0.5, "camera": 0.25}
    for kind, factor in factors.items():
        path = scaling(factor, tmp_path / f"{kind}.safetensors")
        monkeypatch.setitem(cast(dict[Kind, Path], MODELS), kind, path)
    arrays._shipped.cache_clear()
    draw = np.random.default_rng(0)
    independent = 0.5 + 0.1 * draw.standard_normal((3, 64, 64, 3))
    shared = independent + 0.3 * draw.standard_normal((3, 64, 1, 3))  # equal along each row
    movies: list[tuple[NDArray[Any], Any, float]] = [
        (independent, "auto", 0.5),
        (shared, "auto", 0.25),
        (independent, "camera", 0.25),
        (shared, "gaussian", 0.5),
    ]
    for movie, noise, factor in movies:
        clean = denoise(movie, axes="TYXS", noise=noise, value_range=(0, 1))
        np.testing.assert_allclose(clean, movie * factor, atol=1e-6)
        lazy = denoise(da.from_array(movie), axes="TYXS", noise=noise, value_range=(0, 1))
        np.testing.assert_array_equal(lazy[1].compute(), clean[1])
    arrays._shipped.cache_clear()


def test_what_is_no_image_is_refused_in_words() -> None:
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (np.zeros((4, 4), bool), {}, "truth values"),
        (np.zeros((4, 4), complex), {}, "complex128"),
        ([[1.0]], {}, "found builtins.list"),
        (np.ma.masked_array(np.zeros((4, 4))), {}, "mask"),
        (np.zeros((4, 4)), {"strength": 1.5}, "between 0 and 1"),
        (np.zeros((4, 4)), {"value_range": (1, 1)}, "a larger white"),
        (np.zeros((4, 4)), {"noise": "film"}, "expected auto, gaussian, camera, found 'film'"),
        (np.zeros((4, 4)), {"noise_level": 25, "model": None}, "included models do not need it"),
        (np.zeros((4, 4)), {"value_range": (0, 1), "model": on_numbers()}, "knows the range"),
        (np.zeros((4, 4, 4, 4)), {}, "cannot be guessed"),
        (np.zeros((4, 4, 5)), {"axes": "YXQ"}, "different letters"),
        (np.zeros((4, 4, 5)), {"axes": "YXX"}, "different letters"),
        (np.zeros((4, 4, 5)), {"axes": "YX"}, "one letter for each"),
        (np.zeros((4, 4, 5)), {"axes": "TZX"}, "expected Y and X"),
        (np.zeros((4, 4, 3, 3)), {"axes": "YXCS"}, "C and S"),
        (np.zeros((4, 4, 4)), {"axes": "YXC"}, "'YXS' if they are red"),
        (np.zeros((4, 4, 5)), {"axes": "YXS"}, "5 samples"),
    ]
    for array, options, message in cases:
        with pytest.raises(InputError, match=message):
            denoise(array, **{"model": Halving(), **options})
    with pytest.raises(CheckpointError):
        denoise(np.zeros((4, 4)), model="absent.safetensors")


def test_an_array_without_pixels_comes_back() -> None:
    assert denoise(np.zeros((0, 4, 4)), "TYX", model=Halving(1)).shape == (0, 4, 4)


def test_result_is_that_of_the_command_line() -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (17, 19, 3), dtype=np.uint8)
    eight_bits = Settings(gn.CompileOptions(precision="auto"))
    restorer = Restorer.of(gn.load(MODELS["gaussian"]), eight_bits)
    image = torch.from_numpy(noisy / np.float32(255)).permute(2, 0, 1)
    expected = restorer.restore(image[None])[0].permute(1, 2, 0) * 255
    found = denoise(noisy)
    np.testing.assert_allclose(found, expected.numpy(), atol=0.501)


def test_denoise_graphnet_keeps_the_conventions_of_scikit_image() -> None:
    from skimage.restoration import denoise_nl_means

    colour = ramp((8, 9, 3), "uint8", 255)
    cases: list[tuple[NDArray[Any], dict[str, Any]]] = [
        (colour, {"channel_axis": 2}),
        (colour, {"channel_axis": -1, "preserve_range": True}),
        (colour[..., 0], {}),
        (colour[..., 0].astype(np.float16), {}),
        (colour[..., 0].astype(np.float32) / 255, {}),
        (np.moveaxis(colour, -1, 0).astype(np.int16), {"channel_axis": 0}),
    ]
    for image, options in cases:
        # With so small an h, both return what they get: what is left is how they convert it.
        theirs = denoise_nl_means(image, patch_size=3, patch_distance=2, h=1e-6, **options)
        ours = denoise_graphnet(image, model=Halving(3, lambda x: x), **options)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    brighter = Halving(3, lambda x: x + 0.5)
    assert denoise_graphnet(colour, model=brighter, channel_axis=2).max() == 1
    with pytest.raises(InputError, match="channel_axis"):
        denoise_graphnet(np.zeros(4))
    with pytest.raises(InputError, match="truth values"):
        denoise_graphnet(np.zeros((4, 4), bool))


@pytest.mark.slow
def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, graphnet_denoise; assert 'torch' not in sys.modules; "
        "from graphnet_denoise import denoise, denoise_graphnet; assert 'dask' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

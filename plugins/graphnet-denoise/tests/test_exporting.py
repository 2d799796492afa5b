"""Models for darktable and BioImage.IO: what the files say, and that onnxruntime computes the same images."""

from __future__ import annotations

import gc
import json
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphnet_denoise.exporting.bioimageio import write_bioimageio
from graphnet_denoise.exporting.darktable import write_dtmodel
from graphnet_denoise.exporting.wrapping import Network, for_images, slug
from graphnet_denoise.models import MODELS
from graphnet_denoise.normalization import with_normalization
from torch import Tensor

import graphnet as gn
from graphnet.cli import run as graphnet_command
from graphnet.errors import CheckpointError, DataError, InputError
from graphnet.testing import with_random_weights

ort = pytest.importorskip("onnxruntime")
SIZES = [(64, 48), (24, 40), (37, 51), (8, 100), (1, 3)]


def u_net(channels: int = 3, *, told: bool = False, factor: int = 4) -> gn.Model:
    """A network whose sides must be multiples of `factor`, with a GELU, which opset 17 does not have."""
    conv = {"kernel_size": factor, "stride": factor}
    taken = channels + told
    description: dict[str, Any] = {
        "name": "small U-Net",
        "input": {"channels": taken},
        "layers": [
            {"conv2d": {"out_channels": 6, **conv}},
            "gelu",
            {"transpose_conv2d": {"out_channels": channels, **conv}},
            {"conv2d": {"out_channels": channels, "kernel_size": 3, "padding": 1}},
        ],
    }
    return with_random_weights(gn.Model(description), (1, taken, 8 * factor, 8 * factor))


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


class DTModel:
    """A .dtmodel as darktable reads it: the folder of the first entry, its config.json and model.onnx."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as package:
            self.folder = package.namelist()[0].split("/")[0]
            assert package.namelist() == [f"{self.folder}/config.json", f"{self.folder}/model.onnx"]
            self.config = json.loads(package.read(f"{self.folder}/config.json"))
            self.onnx = package.read(f"{self.folder}/model.onnx")
        self.session = ort.InferenceSession(self.onnx)

    def run(self, *inputs: Tensor) -> Tensor:
        names = [one.name for one in self.session.get_inputs()]
        given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        (found,) = self.session.run(None, given)
        return torch.from_numpy(found)


def restored(model: gn.Model, x: Tensor) -> Tensor:
    """What the model makes of an image of any size: padded by numpy's reflection, then cropped."""
    h, w = x.shape[2:]
    below, right = (-length % model.divisor() for length in (h, w))
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, below), (0, right)), mode="reflect")
    return torch.as_tensor(model.predict(torch.from_numpy(padded)))[..., :h, :w]


def test_dtmodel_has_what_darktable_reads(tmp_path: Path) -> None:
    written = write_dtmodel(u_net(), tmp_path / "m.dtmodel", name="My U-Net (fine)")
    found = DTModel(tmp_path / "m.dtmodel")
    assert found.folder == found.config["id"] == "denoise-my-u-net-fine"
    assert {key: found.config[key] for key in ("name", "task", "backend", "num_inputs")} == {
        "name": "My U-Net (fine)", "task": "denoise", "backend": "onnx", "num_inputs": 1,
    }  # fmt: skip
    assert all(isinstance(found.config[key], str) for key in ("description", "version"))
    assert found.config["attributes"]["input_sizes"][0] == 2048
    (image,), (result,) = found.session.get_inputs(), found.session.get_outputs()
    assert (image.name, image.shape, image.type) == (
        "input", [1, 3, *found.config["spatial_dims"]], "tensor(float)",
    )  # fmt: skip
    assert (result.name, result.shape) == ("output", [1, 3, *found.config["spatial_dims"]])
    assert written.size_bytes == (tmp_path / "m.dtmodel").stat().st_size


def test_dtmodel_has_opset_17(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    write_dtmodel(u_net(), tmp_path / "m.dtmodel")
    proto = onnx.load_from_string(DTModel(tmp_path / "m.dtmodel").onnx)
    assert [one.version for one in proto.opset_import] == [17]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [1, 4])
def test_dtmodel_computes_the_models_image_at_any_size(
    tmp_path: Path, size: tuple[int, int], factor: int
) -> None:
    model = u_net(factor=factor)
    write_dtmodel(model, tmp_path / "m.dtmodel")
    x = images(1, 3, *size)
    found = DTModel(tmp_path / "m.dtmodel").run(x)
    assert found.shape == x.shape
    torch.testing.assert_close(found, restored(model, x), rtol=1e-5, atol=1e-5)


def test_dtmodel_of_the_included_model_is_equal(tmp_path: Path) -> None:
    """As darktable runs it: the names of the free sizes are set to the side of a tile."""
    model = gn.load(MODELS["gaussian"])
    written = write_dtmodel(model, tmp_path / "m.dtmodel")
    assert "a pixel depends on pixels up to 96 away" in written.note
    found = DTModel(tmp_path / "m.dtmodel")
    for size in ((64, 96), (61, 93)):
        x = images(1, 3, *size)
        torch.testing.assert_close(found.run(x), restored(model, x), rtol=1e-5, atol=1e-5)
    options = ort.SessionOptions()
    for name in found.config["spatial_dims"]:
        options.add_free_dimension_override_by_name(name, 64)
    tile = images(1, 3, 64, 64)
    (at_once,) = ort.InferenceSession(found.onnx, options).run(None, {"input": tile.numpy()})
    torch.testing.assert_close(torch.from_numpy(at_once), model.predict(tile), rtol=1e-5, atol=1e-5)


def test_a_grey_model_denoises_each_channel_in_darktable(tmp_path: Path) -> None:
    model = u_net(1)
    write_dtmodel(model, tmp_path / "m.dtmodel")
    x = images(1, 3, 12, 16)
    expected = model.predict(x.reshape(3, 1, 12, 16)).reshape(1, 3, 12, 16)
    torch.testing.assert_close(
        DTModel(tmp_path / "m.dtmodel").run(x), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_noise_level_is_darktables_second_input_or_fixed(tmp_path: Path, channels: int) -> None:
    model = u_net(channels, told=True)
    x, level = images(1, 3, 16, 12), torch.full((1, 1, 16, 12), 25 / 255)
    parts = [x[:, c : c + channels] for c in range(0, 3, channels)]
    expected = torch.cat([model.predict(torch.cat((part, level), dim=1)) for part in parts], dim=1)
    write_dtmodel(model, tmp_path / "two.dtmodel")
    two = DTModel(tmp_path / "two.dtmodel")
    assert [one.name for one in two.session.get_inputs()] == ["input", "sigma"]
    assert (two.config["num_inputs"], two.session.get_inputs()[1].shape[1]) == (2, 1)
    torch.testing.assert_close(two.run(x, level), expected, rtol=1e-5, atol=1e-5)
    write_dtmodel(model, tmp_path / "one.dtmodel", noise_level=25)
    torch.testing.assert_close(
        DTModel(tmp_path / "one.dtmodel").run(x), expected, rtol=1e-5, atol=1e-5
    )


def test_the_same_model_gives_the_same_file(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.dtmodel" for name in "ab"]
    for file in files:
        write_dtmodel(u_net(), file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_exported_network_is_read_back_by_graphnet(tmp_path: Path) -> None:
    model = u_net()
    write_dtmodel(model, tmp_path / "m.dtmodel")
    (tmp_path / "m.onnx").write_bytes(DTModel(tmp_path / "m.dtmodel").onnx)
    x = images(1, 3, 13, 18)
    torch.testing.assert_close(
        gn.load(tmp_path / "m.onnx").predict(x), for_images(Network.of(model), 3).predict(x)
    )


def test_tiles_are_multiples_of_the_divisor(tmp_path: Path) -> None:
    write_dtmodel(u_net(factor=12), tmp_path / "m.dtmodel")
    sizes = DTModel(tmp_path / "m.dtmodel").config["attributes"]["input_sizes"]
    assert sizes == [2040, 1536, 1020, 768, 504, 384, 252]


def test_what_cannot_be_exported_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "m.dtmodel"
    to_many = {
        "layers": [{"conv2d": {"out_channels": 7, "kernel_size": 1}}],
        "input": {"channels": 3},
    }
    unstated = {"layers": [{"conv2d": {"out_channels": 3, "kernel_size": 1}}]}
    cases: list[tuple[gn.Model, dict[str, Any], type[Exception], str]] = [
        (u_net(2), {}, DataError, "takes images of 2 channels, and this file is for images of 3"),
        (u_net(), {"noise_level": 25.0}, DataError, "no input for a noise level"),
        (gn.Model(to_many), {}, CheckpointError, "no weights"),
        (with_random_weights(gn.Model(to_many), (1, 3, 8, 8)), {}, DataError, "is no denoiser"),
        (with_random_weights(gn.Model(unstated), (1, 3, 8, 8)), {}, DataError, "states"),
    ]
    for model, options, error, message in cases:
        with pytest.raises(error, match=message):
            write_dtmodel(model, path, **options)
    with pytest.raises(InputError, match="ends with .dtmodel"):
        write_dtmodel(u_net(), tmp_path / "m.zip")
    assert not path.exists()


def test_names_for_files() -> None:
    assert [slug(text) for text in ("Blind, 2 px", "ÄÖ", "a--b")] == ["blind-2-px", "model", "a-b"]


@pytest.fixture
def library() -> Iterator[Any]:
    """bioimageio.spec, which leaves files open; Python warns of it when it collects garbage."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield pytest.importorskip("bioimageio.spec")
        gc.collect()


def test_bioimageio_package_is_valid_and_its_test_tensors_are_graphnets(
    tmp_path: Path, library: Any
) -> None:
    model = u_net(1)
    write_bioimageio(
        model, tmp_path / "p.zip", name="Small U-Net", authors=["A. Author"], license="CC-BY-4.0"
    )
    found = library.load_model_description(tmp_path / "p.zip", perform_io_checks=True)
    assert (found.name, found.authors[0].name, found.license) == (
        "Small U-Net",
        "A. Author",
        "CC-BY-4.0",
    )
    with zipfile.ZipFile(tmp_path / "p.zip") as package:
        package.extractall(tmp_path / "p")
    x, y = (np.load(tmp_path / "p" / f"test_{end}.npy") for end in ("input", "output"))
    torch.testing.assert_close(torch.from_numpy(y), model.predict(torch.from_numpy(x)))
    session = ort.InferenceSession(tmp_path / "p" / "model.onnx")
    for size in ((24, 20), (23, 17)):
        image = images(2, 1, *size)
        (result,) = session.run(None, {"input": image.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(result), restored(model, image), rtol=1e-5, atol=1e-5
        )
    axes = {axis.id: axis for axis in found.inputs[0].axes}
    assert (axes["y"].size.min, axes["y"].size.step) == (24, 4)
    assert [axis.halo for axis in found.outputs[0].axes[2:]] == [4, 4]


@pytest.mark.slow
def test_bioimageio_core_runs_a_package_and_finds_the_expected_output(
    tmp_path: Path, library: Any
) -> None:
    core: Any = pytest.importorskip("bioimageio.core")
    u_net().save(tmp_path / "m.safetensors")
    command = ["export-bioimageio", str(tmp_path / "m.safetensors"), "-o", str(tmp_path / "folder")]
    assert graphnet_command(command) == 0
    found = library.load_model_description(tmp_path / "folder" / "rdf.yaml")
    assert core.test_model(found).status == "passed"


def test_bioimageio_states_a_noise_level_or_refuses(tmp_path: Path, library: Any) -> None:
    with pytest.raises(DataError, match="--noise-level 25"):
        write_bioimageio(u_net(told=True), tmp_path / "p.zip")
    write_bioimageio(u_net(told=True), tmp_path / "p", noise_level=10)
    assert (tmp_path / "p" / "rdf.yaml").exists()
    with pytest.raises(InputError, match="is empty or does not exist"):
        write_bioimageio(u_net(), tmp_path / "p")


def on_numbers() -> gn.Model:
    """A model that takes the numbers of files, of the mean 1000 and the deviation 200."""
    network = {
        "name": "one",
        "layers": [{"conv2d": {"out_channels": 1, "kernel_size": 3, "padding": 1}}],
    }
    description = with_normalization(network, channels=1, mean=1000.0, deviation=200.0)
    return with_random_weights(gn.Model(description), (1, 1, 16, 16))


def test_a_model_that_takes_the_numbers_of_files_says_so_or_is_refused(
    tmp_path: Path, library: Any
) -> None:
    write_bioimageio(on_numbers(), tmp_path / "p")
    found = library.load_model_description(tmp_path / "p" / "rdf.yaml", perform_io_checks=True)
    assert found.inputs[0].data.range == (None, None)
    assert "numbers of its file" in found.inputs[0].description
    assert "mean 1000, deviation 200" in (tmp_path / "p" / "README.md").read_text()
    assert np.load(tmp_path / "p" / "test_input.npy").mean() == pytest.approx(1100, abs=50)
    with pytest.raises(DataError, match="darktable gives photographs in 0..1"):
        write_dtmodel(on_numbers(), tmp_path / "m.dtmodel")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, extra, write, name in [
        ("graphnet_onnx", "[onnx]", write_dtmodel, "m.dtmodel"),
        ("bioimageio.spec", "[bioimageio]", write_bioimageio, "p.zip"),
    ]:
        with monkeypatch.context() as context:
            context.setitem(sys.modules, module, None)
            with pytest.raises(InputError, match=r"not installed. Run: pip install .*") as caught:
                write(u_net(), tmp_path / name)
            assert extra in str(caught.value)


def test_commands_write_the_included_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert graphnet_command(["export-darktable", "-o", str(tmp_path / "g.dtmodel")]) == 0
    assert "input input: 1 x 3 x height x width" in capsys.readouterr().out
    assert graphnet_command(["export-darktable", "-o", str(tmp_path / "g.zip")]) == 2

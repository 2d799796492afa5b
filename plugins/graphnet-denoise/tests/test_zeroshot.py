"""Zero-Shot Noise2Noise: its loss and gradients are the paper's, and one image is enough."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from graphnet_denoise import metrics, plugin
from graphnet_denoise.commands import denoise as denoise_module
from graphnet_denoise.images import as_unit, read_pixels
from graphnet_denoise.jobs import ByImage
from graphnet_denoise.restoring import Settings
from graphnet_denoise.zeroshot import train_on_image, zero_shot_description
from PIL import Image
from torch import Tensor

import graphnet
from graphnet.description import parse
from graphnet.errors import DataError, DescriptionError, GraphnetError
from graphnet.model import Model
from graphnet.plan import CompileOptions
from graphnet.sdk import load_registry

REGISTRY = load_registry(plugins=[plugin], entry_points=False)

ON_CPU = CompileOptions(device="cpu")


def network(channels: int = 3, **fields: Any) -> Model:
    def conv(out_channels: int, size: int) -> dict[str, Any]:
        padding = size // 2
        return {"conv2d": {"out_channels": out_channels, "kernel_size": size, "padding": padding}}

    layers = [conv(8, 3), "relu", {"id": "noise", **conv(channels, 1)}]
    layers.append({"add": {}, "inputs": ["$input", "noise"]})
    data = {"name": "small", "input": {"channels": channels}, "layers": layers, **fields}
    return Model(data, registry=REGISTRY)


def paper(f: Any, y: Tensor) -> Tensor:
    """The paper's loss, symmetric, for f the denoiser (theirs predicts the noise: y less it)."""
    c = y.shape[1]
    kernels = torch.tensor([[[0, 0.5], [0.5, 0]], [[0.5, 0], [0, 0.5]]], dtype=y.dtype)

    def halves(x: Tensor) -> list[Tensor]:
        weights = (kernel.expand(c, 1, 2, 2) for kernel in kernels)
        return [torch.nn.functional.conv2d(x, w, stride=2, groups=c) for w in weights]

    first, second = halves(y)
    mse = torch.nn.functional.mse_loss
    residual = 0.5 * (mse(f(first), second) + mse(f(second), first))
    clean = halves(f(y))
    return residual + 0.5 * (mse(f(first), clean[0]) + mse(f(second), clean[1]))


@pytest.mark.parametrize("fields", [{}, {"blocks": {"network": {"layers": ["relu"]}}}])
def test_a_step_follows_the_papers_gradient(fields: dict[str, Any]) -> None:
    model = network(**fields)
    described = zero_shot_description(model.description)
    assert parse(described.to_data()) == described
    y = torch.rand(2, 3, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    program = Model(described, registry=REGISTRY).compile(
        y.shape, loss="mse", optimizer={"sgd": {"lr": 1.0}}, device="cpu", dtype=torch.float64
    )
    names = [f"network.{n}.{slot}" for n in ("conv2d_1", "noise") for slot in ("weight", "bias")]
    assert list(program.weights) == names
    leaves = [program.weights[name].clone().requires_grad_() for name in names]

    def f(x: Tensor) -> Tensor:
        hidden = torch.nn.functional.conv2d(x, leaves[0], leaves[1], padding=1).relu()
        return x + torch.nn.functional.conv2d(hidden, leaves[2], leaves[3])

    expected = paper(f, y)
    gradients = torch.autograd.grad(expected, leaves)
    loss = program.step(y, torch.zeros(2, 12, 4, 6, dtype=torch.float64))
    torch.testing.assert_close(2 * loss, expected.detach())
    for name, leaf, gradient in zip(names, leaves, gradients, strict=True):
        torch.testing.assert_close(program.weights[name], leaf.detach() - gradient / 2)


def smooth(height: int, width: int, channels: int = 3) -> Tensor:
    rows, columns = torch.linspace(0, 3, height)[:, None], torch.linspace(0, 4, width)
    return (0.5 + 0.3 * torch.sin(rows) * torch.cos(columns)).expand(1, channels, -1, -1)


def test_one_noisy_image_is_enough() -> None:
    clean = smooth(33, 30)  # padded to 34 x 30
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    steps: list[None] = []
    trained = train_on_image(
        network(), noisy, steps=1000, options=ON_CPU, advance=lambda: steps.append(None)
    )
    restored = trained.predict(noisy)
    assert len(steps) == 1000
    assert metrics.psnr(restored, clean) > metrics.psnr(noisy, clean) + 2
    again = train_on_image(network(), noisy, steps=3, options=ON_CPU).predict(noisy)
    assert torch.equal(
        again, train_on_image(network(), noisy, steps=3, options=ON_CPU).predict(noisy)
    )


@pytest.mark.parametrize(("channels", "takes"), [(1, 3), (3, 1), (1, 1)])
def test_images_keep_their_channels(channels: int, takes: int) -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (channels, 9, 7)).astype(np.uint16)
    pixels = levels if channels == 1 else (levels >> 8).astype(np.uint8)
    method = ByImage(network(takes), 1, Settings(ON_CPU))
    part = torch.from_numpy(as_unit(pixels))[None]
    values = method.restore(part, method.look(part), (0, 0), lambda _share: None)
    assert values.shape == part.shape
    assert values.dtype == part.dtype


@pytest.fixture
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Model.load
    monkeypatch.setattr(graphnet, "load", lambda path: load(path, registry=REGISTRY), raising=False)


@pytest.mark.usefixtures("_registry")
def test_the_command_trains_a_network_on_each_image(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(network().description.to_yaml())
    (tmp_path / "in").mkdir()
    for name, size in (("a.png", (9, 12)), ("b.png", (8, 8))):
        pixels = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "in" / name)
    arguments = [tmp_path / "small.yaml", tmp_path / "in", "-o", tmp_path / "out", "--zero-shot"]
    result = run(*arguments, "--steps", 2, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert read_pixels(tmp_path / "out/a.png").shape == (3, 9, 12)
    assert read_pixels(tmp_path / "out/b.png").shape == (3, 8, 8)
    with pytest.raises(DataError, match="--zero-shot trains a network from its description"):
        run(*arguments, "--noise-level", 25)
    with pytest.raises(DataError, match="--steps says how long --zero-shot trains"):
        run(tmp_path / "in", "--steps", 2)


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(denoise_module.denoise, [str(argument) for argument in arguments])
    if isinstance(result.exception, GraphnetError):
        raise result.exception
    return result


@pytest.mark.parametrize(
    "fields",
    [
        {"outputs": ["conv2d_1", "noise"]},
        {
            "input": None,
            "inputs": {"a": {}, "b": {}},
            "layers": [{"add": {}, "inputs": ["$a", "$b"]}],
        },
    ],
)
def test_networks_of_several_inputs_or_outputs_are_refused(fields: dict[str, Any]) -> None:
    data = {**network().description.to_data(), **fields}
    description = parse({key: value for key, value in data.items() if value is not None})
    with pytest.raises(DescriptionError, match="small: zero-shot denoising needs a network of one"):
        zero_shot_description(description)

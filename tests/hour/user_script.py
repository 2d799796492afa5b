"""A user's script over all public names of graphnet: it runs, and `mypy --strict` accepts it as it is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import graphnet as gn
from graphnet.graph import Graph
from graphnet.model import Output
from graphnet.plan import Plan
from graphnet.sdk import Record, Register, Running, Site, Spec, Specs, Steps
from graphnet.training import Epoch, Trainer, read_job


class Scale(gn.Layer):
    """gain * x, one gain for each channel. x: (N, C, H, W); gain: (C,)."""

    start: float = 1.0

    def parameters(self, specs: Specs) -> Mapping[str, gn.ParameterSpec]:
        return {"gain": gn.ParameterSpec((specs["x"].shape[1],), gn.Uniform(self.start))}

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return x * gain.view(-1, 1, 1)

    def backward(
        self, grad_y: Tensor, x: Tensor, gain: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor, Tensor | None]:
        grad_gain = (grad_y * x).sum((0, 2, 3)) if "gain" in wanted else None
        return grad_y * gain.view(-1, 1, 1), grad_gain


class HalfSquare(gn.Loss):
    """mean((prediction - target)^2) / 2."""

    nondifferentiable = ("target",)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().mean() / 2

    def backward(
        self, grad_loss: Tensor, prediction: Tensor, target: Tensor
    ) -> tuple[Tensor, None]:
        return grad_loss * (prediction - target) / prediction.numel(), None


class QuickSigmoid(gn.Kernel):
    """sigmoid by torch's own operator."""

    replaces = "sigmoid(x)"
    priority = 9

    @classmethod
    def match(cls, site: Site) -> Self | None:
        return cls() if site.device.type == "cpu" else None

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y * y * (1 - y)


class Inertia(gn.Optimizer):
    """m = 0.9 m + g; p -= lr m."""

    def states(self, parameter: Spec) -> Mapping[str, gn.StateSpec]:
        return {"moment": gn.StateSpec(parameter.shape, gn.Constant(0.0))}

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, moment: Tensor) -> None:
        moment.mul_(0.9).add_(grad)
        parameter.sub_(lr * moment)


Many = tuple[Tensor, ...]


class ManyInertias(gn.MultiTensorKernel):
    """Inertia of many parameters at once."""

    replaces = Inertia

    @classmethod
    def match(cls, rule: gn.Optimizer, specs: Sequence[Spec]) -> Self | None:
        return cls(rule=rule)

    def run(self, parameters: Many, grads: Many, lr: Tensor, moments: Many) -> None:
        torch._foreach_mul_(moments, 0.9)
        torch._foreach_add_(moments, grads)
        torch._foreach_sub_(parameters, torch._foreach_mul(moments, lr))


class Falling(gn.Schedule):
    """A straight line down to zero."""

    def factor(self, step: int, total: int) -> float:
        return 1 - step / total


class Worst(gn.Metric):
    """The largest error."""

    higher_is_better = False

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).abs().amax(dim=(1, 2, 3))

    def combine(self, rows: Tensor) -> float:
        return float(rows.max())


class Pictures(gn.DataSet):
    """Random images, each its own target."""

    count: int = 8

    @classmethod
    def claims(cls, path: Path) -> bool:
        return path.suffix == ".none"

    def load(self) -> gn.Pairs:
        images = torch.rand(self.count, 3, 8, 8)
        return gn.Pairs(images, images)


class Endless(gn.Stream):
    """New images for each epoch."""

    input_shape = (3, 8, 8)
    target_shapes: Mapping[str, tuple[int, ...]] = {"target": (3, 8, 8)}

    def __len__(self) -> int:
        return 8

    def batch(self, seed: int, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        draws = [torch.Generator().manual_seed(99 * epoch + i) for i in indices]
        images = torch.stack([torch.rand(3, 8, 8, generator=draw) for draw in draws])
        return images, images


class Album(gn.Gallery):
    """Two images of two sizes."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.full((3, 8 + 8 * index, 8), 0.5)
        return image, image


class Shown(gn.DataSet):
    """The album, or the images made anew."""

    endless: bool = False

    def load(self) -> gn.Stream | gn.Gallery:
        return Endless() if self.endless else Album()


class Kept(gn.Reporter):
    """Keeps the records."""

    def start(self, running: Running) -> gn.Report:
        return KeptReport(running.epochs)


class KeptReport(gn.Report):
    def __init__(self, epochs: int) -> None:
        self.epochs, self.losses = epochs, list[float]()

    def record(self, record: Record) -> str | None:
        if isinstance(record, Steps):
            self.losses.append(record.loss)
        return "enough" if isinstance(record, Epoch) and record.epoch == self.epochs else None


class Timed(gn.Executor):
    """Eager, with a clock."""

    def prepare(self, plan: Plan) -> gn.Run:
        return TimedRun(gn.executors.Eager().prepare(plan))


class TimedRun(gn.Run):
    def __init__(self, inner: gn.Run) -> None:
        self.inner, self.elapsed_s = inner, 0.0

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        started = time.perf_counter()
        outputs = self.inner(*arguments)
        self.elapsed_s += time.perf_counter() - started
        return outputs

    def record(self) -> dict[str, Any]:
        return {"elapsed_s": self.elapsed_s}


def unchanged(graph: Graph) -> Graph:
    """Nothing changes."""
    return graph


def read_words(path: Path) -> gn.ModelFile:
    return gn.ModelFile({"name": path.stem, "layers": path.read_text().split()})


class Plugin:
    """A plugin may be an object: its methods are the hooks."""

    @gn.hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("user/scale", Scale, version=1)

    @gn.hookimpl
    def graphnet_losses(self, register: Register) -> None:
        register("user/half_square", HalfSquare)

    @gn.hookimpl
    def graphnet_kernels(self, register: Register) -> None:
        register("user/sigmoid", QuickSigmoid)
        register("user/inertias", ManyInertias)

    @gn.hookimpl
    def graphnet_optimizers(self, register: Register) -> None:
        register("user/inertia", Inertia)

    @gn.hookimpl
    def graphnet_schedules(self, register: Register) -> None:
        register("falling", Falling)

    @gn.hookimpl
    def graphnet_metrics(self, register: Register) -> None:
        register("worst", Worst)

    @gn.hookimpl
    def graphnet_datasets(self, register: Register) -> None:
        register("pictures", Pictures)
        register("shown", Shown)

    @gn.hookimpl
    def graphnet_reporters(self, register: Register) -> None:
        register("user/kept", Kept)

    @gn.hookimpl
    def graphnet_executors(self, register: Register) -> None:
        register("user/timed", Timed)

    @gn.hookimpl
    def graphnet_passes(self, register: Register) -> None:
        register("user/unchanged", gn.Pass(unchanged, after="dead_code"))

    @gn.hookimpl
    def graphnet_readers(self, register: Register) -> None:
        register(".words", read_words)

    @gn.hookimpl
    def graphnet_writers(self, register: Register) -> None:
        register(".words", Words)

    @gn.hookimpl
    def graphnet_commands(self, register: Register) -> None:
        register("user-scale", gn.Command("Print the scale.", "user.commands:scale"))


class Words(gn.Writer):
    """The names of the layers of a chain."""

    separator: str = " "

    def write(self, model: gn.Model, path: Path, shapes: Sequence[tuple[int, ...]]) -> gn.Written:
        text = self.separator.join(node.layer for node in model.description.layers)
        path.write_text(text)
        return gn.Written(path, {}, {}, len(text))


def network(registry: gn.Registry) -> gn.Model:
    """A network with a skip and the layer user/scale."""
    net = gn.Builder(channels=3)
    x: Output = net("conv2d", net.input, out_channels=8, kernel_size=3, padding=1)
    y = net("user/scale", net("relu", x), start=0.5)
    net.outputs(net("sigmoid", net("conv2d", net("concat", x, y), out_channels=3, kernel_size=1)))
    return net.model(registry=registry)


def optimizers() -> Iterator[gn.Optimizer]:
    yield gn.SGD(lr=0.1, momentum=0.9)
    yield gn.Adam(lr=0.001)
    yield gn.AdamW(lr=0.001, betas=(0.9, 0.99))
    yield gn.Muon(lr=0.01, adamw_lr=0.001)
    yield Inertia(lr=0.1)


def train(registry: gn.Registry, folder: Path) -> list[float]:
    """Steps with each optimizer by hand, then a training file."""
    model = network(registry)
    assert "scale_1" in str(model.summary((4, 3, 8, 8)))
    gradients = gn.inspection.Gradients.of(model, (1, 3, 8, 8), loss=HalfSquare())
    assert "conv2d_1.weight" in [one.name for one in gradients.parameters]
    noisy, other = torch.rand(2, 4, 3, 8, 8)
    options = gn.CompileOptions(device="cpu", without=("common_subexpressions",))
    for optimizer in optimizers():
        program: gn.Program = model.compile(
            (4, 3, 8, 8),
            loss=HalfSquare(),
            optimizer=optimizer,
            options=options,
            executor=Timed(),
            processes=gn.join_processes(),
        )
        loss: Tensor = program.step(noisy, other)
        assert loss.ndim == 0
    pairs = TensorDataset(noisy, other)
    loader: DataLoader[tuple[Tensor, ...]] = DataLoader(pairs, batch_size=3, shuffle=True)
    epochs: list[Epoch] = gn.train(
        program, loader, epochs=2, validation=pairs, metrics=[Worst()], schedule=Falling()
    )
    measured: Tensor = program.loss(noisy, other)
    assert abs(float(measured) - epochs[-1].metrics["validation_loss"]) < 1e-5
    gn.train(program, [(noisy, other)], steps_per_epoch=2, reporters=["user/kept"])
    assert "user/scale" in gn.explain(program.plan)
    assert str(program.plan)
    image: Tensor = program.predict(noisy)
    program.save(folder / "model.safetensors")
    loaded: gn.Model = gn.load(folder / "model.safetensors", registry=registry)
    torch.testing.assert_close(loaded.predict(noisy), image)
    array = np.zeros((1, 3, 8, 8), np.float32)
    assert loaded.predict(array).shape == program.predict(array).shape == array.shape

    small = gn.Model({"layers": ["relu", "user/scale"]}, registry=registry)
    written: gn.Written = gn.export(small, folder / "net.words", (4, 3, 8, 8), separator=" ")
    assert written.size_bytes == len("relu user/scale")
    (folder / "train.yaml").write_text(
        "{model: net.words, data: {train: {shown: {endless: true}}, validation: {shown: {}}}, "
        "loss: user/half_square, optimizer: {user/inertia: {lr: 0.1}}, schedule: falling, epochs: 2, "
        "batch_size: 4, metrics: [worst], reporters: [user/kept], executor: user/timed, device: cpu}"
    )
    trainer = Trainer(read_job(folder / "train.yaml", registry=registry))
    return [record.loss for record in trainer.run() if isinstance(record, Epoch)]


def beside_torch(registry: gn.Registry) -> None:
    """Models and layers as torch modules, and back; graphnet.nn."""
    torch_net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    x = torch.rand(1, 3, 8, 8)
    traced: gn.Model = gn.from_torch(torch_net, x)
    torch.testing.assert_close(traced.predict(x), torch_net(x).detach())
    module: torch.nn.Module = gn.as_torch_module(network(registry), x)
    module(x).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    layer: gn.Layer = gn.from_torch_module(torch_net, x, name="user/block")
    assert layer.outputs == ("y",)
    net = gn.nn.Sequential(gn.nn.Conv2d(3, 4, 3, padding=1), gn.nn.ReLU())
    model = gn.from_nn(net)
    back: gn.nn.Module = gn.to_nn(model, (1, 3, 8, 8))
    torch.testing.assert_close(back(x), model.predict(x))
    with TemporaryDirectory() as folder:
        alone: gn.Written = gn.export_standalone(model, Path(folder, "alone"), (1, 3, 8, 8))
    assert list(alone.outputs) == ["output"]
    text: str = gn.source(model.plan((1, 3, 8, 8)))
    assert "import torch" in text


def main() -> list[float]:
    """Use everything, and return the mean losses of a training's epochs."""
    registry = gn.sdk.load_registry(plugins=[Plugin()])
    try:
        gn.Native(Path("absent.cpp"))
    except gn.GraphnetError as error:
        print(error)
    report = gn.testing.run_checks(Scale(), registry=registry)
    assert report.ok, report
    beside_torch(registry)
    with TemporaryDirectory() as folder:
        return train(registry, Path(folder))


if __name__ == "__main__":
    print("losses", main())

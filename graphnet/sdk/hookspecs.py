"""The hooks that a plugin may implement. Each is called once, when plugins are loaded, and never in a step.

A plugin is a module or object with functions of these names, marked with `graphnet.hookimpl`, found
through the entry-point group "graphnet.plugins". Names are "namespace/name"; built-ins are bare.
"""

from __future__ import annotations

from typing import Any, Protocol

import pluggy

PROJECT = "graphnet"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """The argument of every hook; call it once for each thing that the plugin adds.

    >>> from graphnet.sdk import Layer, hookimpl, load_registry
    >>> class Double(Layer):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> class Acme:
    ...     @hookimpl
    ...     def graphnet_layers(self, register):
    ...         register("acme/double", Double)
    >>> "acme/double" in load_registry(plugins=[Acme()], entry_points=False).layers
    True
    """

    def __call__(self, name: str, value: Any, *, version: int = 1) -> None:
        """Register `value` under `name`; increase `version` when its meaning changes."""


@hookspec
def graphnet_kinds(register: Register) -> None:
    """Declare kinds of things, each with a hook: `register("acme_filters", OwnKind("filter", Filter))`."""


@hookspec
def graphnet_layers(register: Register) -> None:
    """Add layers, subclasses of graphnet.Layer: `register("acme/swish", Swish, version=1)`."""


@hookspec
def graphnet_losses(register: Register) -> None:
    """Add losses, subclasses of graphnet.Loss: `register("acme/charbonnier", Charbonnier)`."""


@hookspec
def graphnet_kernels(register: Register) -> None:
    """Add kernels, other ways to compute an expression of layers: `register("acme/fused", Fused)`.

    The hook also takes subclasses of graphnet.MultiTensorKernel, which update many parameters at once.
    """


@hookspec
def graphnet_optimizers(register: Register) -> None:
    """Add optimizers, subclasses of graphnet.Optimizer: `register("acme/lion", Lion)`."""


@hookspec
def graphnet_schedules(register: Register) -> None:
    """Add learning-rate schedules, subclasses of graphnet.Schedule: `register("acme/step", Step)`."""


@hookspec
def graphnet_executors(register: Register) -> None:
    """Add executors, subclasses of graphnet.Executor: `register("acme/cudagraph", CudaGraph)`."""


@hookspec
def graphnet_datasets(register: Register) -> None:
    """Add data sets, subclasses of graphnet.DataSet: `register("acme/slides", Slides)`."""


@hookspec
def graphnet_reporters(register: Register) -> None:
    """Add reporters of a training, subclasses of graphnet.Reporter: `register("acme/mail", Mail)`."""


@hookspec
def graphnet_readers(register: Register) -> None:
    """Add readers of model files, functions of a path: `register(".onnx", read_onnx)`."""


@hookspec
def graphnet_writers(register: Register) -> None:
    """Add writers of model files, subclasses of graphnet.Writer: `register(".onnx", OnnxFile)`."""


@hookspec
def graphnet_operators(register: Register) -> None:
    """Add the layers for operators of torch, for from_torch: `register("aten.erf.default", erf)`."""


@hookspec
def graphnet_passes(register: Register) -> None:
    """Add passes of the compilation: `register("acme/fold", Pass(fold, after="dead_code"))`."""


@hookspec
def graphnet_commands(register: Register) -> None:
    """Add commands: `register("resize", Command("Resize images.", "acme.commands:resize"))`."""


@hookspec
def graphnet_metrics(register: Register) -> None:
    """Add metrics, subclasses of graphnet.Metric: `register("acme/psnr_y", LuminancePSNR)`."""

"""Exported files run in onnxruntime with graphnet's results: every layer, every example."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from graphnet_onnx import CannotExport, Nodes, OnnxWriter, Port, export
from graphnet_onnx.exporter import to_onnx
from graphnet_onnx.parity import (
    TOLERANCE,
    Outcome,
    compare,
    compare_layer,
    run,
)

import graphnet as gn
from graphnet.cli import run as graphnet_command
from graphnet.errors import ContractError, GraphError, InputError, LayerError
from graphnet.sdk import default_registry, load_registry
from graphnet.testing import Case, model_of, varied_cases_for, with_random_weights
from tests.support.examples import example_models, example_shape

pytest.importorskip("onnxruntime")
UNWRITTEN = {"denoise/diagonal_means"}  # only zero-shot training uses it


@pytest.mark.parametrize("name", default_registry().layers)
def test_each_configuration_of_a_layer_is_equal_in_onnxruntime_or_refused(name: str) -> None:
    found = list(compare_layer(name, default_registry()))
    assert found
    assert [one for one in found if one.outcome is Outcome.WRONG] == []
    refused = {one.outcome for one in found} == {Outcome.REFUSED}
    assert refused == (name in UNWRITTEN)
    assert all(name in one.detail for one in found if one.outcome is Outcome.REFUSED)


@pytest.mark.parametrize("path", example_models(), ids=lambda path: path.stem)
def test_each_example_is_equal_in_onnxruntime_at_two_sizes(path: Path) -> None:
    shape = example_shape(path)
    model = with_random_weights(gn.load(path), shape)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    if path.stem == "characters":
        x = torch.randint(0, 97, shape, generator=generator)
    assert compare(model, [x]) <= TOLERANCE


OLDER = [
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "attention", "conv2d", "gelu", "layer_norm2d", "lstm",
    "max_pool2d", "mean", "reflection_pad2d", "simple_gate", "split", "transposed_attention",
]  # fmt: skip


@pytest.mark.parametrize("name", OLDER)
def test_layers_that_newer_operators_compute_are_equal_in_opset_17(name: str) -> None:
    found = list(compare_layer(name, default_registry(), opset=17))
    assert {one.outcome for one in found} <= {Outcome.EQUAL, Outcome.FIXED, Outcome.REFUSED}
    refused = [one.detail for one in found if one.outcome is Outcome.REFUSED]
    assert all("from opset 19 on; this file has 17" in detail for detail in refused)
    assert len(refused) < len(found)


def test_each_layer_is_valid_in_opset_17_or_wraps_around() -> None:
    """ONNX's own checker refuses an operator or attribute that opset 17 does not have."""
    refused = set()
    for name in default_registry().layers:
        cases, _ = varied_cases_for(default_registry().find("layers", name).value)
        model, inputs = model_of(
            name, next(case for case in cases if isinstance(case, Case) and case.raises is None)
        )
        fixed = [
            axis
            for one in model.description.inputs.values()
            for axis in one.axes
            if isinstance(axis, str)
        ]
        try:
            proto = to_onnx(model, *(tuple(x.shape) for x in inputs), fixed=fixed, opset=17)
        except CannotExport:
            refused.add(name)
        else:
            assert (proto.opset_import[0].version, proto.ir_version) == (17, 8)
    assert refused == {*UNWRITTEN, *(f"circular_pad{axes}d" for axes in (1, 2, 3))}


def test_an_opset_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for opset in (16, 21):
        with pytest.raises(InputError, match=f"expected 17 to 20, found {opset}"):
            export(gn.Model(SMALL), tmp_path / "m.onnx", (1, 2, 4, 4), opset=opset)


def test_a_file_of_an_older_opset_comes_back_as_it_was(tmp_path: Path) -> None:
    model = with_random_weights(gn.Model(SMALL), (1, 2, 4, 4))
    command = ["export", str(tmp_path / "m.safetensors"), "-o", str(tmp_path / "m.onnx")]
    model.save(tmp_path / "m.safetensors")
    assert graphnet_command([*command, "--input", "1x2x4x4", "--set", "opset=17"]) == 0
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == 17
    assert gn.load(tmp_path / "m.onnx").description == model.description


def test_there_are_examples() -> None:
    assert len(example_models()) >= 14


SMALL: dict[str, Any] = {
    "name": "small",
    "input": {"channels": 2},
    "layers": [{"conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}}, "relu"],
}


def test_a_convolution_and_relu_are_those_of_torch() -> None:
    model = with_random_weights(gn.Model(SMALL), (1, 2, 4, 4))
    assert model.weights is not None
    x = torch.randn(2, 2, 5, 7)
    (found,) = run(to_onnx(model, (1, 2, 4, 4)), {"input": x})
    weight, bias = model.weights["conv2d_1.weight"], model.weights["conv2d_1.bias"]
    expected = torch.nn.functional.conv2d(x, weight, bias, padding=1).relu()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_weights_are_initializers_under_their_names() -> None:
    model = with_random_weights(gn.Model(SMALL), (1, 2, 4, 4))
    proto = to_onnx(model, (1, 2, 4, 4))
    assert [one.name for one in proto.graph.initializer] == ["conv2d_1.weight", "conv2d_1.bias"]
    assert [node.op_type for node in proto.graph.node] == ["Conv", "Relu", "Identity"]
    assert proto.opset_import[0].version >= 17


def test_a_model_without_weights_gets_those_that_predict_draws(tmp_path: Path) -> None:
    model = gn.Model(SMALL, seed=3)
    x = torch.randn(1, 2, 4, 4)
    export(model, tmp_path / "small.onnx", (1, 2, 4, 4))
    (found,) = run(onnx.load(tmp_path / "small.onnx"), {"input": x})
    torch.testing.assert_close(found, model.predict(x), rtol=1e-5, atol=1e-6)


def test_open_sizes_are_free_under_their_names(tmp_path: Path) -> None:
    free = export(gn.Model(SMALL), tmp_path / "free.onnx", (1, 2, 4, 4))
    assert free.inputs == {"input": "batch x 2 x height x width"}
    assert free.outputs == {"output": "batch x 3 x height x width"}
    fixed = export(gn.Model(SMALL), tmp_path / "a.onnx", (1, 2, 4, 6), fixed=["height", "width"])
    assert fixed.inputs == {"input": "batch x 2 x 4 x 6"}
    all_fixed = export(gn.Model(SMALL), tmp_path / "b.onnx", (1, 2, 4, 6), fixed=["all"])
    assert all_fixed.inputs == {"input": "1 x 2 x 4 x 6"}


def test_sizes_that_the_weights_fix_are_not_free(tmp_path: Path) -> None:
    layers = [*SMALL["layers"], "flatten", {"linear": {"out_features": 4}}]
    model = gn.Model({**SMALL, "layers": layers})
    assert export(model, tmp_path / "m.onnx", (1, 2, 4, 4)).inputs == {"input": "batch x 2 x 4 x 4"}


POOLED = {**SMALL, "layers": [*SMALL["layers"], {"adaptive_avg_pool2d": {"output_size": 2}}]}


def test_a_layer_that_needs_a_free_size_says_which_one_to_fix() -> None:
    with pytest.raises(CannotExport, match=r"node 'adaptive_avg_pool2d_1' .*fixed=\['width'\]"):
        to_onnx(gn.Model(POOLED), (1, 2, 4, 4))
    model = with_random_weights(gn.Model(POOLED), (1, 2, 5, 7))
    assert compare(model, [torch.randn(1, 2, 5, 7)], fixed=["height", "width"]) <= TOLERANCE


HARD: list[tuple[dict[str, Any], tuple[int, ...]]] = [
    ({"avg_pool2d": {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}}, (1, 2, 4, 8)),
    (
        {"avg_pool1d": {"kernel_size": 3, "stride": 4, "ceil_mode": True, "count_include_pad": False}},
        (2, 2, 4),
    ),
    ({"max_pool1d": {"kernel_size": 1, "stride": 3, "dilation": 2, "ceil_mode": True}}, (2, 2, 2)),
    (
        {"max_pool2d": {"kernel_size": [1, 4], "stride": [4, 3], "padding": [0, 2], "dilation": 2,
                        "ceil_mode": True}},
        (1, 2, 7, 7),
    ),
    ({"bilinear_upsampling": {"scale_factor": [1.7, 2.5], "align_corners": True}}, (1, 2, 5, 7)),
    ({"linear_upsampling": {"scale_factor": 1.25}}, (1, 2, 3)),  # 3 pixels stay 3: not interpolated
    ({"adaptive_max_pool3d": {"output_size": [3, None, 1]}}, (1, 2, 5, 4, 3)),
    ({"conv2d": {"out_channels": 2, "kernel_size": [2, 4], "padding": "same"}}, (1, 2, 5, 6)),
    ({"transpose_conv1d": {"out_channels": 2, "kernel_size": 2, "stride": 3, "padding": 2,
                           "output_padding": 2}}, (1, 2, 5)),
    ({"attention": {"num_heads": 1, "causal": True}}, (1, 5, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "shape"), HARD, ids=[next(iter(one)) for one, _ in HARD])
def test_odd_sizes_and_rare_fields_are_equal_with_fixed_sizes(
    layer: dict[str, Any], shape: tuple[int, ...]
) -> None:
    inputs = ["$input"] * (3 if "attention" in layer else 1)
    model = with_random_weights(gn.Model({"layers": [{**layer, "inputs": inputs}]}), shape)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert compare(model, [x], fixed=["all"]) <= TOLERANCE


def test_a_scale_that_would_differ_at_some_free_sizes_is_refused() -> None:
    layers = [{"linear_upsampling": {"scale_factor": 1.25}}]
    with pytest.raises(CannotExport, match=r"scale_factor 1\.25 on axis 2, whose size is free"):
        to_onnx(gn.Model({"input": {"shape": [2, "time"]}, "layers": layers}), (1, 2, 8))


class Twice(gn.Layer):
    """2 x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    def backward(self, grad_y: torch.Tensor) -> torch.Tensor:
        return 2 * grad_y


class WriteTwice(OnnxWriter):
    """The sum of x and x."""

    def write(self, layer: Twice, to: Nodes, x: Port) -> str:
        return to.add("Add", x, x)


def twice(writer: type[OnnxWriter] | None) -> gn.Model:
    @gn.hookimpl
    def graphnet_layers(register: Any) -> None:
        register("acme/twice", Twice)

    hooks = {"graphnet_layers": graphnet_layers}
    if writer is not None:

        @gn.hookimpl
        def graphnet_onnx_writers(register: Any) -> None:
            register("acme/twice", writer)

        hooks["graphnet_onnx_writers"] = graphnet_onnx_writers
    registry = load_registry(plugins=[SimpleNamespace(**hooks)])
    return gn.Model({"layers": ["acme/twice", "acme/twice"]}, registry=registry)


def test_another_plugin_adds_a_writer() -> None:
    x = torch.randn(2, 3)
    (found,) = run(to_onnx(twice(WriteTwice), (2, 3)), {"input": x})
    torch.testing.assert_close(found, 4 * x)


def test_layers_without_a_writer_are_all_refused_by_name_and_place() -> None:
    with pytest.raises(CannotExport) as caught:
        to_onnx(twice(None), (2, 3))
    first, second = str(caught.value).splitlines()
    assert first.startswith("node 'twice_1' (acme/twice): no writer for ONNX is registered")
    assert second.startswith("node 'twice_2' (acme/twice)")
    assert "graphnet_onnx_writers" in first


class AsksTooMuch(OnnxWriter):
    """Asks for a weight that the layer does not have."""

    def write(self, layer: Twice, to: Nodes, x: Port, weight: Port) -> str:
        return to.add("Mul", x, weight)


class Fails(OnnxWriter):
    """Divides by zero."""

    def write(self, layer: Twice, to: Nodes, x: Port) -> str:
        return to.add("Mul", x, to.number(1 / 0))


class NoOperator(OnnxWriter):
    """Names an operator that ONNX does not have."""

    def write(self, layer: Twice, to: Nodes, x: Port) -> str:
        return to.add("Double", x)


def test_a_writer_with_a_mistake_is_named() -> None:
    with pytest.raises(ContractError, match=r"writer of 'acme/twice' asks for 'weight'; .* has x"):
        to_onnx(twice(AsksTooMuch), (2, 3))
    with pytest.raises(LayerError, match=r"node 'twice_1' .*writer failed: ZeroDivisionError"):
        to_onnx(twice(Fails), (2, 3))
    with pytest.raises(LayerError, match=r"not valid ONNX: .*Double"):
        to_onnx(twice(NoOperator), (2, 3))


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    model = gn.Model(SMALL)
    with pytest.raises(InputError, match=r"ends with \.onnx"):
        export(model, tmp_path / "small.pt", (1, 2, 4, 4))
    with pytest.raises(InputError, match="no open size 'heights'. Did you mean 'height'"):
        export(model, tmp_path / "small.onnx", (1, 2, 4, 4), fixed=["heights"])
    with pytest.raises(GraphError, match="channels 2"):
        export(model, tmp_path / "small.onnx", (1, 3, 4, 4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_hooks_do_not_import_onnx() -> None:
    code = (
        "import sys; from graphnet.sdk import default_registry; registry = default_registry();"
        "print('.onnx' in registry.readers, 'relu' in registry.of_kind('onnx_writers'),"
        "{'onnx', 'onnxruntime', 'graphnet_onnx.exporter'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "set()"]


def test_the_command_writes_a_file_and_says_its_inputs_and_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = with_random_weights(gn.Model(SMALL), (1, 2, 4, 4))
    model.save(tmp_path / "small.safetensors")
    target = tmp_path / "small.onnx"
    arguments = [tmp_path / "small.safetensors", "-o", target, "--input", "1x2x4x4"]
    assert graphnet_command(["export", *map(str, arguments), "--set", "fixed=width"]) == 0
    size = target.stat().st_size
    assert capsys.readouterr().out.splitlines() == [
        "input input: batch x 2 x height x 4",
        "output output: batch x 3 x height x 4",
        f"wrote {target}: {size} bytes, 3 ONNX nodes",
    ]


def test_bad_input_of_the_command_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pooled.yaml").write_text(gn.Model(POOLED).description.to_yaml())
    source, target = str(tmp_path / "pooled.yaml"), str(tmp_path / "pooled.onnx")
    status = graphnet_command(["export", source, "-o", target, "--input", "1x2x4x4"])
    assert status == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "pooled.yaml:" in lines[0]
    assert "--set fixed=width" in lines[0]

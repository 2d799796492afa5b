"""Reading .onnx files: exports come back as they were, others operator by operator, as torch computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from graphnet_onnx import export
from graphnet_onnx.exporter import to_onnx
from graphnet_onnx.node_cases import compare_node_case
from graphnet_onnx.parity import Outcome, difference
from graphnet_onnx.reader import read_operators
from onnx import helper, numpy_helper
from torch import Tensor

import graphnet as gn
from graphnet.cli import run as graphnet_command
from graphnet.errors import DescriptionError, GraphnetError
from graphnet.sdk import default_registry
from graphnet.testing import Case, cases_for, model_of, with_random_weights
from tests.support.examples import example_models, example_shape

NOT_BY_OPERATORS = {"nafnet", "restormer", "characters"}  # they have Sqrt, Shape and others


@pytest.mark.parametrize("path", example_models(), ids=lambda path: path.stem)
def test_an_exported_example_comes_back_as_it_was(path: Path, tmp_path: Path) -> None:
    shape = example_shape(path)
    model = with_random_weights(gn.load(path), shape)
    export(model, tmp_path / "model.onnx", shape)
    again = gn.load(tmp_path / "model.onnx")
    assert again.description == model.description
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if path.stem == "characters":
        x = torch.randint(0, 97, shape, generator=torch.Generator().manual_seed(0))
    expected = model.predict(x)
    assert difference(again.predict(x), expected) <= 1e-6
    # The same file without the description, as another program would have written it.
    proto = onnx.load(tmp_path / "model.onnx")
    proto.ClearField("metadata_props")
    if path.stem in NOT_BY_OPERATORS:
        with pytest.raises(DescriptionError, match="no layer computes this operator"):
            read_operators(proto, "model.onnx")
        return
    file = read_operators(proto, "model.onnx")
    by_operators = gn.Model(file.description, weights=file.weights)
    assert difference(by_operators.predict(x), expected) <= 1e-6


def test_the_first_configuration_of_each_layer_comes_back_as_it_was(tmp_path: Path) -> None:
    registry = default_registry()
    checked = 0
    for name in registry.of_kind("onnx_writers"):
        case = cases_for(registry.find("layers", name).value, registry=registry)[0]
        assert isinstance(case, Case)
        model, inputs = model_of(name, case)
        shapes = [tuple(x.shape) for x in inputs]
        export(model, tmp_path / "layer.onnx", *shapes, fixed=["all"])
        again = gn.load(tmp_path / "layer.onnx")
        assert again.description == model.description
        assert {**(again.weights or {})}.keys() == {**(model.weights or {})}.keys()
        found, expected = again.predict(*inputs), model.predict(*inputs)
        pairs = (
            zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
        )
        assert max(difference(*pair) for pair in pairs) <= 1e-6
        checked += 1
    assert checked > 80


SMALL: dict[str, Any] = {
    "name": "small",
    "input": {"channels": 2},
    "layers": [{"conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}}, "relu"],
}


def exported() -> onnx.ModelProto:
    return to_onnx(with_random_weights(gn.Model(SMALL), (1, 2, 4, 4)), (1, 2, 4, 4))


def test_an_imported_model_is_trained_further_as_the_original(tmp_path: Path) -> None:
    proto = exported()
    onnx.save(proto, tmp_path / "exported.onnx")
    proto.ClearField("metadata_props")
    onnx.save(proto, tmp_path / "other.onnx")
    x, target = torch.randn(2, 2, 4, 4), torch.randn(2, 3, 4, 4)
    original = with_random_weights(gn.Model(SMALL), (1, 2, 4, 4))
    models = [original, *(gn.load(tmp_path / f"{name}.onnx") for name in ("exported", "other"))]
    found: list[Any] = []
    for model in models:
        program = model.compile(
            (2, 2, 4, 4), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu"
        )
        program.step(x, target)
        found.append(program.predict(x))
    before: Tensor = original.predict(x)
    assert difference(found[0], before) > 1e-4
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=1e-6)


def test_a_changed_file_is_read_by_what_it_computes_now(tmp_path: Path) -> None:
    proto = exported()
    proto.graph.node[1].op_type = "Sigmoid"
    onnx.save(proto, tmp_path / "changed.onnx")
    model = gn.load(tmp_path / "changed.onnx")
    assert [node.layer for node in model.description.layers] == ["conv2d", "sigmoid"]
    weights = proto.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weights), weights.name))
    onnx.save(proto, tmp_path / "other.onnx")
    other = gn.load(tmp_path / "other.onnx").weights
    assert other is not None
    assert model.weights is not None
    (name,) = (name for name in other if name.endswith("weight"))
    torch.testing.assert_close(other[name], 2 * model.weights[name])


def node_model(
    operator: str, x: Tensor, constants: Sequence[Tensor | None], **attributes: Any
) -> onnx.ModelProto:
    """A model of one node, whose first input is x, and whose others are fixed."""
    names = ["" if one is None else f"c{i}" for i, one in enumerate(constants)]
    kind = helper.np_dtype_to_tensor_dtype(x.numpy().dtype)
    given = zip(constants, names, strict=True)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", *names], ["y"], name="node", **attributes)],
        "one",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(one.numpy(), name) for one, name in given if one is not None],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


IMAGE = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))
KERNEL = torch.randn(6, 2, 3, 2, generator=torch.Generator().manual_seed(1))
BIAS = torch.randn(6, generator=torch.Generator().manual_seed(2))
ROWS = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
MATRIX = torch.randn(4, 6, generator=torch.Generator().manual_seed(4))
FOUR = torch.rand(4, generator=torch.Generator().manual_seed(5)) + 0.5
SCALES = torch.tensor([1.0, 1.0, 2.0, 2.0])

NODES: dict[str, tuple[str, Tensor, list[Tensor | None], dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "Conv": (
        "Conv", IMAGE, [KERNEL, BIAS], {"strides": [2, 1], "pads": [1, 1, 1, 1], "group": 2},
        lambda x: F.conv2d(x, KERNEL, BIAS, stride=(2, 1), padding=1, groups=2),
    ),
    "Conv with uneven pads": (
        "Conv", IMAGE, [KERNEL], {"pads": [0, 1, 2, 0], "group": 2},
        lambda x: F.conv2d(F.pad(x, (1, 0, 0, 2)), KERNEL, groups=2),
    ),
    "Conv with auto_pad": (
        "Conv", IMAGE, [KERNEL], {"auto_pad": "SAME_UPPER", "group": 2},
        lambda x: F.conv2d(F.pad(x, (0, 1, 1, 1)), KERNEL, groups=2),
    ),
    "ConvTranspose": (
        "ConvTranspose", IMAGE, [KERNEL[:4].contiguous()], {"strides": [2, 2], "output_padding": [1, 0]},
        lambda x: F.conv_transpose2d(x, KERNEL[:4], stride=2, output_padding=(1, 0)),
    ),
    "Gemm": ("Gemm", ROWS, [MATRIX, BIAS], {"alpha": 0.5, "beta": 2.0},
             lambda x: 0.5 * x @ MATRIX + 2 * BIAS),
    "MatMul": ("MatMul", IMAGE.mT.contiguous()[..., :4].contiguous(), [MATRIX], {}, lambda x: x @ MATRIX),
    "Add of a constant": ("Add", IMAGE, [FOUR.view(4, 1, 1)], {}, lambda x: x + FOUR.view(4, 1, 1)),
    "Sub of a number": ("Sub", IMAGE, [torch.tensor(0.5)], {}, lambda x: x - 0.5),
    "Mul by channels": ("Mul", IMAGE, [FOUR.view(4, 1, 1)], {}, lambda x: x * FOUR.view(4, 1, 1)),
    "Div": ("Div", IMAGE, [torch.tensor(3.0)], {}, lambda x: x / 3),
    "PRelu": ("PRelu", IMAGE, [FOUR.view(4, 1, 1)], {}, lambda x: F.prelu(x, FOUR)),
    "Clip": ("Clip", IMAGE, [torch.tensor(0.0)], {}, F.relu),
    "Gelu": ("Gelu", IMAGE, [], {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh")),
    "LogSoftmax": ("LogSoftmax", IMAGE, [], {"axis": 1}, lambda x: F.log_softmax(x, 1)),
    "MaxPool": ("MaxPool", IMAGE, [], {"kernel_shape": [3, 2], "pads": [1, 0, 1, 0], "ceil_mode": 1},
                lambda x: F.max_pool2d(x, (3, 2), 1, (1, 0), ceil_mode=True)),
    "AveragePool": ("AveragePool", IMAGE, [],
                    {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]},
                    lambda x: F.avg_pool2d(x, 2, 2, 1, count_include_pad=False)),
    "BatchNormalization": ("BatchNormalization", IMAGE, [FOUR, -FOUR, FOUR / 2, FOUR], {"epsilon": 0.01},
                           lambda x: F.batch_norm(x, FOUR / 2, FOUR, FOUR, -FOUR, eps=0.01)),
    "LayerNormalization": ("LayerNormalization", ROWS, [FOUR, -FOUR], {},
                           lambda x: F.layer_norm(x, (4,), FOUR, -FOUR)),
    "InstanceNormalization": ("InstanceNormalization", IMAGE, [FOUR, -FOUR], {},
                              lambda x: F.instance_norm(x, weight=FOUR, bias=-FOUR)),
    "Resize nearest": ("Resize", IMAGE, [None, SCALES], {"mode": "nearest"},
                       lambda x: F.interpolate(x, scale_factor=2)),
    "Resize linear": ("Resize", IMAGE, [None, SCALES], {"mode": "linear"},
                      lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "Pad": ("Pad", IMAGE, [torch.tensor([0, 0, 1, 2, 0, 0, 0, 1])], {"mode": "reflect"},
            lambda x: F.pad(x, (2, 1, 1, 0), mode="reflect")),
    "Flatten": ("Flatten", IMAGE, [], {"axis": 2}, lambda x: x.reshape(8, 30)),
    "Reshape": ("Reshape", IMAGE, [torch.tensor([0, -1, 10])], {}, lambda x: x.reshape(2, 12, 10)),
    "Squeeze": ("Squeeze", IMAGE[:, :1].contiguous(), [torch.tensor([1])], {}, lambda x: x[:, 0]),
    "Transpose": ("Transpose", IMAGE, [], {"perm": [0, 2, 3, 1]}, lambda x: x.permute(0, 2, 3, 1)),
    "ReduceMean": ("ReduceMean", IMAGE, [torch.tensor([-1, 1])], {"keepdims": 0}, lambda x: x.mean((1, 3))),
    "DepthToSpace": ("DepthToSpace", IMAGE, [], {"blocksize": 2, "mode": "CRD"},
                     lambda x: F.pixel_shuffle(x, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_an_operator_is_read_as_torch_computes_it(name: str) -> None:
    operator, x, constants, attributes, torchs = NODES[name]
    file = read_operators(node_model(operator, x, constants, **attributes), name)
    found = gn.Model(file.description, weights=file.weights).predict(x)
    torch.testing.assert_close(found, torchs(x), rtol=1e-5, atol=1e-5)


def product_and_sum(*outputs: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "matrix"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", 1, ["batch", 4])],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [
            numpy_helper.from_array(MATRIX.numpy(), "matrix"),
            numpy_helper.from_array(BIAS.numpy(), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_a_product_and_a_sum_are_one_linear_layer_unless_others_read_the_product() -> None:
    file = read_operators(product_and_sum("sum"), "two.onnx")
    model = gn.Model(file.description, weights=file.weights)
    torch.testing.assert_close(model.predict(ROWS), ROWS @ MATRIX + BIAS)
    assert len(model.description.layers) == 1
    with pytest.raises(DescriptionError, match="has a bias, or other readers"):
        read_operators(product_and_sum("product", "sum"), "two.onnx")


def test_a_constant_that_is_too_large_is_refused_before_it_is_computed() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["large"]),
            helper.make_node("Add", ["x", "large"], ["y"]),
        ],
        "large",
        [helper.make_tensor_value_info("x", 1, ["batch", 4])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(torch.tensor([2**40]).numpy(), "shape")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with pytest.raises(DescriptionError, match="a constant that it computes is too large"):
        read_operators(proto, "large.onnx")


def test_free_sizes_of_other_names_are_other_sizes() -> None:
    """`a-b` and `a+b` are no names in a description; both would be `a_b`, which means equal sizes."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "sizes",
        [helper.make_tensor_value_info("x", 1, ["batch", "a-b", "a+b", "a-b"])],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    file = read_operators(proto, "sizes.onnx")
    model = gn.Model(file.description)
    assert model.description.inputs["x"].shape == ("a_b", "a_b_", "a_b")
    assert model.predict(torch.ones(1, 2, 3, 2)).shape == (1, 2, 3, 2)


REFUSED: dict[str, tuple[str, list[Tensor | None], dict[str, Any], str]] = {
    "unknown": ("Erf", [], {}, "no layer computes this operator"),
    "axes": ("Add", [torch.ones(1, 1, 1, 1, 1)], {}, "the constant of 5 axes"),
    "bounds": ("Clip", [torch.tensor(-1.0), torch.tensor(1.0)], {}, "found -1.0 and 1.0"),
    "order": ("DepthToSpace", [], {"blocksize": 2}, "'DCR' has no layer"),
    "batch": ("Reshape", [torch.tensor([-1])], {}, "axes after the batch"),
    "dilated": ("AveragePool", [], {"kernel_shape": [2, 2], "dilations": [2, 2]}, "no dilation"),
    "rows": ("Resize", [None, torch.tensor([1.0, 2.0, 1.0, 1.0])], {}, "only spatial axes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_layer_computes_is_refused_by_node_and_reason(name: str) -> None:
    operator, constants, attributes, reason = REFUSED[name]
    with pytest.raises(DescriptionError, match=reason) as caught:
        read_operators(node_model(operator, IMAGE, constants, **attributes), "net.onnx")
    assert str(caught.value).startswith(f"net.onnx: node 0 'node' ({operator}): ")


def test_a_wrong_result_of_a_node_case_is_found() -> None:
    """The comparison with ONNX's cases can fail: here the stated output is another one."""
    case = type("Case", (), {"name": "relu", "rtol": 1e-3, "model": node_model("Relu", ROWS, [])})()
    case.data_sets = [([ROWS.numpy()], [ROWS.relu().numpy()])]
    assert compare_node_case(case).outcome is Outcome.EQUAL
    case.data_sets = [([ROWS.numpy()], [ROWS.numpy()])]
    assert compare_node_case(case).outcome is Outcome.WRONG


def test_a_damaged_file_is_an_error_in_words_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = exported().SerializeToString()
    path = tmp_path / "net.onnx"
    for data in (b"", b"not a model", whole[:-50], whole[:40]):
        path.write_bytes(data)
        with pytest.raises(DescriptionError, match=r"net\.onnx: not a whole ONNX file"):
            gn.load(path)
    assert graphnet_command(["explain", str(path), "--input", "1x2x4x4"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_bytes_that_changed_raise_errors_in_words_only(tmp_path: Path) -> None:
    whole = exported().SerializeToString()
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "net.onnx"
    for _ in range(150):
        data = bytearray(whole)
        at, value = torch.randint(0, 2**31, (2,), generator=generator).tolist()
        data[at % len(data)] = value % 256
        path.write_bytes(bytes(data))
        failed = None
        try:
            gn.load(path)
        except GraphnetError as error:
            failed = str(error)
        assert failed is None or ("net.onnx" in failed and "failed:" not in failed)

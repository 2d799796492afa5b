"""Model files: what they say, how they round-trip, and every error at once with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from graphnet.description import (
    Reference,
    dump,
    expand,
    parse,
    parse_text,
    read_description,
    read_text,
)
from graphnet.errors import DescriptionError, GraphError
from graphnet.graph import Graph
from graphnet.model import Builder, Model
from graphnet.sdk import Layer, Register, Registry, Specs, hookimpl, load_registry
from tests.support.models import SEED, Acme

RESIDUAL = """
name: residual
input: {channels: 3}
blocks:
  residual:
    arguments: {channels: null, kernel: 3}
    layers:
      - {id: a, conv2d: {out_channels: $channels, kernel_size: $kernel, padding: 1}}
      - relu
      - {id: b, conv2d: {out_channels: $channels, kernel_size: $kernel, padding: 1}}
      - {add: {}, inputs: [b, $input]}
layers:
  - {id: stem, conv2d: {out_channels: 32, kernel_size: 3, padding: 1}}
  - {id: r1, residual: {channels: 32}}
  - {id: r2, residual: {channels: 32}, share: r1}
  - {concat: {}, inputs: [stem, r2]}
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Acme()], entry_points=False)


def problems(text: str, registry: Registry) -> list[str]:
    found: list = []
    try:
        description = parse(*read_text(text, name="model.yaml"), problems=found)
        expand(description, registry, found)
    except DescriptionError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_blocks_are_unrolled_and_share_parameters(registry: Registry) -> None:
    model = Model(parse_text(RESIDUAL), registry=registry)
    graph = model.graph((1, 3, 8, 8))
    assert list(graph.calls) == [
        "stem", "r1.a", "r1.relu_1", "r1.b", "r1.add_1", "r2.a", "r2.relu_1", "r2.b", "r2.add_1",
        "concat_1",
    ]  # fmt: skip
    assert graph.parameters == (
        "stem.weight", "stem.bias", "r1.a.weight", "r1.a.bias", "r1.b.weight", "r1.b.bias",
    )  # fmt: skip
    assert list(graph.calls["r2.a"].reads()) == ["r1.add_1.y", "r1.a.weight", "r1.a.bias"]
    assert list(graph.calls["r1.add_1"].reads()) == ["r1.b.y", "stem.y"]
    assert graph.values["concat_1.y"].spec.shape == (1, 64, 8, 8)


def test_nested_blocks_pass_arguments_inputs_and_sharing_on(registry: Registry) -> None:
    text = """
inputs: {left: {channels: 4}, right: {channels: 4}}
blocks:
  inner:
    arguments: {width: null}
    layers: [{id: c, conv2d: {out_channels: $width, kernel_size: 1}}, relu]
  outer:
    arguments: {w: 4}
    inputs: [a, b]
    layers:
      - {id: one, inner: {width: $w}, inputs: [$a]}
      - {id: two, inner: {width: $w}, inputs: [$b], share: one}
      - {id: sum, add: {}, inputs: [one, two]}
    outputs: [sum, one]
layers:
  - {id: p, outer: {}, inputs: [$left, $right]}
  - {id: q, outer: {w: 4}, inputs: [p, p.one], share: p}
  - {id: end, concat: {}, inputs: [q, p.sum]}
outputs: [end, q]
"""
    graph = Model(parse_text(text), registry=registry).graph((1, 4, 2, 2), (1, 4, 2, 2))
    assert graph.inputs == ("$left", "$right")
    assert graph.parameters == ("p.one.c.weight", "p.one.c.bias")
    assert next(iter(graph.calls["q.two.c"].reads())) == "p.one.relu_1.y"
    assert list(graph.calls["end"].reads()) == ["q.sum.y", "p.sum.y"]
    assert graph.output_names == ("end", "q")


def test_nodes_may_stand_before_their_inputs(registry: Registry) -> None:
    text = "layers: [{id: b, sigmoid: {}, inputs: [a]}, {id: a, relu: {}, inputs: [$input]}]\noutputs: [b]"
    nodes = expand(parse_text(text), registry).nodes
    assert [node.id for node in nodes] == ["a", "b"]
    assert nodes[1].inputs == (Reference("a"),)


@pytest.mark.parametrize(
    "text",
    [
        RESIDUAL,
        dump(SEED),
        "layers: [relu]",
        "name: ''\nlayers: [relu]",
        "inputs: {x: {channels: 3}, y: }\nlayers: [{add: {}, inputs: [$x, $y]}]",
        "blocks: {b: {arguments: {n: 3}, inputs: [x], layers: [relu], outputs: relu_1}}\nlayers: [b]",
        "layers: [{id: a, relu: }, {relu: {}, inputs: a, share: a}]\noutputs: [a, relu_1]",
    ],
)
def test_description_round_trips(text: str) -> None:
    description = parse_text(text)
    assert parse_text(description.to_yaml()) == description
    assert parse(description.to_data()) == description


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,6}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@example([("A", "A", {"A": ":0"})])  # without quotes it does not read back
@given(
    st.lists(
        st.tuples(NAMES, NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), min_size=1, max_size=4
    )
)
def test_any_description_round_trips(nodes: list[tuple[str, str, dict[str, object]]]) -> None:
    layers = [
        {"id": name, layer: config, "inputs": ["$input"]}
        for name, layer, config in nodes
        if layer not in ("id", "inputs", "share")
    ]
    if not layers:
        return
    description = parse({"layers": layers})
    assert parse_text(description.to_yaml()) == description


def test_every_error_comes_at_once_with_its_place(registry: Registry) -> None:
    text = """name: broken
input: {channels: three}
layers:
  - conv2d: {out_channels: 64, kernel_size: two, strid: 2}
  - sigmoyd
  - {id: a, add: {}, inputs: [b, $inptu]}
  - {conv2d: {kernel_size: 3}}
  - {relu: {}, sigmoid: {}}
layerz: 3
"""
    assert problems(text, registry) == [
        "model.yaml:9:9: layerz: unknown field. Did you mean 'layers'?",
        "model.yaml:2:19: input.channels: expected an integer greater than 0, found 'three'",
        "model.yaml:8:5: layers[4]: expected a layer's name, or {NAME: {field: value}} with optional "
        "id, inputs and share, found 2 names: relu, sigmoid",
        "model.yaml:4:45: layers[0].conv2d.kernel_size: expected an integer or a pair of them, "
        "found 'two'",
        "model.yaml:4:57: layers[0].conv2d.strid: unknown field. Did you mean 'stride'?",
        "model.yaml:5:5: layers[1].sigmoyd: unknown layer 'sigmoyd'. Did you mean 'sigmoid' or "
        "'hardsigmoid'?",
        "model.yaml:6:34: layers[2].inputs[1]: unknown input '$inptu'. Did you mean '$input'?",
        "model.yaml:7:14: layers[3].conv2d.out_channels: must be given",
        "model.yaml:6:31: layers[2].inputs[0]: unknown id 'b'. Known: a, conv2d_1, conv2d_2, sigmoyd_1.",
    ]


def test_an_error_in_a_block_that_is_used_often_comes_once(registry: Registry) -> None:
    text = "blocks: {one: {layers: [{linear: {out_feature: 3}}]}}\nlayers: [one, one, one]\n"
    assert problems(text, registry) == [
        "model.yaml:1:34: blocks.one.layers[0].linear.out_features: must be given",
        "model.yaml:1:48: blocks.one.layers[0].linear.out_feature: unknown field. Did you mean "
        "'out_features' or 'in_features'?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "layers: [{id: a, relu: {}, inputs: [c]}, {id: b, relu: {}}, {id: c, relu: {}}, "
            "{add: {}, inputs: [c, $input]}]",
            "model.yaml:1:10: layers[0]: the graph has a cycle: a -> b -> c -> a. "
            "Take one of these inputs away",
        ),
        (
            "layers: [{id: a, relu: {}}, {id: b, relu: {}, inputs: [$input]}]",
            "model.yaml:1:10: layers[0]: nothing uses the output of 'a'. Name it in another node's "
            "inputs or in outputs, or remove it",
        ),
        (
            "inputs: {x: {}, y: {}}\nlayers: [{relu: {}, inputs: [$x]}]",
            "model.yaml:1:20: inputs.y: nothing uses the input 'y'; remove it",
        ),
        (
            "layers: [{id: a, relu: {}}, {id: a, relu: {}}]",
            "model.yaml:1:34: layers[1].id: the id 'a' is given to 2 nodes; rename one",
        ),
        (
            "blocks: {b: {layers: [b]}}\nlayers: [b]",
            "model.yaml:1:23: blocks.b.layers[0].b: block 'b' contains itself; blocks cannot recurse",
        ),
        (
            "blocks: {b: {arguments: {n: null}, layers: [relu]}}\nlayers: [b]",
            "model.yaml:2:10: layers[0].b.n: must be given",
        ),
        (
            "blocks: {b: {layers: [{concat: {dim: $dmi}}], arguments: {dim: 1}}}\nlayers: [b]",
            "model.yaml:1:38: blocks.b.layers[0].concat.dim: unknown argument '$dmi'. "
            "Did you mean 'dim'?",
        ),
        (
            "layers: [{id: a, relu: {}}, {id: b, sigmoid: {}, share: a}]",
            "model.yaml:1:57: layers[1].share: 'a' is a relu, this is a sigmoid; only nodes of the "
            "same kind can share parameters",
        ),
        ("layers: []", "model.yaml:1:9: layers: expected a list of layers, found []"),
        (
            "3",
            "model.yaml:1:1: expected a mapping with name, input, inputs, blocks, layers, outputs, "
            "found 3",
        ),
        (
            "layers: [{conv2d: {out_channels: 3, kernel_size: 3, padding: same, stride: 2}}]",
            "model.yaml:1:62: layers[0].conv2d.padding: 'same' needs stride 1",
        ),
        (
            "layers: [{conv2d: {out_channels: 0, kernel_size: 3}}]",
            "model.yaml:1:34: layers[0].conv2d.out_channels: expected greater than 0, found 0",
        ),
        (
            "a: [",
            "model.yaml:1:5: not YAML: a bracket is opened, and not closed (expected the node content, "
            "but found '<stream end>')",
        ),
        (
            "a:\n\t- relu",
            "model.yaml:2:1: not YAML: a tab is used to indent. Indent with spaces (found character "
            "'\\t' that cannot start any token)",
        ),
        (
            "a:\n  - b\n - c",
            "model.yaml:3:2: not YAML: this line is not indented as the lines that it belongs to "
            "(expected <block end>, but found '<block sequence start>')",
        ),
        (
            "layers:\n- conv2d:\n  bias: true",
            "model.yaml:2:3: layers[0]: expected a layer's name, or {NAME: {field: value}} with optional "
            "id, inputs and share, found 2 names: conv2d, bias. To make the others fields of conv2d, "
            "indent them below it",
        ),
        ("layers: [relu]\nlayers: [relu]", "model.yaml:2:1: the key 'layers' is given twice"),
        (
            "layers: !!python/object/apply:os.system [true]",
            "model.yaml:1:9: layers: tags such as 'tag:yaml.org,2002:python/object/apply:os.system' "
            "are not allowed; write plain values",
        ),
    ],
)  # fmt: skip
def test_error_says_where_and_what(registry: Registry, text: str, message: str) -> None:
    assert message in problems(text, registry)


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match="nowhere.yaml: cannot be read: No such file"):
        read_description(tmp_path / "nowhere.yaml")


def test_a_training_file_in_the_place_of_a_model_file_is_one_error() -> None:
    with pytest.raises(DescriptionError) as caught:
        parse_text("model: net.yaml\ndata: {train: photos}\nepochs: 1\n", name="train.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "train.yaml:1:1: this is a training file, for `graphnet train`. A model file is expected here, "
        "such as net.yaml."
    ]


def test_shape_clash_names_node_file_line_and_remedy(registry: Registry) -> None:
    text = """
layers:
  - {id: enc, conv2d: {out_channels: 32, kernel_size: 3, padding: 1}}
  - {id: dec, conv2d: {in_channels: 64, out_channels: 3, kernel_size: 3}}
  - {id: wide, conv2d: {out_channels: 3, kernel_size: 99}, inputs: [enc]}
  - {add: {}, inputs: [dec, wide]}
"""
    model = Model(parse(*read_text(text, name="model.yaml")), registry=registry)
    with pytest.raises(GraphError) as caught:
        model.graph((8, 3, 16, 16))
    assert str(caught.value).splitlines() == [
        "model.yaml:4:5: node 'dec' (conv2d): expected 64 input channels, got 32. Set in_channels: 32, "
        "or leave it out. Inputs: enc.y (8x32x16x16 float32).",
        "model.yaml:5:5: node 'wide' (conv2d): the kernel spans 99x99, more than the padded input of "
        "16x16. Inputs: enc.y (8x32x16x16 float32).",
    ]


def test_wrong_number_of_inputs_is_named(registry: Registry) -> None:
    model = Model(
        {"layers": [{"id": "a", "relu": {}}, {"relu": {}, "inputs": ["a", "$input"]}]},
        registry=registry,
    )
    with pytest.raises(GraphError, match=r"node 'relu_1' \(relu\): takes 1 inputs \(x\), got 2"):
        model.graph((1, 3, 4, 4))


def test_input_channels_are_checked(registry: Registry) -> None:
    with pytest.raises(GraphError, match="input 'input' expects channels 3 on axis 1"):
        Model(SEED, registry=registry).graph((1, 4, 8, 8))


def test_builder_says_the_same_as_yaml(registry: Registry) -> None:
    net = Builder(name="residual", channels=3)
    conv = {"kernel_size": 3, "padding": 1}
    stem = net("conv2d", net.input, out_channels=4, id="stem", **conv)
    shared = net("conv2d", stem, out_channels=4, id="a", **conv)
    a = net("relu", shared)
    b = net("conv2d", a, out_channels=4, share=shared, **conv)
    net("concat", net("add", b, stem), stem)
    description = net.description()
    assert parse_text(description.to_yaml()) == description
    graph = net.model(registry=registry).graph((1, 3, 8, 8))
    assert graph.parameters == ("stem.weight", "stem.bias", "a.weight", "a.bias")


class Halve(Layer):
    """Every second row and column; it states no window."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, ::2, ::2].contiguous()

    def backward(self, grad_y: torch.Tensor, specs: Specs) -> torch.Tensor:
        grad_x = grad_y.new_zeros(specs["x"].shape)
        grad_x[:, :, ::2, ::2] = grad_y
        return grad_x


class Blocks(Layer):
    """Twice an image of any size; it says that it looks at whole blocks of four rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    def backward(self, grad_y: torch.Tensor) -> torch.Tensor:
        return 2 * grad_y

    def window(self, rows: range, axis: int) -> range:
        return range(rows.start // 4 * 4, -(-rows.stop // 4) * 4)


class Halving:
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("acme/halve", Halve)
        register("acme/blocks", Blocks)


def conv_layer(channels: int, kernel: int, stride: int = 1, padding: int = 0) -> dict[str, Any]:
    fields = {"kernel_size": kernel, "stride": stride, "padding": padding}
    return {"conv2d": {"out_channels": channels, **fields}}


def up(factor: int) -> dict[str, Any]:
    return {"nearest_upsampling": {"scale_factor": factor}}


# Layers between an image and one of its size, and the smallest divisor by hand: None for no size.
DIVISORS = {
    "same size": ([conv_layer(3, 3, padding=1), "relu"], 1),
    "two and up": ([conv_layer(4, 3, stride=2, padding=1), up(2)], 2),
    "three and up": ([{"pixel_unshuffle": {"downscale_factor": 3}},
                      {"pixel_shuffle": {"upscale_factor": 3}}], 3),
    "two by three": ([conv_layer(4, 3, stride=3), conv_layer(4, 2, stride=2), up(6)], 6),
    "up first": ([up(2), {"avg_pool2d": {"kernel_size": 2}}], 1),
    "up by one half more": ([up(2), {"avg_pool2d": {"kernel_size": 4}},
                             up(2)], 2),
    "global gate": ([{"max_pool2d": {"kernel_size": 2}}, {"global_avg_pool": None, "id": "gate"},
                     {"multiply": None, "inputs": ["max_pool2d_1", "gate"]},
                     up(2)], 2),
    "smaller": ([conv_layer(3, 3)], None),
    "larger": ([up(2)], None),
    "more than allowed": ([conv_layer(4, 16, stride=16), conv_layer(4, 16, stride=16),
                           conv_layer(4, 2, stride=2), up(16), up(16), up(2)], None),
}  # fmt: skip


@pytest.mark.parametrize("name", DIVISORS)
def test_divisor_is_the_smallest_and_takes_a_few_graphs(
    name: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, expected = DIVISORS[name]
    model = Model({"layers": layers}, registry=registry)
    built: list[tuple[int, ...]] = []
    graph = model.graph

    def counted(*shapes: tuple[int, ...]) -> Graph:
        built.extend(shapes)
        return graph(*shapes)

    monkeypatch.setattr(model, "graph", counted)
    if expected is None:
        with pytest.raises(GraphError, match="this network changes each image size up to 256"):
            model.divisor()
    else:
        assert model.divisor() == expected
    assert len(built) <= 6


def test_divisor_of_a_network_whose_scale_no_window_tells_is_searched() -> None:
    halving = load_registry(plugins=[Halving()], entry_points=False)
    layers = ["acme/halve", {"nearest_upsampling": {"scale_factor": 2}}]
    assert Model({"layers": layers}, registry=halving).divisor() == 2


@pytest.mark.parametrize(("factor", "expected"), [(1, 1), (2, 2), (3, 3), (8, 8)])
def test_divisor_is_smaller_than_the_step_of_the_windows_where_sizes_between_fit(
    factor: int, expected: int
) -> None:
    registry = load_registry(plugins=[Halving()], entry_points=False)
    layers = ["acme/blocks", conv_layer(3, factor, stride=factor), up(factor)]
    assert Model({"layers": layers}, registry=registry).divisor() == expected


def test_divisor_of_the_seed_network_is_four(registry: Registry) -> None:
    assert Model(SEED, registry=registry).divisor() == 4


def test_prediction_of_a_dag_matches_the_same_arithmetic(registry: Registry) -> None:
    model = Model(parse_text(RESIDUAL), registry=registry, seed=1)
    x = torch.rand(2, 3, 8, 8)
    y = model.predict(x)
    program = model.compile(
        (2, 3, 8, 8), loss="mse", optimizer={"sgd": {"lr": 0.0}}, seed=1, device="cpu"
    )
    w = program.weights

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    def block(x: torch.Tensor) -> torch.Tensor:
        return conv("r1.b", conv("r1.a", x).relu()) + x

    stem = conv("stem", x)
    torch.testing.assert_close(y, torch.cat((stem, block(block(stem))), 1), rtol=1e-5, atol=1e-6)

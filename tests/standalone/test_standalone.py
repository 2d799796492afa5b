"""A model becomes a folder that runs where torch is alone, and computes what the model predicts."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet.cli import run
from graphnet.errors import DescriptionError, GraphError, InputError, SourceError, WriteError
from graphnet.sdk import Register, default_registry, load_registry
from graphnet.testing import model_of, with_random_weights
from tests.standalone.judge import (
    Exports,
    Outcome,
    cases,
    example,
)
from tests.support.examples import example_models

SMALL: dict[str, Any] = {
    "name": "small",
    "input": {"channels": 2},
    "layers": [
        {"id": "first", "conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
        "batch_norm2d",
        "relu",
        {"conv2d": {"out_channels": 2, "kernel_size": 3, "padding": "same"}},
    ],
}


def imported(folder: Path, name: str) -> ModuleType:
    """The code of an exported folder, imported here."""
    spec = importlib.util.spec_from_file_location(name, folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small() -> gn.Model:
    return with_random_weights(gn.Model(SMALL), (1, 2, 8, 8))


@pytest.fixture(scope="module")
def folder(small: gn.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exported") / "small_net"
    gn.export_standalone(small, place, (1, 2, 8, 8))
    return place


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """An exported folder that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "copied_net"))


def test_layers_and_examples_are_equal_to_the_bit_where_torch_is_alone(tmp_path: Path) -> None:
    """A few of each; `python -m tests.standalone` runs all, in all configurations."""
    exports = Exports(tmp_path)
    for name in ("transpose_conv1d", "lstm", "slice"):  # slice is a name of Python too
        case = cases(name, default_registry())[-1]
        exports.add(name, *model_of(name, case))
    for path in example_models():
        if path.stem == "seed":
            exports.add(path.stem, *example(path))
    found = {one.what: one.outcome for one in exports.run()}
    assert found == dict.fromkeys(found, Outcome.SAME)
    assert len(found) == 4


def test_network_computes_what_torch_computes(small: gn.Model, folder: Path) -> None:
    weights = small.weights
    assert weights is not None
    x = torch.rand(3, 2, 7, 9)
    first = torch.conv2d(x, weights["first.weight"], weights["first.bias"], padding=1)
    normed = torch.nn.functional.batch_norm(
        first,
        weights["batch_norm2d_1.running_mean"],
        weights["batch_norm2d_1.running_var"],
        weights["batch_norm2d_1.weight"],
        weights["batch_norm2d_1.bias"],
    )
    kernel = weights["conv2d_1.weight"]
    expected = torch.conv2d(normed.relu(), kernel, weights["conv2d_1.bias"], padding="same")
    torch.testing.assert_close(imported(folder, "small_torch").Network().predict(x), expected)


def test_network_is_a_module_that_moves_and_that_autograd_differentiates(folder: Path) -> None:
    network = imported(folder, "small_module").Network()
    x = torch.rand(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    network.double()(x).sum().backward()
    assert x.grad is not None
    assert torch.autograd.gradcheck(network, (x,))
    assert not network.predict(x).requires_grad
    assert {b.dtype for b in network.buffers()} == {torch.float64}
    assert network.to("meta").predict(x.to("meta")).is_meta


def test_code_is_complete_sorted_and_has_no_unused_import(folder: Path) -> None:
    """By ruff's checks of names (F), imports (I) and syntax (E)."""
    rules = ["--isolated", "--select", "E,F,I", "--line-length", "110"]
    done = subprocess.run(
        [Path(sys.executable).with_name("ruff"), "check", *rules, folder],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_code_names_the_nodes_and_imports_torch_and_the_standard_library_only(folder: Path) -> None:
    text = (folder / "model.py").read_text()
    assert "# first: conv2d [aten] -> 1x4x8x8 float32" in text
    tops = {match.split(".")[0] for match in re.findall(r"^(?:import|from) (\S+)", text, re.M)}
    assert tops - sys.stdlib_module_names == {"torch"}
    assert ">>>" not in text
    assert "def backward" not in text


def test_readme_states_sizes_dtypes_versions_and_licences(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert "| input | `input` | batch x 2 x height x width | float32 |" in text
    assert "| output | `output` | batch x 2 x height x width | float32 |" in text
    assert f"torch {torch.__version__}" in text
    assert "licence: Apache-2.0" in text
    assert "Apache License" in (folder / "LICENSE-graphnet-framework.txt").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    names: dict[str, Any] = {}
    sys.path.insert(0, str(folder.parent))
    try:
        exec(code, names)
    finally:
        sys.path.remove(str(folder.parent))
        for name in ("small_net", "small_net.model"):
            sys.modules.pop(name)
    assert names["output"].shape == (1, 2, 8, 8)


def test_sizes_are_fixed_where_weights_or_code_depend_on_them(tmp_path: Path) -> None:
    layers: list[Any] = [
        {"conv2d": {"out_channels": 2, "kernel_size": 2, "stride": 2}},
        "flatten",
        {"linear": {"out_features": 3}},
    ]
    model = gn.Model({"input": {"channels": 1}, "layers": layers})
    done = gn.export_standalone(model, tmp_path / "net", (1, 1, 4, 6))
    assert done.inputs == {"input": "batch x 1 x 4 x 6"}
    assert done.outputs == {"output": "batch x 3"}
    assert done.note == "random weights"
    network = imported(tmp_path / "net", "fixed_net").Network()
    with pytest.raises(ValueError, match="expected the sizes any x 1 x 4 x 6, got 1 x 1 x 8 x 6"):
        network.predict(torch.rand(1, 1, 8, 6))


def test_sizes_of_outputs_are_terms_of_those_of_inputs(tmp_path: Path) -> None:
    layers: list[Any] = [
        {"max_pool2d": {"kernel_size": 2}},
        {"nearest_upsampling": {"scale_factor": 2}},
    ]
    described = {"input": {"shape": [1, "rows", "columns"]}}
    pooled = gn.Model({**described, "layers": layers[:1]})
    grown = gn.Model({**described, "layers": layers[1:]})
    found = gn.export_standalone(pooled, tmp_path / "pooled", (1, 1, 4, 4)).outputs["output"]
    assert found == "batch x 1 x (rows / 2, rounded) x (columns / 2, rounded)"
    found = gn.export_standalone(grown, tmp_path / "grown", (1, 1, 4, 4)).outputs["output"]
    assert found == "batch x 1 x 2 rows x 2 columns"


def damage(path: Path, how: str) -> None:
    """Change a file of weights."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:start])
    if how == "shorter":
        path.write_bytes(data[:-4])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "no table":
        path.write_bytes(b"x" * len(data))
    elif how == "one bit":
        data[-1] ^= 1
        path.write_bytes(data)
    else:
        if how == "without a tensor":
            del table["first.weight"]
        else:
            table["first.bias"]["shape"] = [2, 2]
        text = json.dumps(table).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[start:])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("shorter", "damaged: its .* bytes of numbers are not those that were written"),
        ("one bit", "damaged: its .* bytes of numbers are not those that were written"),
        ("empty", "damaged, or not written by this export"),
        ("no table", "damaged, or not written by this export"),
        ("without a tensor", "has no tensor 'first.weight'"),
        ("another shape", r"'first.bias' must be \(4,\) torch.float32, found \[2, 2\] F32"),
    ],
)
def test_damaged_weights_are_an_error_that_says_what_is_wrong(
    copy: Path, how: str, message: str
) -> None:
    damage(copy / "weights.safetensors", how)
    with pytest.raises(ValueError, match=message):
        imported(copy, "damaged_net").Network()


class Travels(gn.Layer):
    """Scales by a number that a field and a method give, and checks the axes by the SDK."""

    factor: float = 2.0

    @property
    def doubled(self) -> float:
        return _twice(self.factor)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim > gn.sdk.random.node_constant("axes") % 7 + 9:
            raise gn.errors.InputError(f"too many axes: {x.ndim}")
        return x * self.doubled

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y * self.doubled


def _twice(number: float) -> float:
    return number * _TWO


_TWO = 2


class UsesPytest(gn.Layer):
    """x, through a library that is not torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return x * len(pytest.__name__)


class UsesOperator(gn.Layer):
    """x, through an operator that a plugin has registered with torch."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.acme_alone.same(x)  # type: ignore[no-any-return]


class UsesNative(gn.Layer):
    """x, if there is a compiled kernel."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (gn.system.Native is not None)


class Acme:
    @gn.hookimpl
    def graphnet_layers(self, register: Register) -> None:
        class Hidden(gn.Layer):
            """x."""

            def forward(self, x: Tensor) -> Tensor:
                return x * 1.0

        register("acme/travels", Travels)
        register("acme/library", UsesPytest)
        register("acme/operator", UsesOperator)
        register("acme/native", UsesNative)
        register("acme/hidden", Hidden)


@pytest.fixture
def operator() -> Iterator[None]:
    library = torch.library.Library("acme_alone", "DEF")
    library.define("same(Tensor x) -> Tensor")
    library.impl("same", lambda x: x * 1, "CompositeExplicitAutograd")
    yield
    library._destroy()


def test_layer_of_a_plugin_travels_with_all_that_its_forward_uses(tmp_path: Path) -> None:
    registry = load_registry(plugins=[Acme()], entry_points=False)
    model = gn.Model({"layers": [{"acme/travels": {"factor": 1.5}}]}, registry=registry)
    gn.export_standalone(model, tmp_path / "net", (1, 3))
    assert "graphnet." not in (tmp_path / "net" / "model.py").read_text()
    network = imported(tmp_path / "net", "travelled").Network()
    assert network.predict(torch.ones(1, 3)).tolist() == [[3.0, 3.0, 3.0]]
    text = (tmp_path / "net" / "README.md").read_text()
    assert "tests, a module that is not of an installed distribution" in text


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "library",
            "its code imports pytest, which is neither of torch nor of Python's own library",
        ),
        ("operator", "its code calls an operator of torch.ops.acme_alone"),
        ("native", "its code imports 'Native' from graphnet.system"),
        ("hidden", "Hidden is not found. Define the class at the top of a module"),
    ],
)
def test_layer_that_needs_more_than_torch_is_refused_by_node_and_reason(
    tmp_path: Path, layer: str, message: str
) -> None:
    registry = load_registry(plugins=[Acme()], entry_points=False)
    model = gn.Model({"layers": ["relu", f"acme/{layer}"]}, registry=registry)
    with pytest.raises(SourceError) as caught:
        gn.export_standalone(model, tmp_path / "net", (1, 3))
    assert str(caught.value).startswith("node ")
    assert f"(acme/{layer})" in str(caught.value)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_all_refused_nodes_are_named_at_once(tmp_path: Path) -> None:
    registry = load_registry(plugins=[Acme()], entry_points=False)
    model = gn.Model({"layers": ["acme/hidden", "acme/library"]}, registry=registry)
    with pytest.raises(SourceError) as caught:
        gn.export_standalone(model, tmp_path / "net", (1, 3))
    lines = str(caught.value).splitlines()
    assert [re.findall(r"acme/\w+", line) for line in lines] == [["acme/hidden"], ["acme/library"]]


def test_earlier_export_is_replaced_and_other_files_are_kept(small: gn.Model, copy: Path) -> None:
    (copy / "mine.txt").write_text("mine")
    before = (copy / "weights.safetensors").read_bytes()
    other = small.with_weights({n: t + 1 for n, t in (small.weights or {}).items()})
    gn.export_standalone(other, copy, (1, 2, 8, 8))
    assert (copy / "weights.safetensors").read_bytes() != before
    assert (copy / "mine.txt").read_text() == "mine"
    assert sorted(p.name for p in copy.parent.iterdir()) == [copy.name]


def test_folder_with_other_files_is_refused_unless_overwrite_is_set(
    small: gn.Model, tmp_path: Path
) -> None:
    place = tmp_path / "net"
    place.mkdir()
    (place / "model.py").write_text("mine = 1\n")
    with pytest.raises(InputError, match=r"net: has other files, and is no earlier export"):
        gn.export_standalone(small, place, (1, 2, 8, 8))
    assert (place / "model.py").read_text() == "mine = 1\n"
    gn.export_standalone(small, place, (1, 2, 8, 8), overwrite=True)
    assert "class Network" in (place / "model.py").read_text()


@pytest.mark.parametrize("name", ["my-net", "class", "2nd"])
def test_folder_that_cannot_be_imported_is_refused(
    small: gn.Model, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match="name can be imported, such as my_network"):
        gn.export_standalone(small, tmp_path / name, (1, 2, 8, 8))


def test_other_mistakes_are_errors_and_leave_nothing_behind(
    small: gn.Model, tmp_path: Path
) -> None:
    with pytest.raises(GraphError, match="channels"):
        gn.export_standalone(small, tmp_path / "net", (1, 3, 8, 8))
    with pytest.raises(DescriptionError, match="kernels: expected 'aten' or 'reference'"):
        gn.export_standalone(small, tmp_path / "net", (1, 2, 8, 8), kernels="auto")
    (tmp_path / "file").write_text("a file")
    with pytest.raises(InputError, match="expected a folder, found a file"):
        gn.export_standalone(small, tmp_path / "file", (1, 2, 8, 8))
    with pytest.raises(WriteError, match="cannot be written"):
        gn.export_standalone(small, tmp_path / "file" / "net", (1, 2, 8, 8))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_command_writes_the_folder_and_says_its_sizes(
    small: gn.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.save(tmp_path / "small.safetensors")
    arguments = [str(tmp_path / "small.safetensors"), "--standalone", "-o", str(tmp_path / "net")]
    settings = ["--set", "kernels=reference", "--input", "1x2x8x8"]
    assert run(["export", *arguments, *settings]) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "net").iterdir())
    assert capsys.readouterr().out.splitlines() == [
        "input input: batch x 2 x height x width",
        "output output: batch x 2 x height x width",
        f"wrote {tmp_path / 'net'}: {size} bytes",
    ]
    assert "unfold" in (tmp_path / "net" / "model.py").read_text()

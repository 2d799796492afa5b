"""What the names of values and calls say stands in fields: no module takes a name apart."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import graphnet as gn
from graphnet.graph import Kind, Value
from graphnet.plan import Plan

SOURCES = Path(gn.__file__).parent
TAKES_APART = re.compile(
    r"""partition\(f?["'][.:@$]["']\)"""  # "node.port", "parameter:state"
    r"""|split\(["'][.:@$]["']"""
    r"""|["'][:@$.]["'] (not )?in """
    r"""|(starts|ends)with\((f?["'][$@:._]|f["']\{[\w.]*\}[.:@$])"""
    r"""|(starts|ends)with\(\(f?["'][$@:._]"""
    r"""|remove(prefix|suffix)\(f?["'][$@:._]"""
    r"""|[lr]?strip\(["'][$@:._]+["']\)"""
    r"""|\[1:\] for \w+ in plan"""
)
KNOW_NO_GRAPH = ("builtin", "cli", "description", "sdk", "system")  # texts of files and commands
ALLOWED = {  # file, what a line holds: why it takes no value's or call's name apart
    ("bridges/functional.py", '("_")'): "an operator of torch",
    ("bridges/trace.py", "stack[-1]"): "a line of a traceback",
    ("bridges/trace.py", "name.rpartition"): "torch's modules are nested by the dots in a name",
    (
        "bridges/to_torch.py",
        'name.split(".")',
    ): "torch's modules are nested by the dots in a slot's name",
    ("errors.py", "rstrip('.')"): "a sentence",
    ("errors.py", 'endswith((".", "?", "!"))'): "a sentence",
    ("graph/build.py", "node.rpartition"): "the path of a node in a model file",
    ("graph/dispatch.py", "self.operator"): "an operator of torch",
    ("graph/ir.py", 'lstrip("$@")'): "Value.label: the one place that knows the marks",
    ("inspection/report.py", "startswith"): "a table shortens a name whose node its row shows",
    ("model/origins.py", "partition"): "the package of a module, and the name of a file",
    ("model/program.py", "dir(self)"): "the attributes of an object",
    ("model/run_standalone.py", "folder.name"): "the name of a folder",
    ("nn/network.py", 'str(name).rpartition(".")'): "an output of a node, as in a model file",
    ("nn/registered.py", "torchs.__module__"): "the module of a class of torch",
    ("plan/codegen.py", '.strip("_")'): "an identifier that is being made",
    ("plan/copies.py", ""): "modules and names in Python's source",
    ("plan/edits.py", "alias."): "modules and names in Python's source",
    ("plan/standalone.py", "module."): "the package of a module",
    ("testing/checks/declared.py", "json_path"): "a path in a JSON Schema",
    ("training/reporters.py", ".safetensors"): "the name of a file",
    ("training/config.py", "path.split"): "a path in a training file",
}


def lines_that_take_names_apart() -> list[tuple[str, int, str]]:
    return [
        (path.relative_to(SOURCES).as_posix(), number, line.strip())
        for path in sorted(SOURCES.rglob("*.py"))
        if path.relative_to(SOURCES).parts[0] not in KNOW_NO_GRAPH
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if TAKES_APART.search(line)
    ]


@pytest.mark.parametrize(
    "line",
    [
        'node, _, port = name.rpartition(".")',
        'return ":" in name',
        'if "." not in call.name:',
        'word = "target" if value.startswith("@target") else kind',
        'if call.method.endswith("_"):',
        'forward = call.name.removesuffix(":backward")',
        "label = name.lstrip('$@')",
        'taken = [n[1:] for n in plan.inputs if n.startswith("@")]',
        'passing = {name for name in slots if name.endswith(f":{GRAD}")}',
    ],
)
def test_checker_finds_code_that_splits_a_name(line: str) -> None:
    assert TAKES_APART.search(line)


def test_no_module_splits_the_name_of_a_value_or_call() -> None:
    used = set()
    wrong = []
    for path, number, line in lines_that_take_names_apart():
        found = {key for key in ALLOWED if key[0] == path and key[1] in line}
        used |= found
        if not found:
            wrong.append(f"{path}:{number}: {line}")
    assert wrong == []
    assert used == ALLOWED.keys()


def training_plan() -> Plan:
    description = {
        "input": {"channels": 2},
        "blocks": {
            "stem": {"layers": [{"id": "conv", "conv2d": {"out_channels": 2, "kernel_size": 1}}]}
        },
        "layers": [
            {"id": "enc", "stem": {}},
            {"id": "drop", "dropout": {"p": 0.5}},
            {"id": "norm", "batch_norm2d": {}},
        ],
    }
    return gn.Model(description).plan(
        (2, 2, 4, 4),
        loss="mse",
        optimizer=gn.SGD(lr=0.1, momentum=0.9),
        ema=0.9,
        accumulate=2,
        clip_grad_norm=1.0,
        precision="float16",
        memory="95%",
    )


def test_fields_say_what_names_say() -> None:
    """Of every value of a training plan: the node and port that its name is made of."""
    plan = training_plan()
    for name, value in plan.values.items():
        path, _, last = name.rpartition(".")
        if value.kind not in (Kind.INPUT, Kind.KEY):
            assert (value.node, value.port or name) == (path, last)
    conv = plan.values["enc.conv.weight"]
    assert (conv.node, conv.port, conv.of, conv.role) == ("enc.conv", "weight", "", "")


def test_slots_of_the_training_know_their_role_and_parameter() -> None:
    plan = training_plan()
    found = {name: (plan.values[name].of, plan.values[name].role) for name in plan.slots}
    assert {name: known for name, known in found.items() if "conv.weight" in name} == {
        "enc.conv.weight": ("", ""),
        "enc.conv.weight:@grad": ("enc.conv.weight", "@grad"),
        "enc.conv.weight:momentum_buffer": ("enc.conv.weight", "momentum_buffer"),
        "enc.conv.weight:@ema": ("enc.conv.weight", "@ema"),
    }
    assert found["norm.running_mean"] == ("", "")
    assert found["@loss:scale"] == ("", "scale")


def test_backward_calls_have_backward_of_and_in_place_calls_have_in_place() -> None:
    calls = {step.call.name: step.call for step in training_plan().steps}
    assert calls["enc.conv:backward"].backward_of == "enc.conv"
    in_place = [call for call in calls.values() if call.in_place]
    assert in_place
    assert all(call.function == f"{call.method}_" and call.writes for call in in_place)
    assert not any(call.pure().in_place for call in calls.values())


def test_inputs_have_plain_labels() -> None:
    plan = training_plan()
    inputs = [plan.values[name] for name in plan.inputs]
    assert [(one.label, one.port) for one in inputs] == [("input", ""), ("target", "target")]
    assert Value("@lr", plan.values["@lr"].spec, plan.values["@lr"].kind).label == "lr"

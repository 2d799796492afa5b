"""Random models of all registered layers, how they are run, and how a failing one is made smaller.

A layer's samples say which configurations and inputs it takes. A node's inputs are values of earlier nodes if
the layer takes them, else new inputs of the model, as the sample states them.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import yaml
from torch import Tensor

from graphnet.errors import GraphnetError, MemoryBudgetError
from graphnet.graph import Ports, bind_inputs, observe
from graphnet.model import Model
from graphnet.sdk import Layer, Registry, Spec, dtype_name
from graphnet.testing.case import Case
from graphnet.testing.cases import varied_cases_for
from graphnet.testing.layer_model import with_random_weights

FLOAT = torch.float64
_TRIES = 8  # of values for the inputs of a node
_MOST_NUMBERS = 4096  # of a value
REFUSED = "the reference refused it"
LOSSES = ("mse", "l1", "huber", "charbonnier")
OPTIMIZERS: Sequence[Mapping[str, Any]] = (
    {"sgd": {"lr": 0.05}},
    {"sgd": {"lr": 0.05, "momentum": 0.9, "nesterov": True}},
    {"adam": {"lr": 0.01}},
    {"adamw": {"lr": 0.01, "weight_decay": 0.1}},
    {"muon": {"lr": 0.01}},
)
SWITCHES = (
    "fold_affine",
    "fusion",
    "select_kernels",
    "block_layout",
    "batch_updates",
    "dead_code",
    "common_subexpressions",
    "hoist_constants",
    "recompute",
    "in_place",
)
"""The passes that a plan does not need."""
PLAIN: Mapping[str, Any] = {"executor": "reference", "kernels": "reference", "without": SWITCHES}


@dataclass(frozen=True)
class Trial:
    """A model, its inputs, and how it is trained and compiled.

    Args:
        nodes: the nodes as a model file states them.
        specs: the shape and dtype of each value that a node can read, by the reference to it.
        inputs: the tensors of the model's inputs, by name.
        losses: the name of the loss of each output, by the reference to it.
        settings: the optimizer and what belongs to it.
        options: the executor, and options of the compilation.
    """

    nodes: tuple[Mapping[str, Any], ...] = ()
    specs: Mapping[str, Spec] = field(default_factory=dict)
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    losses: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        """The model file."""
        inputs = {
            name: {"shape": list(x.shape[1:])}
            | ({} if x.dtype == FLOAT else {"dtype": dtype_name(x.dtype)})
            for name, x in self.inputs.items()
        }
        return {"inputs": inputs, "layers": [*map(dict, self.nodes)], "outputs": [*self.losses]}

    def __str__(self) -> str:
        shapes = {name: tuple(tensor.shape) for name, tensor in self.inputs.items()}
        return (
            f"{yaml.safe_dump(self.data, sort_keys=False)}"
            f"inputs of {shapes}, losses {dict(self.losses)}, settings {dict(self.settings)}, "
            f"options {dict(self.options)}"
        )


def cases_of(registry: Registry) -> Mapping[str, Sequence[Case]]:
    """The cases of each layer that train, and have no inputs or outputs of 0 axes, by its name."""
    found: dict[str, list[Case]] = {}
    for name, entry in registry.layers.items():
        for case in varied_cases_for(entry.value, registry=registry)[0]:
            if not isinstance(case, Case) or case.raises is not None:
                continue
            trains = case.usable and bool(case.layer.signature.backward)
            if trains and _outputs(case.layer, case.input_specs()):
                found.setdefault(name, []).append(case)
    return found


def random_trial(cases: Mapping[str, Sequence[Case]], nodes: int, draw: random.Random) -> Trial:
    """A random model with this many nodes and some of its training settings; `options` are left empty."""
    trial = Trial()
    made: list[str] = []
    while len(trial.nodes) < nodes or not made:
        trial = _with_node(trial, draw.choice(cases[draw.choice([*cases])]), draw)
        made = [name for name, one in trial.specs.items() if name[0] != "$" and _real(one)]
    used = {name for node in trial.nodes for name in node["inputs"]}
    ends = [name for name in made if name not in used or draw.random() < 0.1] or made[-1:]
    trial = replace(trial, losses={name: draw.choice(LOSSES) for name in ends})
    settings: dict[str, Any] = {"optimizer": draw.choice(OPTIMIZERS)}
    if draw.random() < 0.2:
        settings["ema"] = 0.9
    if draw.random() < 0.2:
        settings["clip_grad_norm"] = 0.5
    if draw.random() < 0.2:
        settings["accumulate"] = 2
    return _pruned(replace(trial, settings=settings))


def random_options(draw: random.Random) -> dict[str, Any]:
    """Options of a compilation that do not change what a model computes."""
    options: dict[str, Any] = {"kernels": draw.choice(["auto", "auto", "aten", "reference"])}
    if draw.random() < 0.5:
        options["without"] = tuple(name for name in SWITCHES if draw.random() < 0.3)
    if draw.random() < 0.3 and "recompute" not in options.get("without", ()):
        options["memory"] = f"{draw.randint(70, 99)}%"
    return options


def run(
    trial: Trial, registry: Registry, *, nudge: float = 0.0, steps: int = 2
) -> dict[str, Tensor]:
    """The losses of some steps, all tensors that they changed, and a prediction afterwards.

    Args:
        nudge: each input is multiplied by 1 and at most this much more or less.
    """
    model = Model(trial.data, registry=registry)
    shapes = [tuple(x.shape) for x in trial.inputs.values()]
    model = with_random_weights(model, *shapes)
    program = model.compile(
        *shapes, loss=_losses(trial), device="cpu", seed=5, **trial.settings, **trial.options
    )
    values = [program.plan.values[name] for name in program.plan.inputs]
    dtype = program.plan.values[program.plan.outputs[0]].spec.dtype
    generator = torch.Generator().manual_seed(11)
    targets = [
        torch.rand(value.spec.shape, generator=generator, dtype=FLOAT)
        for value in values[len(trial.inputs) :]
    ]
    tensors = []
    for x in (*trial.inputs.values(), *targets):
        if x.is_floating_point():
            noise = torch.rand(x.shape, generator=generator, dtype=FLOAT) * 2 - 1
            x = (x * (1 + nudge * noise)).to(dtype)
        tensors.append(x)
    found = {f"loss {step}": program.step(*tensors).clone() for step in range(steps)}
    found |= {name: tensor.clone() for name, tensor in program.weights.items()}
    found |= {name: tensor.clone() for name, tensor in program.optimizer_state.items()}
    prediction = program.predict(*tensors[: len(trial.inputs)])
    outputs = (prediction,) if isinstance(prediction, Tensor) else tuple(prediction)
    return found | {f"output {name}": y for name, y in zip(trial.losses, outputs, strict=True)}


def differences(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    nudged: Mapping[str, Tensor],
    tolerance: float,
) -> list[str]:
    """The tensors that differ by more than a tolerance, and by more than inputs that are rounded explain.

    Args:
        nudged: what the reference computes for inputs that differ by as much as rounding makes them.
        tolerance: relative to the largest number of a tensor.
    """
    wrong = []
    for name, right in expected.items():
        mine, moved = found[name].double(), nudged[name].double()
        right = right.double()
        bound = tolerance * max(1.0, _largest(right)) + 1000 * _largest(moved - right)
        apart = mine - right
        apart = apart.masked_fill((mine == right) | (mine.isnan() & right.isnan()), 0.0)
        if mine.shape != right.shape or not bool((apart.abs() <= bound).all()):
            wrong.append(f"{name}: {float(apart.abs().max()):.3g} apart, bound {bound:.3g}")
    return wrong


def shrink(trial: Trial, fails: Callable[[Trial], bool]) -> Trial:
    """A smaller trial that fails too, none of whose parts can be left out."""
    while True:
        for smaller in _simpler(trial):
            if fails(smaller):
                trial = smaller
                break
        else:
            return trial


def _with_node(trial: Trial, case: Case, draw: random.Random) -> Trial:
    """The trial with one more node, the layer of a case."""
    wanted = case.input_specs()
    fresh = {f"x{len(trial.nodes)}_{i}": _tensor(case, i) for i in range(len(wanted))}
    known = [name for name, spec in trial.specs.items() if _real(spec)]
    for _ in range(_TRIES if known else 0):
        chosen = [
            draw.choice(known)
            if spec.dtype.is_floating_point and draw.random() < 0.9
            else f"${name}"
            for name, spec in zip(fresh, wanted, strict=True)
        ]
        specs = [trial.specs.get(name, spec) for name, spec in zip(chosen, wanted, strict=True)]
        if any(name in trial.specs for name in chosen) and (
            made := _outputs(case.layer, specs, most=_MOST_NUMBERS)
        ):
            break
    else:
        chosen, made = [f"${name}" for name in fresh], _outputs(case.layer, wanted)
        specs = list(wanted)
        assert made is not None, case
    new = {name: x for name, x in fresh.items() if f"${name}" in chosen}
    name = f"n{len(trial.nodes)}"
    config = _config(case)
    node: dict[str, Any] = {"id": name, case.name: config, "inputs": chosen}
    if (other := _same(trial, case, specs)) and draw.random() < 0.3:
        node["share"] = other
    outputs = case.layer.outputs
    references = [name, *(f"{name}.{output}" for output in outputs[1:])]
    return replace(
        trial,
        nodes=(*trial.nodes, node),
        inputs={**trial.inputs, **new},
        specs={
            **trial.specs,
            **{f"${name}": Spec(tuple(x.shape), x.dtype) for name, x in new.items()},
            **dict(zip(references, made, strict=True)),
        },
    )


def _config(case: Case) -> dict[str, Any]:
    """The fields of a layer as a model file states them: with lists in place of tuples."""
    found: dict[str, Any] = json.loads(json.dumps(case.layer.configuration()))
    return found


def _tensor(case: Case, position: int) -> Tensor:
    """The tensor at a position of a case's inputs."""
    arguments = case.arguments(seed=position)
    bound = [arguments[name] for name in case.ports.inputs]
    tensors = [x for one in bound for x in (one if isinstance(one, tuple) else (one,))]
    found: Tensor = tensors[position]
    return found


def _outputs(layer: Layer, specs: Sequence[Spec], *, most: float = math.inf) -> list[Spec] | None:
    """The specs of the outputs, or None if the layer does not take these inputs."""
    try:
        ports = bind_inputs(layer, list(specs), FLOAT)
        made = [result.spec for result in observe(layer, "forward", ports.specs)]
    except Exception:  # a refusal: which errors it raises is tested elsewhere
        return None
    made = [Spec(spec.shape, spec.dtype) for spec in made[: len(layer.outputs)]]
    fits = all(0 < spec.numel <= most and spec.shape for spec in made)
    return made if fits and all(spec.shape for spec in specs) else None


def _same(trial: Trial, case: Case, specs: Sequence[Spec]) -> str | None:
    """An earlier node with the same layer and parameters of the same shapes."""
    mine = _slots(bind_inputs(case.layer, list(specs), FLOAT))
    for node in trial.nodes:
        if node.get(case.name) != _config(case) or "share" in node:
            continue
        theirs = bind_inputs(case.layer, [trial.specs[name] for name in node["inputs"]], FLOAT)
        if mine and mine == _slots(theirs) and not theirs.states:
            return str(node["id"])
    return None


def _slots(ports: Ports) -> dict[str, tuple[int, ...]]:
    return {name: tuple(spec.shape) for name, spec in ports.parameters.items() if spec is not None}


def _real(spec: Spec) -> bool:
    return spec.dtype.is_floating_point


def _losses(trial: Trial) -> Any:
    return dict(trial.losses) if len(trial.losses) > 1 else next(iter(trial.losses.values()))


def _largest(x: Tensor) -> float:
    finite = x[x.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0


def _simpler(trial: Trial) -> Iterator[Trial]:
    """Trials with one part less."""
    for i in range(len(trial.losses) if len(trial.losses) > 1 else 0):
        kept = [one for j, one in enumerate(trial.losses.items()) if j != i]
        yield _pruned(replace(trial, losses=dict(kept)))
    for i, node in enumerate(trial.nodes if len(trial.nodes) > 1 else ()):
        if not any(
            name == node["id"] or name.startswith(f"{node['id']}.") for name in trial.losses
        ):
            yield _pruned(_cut(trial, i))
    for name in trial.settings:
        if name != "optimizer":
            yield replace(trial, settings={k: v for k, v in trial.settings.items() if k != name})
    if trial.settings["optimizer"] != OPTIMIZERS[0]:
        yield replace(trial, settings={**trial.settings, "optimizer": OPTIMIZERS[0]})
    for name in trial.losses:
        if trial.losses[name] != LOSSES[0]:
            yield replace(trial, losses={**trial.losses, name: LOSSES[0]})
    for name, value in trial.options.items():
        if name == "without" and len(value) > 1:
            for one in value:
                rest = tuple(other for other in value if other != one)
                yield replace(trial, options={**trial.options, name: rest})
        elif name not in ("executor", "dtype"):
            yield replace(trial, options={k: v for k, v in trial.options.items() if k != name})


def _cut(trial: Trial, i: int) -> Trial:
    """The trial in which new inputs stand for the outputs of a node."""
    node = trial.nodes[i]
    renamed = {
        name: f"$cut_{name.replace('.', '_')}"
        for name in trial.specs
        if name == node["id"] or name.startswith(f"{node['id']}.")
    }
    nodes = []
    for other in (*trial.nodes[:i], *trial.nodes[i + 1 :]):
        changed = {**other, "inputs": [renamed.get(name, name) for name in other["inputs"]]}
        if changed.get("share") == node["id"]:
            del changed["share"]
        nodes.append(changed)
    new = {}
    for name, reference in renamed.items():
        generator = torch.Generator().manual_seed(len(name))
        new[reference[1:]] = (
            torch.rand(trial.specs[name].shape, generator=generator, dtype=FLOAT) - 0.5
        )
    return replace(
        trial,
        nodes=tuple(nodes),
        inputs={**trial.inputs, **new},
        specs={**trial.specs, **{r: trial.specs[name] for name, r in renamed.items()}},
    )


def _pruned(trial: Trial) -> Trial:
    """The trial without nodes and inputs on which no output depends."""
    wanted = set(trial.losses)
    kept: list[Mapping[str, Any]] = []
    for node in reversed(trial.nodes):
        mine = {name for name in wanted if name == node["id"] or name.startswith(f"{node['id']}.")}
        if mine:
            kept.insert(0, node)
            wanted |= set(node["inputs"])
            wanted |= {node["share"]} if "share" in node else set()
    return replace(
        trial,
        nodes=tuple(kept),
        inputs={name: x for name, x in trial.inputs.items() if f"${name}" in wanted},
    )


def failure(trial: Trial, registry: Registry, tolerance: float, rounding: float) -> str:
    """Say what is wrong with a trial; return an empty text if nothing is wrong."""
    plain = replace(trial, options={**PLAIN, "dtype": FLOAT})
    try:
        expected, nudged = run(plain, registry), run(plain, registry, nudge=rounding)
    except GraphnetError as error:
        return f"{REFUSED}: {error}"
    try:
        found = run(trial, registry)
    except MemoryBudgetError:
        options = {name: value for name, value in trial.options.items() if name != "memory"}
        return failure(replace(trial, options=options), registry, tolerance, rounding)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "; ".join(differences(found, expected, nudged, tolerance))

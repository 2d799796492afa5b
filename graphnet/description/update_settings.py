"""Updates: how a training changes its parameters: the optimizer and the settings beside it.

    optimizer: {adamw: {lr: 1.0e-3, weight_decay: 0.01}}
    parameters:
      - {match: "*.bias", weight_decay: 0.0}
      - {match: "stem.*", lr_scale: 0.1}
    clip_grad_norm: 1.0
    ema: 0.999
    accumulate: 4

Passes between the reverse pass and the finished step read these settings; a pass is added only if it is
requested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo

from graphnet.errors import DescriptionError, Problem, nearest, shown
from graphnet.sdk import Definition, Optimizer, Rate, Spec, frozen, rule_and_share, thawed
from graphnet.system import parse_bytes

Decay = Annotated[float, Field(gt=0.0, lt=1.0)]
Norm = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Reports = tuple[Literal["losses", "gradient_norm"], ...]
_OWN = ("match", "lr_scale", "freeze")  # the fields of Selector that are not the optimizer's
_SHOWN = 12  # names of parameters in an error


class Selector(Definition):
    """Other settings for the parameters whose names match a pattern.

    match: a pattern such as "enc1.*" or "*.bias"; * stands for any text, dots included, ? for one
    character, [ab] for one of these. lr_scale: a factor of the learning rate. freeze: whether the parameters
    stay as they are, and states too, such as a norm's running mean. fields: the optimizer's fields that have
    another value.
    """

    match: Annotated[str, Field(min_length=1)]
    lr_scale: Rate | None = None
    freeze: bool | None = None
    fields: dict[str, Any] = Field(default_factory=dict)

    def matches(self, parameter: str) -> bool:
        return fnmatchcase(parameter, self.match)

    def record(self) -> dict[str, Any]:
        """The selector as a training file states it."""
        own = {"lr_scale": self.lr_scale, "freeze": self.freeze}
        stated = {name: value for name, value in own.items() if value is not None}
        return {"match": self.match, **stated, **thawed(self.fields)}


def _selectors(forms: object, info: ValidationInfo) -> tuple[Selector, ...]:
    """The selectors of a list of {match: pattern, field: value}, for this optimizer.

    Without an optimizer the items of the list are not checked.
    Raises DescriptionError with everything that is wrong.
    """
    if not isinstance(forms, list | tuple):
        message = f"expected a list of {{match: PATTERN, FIELD: VALUE}}, found {shown(forms)}"
        raise DescriptionError([Problem(message, "parameters")])
    optimizer: Optimizer | None = info.data.get("optimizer")
    if optimizer is None:
        return ()
    made: list[Selector] = []
    found: list[Problem] = []
    for i, form in enumerate(forms):
        try:
            made.append(_selector(form, optimizer))
        except DescriptionError as error:
            found += [problem.under(_place(i)) for problem in error.problems]
    if found:
        raise DescriptionError(found)
    return tuple(made)


def _bytes(value: int | str | None) -> int | str | None:
    if "%" in str(value):
        raise ValueError(f"expected a number of bytes, such as '4MiB', found {value!r}")
    if value is not None:
        parse_bytes(value, whole=0)  # raises InputError if the value is no number of bytes
    return value


class UpdateSettings(Definition):
    """The optimizer, and the settings of the passes before and after it.

    optimizer: the rule of each parameter; None makes a plan without updates.
    parameters: other settings for some parameters: Selectors, or {match: pattern, field: value} as in a
      training file. All selectors that match apply; a later one overrides the field of an earlier one.
    clip_grad_norm: the largest norm of all gradients together (see passes/clip.py).
    accumulate: the number of steps for one update, which uses the mean of their gradients (see
      passes/accumulate.py): 1 to 2**31.
    ema: decay of a moving average of the weights, for prediction (see passes/ema.py).
    deterministic: whether a step computes its batch in four parts and adds up their gradients by pairs, so
      that 1, 2 and 4 processes give the same bits (see passes/micro_batches.py).
    shard: "optimizer" divides the optimizer's states among several processes (see passes/shard_optimizer.py).
    reduce_dtype: the dtype in which several processes send gradients; None is that of the parameters. It
      cannot be used with `deterministic`.
    bucket: how many bytes of gradients several processes send at once, such as "4MiB"; None is 25 MiB.
    report: what a step computes besides the loss: "losses", each loss of a sum, and "gradient_norm", the norm
      of all gradients together, before `clip_grad_norm` (see passes/report.py).
    """

    optimizer: Optimizer | None = None
    parameters: Annotated[tuple[Selector, ...], PlainValidator(_selectors)] = ()
    clip_grad_norm: Norm | None = None
    ema: Decay | None = None
    accumulate: Annotated[int, Field(ge=1, le=2**31)] = 1
    deterministic: bool = False
    shard: Literal["optimizer"] | None = None
    reduce_dtype: Literal["bfloat16"] | None = None
    bucket: Annotated[int | str | None, AfterValidator(_bytes)] = None
    report: Annotated[Reports, BeforeValidator(frozen)] = ()

    def __post_init__(self) -> None:
        if self.deterministic and self.reduce_dtype is not None:
            message = (
                "gradients that are rounded before they are added up depend on the number of processes, "
                "which `deterministic` excludes. Leave one of the two out"
            )
            raise DescriptionError([Problem(message, "reduce_dtype")])

    def record(self) -> dict[str, Any]:
        """All fields but the optimizer as plain data, as a training file states them."""
        selectors = [selector.record() for selector in self.parameters]
        mine, _ = split_updates(self.configuration())
        return {**mine, "parameters": selectors, "report": list(self.report)}

    def rule(self, parameter: str, spec: Spec) -> tuple[Optimizer, float]:
        """The optimizer of a parameter, and its factor of the learning rate."""
        assert self.optimizer is not None
        fields: dict[str, Any] = {}
        scale = 1.0
        for selector in self.parameters:
            if selector.matches(parameter):
                fields |= selector.fields
                scale = scale if selector.lr_scale is None else selector.lr_scale
        changed = _changed(self.optimizer, fields)  # its learning rate is the common one
        chosen, share = rule_and_share(changed, spec, repr(parameter))
        return chosen, scale * share

    def freezes(self, slot: str) -> bool:
        """Whether a parameter or state stays as it is: the last selector that says so decides."""
        said = [one.freeze for one in self.parameters if one.matches(slot)]
        return next((one for one in reversed(said) if one is not None), False)

    def check_matches(self, parameters: Iterable[str], states: Iterable[str]) -> None:
        """Raise DescriptionError for each selector that matches no parameter.

        A selector that freezes may match a state instead.
        """
        trained, all_names = list(parameters), [*parameters, *states]
        unused = []
        for i, one in enumerate(self.parameters):
            names = trained if one.freeze is None else all_names
            if not any(map(one.matches, names)):
                message = f"{one.match!r} matches no parameter. {_hint(one.match, names)}"
                unused.append(Problem(message, "match").under(_place(i)))
        if unused:
            raise DescriptionError(unused)


def split_updates(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split fields into those of UpdateSettings but for the optimizer, and the others.

    >>> split_updates({"clip_grad_norm": 1.0, "epochs": 3})
    ({'clip_grad_norm': 1.0}, {'epochs': 3})
    """
    names = {*UpdateSettings.field_names()} - {"optimizer"}
    mine = {name: value for name, value in fields.items() if name in names}
    return mine, {name: value for name, value in fields.items() if name not in names}


def _selector(form: object, optimizer: Optimizer) -> Selector:
    """One selector. Raises DescriptionError with everything that is wrong with it."""
    if isinstance(form, Selector):
        return form
    if not isinstance(form, Mapping):
        raise DescriptionError(
            [Problem(f"expected {{match: PATTERN, FIELD: VALUE}}, found {shown(form)}")]
        )
    own = {name: form[name] for name in _OWN if name in form}
    fields = frozen({name: value for name, value in form.items() if name not in own})
    settable = [name for name in optimizer.field_names() if name != "lr"]
    found: list[Problem] = []
    if "lr" in fields:
        message = "one learning rate drives all parameters: give lr_scale, a factor of it"
        found.append(Problem(message, "lr"))
    elif not fields and set(own) <= {"match"}:
        message = f"changes nothing. Give lr_scale, freeze, or one of {', '.join(settable)}."
        found.append(Problem(message))
    elif own.get("freeze") is True and len(form) > 2:
        found.append(Problem("a frozen parameter has no other settings", "freeze"))
    for name in [name for name in fields if name not in {*settable, "lr"}]:
        del fields[name]
        message = f"unknown field. {nearest(name, [*_OWN, *settable])}"
        found.append(Problem(message, name))
    for make in (lambda: Selector(**own, fields=fields), lambda: _changed(optimizer, fields)):
        try:
            make()
        except DescriptionError as error:
            found += error.problems
    if found:
        raise DescriptionError(found)
    return Selector(**own, fields=fields)


def _changed(optimizer: Optimizer, fields: Mapping[str, Any]) -> Optimizer:
    return type(optimizer)(**{**optimizer.configuration(), **fields}) if fields else optimizer


def _place(position: int) -> str:
    return f"parameters[{position}]"


def _hint(pattern: str, names: list[str]) -> str:
    hint = nearest(pattern, names)
    if hint.startswith("Known") and len(names) > _SHOWN:
        return f"Known: {', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more."
    return hint

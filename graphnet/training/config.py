"""Config: read a training file, and check all of it before anything runs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from graphnet.description import (
    Locations,
    Place,
    UpdateSettings,
    dotted,
    loss_terms,
    parse,
    read_file,
    read_text,
    split_updates,
    undotted,
)
from graphnet.errors import DescriptionError, GraphnetError, Problem, shown
from graphnet.model import Model
from graphnet.plan import CompileOptions, split_options
from graphnet.sdk import DataSet, Definition, Metric, Registry, Reporter, Schedule, split_form
from graphnet.sdk import problems as as_problems
from graphnet.system import whole_number

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
Form = str | dict[str, Any]
"""A name, or {name: {field: value}}."""


class DataConfig(BaseModel):
    """The data sets of a training file: each is a path, or {name of a data set: {field: value}}."""

    model_config = _STRICT
    train: Form
    validation: Form | None = None


class CheckpointConfig(BaseModel):
    """Which checkpoints a training keeps.

    Attributes:
        keep: the number of last checkpoints.
        best: a metric, or "loss"; the model of the epoch in which it was best is kept as best.safetensors.
        every_s: after so many seconds a checkpoint is written, besides those after each epoch; None for
            never.
    """

    model_config = _STRICT
    keep: PositiveInt = 2
    best: str | None = None
    every_s: PositiveFloat | None = 600.0


class TrainConfig(BaseModel):
    """The fields of a training file besides those of UpdateSettings and CompileOptions.

    `model` is a path, relative to the file, or a description.
    """

    model_config = _STRICT
    model: Form
    data: DataConfig
    loss: Form | list[Form]
    optimizer: Form
    schedule: Form = "constant"
    epochs: PositiveInt
    batch_size: PositiveInt
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    executor: Form = "eager"
    metrics: list[Form] = []
    reporters: list[Form] = []
    checkpoints: CheckpointConfig = CheckpointConfig()
    log_every: PositiveInt = 100


def read_fields(
    data: Mapping[str, Any],
) -> tuple[TrainConfig, dict[str, Any], CompileOptions]:
    """Check the fields of a training file, and split them by what they are fields of.

    Those of UpdateSettings are returned as they are: they are checked again with the optimizer, once there
    is one. Raises DescriptionError, which holds every fault.
    """
    compiling, rest = split_options(data)
    updating, rest = split_updates(rest)
    found = [*_texts_with_nul(data)]

    def attempt(make: Callable[..., Any], fields: Mapping[str, Any]) -> Any:
        try:
            return make(**fields)
        except DescriptionError as error:
            found.extend(error.problems)

    options = attempt(CompileOptions, compiling)
    attempt(UpdateSettings, updating)
    try:
        config = TrainConfig.model_validate(rest)
    except ValidationError as error:
        for inside, records in itertools.groupby(error.errors(), _inside):
            found += as_problems(records, inside or _fields())
    if found:
        raise DescriptionError(found)
    return config, updating, options


class Job:
    """A training file, with the objects that it names: the model, the optimizer, the data sets, and so on."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        options: CompileOptions,
        updates: UpdateSettings,
        model: Model,
        schedule: Schedule,
        metrics: Mapping[str, Metric],
        reporters: Sequence[Reporter],
        train: DataSet,
        validation: DataSet | None,
        registry: Registry,
    ) -> None:
        self.config = config
        self.options = options
        self.updates = updates
        self.model = model
        self.schedule = schedule
        self.metrics = metrics
        self.reporters = reporters
        self.train = train
        self.validation = validation
        self.registry = registry

    def record(self) -> dict[str, Any]:
        """Return all fields of the training file as plain data."""
        fields = self.config.model_dump(mode="json")
        return {**fields, **self.updates.record(), **self.options.record()}


def read_job(path: Path, *, settings: Sequence[str] = (), registry: Registry) -> Job:
    """Read a training file and make the job that it describes.

    Args:
        path: the file.
        settings: fields that are set, "optimizer.sgd.lr=5". "--saved-dtype=bfloat16" sets the field
            saved_dtype, and errors then name the option of the command line.
        registry: the definitions that the file may name.

    Raises:
        DescriptionError: the file, the model or a setting is wrong; the error holds every fault.
    """
    data, locations = read_file(path)
    if not isinstance(data, dict):
        raise DescriptionError(
            [Problem(f"expected a mapping of fields, found {shown(data)}", "", str(path))]
        )
    if "layers" in data and "model" not in data:
        message = "this is a model file. A training file is expected here, which names it: model: "
        raise DescriptionError([Problem(f"{message}{path.name}.", where=str(path))])
    for setting in settings:
        own, equals, value = setting.partition("=")
        option = own.startswith("--")
        field = own.removeprefix("--").replace("-", "_") if option else own
        place = _apply(data, f"{field}{equals}{value}")
        locations = locations.but(place, own if option else f"--set {own}")
    return make_job(data, registry=registry, folder=path.parent, locations=locations)


def make_job(
    data: Mapping[str, Any],
    *,
    registry: Registry,
    folder: Path = Path(),
    locations: Locations | None = None,
) -> Job:
    """Make the job that plain data describes; paths of models are relative to `folder`."""
    locations = locations or Locations()
    try:
        config, updating, options = read_fields(data)
    except DescriptionError as error:
        raise DescriptionError(
            [replace(p, where=locations.where(undotted(p.path))) for p in error.problems]
        ) from None
    found: list[Problem] = []

    def attempt(place: Place, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except DescriptionError as error:
            for problem in error.problems:
                where = locations.where((*place, *undotted(problem.path)))
                placed = replace(problem.under(dotted(place)), where=where)
                found.append(problem if problem.where else placed)
        except GraphnetError as error:
            found.append(Problem(str(error), dotted(place), locations.where(place)))

    metrics: dict[str, Metric] = {}
    for i, named in enumerate(config.metrics):
        metric = attempt(("metrics", i), functools.partial(registry.make, "metrics", named))
        if metric is not None:
            metrics[label_of(named, registry)] = metric
    reporters = [
        attempt(("reporters", i), functools.partial(registry.make, "reporters", named))
        for i, named in enumerate(config.reporters)
    ]
    if (best := config.checkpoints.best) is not None:
        reporters.append(registry.make("reporters", {"best_checkpoint": {"metric": best}}))
    model = attempt(
        ("model",), lambda: _model(config.model, folder, registry, locations.below(("model",)))
    )
    optimizer = attempt(("optimizer",), lambda: registry.make("optimizers", config.optimizer))
    made = {
        "model": model,
        "updates": attempt((), lambda: UpdateSettings(optimizer=optimizer, **updating)),
        "schedule": attempt(("schedule",), lambda: registry.make("schedules", config.schedule)),
        "train": attempt(("data", "train"), lambda: registry.dataset(config.data.train)),
        "validation": attempt(
            ("data", "validation"),
            lambda: (
                None if config.data.validation is None else registry.dataset(config.data.validation)
            ),
        ),
    }
    for place, form in _losses(config.loss):
        attempt(place, functools.partial(loss_terms, form, registry))
    attempt(("executor",), lambda: registry.make("executors", config.executor))
    if config.metrics and config.data.validation is None:
        message = (
            "metrics are measured on a validation set: give data.validation, or leave them out"
        )
        found.append(Problem(message, "metrics", locations.where(("metrics",))))
    if found:
        raise DescriptionError(found)
    return Job(
        config, options=options, metrics=metrics, reporters=reporters, registry=registry, **made
    )


def label_of(form: object, registry: Registry) -> str:
    """Return a form as a name for records: "psnr", or "within(bound=0.5)" with its fields."""
    if isinstance(form, Definition):
        form = {registry.name_of(form): form.configuration()}
    name, fields = split_form(form)
    given = ", ".join(f"{field}={value}" for field, value in fields.items())
    return f"{name}({given})" if given else name


def _losses(form: Form | list[Form]) -> list[tuple[Place, Form | list[Form]]]:
    """Return each loss with its place in the file; an empty list is returned as one, to be refused."""
    if isinstance(form, list) and form:
        return [(("loss", i), one) for i, one in enumerate(form)]
    return [(("loss",), form)]


def _model(form: Form, folder: Path, registry: Registry, locations: Locations) -> Model:
    if isinstance(form, str):
        return Model.load(folder / form, registry=registry)
    return Model(parse(form, locations), registry=registry)


def _texts_with_nul(data: Any, place: Place = ()) -> Iterator[Problem]:
    """Yield the texts that the system takes for no path, and a library may cut."""
    if isinstance(data, str) and "\0" in data:
        yield Problem("expected a text without the character NUL", dotted(place))
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _texts_with_nul(value, (*place, key))
    elif isinstance(data, (list, tuple)):
        for i, value in enumerate(data):
            yield from _texts_with_nul(value, (*place, i))


_NESTED: dict[str, type[BaseModel]] = {"data": DataConfig, "checkpoints": CheckpointConfig}


def _inside(record: Mapping[str, Any]) -> Iterable[str] | None:
    """The fields of `data` or `checkpoints`, if pydantic's record is about one of them."""
    field, *rest = record["loc"]
    return _NESTED[field].model_fields if rest and field in _NESTED else None


def _fields() -> list[str]:
    """The names of all fields at the top of a training file."""
    settings = (*UpdateSettings.field_names(), *CompileOptions.field_names())
    return [*TrainConfig.model_fields, *(name for name in settings if name != "optimizer")]


def _apply(data: dict[str, Any], setting: str) -> Place:
    """Set the field of a setting "optimizer.sgd.lr=5", and return its place."""
    path, equals, text = setting.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise DescriptionError([Problem(f"expected --set PATH=VALUE, found {setting!r}")])
    try:
        value, _ = read_text(text, name=f"--set {path}")
    except DescriptionError:
        value = text  # a path of a file may contain characters that have a meaning in YAML
    parts: list[str | int] = []
    inner: Any = data
    for key in keys[:-1]:
        at = _index(inner, key, path)
        parts.append(at)
        inside = inner[at] if isinstance(inner, list) else inner.get(at)
        if not isinstance(inside, (dict, list)):
            inside = inner[at] = {}
        inner = inside
    parts.append(_index(inner, keys[-1], path))
    inner[parts[-1]] = value
    return tuple(parts)


def _index(place: dict[str, Any] | list[Any], key: str, path: str) -> Any:
    """Return the key; for a list, return it as a number."""
    if isinstance(place, dict):
        return key
    number = whole_number(key)
    if number is None or number >= len(place):
        message = f"--set {path}: expected an item's number below {len(place)}, found {key!r}"
        raise DescriptionError([Problem(message)])
    return number

"""Checks of a layer's declarations: docstring, configuration, number of inputs, errors."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import json
import re
import sys
from typing import Any

import torch

import graphnet
from graphnet.description import dump, expand, parse, parse_text, read_text
from graphnet.errors import GraphError
from graphnet.graph import bind_inputs, observe
from graphnet.sdk import Layer, Loss
from graphnet.testing.author import raised
from graphnet.testing.case import Case, is_kernel
from graphnet.testing.check import check
from graphnet.testing.outcome import CheckFailure, NotApplicable


@check
def docstring(case: Case) -> None:
    """The docstring says what the layer computes, and names every input and parameter."""
    cls = type(case.layer)
    own = inspect.cleandoc(vars(cls).get("__doc__") or "")
    first = own.split("\n", 1)[0]
    if len(first.split()) < 2:
        raise CheckFailure(
            f"expected a docstring whose first line says what {cls.__name__} computes, found "
            f"{first!r}. Write the equation, its source, and each tensor's shape."
        )
    if is_kernel(case):
        return  # a kernel's pattern names the tensors
    inherited = [
        c for c in cls.__mro__ if issubclass(c, Layer) and c.__module__ != Layer.__module__
    ]
    text = "\n".join(inspect.cleandoc(vars(c).get("__doc__") or "") for c in inherited)
    names = [n for n in (*case.ports.inputs, *case.ports.parameters) if n != cls.signature.variadic]
    missing = [name for name in names if not re.search(rf"\b{name}\b", text)]
    if missing:
        raise CheckFailure(
            f"expected the docstring to say what {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'}, found no mention. Add the shape and meaning "
            f"of each input and parameter."
        )


@check
def examples(case: Case) -> None:
    """The examples in the docstring (lines that start with >>>) give the results that they state."""
    cls = type(case.layer)
    module = sys.modules.get(cls.__module__)  # None where text was executed
    own = {cls.__name__: cls} if module is None else vars(module)
    names = {**own, "torch": torch, "gn": graphnet}
    finder = doctest.DocTestFinder(recurse=False)
    found = [
        test for test in finder.find(cls, cls.__name__, globs=names, extraglobs={}) if test.examples
    ]
    if not found:
        raise NotApplicable("the docstring has no example")
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in found:
        test.filename = None  # its lines are those of the docstring
        runner.run(test, out=told.append)
    if runner.failures:
        raise CheckFailure(
            f"expected the examples in the docstring of {cls.__name__} to give what they state, found "
            f"another result:\n{''.join(told).strip()}"
        )


@check
def json_schema(case: Case) -> None:
    """The layer's JSON Schema is valid and accepts this configuration."""
    schema = _schema(case)
    config = plain_config(case)
    if importlib.util.find_spec("jsonschema") is None:
        raise NotApplicable("jsonschema is not installed: pip install jsonschema")
    import jsonschema  # an optional package

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise CheckFailure(f"the JSON Schema is not valid: {error.message}") from error
    for problem in jsonschema.Draft202012Validator(schema).iter_errors(config):
        raise CheckFailure(
            f"the JSON Schema refuses the field {problem.json_path.removeprefix('$.')!r} of a layer "
            f"that exists: {problem.message}. Let the field's type state what it accepts."
        )


def _schema(case: Case) -> dict[str, Any]:
    _no_kernel(case)
    try:
        return type(case.layer).schema()
    except Exception as error:  # pydantic may raise any exception for the author's types
        raise CheckFailure(
            f"expected fields that a JSON Schema can describe, found {raised(error)}. Use numbers, text, "
            f"booleans, tuples and Literal."
        ) from error


def plain_config(case: Case) -> dict[str, Any]:
    """Return the configuration as plain data; raises CheckFailure if a file cannot state it."""
    config = case.layer.configuration()
    try:
        plain: dict[str, Any] = json.loads(json.dumps(config))
    except TypeError as error:
        raise CheckFailure(
            f"expected fields that a file can state, found {config!r} ({error}). Use numbers, text, "
            f"booleans, tuples and Literal."
        ) from error
    return plain


def _no_kernel(case: Case) -> None:
    if is_kernel(case):
        raise NotApplicable("no description names a kernel")


@check
def description(case: Case) -> None:
    """A layer that is written to YAML and read again is equal to the original."""
    _no_kernel(case)
    if isinstance(case.layer, Loss):  # a training file states it, not a model
        form = {case.name: plain_config(case)}
        _equal(case, case.registry.make("losses", read_text(dump(form))[0]))
        return
    inputs = {f"i{number}": None for number in range(len(case.inputs))} or {"i0": None}
    node = {case.name: plain_config(case), "inputs": [f"${name}" for name in inputs]}
    written = parse({"inputs": inputs, "layers": [node]})
    read = parse_text(written.to_yaml())
    if read != written:
        raise CheckFailure(f"expected the description to read back equal, found {read.to_data()}")
    (made,) = expand(read, case.registry).nodes
    _equal(case, made.layer)


def _equal(case: Case, made: Layer) -> None:
    if made != case.layer:
        raise CheckFailure(
            f"expected {case.layer}, found {made} after writing and reading. A field must keep the "
            f"value it is given."
        )


@check
def input_count(case: Case) -> None:
    """A wrong number of inputs raises GraphError, not another exception."""
    _no_kernel(case)
    specs = case.input_specs()
    variadic = case.layer.signature.variadic is not None
    for wrong in ((), specs[:0]) if variadic else (specs[:-1], (*specs, *specs[:1])):
        if len(wrong) == len(specs):
            continue
        try:
            bind_inputs(case.layer, wrong, specs[0].dtype)
        except GraphError:
            continue
        except Exception as error:
            raise CheckFailure(
                f"expected GraphError for {len(wrong)} inputs, found {raised(error)}. "
                f"`parameters` and `states` may read specs of inputs only by name."
            ) from error
        raise CheckFailure(f"expected GraphError for {len(wrong)} inputs, found none")


@check
def declared_errors(case: Case) -> None:
    """Inputs that must be refused raise the error that the sample declares."""
    if case.raises is None:
        raise NotApplicable("no sample declares an error")
    expected = case.raises.__name__
    try:
        observe(case.layer, "forward", case.ports.specs)
    except case.raises:
        return
    except Exception as error:
        raise CheckFailure(f"expected {expected}, found {raised(error)}") from error
    raise CheckFailure(
        f"expected {expected}, found that the inputs are accepted. Check them first."
    )

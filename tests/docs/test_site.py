"""The site: its reference holds all of the SDK, each part of the contract has an example, links are right."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Callable
from typing import Any

import click
import markdown
import pytest
from ruamel.yaml import YAML

import graphnet.sdk
from docs.site import build, commands, pages, reference
from graphnet.cli import graphnet as command_line

CLASSES = reference.public_classes(graphnet.sdk)
CONTRACT = [name for names in pages.GROUPS.values() for name in names]


def stated(cls: type) -> set[str]:
    """The public attributes and methods that a class has at run time, without those that a base computes."""
    names = {*vars(cls), *inspect.get_annotations(cls)}
    source = inspect.getsource(cls)
    return {n for n in names if not n.startswith("_") and re.search(rf"\b{n}\b", source)}


def missing(text: str, classes: dict[str, type[Any]]) -> list[str]:
    """The attributes of classes that have no heading in a text."""
    return [
        f"{title}.{name}"
        for title, cls in classes.items()
        for name in sorted(stated(cls))
        if f"{{ #{title}.{name} }}" not in text
    ]


def test_reference_has_every_attribute_and_method_of_the_sdk() -> None:
    assert missing(pages.contract() + pages.sdk(), CLASSES) == []


def test_an_attribute_that_the_reference_lacks_is_found() -> None:
    text = pages.contract().replace("{ #Layer.window }", "")
    assert missing(text, {"Layer": graphnet.sdk.Layer}) == ["Layer.window"]


@pytest.mark.parametrize(
    "page", [pages.contract, pages.sdk, pages.face, pages.testing, pages.errors]
)
def test_no_anchor_of_a_heading_is_printed_as_text(page: Callable[[], str]) -> None:
    assert "{ #" not in markdown.markdown(page(), extensions=["attr_list", "fenced_code"])


def test_reference_has_every_name_of_the_sdk() -> None:
    text = pages.contract() + pages.sdk()
    assert [name for name in graphnet.sdk.__all__ if f"{{ #{name} }}" not in text] == []


@pytest.mark.parametrize("name", CLASSES)
def test_each_attribute_of_a_public_class_says_what_it_is(name: str) -> None:
    cls = CLASSES[name]
    said = {n for base in cls.__mro__[:-1] if base.__module__.startswith("graphnet")
            for n, member in reference.members(base).items() if member.doc}  # fmt: skip
    assert stated(cls) - said == set()


@pytest.mark.parametrize("name", CONTRACT)
def test_each_attribute_of_the_contract_is_used_in_an_example_that_runs(name: str) -> None:
    """The examples are doctests of the class and of its methods, which test_docs.py runs."""
    cls = CLASSES[name]
    docs = [inspect.getdoc(cls) or "", *(m.doc for m in reference.members(cls).values())]
    examples = [one for doc in docs for one in doctest.DocTestParser().get_examples(doc)]
    code = "".join(one.source for one in examples)
    assert [n for n in sorted(stated(cls)) if not re.search(rf"\b{n}\b", code)] == []


def test_arguments_of_a_class_are_described_whether_they_are_fields_or_not() -> None:
    class Plain:
        """Plain.

        Args:
            size: how large it is.
        """

        def __init__(self, size: int = 3) -> None:
            pass

    page = reference.class_page(Plain, "Plain")
    assert "`Plain(size: int=3)`" in page
    assert "- `size`: how large it is." in page
    field = reference.class_page(graphnet.sdk.ModelFile, "ModelFile")
    assert field.count("Plain data as a YAML model file holds it") == 1


def test_page_of_the_command_line_has_every_option_of_every_command() -> None:
    page = commands.page()
    seen = list(commands.walk(command_line, "graphnet", None))
    assert {"graphnet train", "graphnet plugins new", "graphnet denoise"} <= {p for p, *_ in seen}
    for path, command, _ in seen:
        part = page.partition(f"Usage: {path} ")[2].partition("```")[0]
        assert part, path
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[-1] in part, (path, parameter.opts)


def test_each_page_is_in_the_navigation_once() -> None:
    settings = YAML(typ="safe").load((build.ROOT / "mkdocs.yml").read_text())
    listed = [page for section in settings["nav"] for part in section.values()
              for entry in part for page in entry.values()]  # fmt: skip
    docs = build.ROOT / "docs"
    pages_of_docs = [str(path.relative_to(docs)) for path in docs.rglob("*.md")]
    assert sorted(listed) == sorted([*pages_of_docs, *build.OUTSIDE.values(), *build.GENERATED])


@pytest.mark.parametrize(
    ("here", "text", "expected"),
    [
        ("index.md", "[a](docs/tour.md#b)", "[a](tour.md#b)"),
        ("index.md", "![a](docs/strip.png)", "![a](strip.png)"),
        ("hooks/losses.md", "[a](../plugins.md)", "[a](../plugins.md)"),
        ("public.md", "[a](../CHANGELOG.md)", "[a](changelog.md)"),
        ("index.md", "[a](examples/importing.py)", "[a](files/examples/importing.py)"),
        ("index.md", "[a](https://b.org/c)", "[a](https://b.org/c)"),
        ("index.md", "```\n[a](docs/b.md)\n```", "```\n[a](docs/b.md)\n```"),
        ("plugins/graphnet-cpu.md", "[a](../../docs/tour.md)", "[a](../tour.md)"),
    ],
)
def test_link_leads_to_the_place_in_the_site(here: str, text: str, expected: str) -> None:
    assert build.relinked(text, here) == expected


def test_docstring_is_markdown_in_which_only_code_is_code() -> None:
    doc = (
        "x_i * y_i < 3, and `a*b`.\n\nArgs:\n    x, y: two tensors,\n        of one shape.\n\n"
        "    def f(): ...\n\nWith\n    y = x_i\nit ends.\n\n>>> 1 + 1\n2\n"
    )
    assert reference.markdown(doc) == (
        "x\\_i \\* y\\_i &lt; 3, and `a*b`.\n\n**Args**\n\n- `x, y`: two tensors, of one shape.\n\n"
        "```text\ndef f(): ...\n```\n\nWith\n\n```text\ny = x_i\n```\n\nit ends.\n\n"
        "```pycon\n>>> 1 + 1\n2\n```"
    )

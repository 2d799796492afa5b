"""The examples in the docstrings of this distribution print what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import graphnet_denoise
import numpy as np
import pytest
import torch

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(graphnet_denoise.__path__, "graphnet_denoise.")
    if not name.endswith("__main__")
]


@pytest.mark.parametrize("name", ["graphnet_denoise", *MODULES])
def test_examples_print_what_they_show(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what lives there"
    failed, _ = doctest.testmod(module, extraglobs={"torch": torch, "np": np})
    assert failed == 0

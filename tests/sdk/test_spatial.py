"""Layers over any number of axes: their fields have one number for each axis, or one for all."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from graphnet.errors import ContractError, DescriptionError, GraphError
from graphnet.sdk import (
    Factors,
    NonNegativeSides,
    OptionalSizes,
    PositiveSizes,
    Spatial,
    Spec,
)


class Stretch(Spatial):
    """Fields of all types."""

    sizes_: PositiveSizes
    step: PositiveSizes | None = None
    sides: NonNegativeSides = (0,)
    factor: Factors = (1.5,)
    wanted: OptionalSizes = (1,)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y


class Stretch1d(Stretch, axes=1):
    """One axis."""


class Stretch3d(Stretch, axes=3):
    """Three axes."""


def test_one_number_stands_for_all_axes_and_defaults_are_repeated() -> None:
    layer = Stretch3d(sizes_=2, sides=1, wanted=[None, 4, None])
    assert layer.configuration() == {
        "sizes_": (2, 2, 2),
        "step": None,
        "sides": (1,) * 6,
        "factor": (1.5,) * 3,
        "wanted": (None, 4, None),
    }
    assert Stretch1d(sizes_=2, sides=[3, 4], step=5).configuration() == {
        "sizes_": (2,),
        "step": (5,),
        "sides": (3, 4),
        "factor": (1.5,),
        "wanted": (1,),
    }


@pytest.mark.parametrize(
    ("layer", "fields", "message"),
    [
        (Stretch3d, {"sizes_": [1, 2]}, "sizes_.2: must be given"),
        (Stretch3d, {"sizes_": "2"}, "expected an integer or three of them, found '2'"),
        (Stretch1d, {"sizes_": True}, "expected an integer or a list of one, found True"),
        (Stretch3d, {"sizes_": 0}, r"sizes_.2: expected greater than 0, found 0"),
        (Stretch3d, {"sizes_": 1, "factor": 0.0}, "greater than 0"),
        (Stretch3d, {"sizes_": 1, "sides": [1, 2, 3, 4]}, "sides.4: must be given"),
    ],
)
def test_fields_that_do_not_fit_are_refused(
    layer: type[Stretch], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(DescriptionError, match=message):
        layer(**fields)


def test_an_input_of_other_axes_is_refused() -> None:
    assert Stretch3d(sizes_=1).sizes((2, 3, 4, 5, 6)) == (4, 5, 6)
    with pytest.raises(GraphError, match="expected an input N x C x L, got 2x3x4x5 float32"):
        Stretch1d(sizes_=1).sizes(Spec((2, 3, 4, 5)))


def test_a_class_with_axes_cannot_get_others() -> None:
    with pytest.raises(ContractError, match="Other has 1 axes, but its base has 3"):

        class Other(Stretch3d, axes=1):
            """Wrong."""

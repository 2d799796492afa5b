"""Reflection padding against numpy's, for every combination of sizes."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphnet.model import pad_to_multiple
from graphnet.model.padding import reflect


@given(length=st.integers(1, 40), extra=st.integers(0, 200))
def test_reflect_equals_numpy(length: int, extra: int) -> None:
    expected = np.pad(np.arange(length), (0, extra), mode="reflect")
    assert reflect(length, length + extra).tolist() == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    divisor=st.integers(1, 64),
)
def test_padding_reaches_the_next_multiple_and_crops_back(
    height: int, width: int, divisor: int
) -> None:
    x = torch.arange(2 * height * width, dtype=torch.float32).reshape(1, 2, height, width)
    y = pad_to_multiple(x, divisor)
    rows, columns = -height % divisor, -width % divisor
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, rows), (0, columns)), mode="reflect")
    assert torch.equal(y, torch.from_numpy(expected))
    assert torch.equal(y[..., :height, :width], x)


def test_an_image_that_fits_is_returned_itself() -> None:
    x = torch.zeros(1, 3, 8, 4)
    assert pad_to_multiple(x, 4) is x


def test_one_pixel_is_repeated() -> None:
    x = torch.full((1, 1, 1, 1), 0.25)
    assert torch.equal(pad_to_multiple(x, 3), torch.full((1, 1, 3, 3), 0.25))


def test_padding_mirrors_without_repeating_the_edge() -> None:
    x = torch.tensor([[1, 2, 3], [4, 5, 6]])
    expected = [[1, 2, 3, 2, 1], [4, 5, 6, 5, 4], [1, 2, 3, 2, 1], [4, 5, 6, 5, 4], [1, 2, 3, 2, 1]]
    assert pad_to_multiple(x, 5).tolist() == expected

"""Options: how a model is compiled, apart from what it computes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from graphnet.errors import InputError
from graphnet.sdk import check_dtype

Narrow = Literal["bfloat16", "float16"]
_NARROW: tuple[Narrow, ...] = get_args(Narrow)


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """The choices behind a plan.

    `dtype` is that of the parameters, inputs and outputs, `precision` what matrix products compute in:
    the same, or "bfloat16" or "float16" over float32. `kernels` is "auto", "reference" or a namespace of
    kernels. `keep` is the dtype in which values wait for the reverse pass: "bfloat16", or None for their
    own. `memory` bounds the plan's peak: bytes, "2GiB", or "50%" of what it needs otherwise. `without`
    names passes that are switched off. `autotune` chooses kernels by measuring; `refused` are such
    choices made before: pairs of a call and a kernel that is not used there. Raises InputError for a
    dtype that is not of floating point, a precision that does not fit the dtype, and a `keep` that is
    not known.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    precision: str | None = None
    kernels: str = "auto"
    keep: str | None = None
    memory: int | str | None = None
    without: frozenset[str] = frozenset()
    autotune: bool = False
    refused: frozenset[tuple[str, str]] = frozenset()

    def __post_init__(self) -> None:
        check_dtype(self.dtype, "dtype")
        own = str(self.dtype).removeprefix("torch.")
        if self.precision not in (None, own, *_NARROW):
            raise InputError(
                f"precision {self.precision!r} does not fit tensors of {own}. "
                f"Known: {own}, or bfloat16 or float16 over float32."
            )
        if self.narrow and own != "float32":
            raise InputError(f"precision {self.precision!r} needs tensors of float32, got {own}")
        if self.keep not in (None, "bfloat16"):
            raise InputError(f"keep {self.keep!r} is not known. Known: bfloat16, or leave it out.")

    def decided(self, refused: Iterable[tuple[str, str]]) -> CompileOptions:
        """The same choices with the kernels of another plan, which refused these: none is timed again."""
        return replace(self, autotune=False, refused=frozenset(refused))

    def for_inference(self) -> CompileOptions:
        """The same choices for a plan that only predicts: nothing is kept, nothing recomputed."""
        return replace(self, keep=None, memory=None)

    @property
    def narrow(self) -> Narrow | None:
        """The dtype that layers compute in where it is narrower than that of the parameters."""
        other = (name for name in _NARROW if getattr(torch, name) != self.dtype)
        return next((name for name in other if name == self.precision), None)

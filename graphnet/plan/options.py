"""Options: how a model is compiled, apart from what it computes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from graphnet.errors import InputError, SlowPrecisionWarning
from graphnet.sdk import check_dtype
from graphnet.system import multiplies_bfloat16

Narrow = Literal["bfloat16", "float16"]
_NARROW: tuple[Narrow, ...] = get_args(Narrow)

AUTO = "auto"


def chosen(device: torch.device, dtype: torch.dtype) -> str:
    """The precision "auto": bfloat16 over float32 where the device multiplies it, else the dtype itself.

    Never float16: what trains in it needs a scale of the loss, and skips steps.
    """
    narrow = dtype == torch.float32 and multiplies_bfloat16(device)
    return "bfloat16" if narrow else str(dtype).removeprefix("torch.")


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """The choices behind a plan.

    `dtype` is that of the parameters, inputs and outputs, `precision` what matrix products compute in:
    the same, or "bfloat16" or "float16" over float32; "auto" becomes one of these, see `chosen`. `kernels`
    is "auto", "reference" or a namespace of kernels. `keep` is the dtype in which values wait for the
    reverse pass: "bfloat16", or None for their own. `memory` bounds the plan's peak: bytes, "2GiB", or
    "50%" of what it needs otherwise. `without` names passes that are switched off. `autotune` chooses
    kernels by measuring; `refused` are such choices made before: pairs of a call and a kernel that is not
    used there.
    Raises InputError for a dtype that is not of floating point, for a precision that does not fit the
    dtype, and for a `keep` that is not known.
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
        if self.precision == AUTO:
            object.__setattr__(self, "precision", chosen(self.device, self.dtype))
        if self.precision not in (None, own, *_NARROW):
            raise InputError(
                f"precision {self.precision!r} does not fit tensors of {own}. "
                f"Known: auto, {own}, or bfloat16 or float16 over float32."
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

    def warn_if_slow(self, *, stacklevel: int) -> None:
        """Give a SlowPrecisionWarning where the device has no instructions for this precision."""
        if self.narrow == "bfloat16" and not multiplies_bfloat16(self.device):
            warnings.warn(
                f"precision 'bfloat16' on {self.device}, which has no instructions that multiply bfloat16: "
                f"that is often slower than float32. Precision 'auto' takes float32 here.",
                SlowPrecisionWarning,
                stacklevel=stacklevel + 1,
            )

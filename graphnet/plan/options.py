"""Options: the choices of a compilation that do not change what a model computes.

`Model.compile`, `plan`, `tiling` and `predict`, training files and the command line all take the fields of
CompileOptions.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from pydantic import AfterValidator, PlainValidator

from graphnet.errors import DescriptionError, Problem, SlowPrecisionWarning, nearest
from graphnet.sdk import FLOATING, PASSES, Definition, dtype_name
from graphnet.system import multiplies_bfloat16, parse_bytes, resolve_device

Narrow = Literal["bfloat16", "float16"]
_NARROW: tuple[Narrow, ...] = get_args(Narrow)
AUTO = "auto"

_RENAMED_PASSES = {
    "affine": "fold_affine",
    "precision": "mixed_precision",
    "kernels": "select_kernels",
    "layout": "block_layout",
    "average": "ema",
    "together": "batch_updates",
    "dead": "dead_code",
    "duplicates": "common_subexpressions",
    "constants": "hoist_constants",
    "keep": "store_bfloat16",
}


@dataclass(frozen=True, slots=True)
class Target:
    """The device, dtype and precision of a plan, resolved from the options.

    `dtype` is the dtype of parameters, inputs and outputs. `precision` names the dtype of the layers that
    declare that they compute in a narrower one.
    """

    device: torch.device
    dtype: torch.dtype
    precision: str

    @property
    def narrow(self) -> Narrow | None:
        """The precision if it is narrower than the dtype, else None."""
        if self.precision == dtype_name(self.dtype):
            return None
        return next((name for name in _NARROW if name == self.precision), None)


_DTYPES = {dtype_name(dtype): dtype for dtype in FLOATING}


def _device(value: object) -> str:
    if isinstance(value, (str, torch.device)):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"cuda:{value}"
    raise ValueError(f"expected auto, cpu, cuda, cuda:N or a torch.device, found {value!r}")


def _dtype(value: object) -> torch.dtype | None:
    if value is None or (isinstance(value, torch.dtype) and value in FLOATING):
        return value
    if isinstance(value, str) and value in _DTYPES:
        return _DTYPES[value]
    *names, last = _DTYPES
    raise ValueError(f"expected {', '.join(names)} or {last}, found {value!r}")


def _memory(value: int | str | None) -> int | str | None:
    if value is not None:
        parse_bytes(value, whole=2**60)  # raises InputError if the value is no amount of memory
    return value


def _passes(value: object) -> frozenset[str]:
    try:
        names = None if isinstance(value, str) else list(value)  # type: ignore[call-overload]
    except TypeError:
        names = None
    if names is None:
        raise ValueError(f"expected a list of the names of passes, found {value!r}")
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"expected the name of a pass, found {name!r}")
        if name in _RENAMED_PASSES:
            raise ValueError(f"the pass {name!r} is now called {_RENAMED_PASSES[name]!r}")
        of_plugin = "/" in name  # it is looked up when a plan is made
        if name not in PASSES and not of_plugin:
            raise ValueError(f"unknown pass {name!r}. {nearest(name, PASSES)}")
    return frozenset(names)


class CompileOptions(Definition):
    """The options of a compilation.

    device: where the plan runs: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:N" or a
      torch.device. Default: "auto".
    dtype: the dtype of parameters, inputs and outputs: torch.float32, float64, bfloat16 or float16, or its
      name. Default: None, which is float64 if the precision is float64, else float32.
    precision: the dtype in which some layers compute, such as matrix products: "bfloat16" or "float16" if
      dtype is float32, or the dtype itself. "auto" is bfloat16 if dtype is float32 and the device has
      instructions that multiply bfloat16, else the dtype. Default: None, the dtype.
    kernels: the kernels that compute the layers: "auto" (all), "reference" (none, the layers' own
      arithmetic) or a namespace of kernels, such as "aten". Default: "auto".
    saved_dtype: the dtype in which values wait for the reverse pass: "bfloat16", which halves their memory
      in a float32 step. Default: None, their own dtype.
    memory: a bound on the plan's peak: bytes, "2GiB", or "50%" of the peak without a bound. To meet it, a
      training step computes values again, and a prediction runs an image in tiles. Default: None, no bound.
    without: the names of passes that are switched off; PASSES has all names. Default: none.

    Raises DescriptionError, which names every wrong option, if a value is unknown or the precision does not
    fit the dtype.

    >>> CompileOptions(precision="bfloat16", memory="50%").target.dtype
    torch.float32
    """

    former_names: ClassVar[Mapping[str, str]] = {"keep": "saved_dtype"}

    device: Annotated[str | int | torch.device, PlainValidator(_device)] = "auto"
    dtype: Annotated[torch.dtype | str | None, PlainValidator(_dtype)] = None
    precision: str | None = None
    kernels: str = "auto"
    saved_dtype: Literal["bfloat16"] | None = None
    memory: Annotated[int | str | None, AfterValidator(_memory)] = None
    without: Annotated[Collection[str], PlainValidator(_passes)] = frozenset()

    def __post_init__(self) -> None:
        own = dtype_name(self._own_dtype)
        if self.precision not in (None, AUTO, own, *_NARROW):
            short = {"bf16": "bfloat16", "fp16": "float16", "half": "float16"}.get(
                str(self.precision)
            )
            meant = f" Did you mean {short!r}?" if short else ""
            message = (
                f"{self.precision!r} does not fit tensors of {own}. "
                f"Known: auto, {own}, or bfloat16 or float16 over float32. For another dtype of all tensors, "
                f"give dtype.{meant}"
            )
            raise DescriptionError([Problem(message, "precision")])
        if self.precision in _NARROW and own not in ("float32", self.precision):
            message = f"{self.precision!r} needs tensors of float32, got {own}"
            raise DescriptionError([Problem(message, "precision")])

    @property
    def _own_dtype(self) -> torch.dtype:
        if self.dtype is not None:
            assert isinstance(self.dtype, torch.dtype)  # the check of the field converts names
            return self.dtype
        return torch.float64 if self.precision == "float64" else torch.float32

    @cached_property
    def target(self) -> Target:
        """The device, dtype and precision, with "auto" and None resolved.

        Raises DeviceError if this machine does not have the device.
        """
        device, dtype = resolve_device(self.device), self._own_dtype
        if self.precision == AUTO:  # never float16, because its training skips steps
            narrow = dtype == torch.float32 and multiplies_bfloat16(device)
            return Target(device, dtype, "bfloat16" if narrow else dtype_name(dtype))
        return Target(device, dtype, self.precision or dtype_name(dtype))

    def warn_if_slow(self, *, stacklevel: int) -> None:
        """Give a SlowPrecisionWarning if the device has no instructions for the precision."""
        device = self.target.device
        if self.target.narrow == "bfloat16" and not multiplies_bfloat16(device):
            warnings.warn(
                f"precision 'bfloat16' on {device}, which has no instructions that multiply bfloat16: "
                f"that is often slower than float32. Precision 'auto' takes float32 here.",
                SlowPrecisionWarning,
                stacklevel=stacklevel + 1,
            )

    def for_inference(self) -> CompileOptions:
        """The same options for a plan that only predicts: without `saved_dtype` and `memory`."""
        return replace(self, saved_dtype=None, memory=None)

    def record(self) -> dict[str, Any]:
        """The options as plain data for JSON and YAML, as a training file states them."""
        return {name: _plain(value) for name, value in self.configuration().items()}


def _plain(value: Any) -> Any:
    match value:
        case torch.dtype():
            return dtype_name(value)
        case frozenset():
            return sorted(value)
        case _:
            return value


def split_options(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split fields into options of a compilation, former names included, and the others.

    >>> split_options({"precision": "bfloat16", "epochs": 3})
    ({'precision': 'bfloat16'}, {'epochs': 3})
    """
    names = {*CompileOptions.field_names(), *CompileOptions.former_names}
    mine = {name: value for name, value in fields.items() if name in names}
    return mine, {name: value for name, value in fields.items() if name not in mine}

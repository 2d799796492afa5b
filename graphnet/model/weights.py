"""Weights: the one owner of a model's tensors; others read them by name, and every write of them is noticed.

A prediction keeps what it has computed from weights alone, such as a norm folded into a convolution. Torch
counts the writes of a tensor, but not those through `.data` or numpy. So a tensor that is handed out is
another tensor over the same memory: while it or a view of it lives, the weights may have been written at any
time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.dlpack import from_dlpack

from graphnet.errors import InputError, nearest


class Weights(Mapping[str, Tensor]):
    """Tensors by name, read-only as a mapping; a tensor may be written in place, by any means.

    `own` are the tensors themselves, for whoever runs plans over them. Others get them by name.

    >>> weights = Weights({"a.weight": torch.zeros(2)})
    >>> weights["a.weight"][0] = 1.0
    >>> weights.own["a.weight"].tolist()
    [1.0, 0.0]
    """

    def __init__(self, own: Mapping[str, Tensor]) -> None:
        self.own = dict(own)
        self._lent: dict[str, list[StorageWeakRef]] = {}
        self._age = 0

    @classmethod
    @torch.inference_mode(mode=False)  # they outlive this call, and are written outside of it
    def copied(cls, tensors: Mapping[str, Tensor]) -> Weights:
        """Copies of these tensors. Raises InputError for a value that is not a real tensor."""
        return cls({name: _real(name, tensor).detach().clone() for name, tensor in tensors.items()})

    def __getitem__(self, name: str) -> Tensor:
        own = self.own[name]
        with torch.inference_mode(mode=False):
            lent: Tensor = from_dlpack(own)
        before = self._lent.get(name, [])
        alive = [ref for ref in before if not _gone(ref)]
        self._age += len(alive) < len(before)  # one is forgotten here, and may have been written
        ref = StorageWeakRef(lent.untyped_storage())  # type: ignore[no-untyped-call]
        self._lent[name] = [*alive, ref]
        return lent

    def __setitem__(self, name: str, value: object) -> NoReturn:
        raise InputError(
            f"weights[{name!r}]: the mapping is read-only. Call model.set_weights({{{name!r}: tensor}}), "
            f"or write in place: weights[{name!r}].copy_(tensor)."
        )

    def __or__(self, other: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**self, **other}

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)

    def __contains__(self, name: object) -> bool:
        return name in self.own

    def __repr__(self) -> str:
        found = (f"{n}: {tuple(t.shape)} {t.dtype}" for n, t in self.own.items())
        return f"Weights({', '.join(found)})"

    def is_lent(self, name: str) -> bool:
        """Whether somebody may still have a tensor over this memory."""
        return not all(map(_gone, self._lent.get(name, ())))

    def age(self) -> int:
        """A number that is another one if a tensor may have been written since it was last asked for."""
        if self._lent:
            self._age += 1
            self._lent = {name: refs for name, refs in self._lent.items() if self.is_lent(name)}
        return self._age

    @torch.no_grad()
    def set(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy values into the tensors of these names; nothing is copied if one does not fit.

        Raises InputError for an unknown name, another shape, or a value that is not a real tensor.
        """
        for name, tensor in tensors.items():
            if name not in self.own:
                raise InputError(f"weights: there is no {name!r}. {nearest(name, self.own)}")
            expected = tuple(self.own[name].shape)
            if tuple(_real(name, tensor).shape) != expected:
                raise InputError(
                    f"weights[{name!r}]: expected the shape {expected}, got {tuple(tensor.shape)}"
                )
        for name, tensor in tensors.items():
            self.own[name].copy_(tensor)
        self._age += 1


def _gone(ref: StorageWeakRef) -> bool:
    gone: bool = ref.expired()  # type: ignore[no-untyped-call]
    return gone


def _real(name: str, tensor: object) -> Tensor:
    if not isinstance(tensor, Tensor) or tensor.is_complex():
        found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(
            f"weights[{name!r}]: expected a tensor of real numbers, got {found}. "
            f"Make one with torch.as_tensor(values)."
        )
    return tensor

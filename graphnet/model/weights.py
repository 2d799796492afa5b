"""Weights: owns a model's tensors, and knows when a caller may have changed one of them.

Prediction keeps the values that it has computed from weights alone, such as a norm folded into a convolution,
so it must know when a weight changes. Torch counts the writes to a tensor, but not those through `.data` or
numpy. So a caller gets another tensor over the same memory: as long as that tensor, or a view of it, exists,
the weight counts as changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.dlpack import from_dlpack

from graphnet.errors import InputError, nearest
from graphnet.model.slots import Copy
from graphnet.sdk import unreadable
from graphnet.system import require


class Weights(Mapping[str, Tensor]):
    """A read-only mapping from names to tensors; callers may write into the tensors in place, in any way.

    Args:
        own: the tensors by name. Plans run on these tensors; `weights[name]` gives another tensor over the
            same memory.

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
    @torch.inference_mode(mode=False)  # the copies live longer than this call and are written later
    def copied(cls, tensors: Mapping[str, Tensor]) -> Weights:
        """Make Weights from copies of these tensors.

        Raises:
            InputError: this is no mapping from names to tensors of real numbers.
        """
        if not isinstance(tensors, Mapping):
            raise InputError(
                f"weights: expected a mapping from names to tensors, got a {type(tensors).__name__}"
            )
        return cls({name: _real(name, tensor).detach().clone() for name, tensor in tensors.items()})

    def __getitem__(self, name: str) -> Tensor:
        own = self.own[name]
        with torch.inference_mode(mode=False):
            lent: Tensor = from_dlpack(own)
        before = self._lent.get(name, [])
        alive = [ref for ref in before if not _gone(ref)]
        # A caller may have written into a tensor that no longer exists.
        self._age += len(alive) < len(before)
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
        texts = (f"{n}: {tuple(t.shape)} {t.dtype}" for n, t in self.own.items())
        return f"Weights({', '.join(texts)})"

    def __reduce__(self) -> tuple[type[Weights], tuple[dict[str, Tensor]]]:
        """The tensors alone, for copy and pickle: a reference to a lent tensor must not be copied."""
        return Weights, (self.own,)

    def is_lent(self, name: str) -> bool:
        """Return whether a caller may still hold a tensor over the memory of this weight."""
        return not all(map(_gone, self._lent.get(name, ())))

    def share(
        self, slots: Mapping[str, Tensor], *, restride: bool
    ) -> tuple[dict[str, Tensor], list[Copy]]:
        """Choose the tensors of a predictor: the weights themselves, or copies of them.

        Args:
            slots: tensors by the names of weights, as the predictor's plan expects them.
            restride: whether a weight that differs from its slot only in strides, and that no caller holds,
                becomes the slot.

        Returns:
            The slots, with weights in the place of slots that are alike, and the slots that stay copies of
            their weights, each with its weight.
        """
        chosen, copies = dict(slots), []
        for name, slot in slots.items():
            mine = self.own[name]
            alike = (slot.dtype, slot.device) == (mine.dtype, mine.device)
            if alike and slot.stride() == mine.stride():
                chosen[name] = mine
            elif alike and restride and not self.is_lent(name):
                self.own[name] = slot
            else:
                copies.append((slot, mine))
        return chosen, copies

    def age(self) -> int:
        """Return a number that increases whenever a tensor may have been written since the last call."""
        if self._lent:
            self._age += 1
            self._lent = {name: refs for name, refs in self._lent.items() if self.is_lent(name)}
        return self._age

    @torch.no_grad()
    def set(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy values into the tensors of these names. If one value does not fit, nothing is copied.

        Raises:
            InputError: a name is unknown, a shape differs, or a value is not a tensor of real numbers.
        """
        for name, tensor in tensors.items():
            require(name, str, "weights", "names as text")
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
    if problem := unreadable(tensor):
        raise InputError(f"weights[{name!r}]: {problem}")
    return tensor

"""What a data set is: pairs of tensors in memory, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from graphnet.definition import Definition
from graphnet.errors import ContractError, DataError


@dataclass(frozen=True, slots=True)
class Pairs:
    """A data set in memory: `inputs` and `targets`, both (N, C, H, W), uint8 or floating point.

    uint8 stands for 0..1 in 255 steps. Raises DataError when the two do not fit each other.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise DataError(
                f"{len(self.inputs)} inputs but {len(self.targets)} targets; give one for each"
            )
        if len(self.inputs) == 0:
            raise DataError("the data set is empty; give it at least one pair")

    def __len__(self) -> int:
        return len(self.inputs)


class DataSet(Definition):
    """Where pairs come from; annotated fields are its configuration, `path` the one a bare string sets."""

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether this data set can read what lies at `path`; the first registered that can, does."""
        return False

    def load(self) -> Pairs:
        """Read or make the pairs. Raises DataError, which names the file, when that fails."""
        raise ContractError(f"{type(self).__name__} defines no load()")

"""Tensor file: a safetensors file that holds plain data beside its tensors, and shows any damage.

Each tensor has a digest in the file's header, and the header has a digest of its own, which is computed with
zeros in its place. So a change of any byte of the file is found when the file is read. A digest is XXH3 of
128 bits: it finds damage, it does not prove who wrote the file.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, uint8
from xxhash import xxh3_128_hexdigest

from graphnet.errors import CheckpointError, WriteError
from graphnet.sdk import first_fault
from graphnet.system import atomic_write, bytes_text

_TEXT = "graphnet"  # the only text of a file's header: the order of several would differ each time
_DIGEST, _DIGESTS = "digest", "digests"  # the first fields of the data in it
_PLACE = rf"\"{_DIGEST}\": \"".encode()  # as it is in the header, where the data is a text in JSON
_ZEROS = b"0" * 32
_LENGTH_BYTES = 8  # the start of a file says how long its header is
_MOST_HEADER_BYTES = 64 << 20


@dataclass(frozen=True)
class TensorFile:
    """What a file holds.

    Args:
        data: the plain data beside the tensors; None if there is none, as in files of other programs.
        tensors: by name.
        size_bytes: the size of the file.
        has_digests: whether the file has digests; if so, they are right.
    """

    data: Mapping[str, Any] | None
    tensors: Mapping[str, Tensor]
    size_bytes: int
    has_digests: bool


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    data: Mapping[str, Any],
    *,
    older: Sequence[Path] = (),
) -> None:
    """Write a file completely or not at all.

    Args:
        path: of the file.
        tensors: contiguous tensors on the CPU, by name.
        data: plain data, which JSON can hold.
        older: where the files before this one are kept, as in `atomic_write`.

    Raises:
        CheckpointError: the file cannot be written; an older file at `path` is unchanged.
    """
    digests = {name: xxh3_128_hexdigest(_bytes_of(tensor)) for name, tensor in tensors.items()}
    text = json.dumps({_DIGEST: _ZEROS.decode(), _DIGESTS: digests, **data})
    try:
        written = save(dict(tensors), {_TEXT: text})
        header = bytearray(written[: _header_end(written)])
        digest = xxh3_128_hexdigest(header).encode()
        start = header.index(_PLACE + _ZEROS) + len(_PLACE)
        header[start : start + len(digest)] = digest
        with atomic_write(path, older=older) as temporary, temporary.open("wb") as file:
            file.write(header)
            file.write(memoryview(written)[len(header) :])
    except (WriteError, SafetensorError) as error:
        raise CheckpointError(str(error)) from error


def read_tensors(path: Path) -> TensorFile:
    """Read a file into memory, and check it.

    The file is not mapped into memory: if another process shortened it, the next read of a tensor would end
    this process.

    Raises:
        CheckpointError: the file is missing, no safetensors file, or damaged.
    """
    try:
        read, header = _read(path)
        data = _plain_data(header)
        tensors = load(read)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file. Give the path of a saved model.") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from None
    digest, digests = (data or {}).pop(_DIGEST, None), (data or {}).pop(_DIGESTS, None)
    has_digests = isinstance(digest, str) and isinstance(digests, dict)
    if has_digests and (part := _damaged_part(read, header, digest, digests)):
        raise CheckpointError(f"{path}: {damaged(part)}")
    return TensorFile(data, tensors, len(read), has_digests)


def damaged(part: str) -> str:
    """Say which part of a file is damaged, and what to do."""
    return (
        f"damaged: {part} is not as it was written. Copy the file again from a place where it is whole, or "
        f"use another checkpoint."
    )


def _bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor as they are in a file."""
    return tensor.reshape(-1).view(uint8).numpy().data


def _header_end(data: bytes) -> int:
    """Where the header of a file ends, and the tensors begin."""
    return _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")


class _TensorEntry(BaseModel):
    """What a header says of a tensor."""

    dtype: str
    shape: list[NonNegativeInt]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


class _Header(BaseModel):
    """The header of a safetensors file; its extra fields are the tensors."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, _TensorEntry] = Field(init=False)
    texts: dict[str, str] = Field(default={}, alias="__metadata__")

    @property
    def tensors(self) -> dict[str, _TensorEntry]:
        return self.__pydantic_extra__


def _read(path: Path) -> tuple[bytes, _Header]:
    """Read a file whose size is the one that its header describes; of another, only the header is read."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is a folder or a device")
    with path.open("rb") as file:
        size = path.stat().st_size
        length = file.read(_LENGTH_BYTES)
        header_bytes = int.from_bytes(length, "little")
        if not 0 < header_bytes <= size - _LENGTH_BYTES:
            raise ValueError("its first bytes are not the length of a header")
        if header_bytes > _MOST_HEADER_BYTES:
            raise ValueError(
                f"its header takes {bytes_text(header_bytes)}, at most {bytes_text(_MOST_HEADER_BYTES)} "
                f"are read"
            )
        start = length + file.read(header_bytes)
        try:
            header = _Header.model_validate_json(start[_LENGTH_BYTES:])
        except ValidationError as error:
            fault = first_fault(error, separator=": ")
            raise ValueError(f"its header cannot be read: {fault}") from None
        ends = [entry.data_offsets[1] for entry in header.tensors.values()]
        expected = len(start) + max(ends, default=0)
        if size != expected:
            raise ValueError(f"it has {size:,} bytes, and its header describes {expected:,}")
        file.seek(0)
        return file.read(), header


def _plain_data(header: _Header) -> dict[str, Any] | None:
    """The plain data in a header. Raises ValueError if it is no mapping in JSON."""
    if (text := header.texts.get(_TEXT)) is None:
        return None
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("the data in its header has too many levels") from None
    if not isinstance(data, dict):
        raise ValueError("the data in its header is not a mapping")
    return data


def _damaged_part(data: bytes, header: _Header, digest: str, digests: Mapping[str, object]) -> str:
    """Name the first part of a file whose digest is wrong; an empty text if there is none."""
    start = _header_end(data)
    written = data[:start].replace(_PLACE + digest.encode(), _PLACE + _ZEROS, 1)
    if xxh3_128_hexdigest(written) != digest:
        return "its header"
    values = memoryview(data)[start:]
    for name, entry in header.tensors.items():
        begin, end = entry.data_offsets
        if xxh3_128_hexdigest(values[begin:end]) != digests.get(name):
            return f"the tensor {name!r}"
    return ""

"""torch.save's files read without pickle: torch as the oracle, and everything hostile refused."""

import os
import pickletools
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphnet_denoise import pickled, storages
from graphnet_denoise.pickled import read_tensors
from torch import Tensor

from graphnet.errors import DataError

DTYPES = [
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float64,
]


def numbers(*shape: int, dtype: torch.dtype = torch.uint8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 100, shape, generator=generator).to(dtype)


def rewrite(path: Path, changes: dict[str, bytes | None], *, compressed: bool = False) -> None:
    """Write the zip again with other entries (by the end of their names), None to leave one out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in entries.items():
            changed = changes.get(name.partition("/")[2], data)
            if changed is not None:
                archive.writestr(name, changed)


def stream_of(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{path.stem}/data.pkl")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small file as the course's: two contiguous uint8 tensors."""
    path = tmp_path / "pairs.pkl"
    torch.save((numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=1)), path)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_kind(tmp_path: Path, dtype: torch.dtype) -> None:
    first, second = numbers(2, 3, 5, 4, dtype=dtype), numbers(7, dtype=dtype, seed=1)
    torch.save((first, second), tmp_path / "a.pkl")
    arrays = read_tensors(tmp_path / "a.pkl")
    for array, tensor in zip(arrays, (first, second), strict=True):
        assert array.dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(array, tensor.numpy())


def test_views_with_strides_and_offsets(tmp_path: Path) -> None:
    base = numbers(6, 8, 10)
    first = base[1:5:2, :, 3:].permute(2, 0, 1)
    second = base[2, 3, 4].expand(2, 3)  # a single number, strides of 0
    torch.save((first, second), tmp_path / "a.pkl")
    arrays = read_tensors(tmp_path / "a.pkl")
    np.testing.assert_array_equal(arrays[0], first.numpy())
    np.testing.assert_array_equal(arrays[1], second.numpy())


def test_tensors_of_one_storage_become_separate_arrays(tmp_path: Path) -> None:
    base = numbers(10)
    torch.save((base[:6], base[4:]), tmp_path / "a.pkl")
    first, second = read_tensors(tmp_path / "a.pkl")
    np.testing.assert_array_equal(second, base[4:].numpy())
    first[:] = 0
    np.testing.assert_array_equal(second, base[4:].numpy())


def test_empty_scalar_and_twice_the_same_tensor(tmp_path: Path) -> None:
    torch.save((torch.zeros(0, 3, dtype=torch.uint8), torch.tensor(3)), tmp_path / "a.pkl")
    first, second = read_tensors(tmp_path / "a.pkl")
    assert first.shape == (0, 3)
    assert second == 3
    tensor = numbers(4)
    torch.save((tensor, tensor), tmp_path / "a.pkl")
    np.testing.assert_array_equal(*read_tensors(tmp_path / "a.pkl"))


def test_many_pairs_use_wider_opcodes(tmp_path: Path) -> None:
    first, second = numbers(70_000, 1, 1, 1), numbers(300, 1, 1, 1)
    torch.save((first, second), tmp_path / "a.pkl")
    arrays = read_tensors(tmp_path / "a.pkl")
    np.testing.assert_array_equal(arrays[0], first.numpy())
    np.testing.assert_array_equal(arrays[1], second.numpy())


def test_big_endian_storages(tmp_path: Path) -> None:
    tensor = torch.tensor([1.5, -2.25])
    torch.save((tensor, tensor), tmp_path / "a.pkl")
    rewrite(tmp_path / "a.pkl", {"byteorder": b"big", "data/0": struct.pack(">2f", 1.5, -2.25)})
    for array in read_tensors(tmp_path / "a.pkl"):
        assert array.dtype == np.float32
        assert array.tolist() == [1.5, -2.25]


class Trap:
    """Asks the reader to make a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_is_refused_by_name_and_not_run(tmp_path: Path, protocol: int) -> None:
    path, sprung = tmp_path / "a.pkl", tmp_path / "sprung"
    torch.save((numbers(4), Trap(sprung)), path, pickle_protocol=protocol)
    with pytest.raises(DataError, match=r"nothing was executed|protocol") as caught:
        read_tensors(path)
    assert not sprung.exists()
    if protocol == 2:
        assert "'posix.mkdir'" in str(caught.value) or "'nt.mkdir'" in str(caught.value)


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", r"asks for 'os\.system'"),
        (b"c__builtin__\neval\n.", r"asks for '__builtin__\.eval'"),
        (b"ctorch.storage\n_load_from_bytes\n.", r"asks for 'torch\.storage\._load_from_bytes'"),
        (b"(S'true'\nios\nsystem\n.", "opcode STRING at byte 1"),
        (b"(ios\nsystem\n.", "opcode INST at byte 1"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "opcode SHORT_BINUNICODE at byte 2"),
        (b"}b.", "opcode EMPTY_DICT at byte 0"),
        (b"(Q.", "refers to a storage in a way that torch does not"),
        (b")R.", "its stack is empty"),
        (b".", "its stack is empty"),
        (b"t.", "its stack is empty"),
        (b"q\0.", "its stack is empty"),
        (b"h\7.", "recalls value 7"),
        (b"))R.", "calls something in a way that torch does not"),
        (b"K\1)R.", "calls something"),
        (b"ccollections\nOrderedDict\nK\1\x85R.", "calls something"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "builds a tensor from other things"),
        (b"ctorch\nByteStorage\n.", "two tensors, found a value of type Global"),
        (b"K\1.", "two tensors, found a value of type int"),
        (b"K\1K\2\x86.", "two tensors, found a tuple of 2"),
        (b"(X\7\0\0\0storagectorch\nByteStorage\nX\1\0\0\x009X\0\0\0\0K\0tQ.", "'pairs/data/9' is"),
        (b"(X\7\0\0\0storagectorch\nByteStorage\nX\1\0\0\x000X\0\0\0\0K\7tQ.", "has 96 bytes"),
        (b"(X\7\0\0\0storagecos\nsystem\nX\1\0\0\x000X\0\0\0\0K\7tQ.", r"'os\.system'"),
        (b"(X\5\0\0\0otherctorch\nByteStorage\nX\1\0\0\x000X\0\0\0\0K\x60tQ.", "refers to a stor"),
        (b"", "damaged"),
        (b"K\1", "damaged"),
        (b"\xff.", "damaged"),
    ],
)
def test_streams_that_are_no_two_tensors_are_refused(path: Path, stream: bytes, found: str) -> None:
    rewrite(path, {"data.pkl": stream})
    with pytest.raises(DataError, match=rf"pairs\.pkl: .*{found}"):
        read_tensors(path)


def tensor_stream(offset: bytes, size: bytes, strides: bytes, *, count: bytes = b"K\x60") -> bytes:
    """A tuple of twice the same tensor over storage 0, with these opcodes for its geometry."""
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
        b"(X\7\0\0\0storagectorch\nByteStorage\nX\1\0\0\x000X\3\0\0\0cpu" + count + b"tQ"
        + offset + b"(" + size + b"t(" + strides + b"t\x89ccollections\nOrderedDict\n)RtR"
        b"q\0h\0\x86."
    )  # fmt: skip


def test_the_stream_by_hand_is_what_torch_reads(path: Path) -> None:
    rewrite(path, {"data.pkl": tensor_stream(b"K\5", b"K\2K\3", b"K\x10K\1")})
    base = numbers(2, 3, 4, 4).flatten()
    expected = base.as_strided((2, 3), (16, 1), 5).numpy()
    np.testing.assert_array_equal(read_tensors(path)[0], expected)


BIG, MINUS = b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("geometry", "found"),
    [
        ((b"K\0", b"K\x61", b"K\1"), "more elements than its storage, 96"),
        ((b"K\1", b"K\x60", b"K\1"), "reaches element 96 of a storage with 96"),
        ((b"K\x60", b"", b""), "reaches element 96 "),
        ((b"K\0", b"K\2K\2", b"K\x5fK\2"), "reaches element 97 "),
        ((BIG, b"K\1", b"K\1"), "reaches element 2147483647 "),
        ((b"K\0", b"K\2", BIG), "reaches element 2147483647 "),
        ((MINUS, b"K\1", b"K\1"), "no natural numbers"),
        ((b"K\0", MINUS, b"K\1"), "no natural numbers"),
        ((b"K\5", b"K\2", MINUS), "no natural numbers"),
        ((b"\x88", b"K\2", b"K\1"), "no natural numbers"),
        ((b"K\0", b")", b"K\1"), "no natural numbers"),
        ((b"K\0", b"K\2", b"K\1K\1"), "axes that do not fit"),
        ((b"K\0", b"K\1" * 9, b"K\1" * 9), "axes that do not fit"),
        ((b"K\0", BIG + BIG, b"K\0K\0"), "more elements than its storage"),
        ((b"K\0", b"\x8a\x09" + b"\xff" * 8 + b"\0", b"K\0"), "more elements than its storage"),
        ((b"K\0", b"K\0" + BIG * 6, b"K\0" * 7), "damaged"),
    ],
)
def test_tensors_outside_their_storage_are_refused(
    path: Path, geometry: tuple[bytes, bytes, bytes], found: str
) -> None:
    rewrite(path, {"data.pkl": tensor_stream(*geometry)})
    with pytest.raises(DataError, match=found):
        read_tensors(path)


def test_strides_are_not_laid_over_another_view(path: Path) -> None:
    # A view that repeats one number 96 times must not pass for a storage of 96 numbers.
    view = tensor_stream(b"K\x5f", b"K\x60", b"K\0").removesuffix(b"q\0h\0\x86.")
    over = b"ctorch._utils\n_rebuild_tensor_v2\n(" + view.removeprefix(b"\x80\x02")
    over += b"K\0(K\x60t(K\1t\x89ccollections\nOrderedDict\n)RtR."
    rewrite(path, {"data.pkl": over})
    with pytest.raises(DataError, match="builds a tensor from other things"):
        read_tensors(path)


def test_compressed_entries_are_refused(path: Path) -> None:
    rewrite(path, {"data/0": b"\0" * 10_000_000}, compressed=True)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="compressed or larger than the file"):
        read_tensors(path)


def test_entries_that_add_up_to_more_than_the_file_are_refused(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        files = storages.Storages(archive, path)
        files.find("torch ByteStorage", "0", 96)
        files._left = 95  # as after entries that overlap
        files.find("torch ByteStorage", "0", 96)  # it is there already
        with pytest.raises(DataError, match="larger than the file"):
            files.find("torch ByteStorage", "1", 96)


def test_an_endless_stream_is_refused(path: Path) -> None:
    rewrite(path, {"data.pkl": b"K\1" * 600_000})
    with pytest.raises(DataError, match="the pickle inside has 1200000 bytes"):
        read_tensors(path)


def test_missing_entries_are_named(path: Path) -> None:
    rewrite(path, {"data/1": None})
    with pytest.raises(DataError, match="entry 'pairs/data/1' is missing"):
        read_tensors(path)
    rewrite(path, {"data.pkl": None})
    with pytest.raises(DataError, match=r"one entry NAME/data\.pkl; found pairs/"):
        read_tensors(path)


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    with pytest.raises(DataError, match="there is no such file"):
        read_tensors(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot be read as a file of torch\.save"):
        read_tensors(path)
    torch.save((numbers(2), numbers(2)), path, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"since version 1\.6"):
        read_tensors(path)
    with pytest.raises(DataError, match=r"cannot be read as a file of torch\.save"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (numbers(3), "found a single tensor"),
        ((numbers(3),), "found a tuple of 1"),
        ((numbers(3),) * 3, "found a tuple of 3"),
        ([numbers(3), numbers(3)], "opcode EMPTY_LIST"),
        ({"noisy": numbers(3)}, "opcode EMPTY_DICT"),
        ((torch.zeros(3, dtype=torch.bfloat16), 1), r"asks for 'torch\.BFloat16Storage'"),
        ((torch.nn.Parameter(torch.zeros(3)), 1), r"asks for 'torch\._utils\._rebuild_parameter'"),
    ],
)
def test_other_values_are_named(tmp_path: Path, value: Any, found: str) -> None:
    torch.save(value, tmp_path / "a.pkl")
    with pytest.raises(DataError, match=found):
        read_tensors(tmp_path / "a.pkl")


def test_truncated_files_are_data_errors(path: Path) -> None:
    data = path.read_bytes()
    for length in range(0, len(data), 13):
        path.write_bytes(data[:length])
        with pytest.raises(DataError):
            read_tensors(path)


def test_damaged_files_give_tensors_or_a_data_error(path: Path) -> None:
    data, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(600):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        refused += not _readable(path)
    assert refused > 200


def test_damaged_streams_give_tensors_or_a_data_error(path: Path) -> None:
    # Written with right checksums, so that the machine itself meets the damage.
    stream, rng = stream_of(path), np.random.default_rng(1)
    opcodes = [ord(opcode.code) for opcode in pickletools.opcodes]
    refused = 0
    for _ in range(600):
        damaged = bytearray(stream)
        for place in rng.integers(0, len(stream), rng.integers(1, 4)):
            damaged[place] = rng.choice(opcodes) if rng.random() < 0.5 else rng.integers(256)
        rewrite(path, {"data.pkl": bytes(damaged)})
        refused += not _readable(path)
    assert refused > 400


def _readable(path: Path) -> bool:
    try:
        read_tensors(path)
    except DataError:
        return False
    return True


def test_the_readers_import_no_pickle() -> None:
    for module in (pickled, storages):
        assert not {"pickle", "torch"} & vars(module).keys()
        source = Path(str(module.__file__)).read_text()
        assert "import pickle\n" not in source
        assert "import torch" not in source
    assert "pickletools" in sys.modules

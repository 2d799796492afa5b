"""C++ beside a kernel: compiled once, found again, and in words where it cannot be."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from graphnet.errors import CompileError, LayerError, NativeWarning
from graphnet.system import Native, find_compiler

SOURCE = 'extern "C" long twice(long x) { return 2 * x; }\n'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "twice.cpp"
    path.write_text(SOURCE)
    return path


def compiler_is_there() -> bool:
    try:
        find_compiler("a test", otherwise="skip it")
    except CompileError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not compiler_is_there(), reason="there is no C++ compiler")


@pytest.mark.slow
@needs_compiler
def test_file_is_compiled_once_and_found_in_the_cache(cache: Path, source: Path) -> None:
    native = Native(source)
    assert native.usable()
    assert native.load().twice(21) == 42
    (entry,) = (cache / "plans").iterdir()
    made = (entry / "compiled" / "twice.so").stat().st_mtime_ns
    key = json.loads((entry / "key.json").read_text())["key"]
    assert key["model"] == "native twice"
    code = (
        "from pathlib import Path\n"
        "from graphnet.system.native import Native\n"
        f"print(Native(Path({str(source)!r})).load().twice(4))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "8\n"
    assert [path.name for path in (cache / "plans").iterdir()] == [entry.name]
    assert (entry / "compiled" / "twice.so").stat().st_mtime_ns == made


@needs_compiler
def test_a_call_finds_the_function_for_the_dtype_or_says_that_there_is_none(
    cache: Path, source: Path
) -> None:
    source.write_text(
        "#include <cstdint>\n"
        'extern "C" void add_float32(const float* x, const int64_t* n, int64_t k, float* y) {\n'
        "    for (int64_t i = 0; i < n[0] * n[1]; i++) y[i] = (x ? x[i] : 0) + k;\n"
        "}\n"
    )
    native, x, y = Native(source), torch.arange(6.0), torch.zeros(6)
    native.call("add", x, (2, 3), -4, y)
    assert y.tolist() == [-4.0, -3.0, -2.0, -1.0, 0.0, 1.0]
    with pytest.raises(LayerError, match=r"twice\.cpp exports no add_float64"):
        native.call("add", x.double(), (2, 3), 4, y.double())
    with pytest.raises(LayerError, match="takes tensors on the CPU only"):
        native.call("add", x, (2, 3), 4, y.to("meta"))


@needs_compiler
def test_a_file_that_does_not_compile_says_where(cache: Path, source: Path) -> None:
    source.write_text("int broken(\n")
    native = Native(source)
    with pytest.warns(NativeWarning, match=r"slower ones run: .* failed: .*twice\.cpp:.*error"):
        assert not native.usable()
    with pytest.raises(CompileError, match=r"failed: .*twice\.cpp:.*error"):
        native.load()
    assert list((cache / "plans").iterdir()) == []  # nothing half-made is left


def test_native_without_a_compiler_names_what_it_looked_for(
    cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++ -O9")
    native = Native(source)
    with pytest.raises(CompileError, match=r"looked for CXX=/nowhere/g\+\+ -O9, found none.*apt"):
        native.load()


@pytest.mark.parametrize(
    ("cxx", "message"),
    [
        ("g++ 'odd", r"CXX=g\+\+ 'odd: not a command: No closing quotation"),
        (" ", "looked for CXX= , found none"),
        ("{junk}", "cannot be run: .*Exec format error"),
        ("{silent}", "reported success, but its library cannot be loaded"),
        ("{loud}", "loud failed: .*error"),
    ],
)
def test_a_wrong_compiler_is_told_in_words(
    cache: Path,
    source: Path,
    tmp_path: Path,
    cxx: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs = {
        "junk": b"\x7fELF junk",
        "silent": b'#!/bin/sh\nfor last; do :; done\ncase "$last" in -*) ;; *) echo junk > "$last" ;; esac\n',
        "loud": b"#!/bin/sh\nprintf '\\377\\376 error\\n' >&2\nexit 1\n",
    }
    for name, text in programs.items():
        (tmp_path / name).write_bytes(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("CXX", cxx.format(**{name: tmp_path / name for name in programs}))
    with pytest.raises(CompileError, match=message):
        Native(source).load()
    assert not list(cache.glob("plans/*"))  # nothing of it is kept


@needs_compiler
def test_a_cached_library_that_cannot_be_loaded_is_compiled_again(
    cache: Path, source: Path
) -> None:
    """Its checksum is right, so only loading it shows that it is of another system."""
    assert Native(source).load().twice(1) == 2
    (entry,) = (cache / "plans").iterdir()
    junk = b"of another system"
    (entry / "compiled" / "twice.so").unlink()  # this process has the old file open
    (entry / "compiled" / "twice.so").write_bytes(junk)
    saved = json.loads((entry / "key.json").read_text())
    saved["files"]["twice.so"] = hashlib.sha256(junk).hexdigest()
    (entry / "key.json").write_text(json.dumps(saved))
    code = (
        "from pathlib import Path\n"
        "from graphnet.system.native import Native\n"
        f"print(Native(Path({str(source)!r})).load().twice(4))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "8\n"
    assert (entry / "compiled" / "twice.so").read_bytes() != junk


def test_what_keeps_kernels_in_cpp_from_running_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", f"/nowhere/{tmp_path.name}")
    said = r"found none\. Install one \(apt install g\+\+\)"
    sources = [tmp_path / "once.cpp", tmp_path / "twice.cpp"]
    for path in sources:
        path.write_text(SOURCE)
    with pytest.warns(NativeWarning, match=f"C\\+\\+ kernels cannot be used.*{said}") as found:
        assert not any(Native(path).usable() for path in sources for _ in range(2))
    assert len(found) == 1


def test_native_without_its_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"absent\.cpp: no such file.*wheel.*package-data"):
        Native(tmp_path / "absent.cpp")


def printed(code: str, **environment: str) -> list[str]:
    """The words that Python prints for this code, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", **environment},
    )
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it speaks to glibc")
def test_freed_memory_is_kept_unless_the_environment_decides() -> None:
    """A large tensor that is freed and made again gets pages that the process has already."""
    code = (
        "import resource, torch\n"
        "import graphnet.model\nfrom graphnet.system import keep_freed_memory\n"
        "print(keep_freed_memory())\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    torch.ones(1 << 24)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "print(min(faults() for _ in range(8)))\n"
    )

    runs = [printed(code) for _ in range(2)]  # where the heap cannot grow, glibc takes other memory
    assert all(told == "True" for told, _ in runs)
    kept = min(int(number) for _, number in runs)
    left, fresh = printed(code, MALLOC_TRIM_THRESHOLD_="131072")
    assert left == "False"
    assert int(fresh) > 10_000  # 64 MiB in pages of 4 KiB
    assert kept < 1_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it speaks to glibc")
def test_predictions_use_the_memory_of_the_prediction_before() -> None:
    code = (
        "import resource, torch\n"
        "import graphnet as gn\n"
        "layers = [{'conv2d': {'out_channels': 16, 'kernel_size': 3}}, 'relu']\n"
        "model = gn.Model({'name': 'net', 'input': {'channels': 3}, 'layers': layers})\n"
        "x = torch.ones(1, 3, 1024, 1024)\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    model.predict(x)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "print(min(faults() for _ in range(5)))\n"
    )
    (fresh,) = printed(code)
    assert int(fresh) < 1_000  # 64 MiB in pages of 4 KiB are 16,384


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it speaks to glibc")
def test_freed_memory_is_returned_at_once() -> None:
    """Blocks of 4 MiB, which glibc alone would keep after one of 30 MiB, leave the process."""
    code = (
        "import os\nfrom pathlib import Path\nimport torch\n"
        "from graphnet.system import return_freed_memory\n"
        "print(return_freed_memory())\n"
        "def taken():\n"
        "    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')\n"
        "torch.ones(30 << 18)\n"  # after it, glibc alone takes smaller blocks from its heap
        "before = taken()\n"
        "blocks = [torch.ones(1 << 20) for _ in range(64)]\n"
        "last = blocks.pop()\n"
        "blocks.clear()\n"
        "print(taken() - before)\n"
        "from graphnet.system import keep_freed_memory\n"
        "print(keep_freed_memory())\n"
    )
    told, more, kept = printed(code)
    assert told == "True"
    assert kept == "False"  # the program has decided
    assert int(more) < 16 << 20  # one block of 4 MiB is left, not 64

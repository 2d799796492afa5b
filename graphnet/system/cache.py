"""Cache: compiled plans and measured choices, stored by key in a private folder of the user.

A compiled plan is machine code that graphnet runs without a further check. So the folder must belong to
the user, nobody else may write to it, and graphnet never loads compiled code from the folder of a run.
The folder is GRAPHNET_CACHE if that variable is set, else "graphnet" in the user's cache folder. It may
be deleted at any time.

    plans/<digest>/key.json    the key, and a checksum of each file in compiled/
    plans/<digest>/compiled/   the files that the compiler wrote
    choices/<digest>.json      a key, and the value that was measured for it
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from graphnet.errors import CacheError, CacheWarning, WriteError
from graphnet.system.files import write_text

Key = Mapping[str, Any]
"""Plain data, which JSON can hold, that identifies an entry: only an equal key finds the entry.

Where no key is equal, keys with the same "model" are compared field by field, and the message names the
fields that differ; only "operations", a digest, is left out of that comparison.
"""

LIMIT_BYTES = 512 << 20
MAX_CHOICES = 4096
_PARTIAL = "partial-"
_DAY_S = 86_400.0
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)  # what reading a damaged file raises


@dataclass(frozen=True, slots=True)
class Hit:
    """A compiled plan whose checksums are right: `folder` holds the compiler's files."""

    folder: Path


@dataclass(frozen=True, slots=True)
class Miss:
    """The cache has no usable plan for a key; `reason` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache in one folder. `open_cache` makes it.

    Args:
        folder: an existing folder that only the user may write to.
        limit_bytes: above this total size, the plans that were used longest ago are deleted.
    """

    folder: Path
    limit_bytes: int = LIMIT_BYTES

    def find(self, key: Key) -> Hit | Miss:
        """Look up the compiled plan of a key. A damaged plan is deleted and reported as a Miss."""
        entry = self._plans / _digest(key)
        if not entry.exists():
            return Miss(self._why_missing(key))
        try:
            saved = json.loads((entry / "key.json").read_text())
            damaged = [
                name
                for name, checksum in saved["files"].items()
                if _checksum(entry / "compiled" / name) != checksum
            ]
            reason = f"{damaged[0]} was changed" if damaged else ""
        except _DAMAGE as error:
            reason = f"{type(error).__name__}: {error}"
        if reason:
            return self.reject(key, reason)
        with contextlib.suppress(OSError):  # another process has dropped the entry
            os.utime(entry / "key.json")  # the entries used longest ago are dropped first
        return Hit(entry / "compiled")

    def reject(self, key: Key, reason: str) -> Miss:
        """Delete the plan of a key, which cannot be used for this `reason`."""
        shutil.rmtree(self._plans / _digest(key), ignore_errors=True)
        return Miss(f"the cached plan is damaged ({reason})")

    def begin(self) -> Path:
        """Make an empty folder for a plan that is to be compiled.

        Returns:
            The folder. The compiler writes into its subfolder "compiled"; then the caller passes the folder
            to `keep`, or deletes it. If the cache cannot be written, the folder is a temporary one.
        """
        try:
            self._plans.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=self._plans))
        except OSError as error:
            _warn_unwritable(self.folder, str(error.strerror))
            folder = Path(tempfile.mkdtemp(prefix="graphnet-"))
        (folder / "compiled").mkdir()
        return folder

    def keep(self, key: Key, partial: Path) -> Path:
        """Store the files in `partial`/compiled as the plan of a key.

        If another process has stored a plan of this key meanwhile, that plan stays. Plans that were used
        longest ago are deleted while the cache is larger than `limit_bytes`.

        Returns:
            The folder with the compiled files, now inside the cache. If the cache cannot be written, it is a
            temporary folder, which is deleted when the process ends.
        """
        compiled = partial / "compiled"
        files = {
            str(path.relative_to(compiled)): _checksum(path)
            for path in sorted(compiled.rglob("*"))
            if path.is_file() and path.suffix != ".lock"
        }
        text = json.dumps({"key": key, "files": files}, indent=1)
        try:
            (partial / "key.json").write_text(text)
            inside = partial.parent == self._plans
        except OSError as error:
            _warn_unwritable(self.folder, str(error.strerror))
            inside = False
        if not inside:
            kept = partial.rename(partial.with_name(f"{partial.name}-kept"))
            atexit.register(shutil.rmtree, kept, ignore_errors=True)
            return kept / "compiled"
        entry = self._plans / _digest(key)
        with contextlib.suppress(OSError):  # another process has stored this plan meanwhile
            partial.rename(entry)
        shutil.rmtree(partial, ignore_errors=True)
        self._drop_oldest(entry)
        return entry / "compiled"

    def choice(self, key: Key) -> Any:
        """Return the value that `record_choice` stored for a key; None if there is none."""
        try:
            saved = json.loads((self._choices / f"{_digest(key)}.json").read_text())
            return saved["value"]
        except _DAMAGE:
            return None  # the file is missing or damaged: the caller measures again

    def record_choice(self, key: Key, value: Any) -> None:
        """Store a measured value for a key.

        Args:
            key: what the value was measured for.
            value: plain data, which JSON can hold. If it cannot be written, it is measured again next time.
        """
        text = json.dumps({"key": key, "value": value}, indent=1)
        try:
            self._choices.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_text(self._choices / f"{_digest(key)}.json", text)
        except (OSError, WriteError) as error:
            _warn_unwritable(self.folder, str(getattr(error, "strerror", None) or error))
            return
        saved = sorted(self._choices.iterdir(), key=_age)
        for path in saved[MAX_CHOICES:]:
            path.unlink(missing_ok=True)

    @property
    def _plans(self) -> Path:
        return self.folder / "plans"

    @property
    def _choices(self) -> Path:
        return self.folder / "choices"

    def _entries(self) -> Iterator[Path]:
        if self._plans.exists():
            yield from (p for p in self._plans.iterdir() if not p.name.startswith(_PARTIAL))

    def _why_missing(self, key: Key) -> str:
        """Say which fields of the key differ from the most similar cached plan of the same model."""
        differences: list[list[str]] = []
        for entry in self._entries():
            try:
                saved = json.loads((entry / "key.json").read_text())["key"]
                same_model = saved["model"] == key["model"]
            except _DAMAGE:
                continue
            if same_model:
                others = dict(saved, operations=None), dict(key, operations=None)
                # If only the operations differ, and no shape, then a layer's code has changed.
                fields = list(_differences(*others)) or ["the changed code of its layers"]
                differences.append(fields)
        if not differences:
            return "no plan of this model is cached"
        nearest = min(differences, key=len)
        more = f" and {len(nearest) - 3} more" if len(nearest) > 3 else ""
        return f"no plan cached for {'; '.join(nearest[:3])}{more}"

    def _drop_oldest(self, kept: Path) -> None:
        entries = sorted(self._entries(), key=lambda entry: _age(entry / "key.json"))
        total = 0
        for entry in entries:
            with contextlib.suppress(OSError):  # another process has dropped the entry
                total += sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
            if total > self.limit_bytes and entry != kept:
                shutil.rmtree(entry, ignore_errors=True)
        for partial in self._plans.glob(f"{_PARTIAL}*"):  # of processes that were killed
            if _age(partial) > _DAY_S:
                shutil.rmtree(partial, ignore_errors=True)


def open_cache() -> Cache:
    """Open the user's cache, and make its folder if it does not exist.

    Raises:
        CacheError: the folder belongs to another user, or other users may write to it.
    """
    folder = cache_folder().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        _warn_unwritable(folder, str(error.strerror))
        return Cache(folder)
    if sys.platform != "win32":
        if status.st_uid != os.getuid():
            raise CacheError(_unusable(folder, f"it belongs to user {status.st_uid}"))
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CacheError(_unusable(folder, f"others may write to it (run chmod go-w {folder})"))
    return Cache(folder)


@functools.cache
def _warn_unwritable(folder: Path, cause: str) -> None:
    """Say once that a folder cannot be written."""
    warnings.warn(
        f"{folder}: the cache of compiled plans and measured choices cannot be written ({cause}). What is "
        f"not in it yet is compiled or measured again in each run, which takes seconds to minutes. Set "
        f"GRAPHNET_CACHE to a folder that you may write to.",
        CacheWarning,
        stacklevel=4,
    )


def _unusable(folder: Path, cause: str) -> str:
    return (
        f"{folder}: cannot hold the cache of compiled plans: {cause}. Compiled plans run without a "
        f"further check, so only you may write to the folder; set GRAPHNET_CACHE to a folder of your own."
    )


def _differences(cached: Any, wanted: Any, name: str = "") -> Iterator[str]:
    if isinstance(cached, Mapping) and isinstance(wanted, Mapping):
        for field in sorted({*cached, *wanted}):
            yield from _differences(cached.get(field), wanted.get(field), field)
    elif cached != wanted:
        there, here = ("none" if one is None else one for one in (cached, wanted))
        yield f"{name}: cached {there}, wanted {here}"


def _digest(key: Key) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _age(path: Path) -> float:
    """Return the seconds since a file was last changed; infinity if the file no longer exists."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def cache_folder() -> Path:
    """Return $GRAPHNET_CACHE, or graphnet's folder in the system's place for caches.

    The folder may not exist yet.

    >>> import os
    >>> os.environ["GRAPHNET_CACHE"] = "/var/cache/graphnet"
    >>> cache_folder().as_posix()
    '/var/cache/graphnet'
    >>> del os.environ["GRAPHNET_CACHE"]
    """
    if chosen := os.environ.get("GRAPHNET_CACHE"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("graphnet", appauthor=False)

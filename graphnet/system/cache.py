"""Cache: compiled plans and measured choices in a private folder of the user's own, found by key.

A compiled plan is machine code, so this folder is never a place for data that people exchange: it
belongs to one user, nobody else may write to it, and nothing is ever read from a run's folder. It is
GRAPHNET_CACHE if that is set, else "graphnet" in the user's cache folder; delete it at any time.

    plans/<digest>/key.json    the key in plain words, and a checksum of each file
    plans/<digest>/compiled/   what the compiler left there
    choices/<digest>.json      a key and the value that was measured for it
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from graphnet.errors import CacheError, WriteError
from graphnet.system.files import write_text

Key = Mapping[str, Any]
"""Plain data that decides what an entry is good for: it is found by an equal key only.

To say why there is none, keys with the same "model" are compared field by field; "operations" is a digest.
"""

LIMIT_BYTES = 512 << 20
MAX_CHOICES = 4096
_PARTIAL = "partial-"
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Hit:
    """A compiled plan that is there and whole: the folder with the compiler's files."""

    folder: Path


@dataclass(frozen=True, slots=True)
class Miss:
    """No plan for a key, and why, in words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache in one folder; make it with `open_cache`."""

    folder: Path
    limit_bytes: int = LIMIT_BYTES

    def find(self, key: Key) -> Hit | Miss:
        """The compiled plan of a key. One that is damaged is removed, and the Miss says so."""
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
        except (OSError, ValueError, KeyError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
        if reason:
            return self.reject(key, reason)
        os.utime(entry / "key.json")  # the entries used longest ago are dropped first
        return Hit(entry / "compiled")

    def reject(self, key: Key, reason: str) -> Miss:
        """Remove the plan of a key, which cannot be used."""
        shutil.rmtree(self._plans / _digest(key), ignore_errors=True)
        return Miss(f"the cached plan is damaged ({reason})")

    def begin(self) -> Path:
        """A fresh folder for a plan that is being compiled; hand it to `keep` or delete it."""
        try:
            self._plans.mkdir(mode=0o700, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=self._plans))
            (folder / "compiled").mkdir()
        except OSError as error:
            raise CacheError(_unusable(self.folder, str(error.strerror))) from None
        return folder

    def keep(self, key: Key, partial: Path) -> Path:
        """Make what stands in `partial`/compiled the plan of a key; returns where it then is.

        If another process was sooner, its plan stays. Drops the oldest plans above the limit.
        """
        compiled = partial / "compiled"
        files = {
            str(path.relative_to(compiled)): _checksum(path)
            for path in sorted(compiled.rglob("*"))
            if path.is_file() and path.suffix != ".lock"
        }
        text = json.dumps({"key": key, "files": files}, indent=1)
        (partial / "key.json").write_text(text)
        entry = self._plans / _digest(key)
        with contextlib.suppress(OSError):  # not empty: another process was sooner
            partial.rename(entry)
        shutil.rmtree(partial, ignore_errors=True)
        self._drop_oldest(entry)
        return entry / "compiled"

    def choice(self, key: Key) -> Any:
        """The value recorded for a key, or None."""
        try:
            saved = json.loads((self._choices / f"{_digest(key)}.json").read_text())
            return saved["value"]
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or damaged: it is measured again

    def record_choice(self, key: Key, value: Any) -> None:
        """Keep a measured value, plain data, for a key."""
        try:
            self._choices.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise CacheError(_unusable(self.folder, str(error.strerror))) from None
        text = json.dumps({"key": key, "value": value}, indent=1)
        try:
            write_text(self._choices / f"{_digest(key)}.json", text)
        except WriteError as error:
            raise CacheError(_unusable(self.folder, str(error))) from None
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
        """What differs from the most similar plan of the same model."""
        found: list[list[str]] = []
        for entry in self._entries():
            try:
                saved = json.loads((entry / "key.json").read_text())["key"]
            except (OSError, ValueError, KeyError):
                continue
            if saved.get("model") == key.get("model"):
                others = dict(saved, operations=None), dict(key, operations=None)
                # Other shapes always mean other operations; alone, it is a layer's code that changed.
                found.append(list(_differences(*others)) or ["the changed code of its layers"])
        if not found:
            return "no plan of this model is cached"
        nearest = min(found, key=len)
        more = f" and {len(nearest) - 3} more" if len(nearest) > 3 else ""
        return f"no plan cached for {'; '.join(nearest[:3])}{more}"

    def _drop_oldest(self, kept: Path) -> None:
        entries = sorted(self._entries(), key=lambda entry: _age(entry / "key.json"))
        total = 0
        for entry in entries:
            total += sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
            if total > self.limit_bytes and entry != kept:
                shutil.rmtree(entry, ignore_errors=True)
        for partial in self._plans.glob(f"{_PARTIAL}*"):  # of processes that were killed
            if _age(partial) > _DAY_S:
                shutil.rmtree(partial, ignore_errors=True)


def open_cache() -> Cache:
    """The user's cache. Raises CacheError when it cannot be made, or others may write to it."""
    folder = cache_folder().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise CacheError(_unusable(folder, str(error.strerror))) from None
    if sys.platform != "win32":
        if status.st_uid != os.getuid():
            raise CacheError(_unusable(folder, f"it belongs to user {status.st_uid}"))
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CacheError(_unusable(folder, f"others may write to it (run chmod go-w {folder})"))
    return Cache(folder)


def _unusable(folder: Path, cause: str) -> str:
    return (
        f"{folder}: cannot hold the cache of compiled plans: {cause}. Compiled plans are run as they "
        f"stand, so the folder must be yours alone; set GRAPHNET_CACHE to one that is."
    )


def _differences(cached: Any, wanted: Any, name: str = "") -> Iterator[str]:
    if isinstance(cached, Mapping) and isinstance(wanted, Mapping):
        for field in sorted({*cached, *wanted}):
            yield from _differences(cached.get(field), wanted.get(field), field)
    elif cached != wanted:
        yield f"{name}: cached {cached or 'none'}, wanted {wanted or 'none'}"


def _digest(key: Key) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _age(path: Path) -> float:
    """Seconds since a file was last changed; endless for one that is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def cache_folder() -> Path:
    """$GRAPHNET_CACHE, or graphnet's folder in the platform's place for caches; it may not exist yet.

    >>> import os
    >>> os.environ["GRAPHNET_CACHE"] = "/var/cache/graphnet"
    >>> cache_folder().as_posix()
    '/var/cache/graphnet'
    >>> del os.environ["GRAPHNET_CACHE"]
    """
    if chosen := os.environ.get("GRAPHNET_CACHE"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("graphnet", appauthor=False)

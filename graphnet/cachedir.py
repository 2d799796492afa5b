"""Cachedir: the user's own folder for what can be measured or compiled again at any time."""

from __future__ import annotations

import os
import sys
from pathlib import Path


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
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "graphnet"

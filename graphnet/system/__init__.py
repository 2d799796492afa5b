"""System: files, cache, C++ compiler, devices, installed distributions, units, memory and garbage collector.

Paths, device names and C++ sources come in; files, libraries and numbers go out. It imports errors only, and
torch only where a function needs it.
"""

from __future__ import annotations

from graphnet.system.arguments import as_count, as_path, as_seed, require
from graphnet.system.cache import Cache, Hit, Key, Miss, cache_folder, open_cache
from graphnet.system.device import (
    device_name,
    multiplies_bfloat16,
    processor,
    resolve_device,
    synchronize,
)
from graphnet.system.distributions import (
    PLUGINS,
    Installed,
    installed,
    normalized,
    warn_of_namesake,
)
from graphnet.system.files import atomic_folder, atomic_write, sweep, temporary_folder, write_text
from graphnet.system.gc import without_gc
from graphnet.system.malloc import keep_freed_memory, return_freed_memory
from graphnet.system.memory import device_memory, machine_memory
from graphnet.system.native import Native, find_compiler
from graphnet.system.notebook import html_table
from graphnet.system.plain import finite
from graphnet.system.units import (
    bytes_text,
    parse_bytes,
    seconds_text,
    short_bytes,
    short_count,
    whole_number,
)

__all__ = [
    "PLUGINS",
    "Cache",
    "Hit",
    "Installed",
    "Key",
    "Miss",
    "Native",
    "as_count",
    "as_path",
    "as_seed",
    "atomic_folder",
    "atomic_write",
    "bytes_text",
    "cache_folder",
    "device_memory",
    "device_name",
    "find_compiler",
    "finite",
    "html_table",
    "installed",
    "keep_freed_memory",
    "machine_memory",
    "multiplies_bfloat16",
    "normalized",
    "open_cache",
    "parse_bytes",
    "processor",
    "require",
    "resolve_device",
    "return_freed_memory",
    "seconds_text",
    "short_bytes",
    "short_count",
    "sweep",
    "synchronize",
    "temporary_folder",
    "warn_of_namesake",
    "whole_number",
    "without_gc",
    "write_text",
]

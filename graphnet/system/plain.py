"""Plain: data as JSON can hold it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(data: Any) -> Any:
    """Plain data with None in the place of each number that JSON cannot express: infinities and NaN.

    >>> finite({"loss": (1.5, float("nan"))})
    {'loss': [1.5, None]}
    """
    if isinstance(data, Mapping):
        return {key: finite(item) for key, item in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(item) for item in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data

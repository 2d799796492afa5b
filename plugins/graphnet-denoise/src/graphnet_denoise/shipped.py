"""Shipped: the models that come with this distribution."""

from __future__ import annotations

from pathlib import Path

BLIND = Path(__file__).parent / "models" / "blind.safetensors"
"""For photos in colour with Gaussian noise of any strength; what is used where no model is named."""

"""Tables and lines with which `graphnet evaluate` shows scores."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from graphnet_denoise.scoring import Comparison, ImageScore


def scores_table(result: Comparison, *, title: str) -> Table:
    """Show the scores as rows, noisy beside denoised; the caption says which are left out of a mean."""
    noisy, denoised = result.noisy, result.made
    # Text, since a path in brackets would be read as markup.
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    table.add_column("")
    for heading in ("noisy", "denoised", "gain") if denoised else ("",):
        table.add_column(heading, justify="right")
    rows = [
        ("PSNR (mean of images), dB", "psnr_db", 2),
        ("PSNR (pooled), dB", "psnr_pooled_db", 2),
        ("SSIM (Gaussian 11 x 11)", "ssim", 4),
    ]
    for name, field, digits in rows:
        before = getattr(noisy, field)
        after = getattr(denoised, field) if denoised else None
        if before is not None:
            table.add_row(name, *_cells(before, after, digits))
    if result.exact:
        what = "equals its target and is" if result.exact == 1 else "equal their targets and are"
        table.caption = f"{result.exact} of {result.pairs} images {what} left out of the first row."
    return table


def images_table(result: Comparison) -> Table:
    """Show the scores of each image in a row."""
    table = Table()
    table.add_column("image")
    for heading in (
        ("PSNR", "denoised", "gain", "SSIM", "denoised") if result.made else ("PSNR", "SSIM")
    ):
        table.add_column(heading, justify="right")
    for row in result.images:
        cells = [*_cells(row.noisy.psnr_db, row.denoised.psnr_db if row.denoised else None, 2)]
        cells.append(_similarity(row.noisy))
        if row.denoised is not None:
            cells.append(_similarity(row.denoised))
        table.add_row(Text(row.name), *cells)
    return table


def _similarity(score: ImageScore) -> str:
    return "" if score.ssim is None else f"{score.ssim:.4f}"


def _cells(before: float, after: float | None, digits: int) -> list[str]:
    """The numbers and their difference; an infinite PSNR is that of equal images."""
    if after is None:
        return [_number(before, digits)]
    both = math.isfinite(before) and math.isfinite(after)
    gain = f"{after - before:+.{digits}f}" if both else ""
    return [_number(before, digits), _number(after, digits), gain]


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "equal"

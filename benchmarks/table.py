"""The table: records as people read them, on a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table

from benchmarks.records import Record

COLUMNS = (
    "row",
    "graphnet ms",
    "graphnet",
    "best torch ms",
    "best torch",
    "ratio",
    "plain torch ms",
    "JAX ms",
    "peak MB",
    "torch's MB",
    "predicted MB",
    "roofline ms",
    "remarks",
)
_WORDS = ("row", "graphnet", "best torch", "remarks")


def cells(record: Record) -> tuple[str, ...]:
    """One line of the table."""
    return (
        record["row"],
        milliseconds(record.get("graphnet_ms")),
        record.get("graphnet") or "-",
        milliseconds(record.get("best_torch_ms")),
        record.get("best_torch") or "-",
        number(record.get("ratio"), 2) + ("" if record.get("counts", True) else ", does not count"),
        milliseconds(record.get("plain_torch_ms")),
        milliseconds(record.get("jax_ms")),
        number(record.get("peak_mb"), 1),
        number(record.get("best_torch_peak_mb"), 1),
        number(record.get("predicted_peak_mb"), 1),
        milliseconds(record.get("roofline_ms")),
        remarks(record),
    )


def remarks(record: Record) -> str:
    """What a row says beside its numbers."""
    found = []
    if (share := record.get("peak_ratio")) is not None:
        found.append(f"{share:.2f} of torch's memory")
    if (error := record.get("prediction_error")) is not None:
        found.append(f"eager's peak predicted to {100 * error:+.1f} %")
    if (times := record.get("time_for_memory")) is not None:
        found.append(f"{times:.2f} times the time without a bound")
    if (per_layer := record.get("overhead_us_per_layer")) is not None:
        found.append(f"{per_layer:.1f} us a layer")
    if (later := record.get("later_s")) is not None:
        found.append(f"{abs(later):.1f} s {'later' if later > 0 else 'sooner'} than plain torch")
    if (counts := record.get("counts")) is not None:
        off, error = (100 * record[f"loss_{name}"] for name in ("difference", "error"))
        said = "" if counts else ": does not count"
        found.append(f"loss after {record['loss_steps']} steps {off:+.2f} % +- {error:.2f} %{said}")
    if record.get("graphnet_ms") is None:
        found.append("not measured")
    return "; ".join(found)


def terminal(records: Iterable[Record]) -> Table:
    """The table for a terminal."""
    table = Table(title="ratio = best torch / graphnet", title_justify="left")
    for column in COLUMNS:
        words = column in _WORDS
        table.add_column(column, justify="left" if words else "right", no_wrap=column == "row")
    for record in records:
        table.add_row(*cells(record))
    return table


def markdown(records: Sequence[Record], columns: Sequence[str] = COLUMNS) -> str:
    """The table in Markdown, or some of its columns."""
    indices = [COLUMNS.index(column) for column in columns]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for record in records:
        line = cells(record)
        lines.append(f"| {' | '.join(line[i] for i in indices)} |")
    return "\n".join(lines)


def left_out(records: Iterable[Record]) -> list[str]:
    """What could not be measured, each with its reason and the rows that it concerns."""
    rows: dict[tuple[str, str], list[str]] = {}
    for record in records:
        reasons: Mapping[str, str] = record["unavailable"]
        for name, why in reasons.items():
            rows.setdefault((name, why), []).append(record["row"])
    return [f"{name} ({', '.join(found)}): {why}" for (name, why), found in rows.items()]


def milliseconds(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value >= 1 else f"{value:.2f}"


def number(value: float | None, digits: int) -> str:
    """
    >>> number(None, 2), number(1234.5, 1)
    ('-', '1,234.5')
    """
    return "-" if value is None else f"{value:,.{digits}f}"

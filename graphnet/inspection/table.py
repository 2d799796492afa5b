"""Table: `explain` shows a plan as text, one line for each step.

step  node   does             makes                read  written  FLOPs  alive  at least  frees
----  -----  ---------------  -------------------  ----  -------  -----  -----  --------  -----
0     enc.1  conv2d [aten]    32x64x16x16 float32  396K     2.0M  12.8M   2.9M     126us  -
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from types import NoneType

from graphnet.errors import elide
from graphnet.graph import SLOTS, Kind, Machine, Network, Value, stated_machine
from graphnet.inspection.report import (
    Breakdown,
    Phase,
    Row,
    Timing,
    breakdown,
    short_name,
)
from graphnet.passes import Change
from graphnet.plan import Plan, check_plan
from graphnet.sdk import Layout, Spec
from graphnet.system import bytes_text, require, seconds_text, short_bytes, short_count

WIDTH = 160
_LISTED = 12  # the number of values that are listed at the peak
# Texts are first shortened to these widths, and if that does not suffice, to 8 characters.
_MIN_WIDTHS = {"node": 12, "does": 22, "makes": 18, "frees": 8, "kept for": 10}
_NUMBERS = ("read", "written", "FLOPs", "alive", "at least", "measured")


def explain(
    plan: Plan,
    *,
    machine: Machine | None = None,
    network: Network | None = None,
    timing: Timing | None = None,
    width: int = WIDTH,
) -> str:
    """Show a plan as text: its steps, the totals of each phase, and the values in memory at the peak.

    Args:
        plan: the plan.
        machine: the numbers from which the least time of each step follows; None takes typical numbers of
            the plan's device.
        network: the numbers from which the time of each exchange between processes follows, from
            `measure_network`; None takes typical numbers.
        timing: the measured times of the steps, from `time_steps`.
        width: the number of characters in a line; longer names are shortened in the middle.

    >>> from graphnet import Model
    >>> "relu" in explain(Model({"layers": ["relu"]}).plan((1, 1, 2, 2)))
    True
    """
    check_plan(plan, "explain")
    require(machine, (Machine, NoneType), "explain: machine", "a Machine")
    require(network, (Network, NoneType), "explain: network", "a Network")
    require(timing, (Timing, NoneType), "explain: timing", "the result of time_steps")
    require(width, int, "explain: width", "a number of characters")
    seen = breakdown(plan, machine or stated_machine(plan.device), network)
    parts = [table(seen, timing=timing, width=width), totals(seen, timing=timing), peak(seen)]
    if plan.prelude is not None:
        parts.append(prelude_table(breakdown(plan.prelude, seen.machine), width=width))
    return "\n\n".join([*parts, summary(plan), legend(seen)])


def prelude_table(seen: Breakdown, *, width: int = WIDTH) -> str:
    """Show the steps of a prelude, which computes the values that depend on weights alone."""
    head = "computed ahead: before the first run, and again when parameters or states have changed"
    return f"{head}\n\n{table(seen, width=width)}"


def table(seen: Breakdown, *, timing: Timing | None = None, width: int = WIDTH) -> str:
    """Show the steps of a plan, one line for each."""
    plan = seen.plan
    training = any(row.phase is not Phase.FORWARD for row in seen.rows)
    blocks = any(value.layout is not None for value in plan.values.values())
    columns = {
        "step": [str(row.number) for row in seen.rows],
        "node": [row.call.node for row in seen.rows],
        "does": [operation_text(row) for row in seen.rows],
        "layout": [_layout(plan, row) for row in seen.rows] if blocks else [],
        "makes": [results_text(plan, row) for row in seen.rows],
        "read": [short_bytes(row.cost.bytes_read) for row in seen.rows],
        "written": [short_bytes(row.cost.bytes_written) for row in seen.rows],
        "FLOPs": [short_count(row.cost.flops) for row in seen.rows],
        "alive": [short_bytes(row.alive_bytes) for row in seen.rows],
        "at least": [seconds_text(row.seconds) for row in seen.rows],
        "measured": [seconds_text(elapsed) for elapsed in timing.steps] if timing else [],
        "frees": [_frees(row) for row in seen.rows],
        "kept for": [kept_for_text(row) for row in seen.rows] if training else [],
    }
    return _align({name: cells for name, cells in columns.items() if cells}, width)


def totals(seen: Breakdown, *, timing: Timing | None = None) -> str:
    """Show the sums over the steps of each phase, and over all steps."""
    names = [*seen.phases, "total"] if len(seen.phases) > 1 else ["total"]
    columns: dict[str, list[str]] = {"": [str(name) for name in names]}
    for name in names:
        chosen = (Phase(name),) if name != "total" else ()
        total = seen.total(*chosen)
        cells = {
            "steps": str(total.steps),
            "read": short_bytes(total.cost.bytes_read),
            "written": short_bytes(total.cost.bytes_written),
            "FLOPs": short_count(total.cost.flops),
            "at least": seconds_text(total.seconds),
        }
        if timing is not None:
            elapsed = [
                s for s, row in zip(timing.steps, seen.rows, strict=True)
                if not chosen or row.phase in chosen
            ]  # fmt: skip
            cells["measured"] = seconds_text(sum(elapsed))
        for column, cell in cells.items():
            columns.setdefault(column, []).append(cell)
    text = _align(columns, WIDTH)
    if timing is None:
        return text
    whole = seconds_text(timing.whole)
    return f"{text}\n\nthe eager function takes {whole} in all: medians of {timing.rounds} rounds"


def peak(seen: Breakdown) -> str:
    """Show the step at which the plan needs most memory, and the values in memory then, largest first."""
    if not seen.rows:
        return "no steps"
    step, end = seen.peak_step, len(seen.rows) - 1
    alive = seen.alive(step)
    lines = [
        f"peak {bytes_text(seen.peak_bytes)} in step {step} ({seen.rows[step].call.name}); alive then:"
    ]
    for one in alive[:_LISTED]:
        made = f"{one.kind} of the plan" if one.first < 0 else f"made in step {one.first}"
        until = "stays" if one.last == end else f"freed after step {one.last}"
        lines.append(
            f"  {bytes_text(one.size_bytes):>10}  {elide(one.name, 60)}  ({made}, {until})"
        )
    if rest := alive[_LISTED:]:
        size = bytes_text(sum(one.size_bytes for one in rest))
        lines.append(f"  {size:>10}  in {len(rest)} others")
    if work := seen.rows[step].work_bytes:
        lines.append(f"  {bytes_text(work):>10}  temporary memory of this step")
    return "\n".join(lines)


def passes(changes: Sequence[Change], *, width: int = WIDTH) -> str:
    """Show each pass: the number of calls before and after it, its time, and the calls that it changed."""
    longest = max((len(change.name) for change in changes), default=0)
    indent = " " * (longest + 27)
    lines = []
    for change in changes:
        calls, took = f"{change.before} -> {change.after}", seconds_text(change.elapsed_s)
        if change.switched_off:
            calls, took = "switched", "off"
        first, *more = textwrap.wrap(change.summary, max(width - len(indent), 40))
        lines.append(f"{change.name:<{longest}}  {calls:>14}  {took:>7}  {first}")
        lines += [f"{indent}{line}" for line in more]
        touched = {"new": change.added, "gone": change.removed, "other": change.changed}
        lines += [
            f"{indent}{word}: {_some(names, width - len(indent) - len(word) - 2)}"
            for word, names in touched.items()
            if names
        ]
    head = (
        f"{'pass':<{longest}}  {'calls':>14}  {'took':>7}  what it does, and which calls it changed"
    )
    return "\n".join([head, "-" * len(head), *lines])


def _some(names: Sequence[str], width: int) -> str:
    """List as many names as fit into the width, and the number of the others."""
    shown = elide(names[0], 40)
    for count, name in enumerate(names[1:], start=1):
        longer, rest = f"{shown}, {elide(name, 40)}", len(names) - count
        if len(longer) + len(f" and {rest} more") > width:
            return f"{shown} and {rest} more"
        shown = longer
    return shown


def summary(plan: Plan) -> str:
    """Show the totals of a plan in one line: steps, parameters, state, peak memory."""
    parameters = [plan.values[name].spec for name in plan.of(Kind.PARAMETER)]
    states = [plan.values[name].spec for name in plan.of(Kind.STATE)]
    parts = [
        f"{len(plan.steps)} steps",
        f"{sum(spec.numel for spec in parameters):,} parameters in {len(parameters)} tensors",
    ]
    if frozen := [plan.values[name].spec for name in plan.of(Kind.FROZEN)]:
        parts.append(f"{sum(spec.numel for spec in frozen):,} frozen")
    if states:
        parts.append(f"{bytes_text(sum(spec.size_bytes for spec in states))} of state")
    parts.append(f"peak {bytes_text(plan.peak_bytes)}")
    return ", ".join(parts)


def legend(seen: Breakdown) -> str:
    """Explain the units, and how the least times are computed."""
    source = (
        f"measured {seen.machine.measured_on}"
        if seen.machine.measured_on
        else "`graphnet machine` measures this one"
    )
    exchanges = ""
    if Phase.EXCHANGE in seen.phases:
        exchanges = f"\nexchanges: while other calls run, on {seen.network}"
    return (
        "K, M, G of bytes are powers of 1024, of FLOPs powers of 1000.\n"
        f"at least: max(bytes / bandwidth, FLOPs / ceiling) + a launch, on {seen.machine}; {source}"
        f"{exchanges}"
    )


# -- cells -------------------------------------------------------------------------------------------


def operation_text(row: Row) -> str:
    """Return the layer's name, and the kind of call if it is not forward, such as "relu backward"."""
    call = row.call
    if row.phase is Phase.RECOMPUTE:
        return f"{call.title} again"
    if call.kind in (Kind.LAYER, Kind.LOSS) or call.title == call.kind:
        return call.title
    return f"{call.title} {call.kind}"


def results_text(plan: Plan, row: Row) -> str:
    """Return the shapes and dtypes of a step's results, and the values whose memory they overwrite.

    For an update, return the slots that it writes.
    """
    if row.call.kind is Kind.UPDATE:
        slots = (short_name(slot, row.call.node) for slot in row.call.writes.values())
        return f"writes {' '.join(slots)}"

    def cell(name: str) -> str:
        over = row.call.writes.get(name)
        shape = spec_text(plan.values[name].spec)
        return f"{shape} over {short_name(over, row.call.node)}" if over else shape

    return ", ".join(map(cell, row.call.makes())) or "-"


def spec_text(spec: Spec) -> str:
    """Format a shape and a dtype for a narrow column.

    >>> spec_text(Spec((32, 3, 8, 8)))
    '32x3x8x8 f32'
    """
    shape, _, dtype = str(spec).rpartition(" ")
    return f"{shape} {dtype.replace('bfloat', 'bf').replace('float', 'f').replace('int', 'i')}"


def layout_text(value: Value) -> str:
    """Format the layout of a value: NCHW, NHWC, or its blocks of pixels, the outermost first.

    "-" stands for a value that is not an image.

    >>> layout_text(Value("a", Spec((1, 2, 2, 2, 2, 3)), Kind.LAYER, layout=((2, 2),)))
    '2x2'
    """
    if value.layout is not None:
        return stack_text(value.layout)
    if len(value.spec.shape) != 4:
        return "-"
    fast = value.memory_format is not None and "channels_last" in str(value.memory_format)
    return "NHWC" if fast and value.kind in SLOTS else "NCHW"


def stack_text(layout: Layout) -> str:
    """Format nested blocks of pixels, the outermost first; the innermost axis holds the channels.

    >>> stack_text(((2, 2), (4, 4)))
    '4x4 2x2'
    """
    return " ".join(f"{h}x{w}" for h, w in reversed(layout)) or "NHWC"


def kept_for_text(row: Row) -> str:
    """Return the results that the reverse pass reads, each with the numbers of the steps that read it."""
    return (
        ", ".join(
            f"{short_name(one.name, row.call.node)} {' '.join(map(str, one.kept_for))}"
            for one in row.makes
            if one.kept_for
        )
        or "-"
    )


def _layout(plan: Plan, row: Row) -> str:
    made = next(row.call.makes(), None)  # the first result: the others are gradients of parameters
    return "-" if made is None else layout_text(plan.values[row.call.writes.get(made, made)])


def _frees(row: Row) -> str:
    return " ".join(short_name(name, row.call.node) for name in row.frees) or "-"


def _align(columns: dict[str, list[str]], width: int) -> str:
    """Align columns under their names; the widest texts are shortened until a line fits into `width`."""
    widths = {name: max(len(name), *map(len, cells)) for name, cells in columns.items()}
    excess = sum(widths.values()) + 2 * (len(widths) - 1) - width
    for least in (_MIN_WIDTHS, dict.fromkeys(_MIN_WIDTHS, 8)):
        while excess > 0:
            spare = {name: widths[name] - least[name] for name in _MIN_WIDTHS if name in widths}
            widest = max(spare, key=lambda name: spare[name], default="")
            if spare.get(widest, 0) <= 0:
                break
            widths[widest] -= 1
            excess -= 1

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            elide(cell, w).rjust(w) if name in _NUMBERS else elide(cell, w).ljust(w)
            for (name, w), cell in zip(widths.items(), cells, strict=True)
        ).rstrip()

    rows = zip(*columns.values(), strict=True)
    return "\n".join(
        [line(list(columns)), line(["-" * w for w in widths.values()]), *map(line, rows)]
    )

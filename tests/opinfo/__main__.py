"""Compare every layer with torch's operators, on all of torch's own sample inputs.

    python -m tests.opinfo [OPERATOR ...]

It prints for each operator how many samples are equal, refused and wrong, and the reasons of the refused
and wrong ones. The exit status is 1 if a sample is wrong.
"""

from __future__ import annotations

import sys
import warnings

import torch

from tests.opinfo.judge import Status, Tally, operators, tally
from tests.opinfo.rows import ROWS


def main(wanted: list[str]) -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    known = operators()
    unknown = [name for name in wanted if name not in ROWS]
    if unknown:
        print(f"no row for {', '.join(unknown)}; rows: {', '.join(ROWS)}", file=sys.stderr)
        return 2
    tallies = [tally(name, known[name], ROWS[name]) for name in wanted or ROWS]
    width = max(len(one.operator) for one in tallies)
    print(f"{'operator':{width}}  equal  kernel  refused  wrong")
    for one in tallies:
        print(_line(one.operator, width, one))
    total = Tally("total", [verdict for one in tallies for verdict in one.verdicts])
    print(_line("total", width, total))
    for status in (Status.WRONG, Status.REFUSED):
        for one in tallies:
            for reason, count in one.reasons(status).items():
                print(f"{status.value}: {one.operator}, {count}: {reason}")
    return 1 if total.count(Status.WRONG) else 0


def _line(name: str, width: int, one: Tally) -> str:
    by_kernel = sum(v.by_kernel for v in one.verdicts if v.status is Status.EQUAL)
    counts = [one.count(status) for status in (Status.EQUAL, Status.REFUSED, Status.WRONG)]
    return f"{name:{width}}  {counts[0]:5}  {by_kernel:6}  {counts[1]:7}  {counts[2]:5}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Report: what the pages say about speed, from a JSON file of `python -m benchmarks`.

`python -m benchmarks report FILE` prints docs/performance.md; with --write it replaces that page, and the
part of README.md between the two marks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import rows, table
from benchmarks.records import Record
from graphnet.errors import InputError

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "table_cpu.json"
PAGE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"
_BEGIN, _END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
_README_COLUMNS = ("row", "graphnet ms", "best torch ms", "best torch", "ratio", "plain torch ms")

_METHOD = """\
## How it is measured

- Every contender of a workload is built and warmed up, then all are timed in turn, round after round, in
  one process; the order shifts by one each round. Times are medians. A contender more than four times
  slower than the fastest of its side in the warm-up has that time. `ratio` is best torch / graphnet.
- graphnet: the executors `eager` and `inductor`, the better one stands in the row. Torch: eager, and
  `torch.compile` with default settings and with max-autotune, with N C H W and channels_last tensors;
  for inference also frozen weights, and max-autotune in channels_last only. JAX: the whole step jitted,
  tensors donated, N H W C.
- A float32 row has float32 on all sides. In a bfloat16 row graphnet computes in bfloat16, and torch's
  best is its fastest setting of float32 and bfloat16 autocast. It counts only if the loss after 200
  steps, each on fresh noise, is within 1 % of float32's. A single loss jumps by more than that with its noise
  and with rounding, so it is the mean of the next 50 steps, and of three runs on different noise.
- Torch's gradients are set to None, SGD and Adam are the fused ones, autocast keeps its weight cache,
  forward and loss are compiled as one graph with their backward. Everyone starts with the same weights
  and returns the loss as a tensor.
- Inputs and targets of a training step lie beforehand as each side wants them: channels_last for torch's
  and JAX's settings of that name, packed by `Program.pack` for graphnet. An image for inference lies in
  the memory format of the setting; what graphnet packs of it is in its time.
- Memory is the peak of allocated tensor bytes in a warm step, in a process of its own: on the CPU the
  bytes of all live tensors after the step, and the running sum of the profiler's memory events that led
  there; on CUDA `max_memory_allocated`. Weights, optimizer states, inputs and targets count, on all sides.
  MB are 10^6 bytes. The plan's prediction is judged on the eager executor.
- The roofline is the sum over the plan's steps of the larger of bytes / bandwidth and operations /
  ceiling, with this machine's measured bandwidth and ceilings. Fusing steps can go below it.
- Overhead is the generated step minus a handwritten function with the same operators, per layer. The
  start is the time from the start of a process to the end of its first step, where the machine has run
  graphnet before: the very first time its C++ kernels are compiled, in about four seconds.
- Once graphnet has made a plan for training, glibc keeps freed memory for the whole process: torch's and
  JAX's times in the table have that advantage too.
"""

_LIMIT = """\
## Where a limit lies

A bfloat16 training step of the paper's network, batch 32, has 1.7e9 operations. Matrix products run at
0.42e12 a second here on two threads (`graphnet machine`; a loop of nothing but multiply-adds at 0.47e12), so
they take 4.0 ms, and the whole step - casts, sigmoid, loss, updates - took 4.4 to 4.8 ms over three runs of
the table. Torch's best took 8.9 to 10.8 ms, each time more where graphnet took more: ratios of 2.03 to 2.25.
With nothing left but the products it would be 2.2 of 8.9.
"""

_GPU = """\
## On a GPU

Nothing has been measured on a GPU yet. What runs there - the executor `cudagraph`, the plugin
graphnet-triton, casts and updates of all parameters at once - is checked on CPUs as far as they can: kernels
by Triton's interpreter and by compiling them for a Hopper GPU, the executor around a recording that any
machine can make. So it is known that a captured training step of the paper's network in bfloat16 is the
cutting of its batch and seven launches - two for casts, three for the chain, one each for its gradients'
scale and the update - and that no program asks for more shared memory than a multiprocessor has; it is not
known how long they take. On a GPU `benchmarks/gpu.sh WHEELS OUT` runs the tests on CUDA and measures, with
CUDA events, beside torch's best, its whole step in a CUDA graph included:

| what | file | measured on |
|---|---|---|
| training step of the paper's network, batch 32 | `table_a32.json` | nothing yet |
| training step of DnCNN-17, 128 x 40x40, bfloat16 | `table_e.json` | nothing yet |
| training step of the residual U-Net, 64 x 128x128, bfloat16, and its memory | `table_f.json` | nothing yet |
| an image of 24 megapixels denoised, and its memory | `table_f24mp.json` | nothing yet |
| an epoch of 50,000 pairs, batch 32, with the paper's network | `training.json` | nothing yet |
| the speedrun's recipe, from random weights | `training.json` | nothing yet |
| each layer of the paper's network beside the GPU's ceilings | `kernels.json` | nothing yet |

It differs from the table above, as it is to end within minutes:

- Torch is tried in few settings: bfloat16 in channels_last, float32 in N C H W; eager, compiled, with
  reduce-overhead, with max-autotune, and a training step, eager or compiled, as one CUDA graph. What is not
  built when the time for a workload is over is left out and named, max-autotune and float32 first. The loss
  after 200 steps is that of one run.
- A contender whose plan could not be captured is left out with the reason, not timed as what it is not.
- float32 is multiplied in float32 on all sides, not in TF32.
- What is captured replays without a call of the allocator, so its memory is the peak from before it was
  built until it replays. That counts what is only there on the way: graphnet's copies of weights and
  states, by which the captured step is compared with eager, and torch's steps to warm up.
- A plan's predicted peak counts the tensors of its operators, and what graphnet-triton's kernels need
  between their programs. cuBLAS and cuDNN take room for their own work from torch's allocator, as much as
  they like, and no plan can know it: on CUDA the tests require what is measured to be what was predicted,
  within 5 %, and 128 MiB more at most (`tests/plan/test_peak.py`).
"""


def add_command(commands: Any) -> None:
    """Add `report` to a parser's commands."""
    parser = commands.add_parser("report", help="write the pages that show a JSON file")
    parser.add_argument("file", type=Path)
    parser.add_argument("--write", action="store_true", help="into docs and README, not to stdout")


def main(options: argparse.Namespace) -> int:
    """Print or write the pages. Raises InputError for a file that holds no results."""
    result = read(options.file)
    if options.write:
        PAGE.write_text(page(result))
        README.write_text(inserted(README.read_text(), summary(result)))
    else:
        print(page(result), end="")
    return 0


def read(file: Path) -> dict[str, Any]:
    """A JSON file that `--json` wrote. Raises InputError for anything else."""
    try:
        result = json.loads(file.read_text())
        if result["rows"] and result["machine"]:
            return dict(result)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{file}: expected what `python -m benchmarks --json FILE` writes; {error!r}"
        ) from error
    raise InputError(f"{file}: holds no rows; measure some with `python -m benchmarks --json FILE`")


def page(result: dict[str, Any]) -> str:
    """docs/performance.md for these results."""
    found: list[Record] = result["rows"]
    named = "\n".join(f"- `{record['row']}`: {rows.describe(record['row'])}" for record in found)
    parts = [
        "# Performance\n\n`python -m benchmarks --json FILE` measures this table, and "
        "`python -m benchmarks report FILE --write` writes this page.\n",
        f"{_machine(result)}\n",
        f"{table.markdown(found)}\n",
        f"{named}\n",
        _METHOD,
        _LIMIT,
        *(_starts(record) for record in found if record.get("starts")),
        _GPU,
        _every_contender(found),
    ]
    if missing := table.left_out(found):
        parts.append("## Left out\n\n" + "\n".join(f"- {line}" for line in missing) + "\n")
    return "\n".join(parts)


def summary(result: dict[str, Any]) -> str:
    """The part of the README for these results: training steps and inference in few columns."""
    found = [record for record in result["rows"] if "contenders" in record]
    lines = table.markdown(found, _README_COLUMNS)
    return f"{lines}\n\n{_machine(result)}"


def inserted(text: str, part: str) -> str:
    """A page with this part between its two marks. Raises InputError for a page without them."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise InputError(f"expected the marks {_BEGIN} and {_END} in the page, found none")
    return f"{before}{_BEGIN}\n{part}\n{_END}{after}"


def _machine(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    return f"Measured {result['started']} on: {facts}."


def _starts(record: Record) -> str:
    lines = [
        "## From process start\n",
        "| | first step s | steady state s | steady step ms |\n|---|---|---|---|",
    ]
    for start in record["starts"]:
        first, steady = f"{start['first_s']:.2f}", f"{start['steady_s']:.2f}"
        step = table.milliseconds(start["steady_step_ms"])
        lines.append(f"| {start['name']} | {first} | {steady} | {step} |")
    return "\n".join([*lines, ""])


def _every_contender(found: list[Record]) -> str:
    """The contenders of each workload; rows of one workload were measured together."""
    together = {
        record["what"]: record
        for record in sorted(found, key=lambda record: len(record.get("contenders", ())))
        if "contenders" in record
    }
    lines = ["## Every contender\n", "Milliseconds: median, and half the range of the middle half."]
    for record in (one for one in found if together.get(one.get("what")) is one):
        lines += ["", f"### {record['what']}\n", "| | ms | +- | rounds |\n|---|---|---|---|"]
        for one in record["contenders"]:
            spread = table.milliseconds(one["spread_ms"])
            lines.append(
                f"| {one['name']} | {table.milliseconds(one['ms'])} | {spread} | {one['rounds']} |"
            )
    return "\n".join([*lines, ""])

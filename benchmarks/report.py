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

- All contenders of a workload are built and warmed up in one process. Then they are timed in turn, round
  after round; the order moves by one in each round. Times are medians. If a contender takes more than
  four times the time of the fastest contender of its side in the warm-up, the table shows its time from
  the warm-up. `ratio` is best torch / graphnet.
- graphnet runs the executors `eager` and `inductor`; the row shows the better one. Torch runs eager, and
  `torch.compile` with default settings and with max-autotune, each with N C H W and channels_last
  tensors. For inference torch also runs with frozen weights, and max-autotune runs in channels_last only.
  JAX runs the whole step jitted, with donated tensors and N H W C.
- In a float32 row all sides compute in float32. In a bfloat16 row graphnet computes in bfloat16, and
  torch's best is the fastest of its settings in float32 and bfloat16 autocast. The row counts only if the
  loss after 200 steps, each on new noise, is at most 1 % higher than the loss in float32, or at most two
  standard errors, and if this error is at most 3 %. A single loss varies by some percent with its noise
  and with rounding. So the loss of a run is the mean of the next 50 steps, and the table shows the mean
  difference of eight runs, each on its own noise in both precisions, and the standard error of that mean.
- Torch's gradients are set to None, its SGD and Adam are the fused ones, autocast keeps its weight cache,
  and forward and loss are compiled as one graph with their backward. All sides start with the same weights
  and return the loss as a tensor.
- Before a training step, inputs and targets lie in memory as each side wants them: channels_last for
  torch's and JAX's settings of that name, packed by `Program.pack` for graphnet. An image for inference
  lies in the memory format of the setting; if graphnet packs it, this is part of its time.
- Memory is the peak of allocated tensor bytes in a warm step, in a process of its own. On the CPU it is the
  bytes of all live tensors after the step, and the running sum of the profiler's memory events before that.
  On CUDA it is `max_memory_allocated`. Weights, optimizer states, inputs and targets count on all sides. MB
  are 10^6 bytes. The plan's prediction is compared with the eager executor.
- The roofline is a sum over the plan's steps. Each step adds the larger of bytes / bandwidth and operations
  / ceiling, with the measured bandwidth and ceilings of this machine. A plan with fused steps can be faster
  than this sum.
- Overhead is the time of the generated step minus the time of a handwritten function with the same
  operators, per layer. The start-up time is the time from the start of a process to the end of its first
  step, on a machine where graphnet has run before. The very first time, graphnet also compiles its C++
  kernels, in about four seconds.
- When graphnet has made a plan for training, glibc keeps freed memory for the whole process. The times of
  torch and JAX in the table profit from that too.
"""

_LIMIT = """\
## How close to the limit

A bfloat16 training step of the paper's network, batch 32, has 1.7e9 operations. On this machine matrix
products run at 0.42e12 operations a second on two threads (`graphnet machine`), and a loop of
multiply-adds alone at 0.47e12. So the products take 4.0 ms. The whole step, with casts, sigmoid, loss and
updates, took 4.4 to 4.8 ms in three runs of the table. Torch's best setting took 8.9 to 10.8 ms, and took
longer in the runs in which graphnet took longer; the ratios were 2.03 to 2.25. If graphnet's step had
only the products, the ratio to 8.9 ms would be 2.2.
"""

_GPU = """\
## On a GPU

Nothing has been measured on a GPU yet. The executor `cudagraph`, the plugin graphnet-triton, and the
casts and updates of all parameters at once run on GPUs. Tests check them on CPUs as far as possible:
Triton's interpreter runs the kernels, every kernel is compiled for a Hopper GPU, and the executor runs
with a recording that any machine can make. So these facts are known: the plan of a training step of the
paper's network in bfloat16 launches three kernels - two for the chain of all layers and the loss, and one
for the update. A captured step also selects its batch, and counts itself. 32 such steps are one launch of
the host. No program needs more shared memory than a multiprocessor has. How long these kernels take is
not known, nor for which sizes the 3x3 convolutions of graphnet-triton are faster than cuDNN's. On a GPU,
`benchmarks/gpu.sh WHEELS OUT` runs the tests on CUDA and measures with CUDA events, next to torch's best
settings; torch's whole step in a CUDA graph is one of them, and for the paper's network 32 steps in one
graph:

| what | file | measured on |
|---|---|---|
| training step of the paper's network, batch 32 | `table_a32.json` | nothing yet |
| training step of DnCNN-17, 128 x 40x40, bfloat16 | `table_e.json` | nothing yet |
| training step of the residual U-Net, 64 x 128x128, bfloat16, and its memory | `table_f.json` | nothing yet |
| an image of 24 megapixels denoised, and its memory | `table_f24mp.json` | nothing yet |
| an epoch of 50,000 pairs, batch 32, with the paper's network | `training.json` | nothing yet |
| the speedrun's recipe, from random weights | `training.json` | nothing yet |
| each layer of the paper's network beside the GPU's ceilings | `kernels.json` | nothing yet |

These measurements must end within minutes, so they differ from the table above:

- Torch runs in few settings: bfloat16 in channels_last, float32 in N C H W; eager, compiled, with
  reduce-overhead, with max-autotune, and a training step, eager or compiled, as one CUDA graph; of the
  paper's network 32 steps too. A workload has a time limit. Contenders that are not built by then are left
  out and named, max-autotune and float32 first. The loss after 200 steps comes from four runs.
- If the plan of a contender cannot be captured, the contender is left out with the reason. It is not timed
  without capture.
- float32 is multiplied in float32 on all sides, not in TF32.
- A captured step replays without a call of the allocator. Its memory is therefore the peak from before it
  is built until it replays. This includes memory that is only needed on the way: graphnet's copies of
  weights and states, with which the captured step is compared with eager, and torch's steps to warm up.
- A plan's predicted peak counts the tensors of its operators, and the memory that graphnet-triton's kernels
  need between their programs. cuBLAS and cuDNN take memory for their own work from torch's allocator, and
  no plan can know how much. On CUDA the tests therefore require that the prediction is within 5 % of the
  measured peak, less at most 128 MiB for this work (`tests/plan/test_peak.py`).
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
        "`python -m benchmarks report FILE --write` writes this page. [How it is measured]"
        "(#how-it-is-measured) explains the columns.\n",
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
    lines = ["## Every contender\n", "Milliseconds: median, and half the interquartile range."]
    for record in (one for one in found if together.get(one.get("what")) is one):
        lines += ["", f"### {record['what']}\n", "| | ms | +- | rounds |\n|---|---|---|---|"]
        for one in record["contenders"]:
            spread = table.milliseconds(one["spread_ms"])
            lines.append(
                f"| {one['name']} | {table.milliseconds(one['ms'])} | {spread} | {one['rounds']} |"
            )
    return "\n".join([*lines, ""])

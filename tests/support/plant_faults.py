"""Plant known faults, one at a time, and see which test catches each.

    python tests/support/plant_faults.py --checkout DIR --output faults.json --table faults.md

A fault is a piece of source and what stands there instead: a sign, an off-by-one, a check that is
left out. The piece is looked for under graphnet/ and plugins/, in whatever file it stands now;
where a fault's piece does not stand in exactly one place, the script says so and exits with status
2. Each fault goes into a copy of the checkout. pytest runs the tests that touch the changed file,
then all others, and stops at the first failure. A test that fails without the fault too is left
out, and pytest goes on. The exit status is 1 if a fault is not caught.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOT_CAUGHT = "NOT CAUGHT"
_MOST_LIKELY = 14  # test files that are run first
_SUFFIXES = (".py", ".cpp", ".h")


@dataclass(frozen=True)
class Fault:
    """A mistake: `good` as it stands in one place, and `bad` in its stead.

    `words` lead to the files of likely tests, `tests` to some tests in them by parts of their names: these
    run first.
    """

    area: str
    name: str
    good: str
    bad: str
    words: str
    tests: str = ""


FAULTS = (
    # Layers and their kernels.
    Fault(
        "layers",
        "batch_norm_gradient_lacks_a_mean",
        "grad_y - per_channel(grad_bias / n, x) - z * per_channel(grad_weight / n, x)",
        "grad_y - per_channel(grad_bias / n, x) - z * per_channel(grad_weight, x)",
        "batch_norm norm",
    ),
    Fault(
        "layers",
        "batch_norm_moves_the_biased_variance",
        "squares / max(n - 1, 1) - running_var",
        "squares / max(n, 1) - running_var",
        "batch_norm norm",
    ),
    Fault(
        "layers",
        "gemm_lets_gradients_through_where_relu_is_zero",
        "g.length - c) <= 0 ? V<A>{} : value",
        "g.length - c) < 0 ? V<A>{} : value",
        "gemm",
    ),
    Fault(
        "layers",
        "same_padding_puts_the_odd_pixel_before",
        "for side in (t // 2, t - t // 2)",
        "for side in (t - t // 2, t // 2)",
        "conv conv2d",
    ),
    Fault(
        "layers",
        "average_pooling_counts_pixels_behind_the_image",
        "(first + self.kernel_size[axis]).clamp_max(most) - first.clamp_min(least)",
        "(first + self.kernel_size[axis]) - first.clamp_min(least)",
        "pool avg_pool2d",
    ),
    Fault(
        "layers",
        "masked_loss_gradient_lacks_its_factor",
        "difference * (2.0 * grad_loss / total), None, None",
        "difference * (grad_loss / total), None, None",
        "masked_loss masked_mse masked",
    ),
    Fault(
        "layers",
        "ssim_gradient_has_the_wrong_sign_by_the_square",
        "by_square = -0.5 * self.structure * by_product",
        "by_square = 0.5 * self.structure * by_product",
        "similarity ssim",
    ),
    Fault(
        "layers",
        "patch_kernel_sums_its_bias_gradient_over_the_wrong_axis",
        "grad_bias.view(-1, weight.shape[1]).sum(0)",
        "grad_bias.view(weight.shape[1], -1).sum(1)",
        "patch upsample",
    ),
    Fault(
        "layers",
        "winograd_gradient_swaps_its_paddings",
        "return 2 - top, 2 - left",
        "return 2 - left, 2 - top",
        "winograd",
    ),
    Fault(
        "layers",
        "attention_gradient_sums_over_the_wrong_axis",
        "weighted - attention * weighted.sum(-1, keepdim=True)",
        "weighted - attention * weighted.sum(-2, keepdim=True)",
        "attention transposed_attention",
    ),
    # Passes.
    Fault(
        "passes",
        "value_read_twice_loses_a_gradient",
        "self.contributions.setdefault(value, []).append(name)",
        "self.contributions[value] = [name]",
        "plan differentiate gradients",
    ),
    Fault(
        "passes",
        "gradient_accumulation_never_clears_its_slots",
        '        call = write(values, Clear(), "clear", (slot,), (slot,), of.node)\n'
        "        calls[call.name] = call\n",
        "",
        "accumulate updates",
    ),
    Fault(
        "passes",
        "moving_average_follows_at_the_wrong_rate",
        "((1.0 + t) / (10.0 + t)).clamp_max(self.decay)",
        "((1.0 + t) / (10.0 + t)).clamp_min(self.decay)",
        "ema updates average",
    ),
    Fault(
        "passes",
        "update_does_not_wait_for_readers_of_views",
        "pending.extend(views.get(read, ()))",
        "pending.extend(views.get(name, ()))",
        "update updates optim plan",
        "shown_as_a_view",
    ),
    Fault(
        "passes",
        "clipping_adds_norms_up",
        "self.max_norm / (torch.linalg.vector_norm(norms(xs, 2)) + 1e-6)",
        "self.max_norm / (norms(xs, 2).sum() + 1e-6)",
        "clip updates",
    ),
    Fault(
        "passes",
        "fold_ignores_other_readers",
        "alone = isinstance(image, str) and len(self.graph.readers[image]) == 1",
        "alone = isinstance(image, str) and len(self.graph.readers[image]) >= 1",
        "fold affine",
    ),
    Fault(
        "passes",
        "layers_that_follow_narrow_if_any_input_is_narrow",
        "narrow = all(dtype_of_value(self.values[name]) == self.compute for name in inputs)",
        "narrow = any(dtype_of_value(self.values[name]) == self.compute for name in inputs)",
        "precision",
    ),
    Fault(
        "passes",
        "lifetimes_end_one_call_too_early",
        "change[end[storage] + 1] -= storages.sizes[storage]",
        "change[end[storage]] -= storages.sizes[storage]",
        "recompute peak lifetimes",
    ),
    Fault(
        "passes",
        "in_place_writes_into_a_part_of_a_storage",
        "        and home.spec.size_bytes == target.spec.size_bytes\n",
        "",
        "inplace in_place",
    ),
    Fault(
        "passes",
        "layout_takes_stacks_of_different_blocks_for_equal",
        "return u == v and p == q",
        "return u == v",
        "layout",
        "blocks_of_2 blocks",
    ),
    # Executors, and what runs a plan.
    Fault(
        "executors",
        "reference_does_not_check_shapes",
        "if found != (spec.shape, spec.dtype, spec.device):",
        "if found[1:] != (spec.dtype, spec.device):",
        "executors reference",
        "checks_the_shape",
    ),
    Fault(
        "executors",
        "generated_code_keeps_results_that_nobody_reads",
        'frees = [self.value(name) for name in step.frees] + (["_"] if discarded else [])',
        "frees = [self.value(name) for name in step.frees]",
        "executors peak plan",
        "freed_at_once",
    ),
    Fault(
        "executors",
        "comparison_is_relative_to_the_value_not_its_change",
        "max(_norm(expected.double() - start.double()), 1e-300)",
        "max(_norm(expected.double()), 1e-300)",
        "executors agreement cudagraph",
        "agreement",
    ),
    Fault(
        "executors",
        "comparison_lets_nan_pass",
        'return ratio if ratio == ratio else float("inf")',
        "return ratio if ratio == ratio else 0.0",
        "executors agreement cudagraph",
        "agreement trusted disagrees",
    ),
    Fault(
        "executors",
        "auto_switches_one_step_late",
        "self.steps >= self.switch_after)",
        "self.steps > self.switch_after)",
        "executors auto train",
        "recorded auto",
    ),
    Fault(
        "executors",
        "auto_compares_with_slots_that_have_moved",
        "before = {name: named[name].clone() for name in slots}",
        "before = {name: named[name] for name in slots}",
        "executors auto",
        "disagrees agreement auto",
    ),
    Fault(
        "executors",
        "replay_returns_tensors_that_the_next_one_overwrites",
        "return tuple(output.clone() for output in recording.replay())",
        "return tuple(recording.replay())",
        "cudagraph",
        "replay",
    ),
    Fault(
        "executors",
        "compiled_plan_gets_an_empty_tensor_for_other_strides",
        "given[position] = copy.copy_(x)",
        "given[position] = copy",
        "executors compilation inductor strides",
        "strides",
    ),
    Fault(
        "executors",
        "cache_key_does_not_see_changed_operations",
        '"operations": fingerprint(captured),',
        '"operations": _model(plan),',
        "cache executors",
        "another_key",
    ),
    Fault(
        "executors",
        "predictions_use_weights_as_they_were",
        "versions = (age, *(weight._version for weight in self._weights))",
        "versions = (age,)",
        "fold plan prelude constants predict",
        "stale ahead",
    ),
    # Training.
    Fault(
        "training",
        "nesterov_takes_the_whole_buffer",
        "torch.add(direction, momentum_buffer, alpha=self.momentum)",
        "torch.add(direction, momentum_buffer)",
        "optim sgd",
        "equal_torch",
    ),
    Fault(
        "training",
        "adam_corrects_by_the_wrong_beta",
        "root = torch.sqrt(1.0 - torch.pow(beta2, t))",
        "root = torch.sqrt(1.0 - torch.pow(beta1, t))",
        "optim adam",
        "equal_torch",
    ),
    Fault(
        "training",
        "one_cycle_rises_one_step_too_long",
        "rise = self.pct_start * total - 1.0",
        "rise = self.pct_start * total",
        "optim schedule one_cycle",
        "one_cycle",
    ),
    Fault(
        "training",
        "every_epoch_has_the_same_order",
        "manual_seed(self.seed * 1_000_003 + epoch)",
        "manual_seed(self.seed * 1_000_003)",
        "feed train batches",
        "order_of_its_own",
    ),
    Fault(
        "training",
        "batches_made_ahead_outlive_a_jump",
        "            self._pending.clear()\n            self._next_step = step\n",
        "            self._next_step = step\n",
        "feed train batches",
        "ahead resumed found",
    ),
    Fault(
        "training",
        "schedule_counts_batches_for_updates",
        "self.job.schedule.factor(done // every, self.total_steps // every)",
        "self.job.schedule.factor(done, self.total_steps // every)",
        "train updates accumulate",
        "together together_train accumulate",
    ),
    Fault(
        "training",
        "epoch_reports_its_last_group_only",
        "self.loss_sum += total",
        "self.loss_sum = total",
        "train",
        "written_in_torch",
    ),
    Fault(
        "training",
        "resumed_log_loses_a_record",
        '.get("step", 0) <= step',
        '.get("step", 0) < step',
        "train cli resume",
        "log",
    ),
    Fault(
        "training",
        "resumed_run_takes_averages_for_weights",
        "return states | {name: self.weights.own[name] for name in self.averages}",
        "return states",
        "train updates ema resume",
        "averages state",
    ),
    Fault(
        "training",
        "setting_of_an_item_behind_the_list_is_accepted",
        "int(key) >= len(place)",
        "int(key) > len(place)",
        "train cli config settings",
        "lists settings",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """The test that catches a fault, or why there is none, and how long it took to know."""

    area: str
    file: str
    caught_by: str
    seconds: float
    failing_anyway: tuple[str, ...] = ()


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant faults, and see which test catches each.")
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[2])
    parser.add_argument(
        "--python", type=os.path.abspath, default=sys.executable, help="the Python that runs pytest"
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="a fault; may be repeated")
    parser.add_argument("--output", type=Path, help="JSON to write, or to complete")
    parser.add_argument("--table", type=Path, help="the same as a table in Markdown")
    parser.add_argument("--first", type=float, metavar="SECONDS", help="the limit for each fault")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    checkout = given.checkout.resolve()
    faults = [fault for fault in FAULTS if not given.only or fault.name in given.only]
    if unknown := set(given.only or ()) - {fault.name for fault in FAULTS}:
        print(f"unknown faults: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    sources = read_sources(checkout)
    places = {fault.name: places_of(fault, sources) for fault in faults}
    if wrong := [fault for fault in faults if len(places[fault.name]) != 1]:
        for fault in wrong:
            found = ", ".join(places[fault.name]) or "no file"
            print(
                f"{fault.name}: expected {fault.good!r} once, found it in {found}", file=sys.stderr
            )
        return 2
    known: dict[str, Any] = {}
    if given.output and given.output.exists():
        known = json.loads(given.output.read_text())
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        runner = Runner(checkout, given.python, Path(folder), limit_s=given.first)
        lock = threading.Lock()

        def look(fault: Fault) -> Outcome:
            outcome = runner.look(fault, places[fault.name][0])
            with lock:
                known[fault.name] = vars(outcome)
                print(f"{fault.name}: {outcome.caught_by} ({outcome.seconds:.0f} s)", flush=True)
                write(known, given.output, given.table)
            return outcome

        with ThreadPoolExecutor(given.workers) as pool:
            outcomes = list(pool.map(look, faults))
    return 1 if any(outcome.caught_by.startswith(NOT_CAUGHT) for outcome in outcomes) else 0


def read_sources(checkout: Path) -> dict[str, str]:
    """Every source file under graphnet/ and plugins/*/src, by its path in the checkout."""
    names = (name for name in files_of(checkout) if name.endswith(_SUFFIXES))
    return {
        name: (checkout / name).read_text()
        for name in names
        if name.startswith("graphnet/") or re.match(r"plugins/[^/]+/src/", name)
    }


def places_of(fault: Fault, sources: Mapping[str, str]) -> list[str]:
    """The files in which a fault's piece of source stands, a file for each time."""
    return [name for name, text in sources.items() for _ in range(text.count(fault.good))]


def files_of(checkout: Path) -> list[str]:
    """The files of a checkout: those that git knows, and new ones that it does not ignore."""
    command = ["git", "-C", str(checkout), "ls-files", "-z", "-co", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (checkout / name).is_file()]


class Runner:
    """Runs pytest on copies of a checkout, with and without a fault."""

    def __init__(self, checkout: Path, python: str, folder: Path, *, limit_s: float | None) -> None:
        self.checkout = checkout
        self.python = python
        self.folder = folder
        self.limit_s = limit_s
        self.files = files_of(checkout)
        self.good = self.copy("good")
        tests = tomllib.loads((checkout / "pyproject.toml").read_text())
        self.roots = tests["tool"]["pytest"]["ini_options"]["testpaths"]
        where = "import graphnet; print(graphnet.__file__)"
        found = subprocess.run(
            [python, "-c", where],
            cwd=folder,
            env=self.environment(self.good),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert Path(found.strip()).is_relative_to(self.good), f"graphnet would come from {found}"

    def copy(self, name: str) -> Path:
        """A fresh copy of the checkout in a folder of its own."""
        target = self.folder / name / "project"  # nothing else lies beside it
        for file in self.files:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.checkout / file, target / file)
        return target

    def environment(self, copy: Path) -> dict[str, str]:
        """The environment in which graphnet and its plugins come from a copy."""
        paths = os.pathsep.join(map(str, (copy, *sorted(copy.glob("plugins/*/src")))))
        return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}

    def look(self, fault: Fault, file: str) -> Outcome:
        """Plant a fault in a copy, and run tests until one fails because of it."""
        started = time.monotonic()
        copy = self.copy(fault.name)
        text = (copy / file).read_text()
        (copy / file).write_text(text.replace(fault.good, fault.bad))
        likely = self.likely(fault, file, text)
        tests = [name for name in self.test_files() if name not in likely]
        anyway: list[str] = []
        caught, timed_out = None, False
        by_name = ["-k", " or ".join(fault.tests.split())] if fault.tests else []
        for chosen in ([*by_name, *likely] if by_name and likely else [], likely, tests):
            while chosen and caught is None and not timed_out:
                left = None
                if self.limit_s is not None:
                    left = self.limit_s - (time.monotonic() - started)
                failed, timed_out = self.pytest(copy, chosen, anyway, limit_s=left)
                if failed is None:
                    break
                if self.pytest(self.good, [failed], [], limit_s=None)[0] is None:
                    caught = failed
                elif failed in anyway:
                    raise SystemExit(f"{failed} fails without a fault, and cannot be left out")
                else:
                    anyway.append(failed)
        shutil.rmtree(copy.parent)
        seconds = round(time.monotonic() - started, 1)
        missing = f"{NOT_CAUGHT} within {self.limit_s:g} s" if timed_out else NOT_CAUGHT
        return Outcome(fault.area, file, caught or missing, seconds, tuple(anyway))

    def pytest(
        self, copy: Path, chosen: Sequence[str], without: Sequence[str], *, limit_s: float | None
    ) -> tuple[str | None, bool]:
        """The first of the chosen tests that fails in a copy, if any; and whether time ran out before."""
        if limit_s is not None and limit_s <= 0:
            return None, True
        command = [
            "nice",
            self.python,
            "-m",
            "pytest",
            "-x",
            "-n0",
            "-p",
            "no:cacheprovider",
            "-rfE",
        ]
        command += [f"--deselect={name}" for name in without]
        process = subprocess.Popen(
            [*command, *chosen],
            cwd=copy,
            env=self.environment(copy),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # what tests start ends with them
        )
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None, True
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+?\.py(?:::.*?)?)(?: - .*)?$", output, re.M)
        if process.returncode not in (0, 5) and not failed:
            raise SystemExit(f"pytest ended with {process.returncode}:\n{output[-3000:]}")
        return (failed[0] if failed else None), False

    def test_files(self) -> list[str]:
        """The test files that a plain `pytest` collects."""
        roots = tuple(f"{root}/" for root in self.roots)
        return [
            name
            for name in self.files
            if name.startswith(roots) and re.fullmatch(r"test_.*\.py", name.rpartition("/")[2])
        ]

    def likely(self, fault: Fault, file: str, text: str) -> list[str]:
        """The test files that touch the changed file, the most likely first."""
        stem = Path(file).stem
        module = file.removesuffix(".py").replace("/", ".").partition("src.")[2]
        module = module or file.removesuffix(".py").replace("/", ".")
        names = [*enclosing(text, text.index(fault.good))] if file.endswith(".py") else []
        scores: dict[str, float] = {}
        for test in self.test_files():
            content = (self.good / test).read_text()
            about = test.rpartition("test_")[2].removesuffix(".py")
            score = 4.0 * (about == stem)
            score += 3.0 * sum(about == word for word in fault.words.split())
            score += 2.0 * (module in content)
            score += sum(bool(re.search(rf"\b{re.escape(name)}\b", content)) for name in names)
            score += 0.5 * sum(f"{word}" in content for word in fault.words.split())
            if score >= 1.0:
                scores[test] = score
        return sorted(scores, key=lambda name: (-scores[name], name))[:_MOST_LIKELY]


def enclosing(text: str, at: int) -> Iterator[str]:
    """The names of the class and the functions around a place in Python source."""
    line = text.count("\n", 0, at) + 1
    kinds = (ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds) and node.lineno <= line <= (node.end_lineno or line):
            yield node.name


def write(known: Mapping[str, Any], output: Path | None, table: Path | None) -> None:
    """Write what is known so far, in the order of the faults."""
    ordered = {fault.name: known[fault.name] for fault in FAULTS if fault.name in known}
    if output:
        output.write_text(json.dumps(ordered, indent=1) + "\n")
    if table:
        lines = ["| area | fault | file | caught by | s |", "| --- | --- | --- | --- | ---: |"]
        lines += [
            f"| {one['area']} | {name} | {one['file']} | {one['caught_by'].replace('|', ' ')} "
            f"| {one['seconds']:.0f} |"
            for name, one in ordered.items()
        ]
        caught = sum(not one["caught_by"].startswith(NOT_CAUGHT) for one in ordered.values())
        lines += ["", f"{caught} of {len(ordered)} faults are caught."]
        table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())

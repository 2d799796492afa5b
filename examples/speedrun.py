"""Measure how fast the paper's network learns from random weights, over several seeds: `make speedrun`.

The paper trains it for 20 epochs, 30 minutes on an RTX 3090, to 24.28 dB. denoisers/speedrun.yaml does it in
seconds on two CPU cores, from noisy pairs alone, which are in memory. Clean images are used for measuring
only. The results are in runs/speedrun: report.json, curve.png, and the last seed's model.safetensors.

    python examples/speedrun.py --photos PHOTOS --pairs PAIRS.npz
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import torch

from graphnet.errors import GraphnetError
from graphnet.sdk import default_registry
from graphnet.system import processor, write_text
from graphnet.training import Epoch, Steps, Trainer, read_job

matplotlib.use("agg")
from matplotlib import pyplot as plt

FOLDER = Path("runs/speedrun")
CONFIG = Path(__file__).parent / "denoisers" / "speedrun.yaml"
PAPER_DB = 24.28


@dataclass(frozen=True)
class Result:
    """One training: the seconds of its steps, and the quality that it reached.

    `seconds` are those of all steps, with their batches and updates. The first step also compiles the plan or
    loads it from the cache; it counts as long as the median step, and its other time is `compile_s`.
    """

    seed: int
    seconds: float
    psnr_db: float
    compile_s: float
    step_ms: float
    losses: tuple[float, ...]


def main() -> int:
    """Train once for each seed, and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos to train on")
    parser.add_argument(
        "--pairs", type=Path, required=True, help="noisy and clean images to measure on"
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many trainings; 5 without it")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = []
    try:
        for seed in range(options.seeds):
            results.append(train(seed, options.photos, options.pairs))
            one = results[-1]
            print(
                f"seed {seed}: {one.psnr_db:.3f} dB after {one.seconds:.2f} s of training "
                f"({one.step_ms:.1f} ms a step; compiling took {one.compile_s:.1f} s)",
                flush=True,
            )
    except GraphnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report(results)
    return 0


def train(seed: int, photos: Path, pairs: Path) -> Result:
    """Run the recipe with a seed. Raises GraphnetError for data that is not there."""
    settings = [f"data.train.photos.path={photos}", f"data.validation={pairs}", f"seed={seed}"]
    job = read_job(CONFIG, settings=[*settings, "log_every=1"], registry=default_registry())
    trainer = Trainer(job)
    steps: list[Steps] = []
    epoch: Epoch | None = None
    for record in trainer.run():
        if isinstance(record, Steps):
            steps.append(record)
        elif isinstance(record, Epoch):
            epoch = record
    assert epoch is not None
    trainer.program.save(str(FOLDER / "model.safetensors"))
    step_s = statistics.median(1.0 / record.steps_per_s for record in steps)
    compile_s = 1.0 / steps[0].steps_per_s - step_s
    return Result(
        seed,
        seconds=epoch.elapsed_s - compile_s,
        psnr_db=epoch.metrics["psnr"],
        compile_s=compile_s,
        step_ms=1e3 * step_s,
        losses=tuple(record.loss for record in steps),
    )


def report(results: list[Result]) -> None:
    """Print the mean and the spread, and write them with everything else to report.json."""
    seconds = [one.seconds for one in results]
    psnr = [one.psnr_db for one in results]
    spread = statistics.stdev(seconds) if len(results) > 1 else 0.0
    found = {
        "seconds_mean": statistics.fmean(seconds),
        "seconds_std": spread,
        "psnr_db": psnr,
        "psnr_db_mean": statistics.fmean(psnr),
        "psnr_db_least": min(psnr),
        "paper_db": PAPER_DB,
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "measured": time.strftime("%Y-%m-%d %H:%M"),
        },
        "runs": [{k: v for k, v in asdict(one).items() if k != "losses"} for one in results],
    }
    write_text(FOLDER / "report.json", json.dumps(found, indent=2) + "\n")
    draw(results)
    print(
        f"\n{len(results)} seeds: {found['seconds_mean']:.2f} +- {spread:.2f} s, "
        f"{found['psnr_db_mean']:.3f} dB in the mean, {found['psnr_db_least']:.3f} at least "
        f"(the paper: {PAPER_DB}). See {FOLDER}/report.json and curve.png."
    )


def draw(results: list[Result]) -> None:
    """The training loss over the seconds, one line for each seed."""
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for one in results:
        width = 15
        means = [
            statistics.fmean(one.losses[i : i + width]) for i in range(0, len(one.losses), width)
        ]
        at = [one.seconds * (i + 0.5) / len(means) for i in range(len(means))]
        axes.plot(at, means, label=f"seed {one.seed}: {one.psnr_db:.2f} dB", linewidth=1.2)
    axes.set(xlabel="seconds of training", ylabel="mean squared error", yscale="log")
    axes.set_title("noisy against noisy, the mean of 15 steps")
    axes.legend(fontsize="small")
    figure.savefig(FOLDER / "curve.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())

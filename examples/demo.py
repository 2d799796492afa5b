"""Train the paper's network on noisy photos alone, and show what it learned: `make demo`.

The photos are included in scikit-image. Noisy pairs are sampled from some of them; the network never sees a
clean image. It is then measured on photos that it has not seen. The results are in runs/demo: strip.png,
curve.png, report.json and model.safetensors.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import skimage
import torch
from graphnet_denoise.images import read_rgb
from graphnet_denoise.photos import sample_blocks
from PIL import Image

import graphnet as gn
from graphnet.cli import run

FOLDER = Path("runs/demo")
CONFIG = Path(__file__).parent / "denoisers" / "demo.yaml"
# One scene is either trained on or held out; the two views of the motorcycle are one scene.
TRAIN = (
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
)
HELD_OUT = ("astronaut.png", "chelsea.png")
SHOWN, SHOWN_SIZE, ZOOM = "astronaut.png", 128, 3


def main() -> None:
    """Copy the photos, train, evaluate, and draw."""
    started = time.perf_counter()
    training = FOLDER / "training"
    shutil.rmtree(training, ignore_errors=True)  # an earlier demo's
    train, held_out = copy_photos(FOLDER / "photos")

    data = {
        "train.photos.path": train,
        "validation.photos.path": held_out,
    }
    settings = [f"--set=data.{key}={path}" for key, path in data.items()]
    command("train", str(CONFIG), *settings, "--run", str(training))
    model_path = FOLDER / "model.safetensors"
    shutil.copyfile(training / "model.safetensors", model_path)

    scores_path = FOLDER / "evaluation.json"
    form = json.dumps(
        {"photos": {"path": str(held_out), "target": "clean", "pairs": 1000, "seed": 1}}
    )
    print("\nnow measured on 1,000 other pairs; each epoch above was measured on 500 pairs")
    command("evaluate", str(model_path), form, "--json", str(scores_path))

    draw_strip(model_path, held_out / SHOWN)
    draw_curve(training / "log.jsonl")
    report = json.loads(scores_path.read_text())
    report |= {"model": str(model_path), "data": f"{', '.join(HELD_OUT)} (held out)"}
    report["elapsed_s"] = time.perf_counter() - started
    (FOLDER / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nlook at {FOLDER}/strip.png and curve.png; all numbers are in {FOLDER}/report.json")


def command(*arguments: str) -> None:
    """Run a graphnet command; its errors end the demo."""
    if status := run(list(arguments)):
        sys.exit(status)


def copy_photos(folder: Path) -> tuple[Path, Path]:
    """Copy photos into two folders, one for training and one for measuring."""
    source = Path(skimage.__file__).parent / "data"
    folders = folder / "train", folder / "held-out"
    for target, names in zip(folders, (TRAIN, HELD_OUT), strict=True):
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(source / name, target / name)
    return folders


def draw_strip(model_path: Path, photo: Path) -> None:
    """Draw noisy, denoised and clean photos side by side."""
    noisy, clean = sample_blocks(read_rgb(photo), count=1, size=SHOWN_SIZE, target="clean")
    x = torch.from_numpy(noisy).float() / 255
    denoised = gn.load(model_path).predict(x).clamp(0, 1).mul(255).round().byte().numpy()
    row = np.concatenate(
        [image[0].transpose(1, 2, 0) for image in (noisy, denoised, clean)], axis=1
    )
    Image.fromarray(row.repeat(ZOOM, 0).repeat(ZOOM, 1)).save(FOLDER / "strip.png")


def draw_curve(log: Path) -> None:
    """The training loss over the steps, and the PSNR after each epoch."""
    from matplotlib.figure import Figure  # the rest of this file works without

    records = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "steps"]
    epochs = [record for record in records if record["kind"] == "epoch"]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([r["step"] for r in steps], [r["loss"] for r in steps])
    left.set(xlabel="step", ylabel="mean squared error", title="noisy against noisy", yscale="log")
    right.plot([r["epoch"] for r in epochs], [r["metrics"]["psnr"] for r in epochs], marker="o")
    right.set(xlabel="epoch", ylabel="PSNR (mean of images), dB", title="denoised against clean")
    right.set_xticks([r["epoch"] for r in epochs])
    figure.savefig(FOLDER / "curve.png", dpi=120)


if __name__ == "__main__":
    main()

"""Write figures that have to be equal before and after a change of structure, on one machine.

    python -m tests.support.bits --checkout DIR --output FILE
    python -m tests.support.bits --compare BEFORE AFTER

The figures are, bit for bit, the losses of the first steps of each training file in examples/denoisers, the
weights that they lead to, and the scores; the losses of a network that trains on one image; and for each
model file the steps of the plans that train it and that predict with it. The images are made here, from a
seed.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch import Tensor

from tests.support.rooms import use

STEPS = 20
_BATCH, _SIDE = 2, 32
_IMAGE = (288, 320)  # a patch of 32 pixels by blocks of 8 takes 256

VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "seed, momentum and float16": (
        "seed-train.yaml",
        ("precision=float16", "optimizer={sgd: {lr: 1.0, momentum: 0.9, nesterov: true}}"),
    ),
    "seed, float64, reference kernels and executor": (
        "seed-train.yaml",
        ("precision=float64", "kernels=reference", "executor=reference"),
    ),
    "dncnn, accumulate, clip and EMA": (
        "dncnn-train.yaml",
        (
            "optimizer={adamw: {lr: 0.001}}",
            "accumulate=2",
            "clip_grad_norm=0.1",
            "ema=0.9",
            "parameters=[{match: '*.weight', lr_scale: 0.5}]",
        ),
    ),
    "unet, a bound on memory": ("unet-train.yaml", ("memory=90%",)),
    "unet, values kept in bfloat16": ("unet-train.yaml", ("saved_dtype=bfloat16",)),
    "nafnet, loss of several terms": (
        "nafnet-train.yaml",
        ("loss=[{l1: {}, weight: 0.8}, {ssim: {}, weight: 0.2}]",),
    ),
}
"""Trainings that reach what no training file asks for: each a file and its settings."""

PLANS: dict[str, tuple[str, dict[str, Any]]] = {
    "a bound on memory": ("unet-fine.yaml", {"memory": "90%"}),
    "values kept in bfloat16": ("unet-fine.yaml", {"saved_dtype": "bfloat16"}),
    "accumulate, clip and EMA": (
        "dncnn.yaml",
        {"accumulate": 2, "clip_grad_norm": 0.1, "ema": 0.9},
    ),
    "float16": ("nafnet.yaml", {"precision": "float16"}),
    "reference kernels": ("restormer.yaml", {"kernels": "reference"}),
}
"""Plans for the same: each a model file, and arguments of `compile`."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Figures that stay equal, and their comparison.")
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    parser.add_argument(
        "--only", choices=("losses", "zero-shot", "plans"), help="leaves the rest as it is"
    )
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    given = parser.parse_args()
    if given.compare:
        before, after = (json.loads(path.read_text()) for path in given.compare)
        found = list(differences(before, after))
        print("\n".join(found) or "equal")
        return 1 if found else 0
    if given.output is None:
        parser.error("give --output or --compare")
    checkout = given.checkout.resolve()
    use(checkout)
    torch.set_num_threads(1)
    known = json.loads(given.output.read_text()) if given.only and given.output.exists() else {}
    wanted = [given.only] if given.only else ["losses", "zero-shot", "plans"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = make_photos(folder)
        if "losses" in wanted:
            known["losses"] = losses(checkout, folder, photos)
        if "zero-shot" in wanted:
            known["zero-shot"] = zero_shot(checkout, folder, photos)
        if "plans" in wanted:
            known["plans"] = dict(plans(checkout))
    given.output.write_text(json.dumps(known, indent=1) + "\n")
    return 0


# Losses.


def losses(checkout: Path, folder: Path, photos: Mapping[str, Path]) -> dict[str, Any]:
    """For each training file, in float32 and as it says, and each variant: what its first steps give."""
    recipes = checkout / "examples" / "denoisers"
    found: dict[str, Any] = {}
    for path, form in training_files(checkout):
        for precision in dict.fromkeys(("float32", form.get("precision", "float32"))):
            name = f"{path.name}, {'bfloat16' if precision == 'auto' else precision}"
            print(name, file=sys.stderr)
            found[name] = train(checkout, path, folder, photos, (f"precision={precision}",))
    for name, (file, settings) in VARIANTS.items():
        print(name, file=sys.stderr)
        chosen = settings if "precision" in settings[0] else ("precision=float32", *settings)
        found[name] = train(checkout, recipes / file, folder, photos, chosen)
    return found


def train(
    checkout: Path, path: Path, folder: Path, photos: Mapping[str, Path], settings: tuple[str, ...]
) -> dict[str, Any]:
    """Run a training file for a few steps by `graphnet train`, and read its log and its model."""
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    given = ["executor=eager", "device=cpu", "epochs=2", "log_every=1", f"batch_size={_BATCH}"]
    given += [*data_settings(YAML(typ="safe").load(path), photos), *settings]
    command = [sys.executable, "-m", "graphnet", "train", str(path), "--run", str(run)]
    command += [part for setting in given for part in ("--set", setting)]
    done = subprocess.run(
        command, env=environment(checkout), cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "steps"]
    epochs = [record for record in records if record["kind"] == "epoch"]
    kernels = next(record["kernels"] for record in records if record["kind"] == "start")
    return {
        "kernels": sorted(set(kernels.values())),
        "losses": [float(record["loss"]).hex() for record in steps],
        "learning rates": [float(record["lr"]).hex() for record in steps],
        "scores": [
            {name: float(score).hex() for name, score in record["metrics"].items()}
            for record in epochs
        ],
        "weights": digests(load_file(run / "model.safetensors")),
    }


def data_settings(form: Mapping[str, Any], photos: Mapping[str, Path]) -> Iterator[str]:
    """The settings that give a training file small data, made from images of our own."""
    count = STEPS // 2 * _BATCH  # two epochs
    train = form["data"]["train"]
    if isinstance(train, dict) and "patches" in train:
        grey = "supervision" in train["patches"]  # one image alone, which is grey
        yield f"data.train.patches.path={photos['grey' if grey else 'photos']}"
        yield f"data.train.patches.size={_SIDE}"
        yield f"data.train.patches.per_epoch={count}"
    else:
        yield f"data.train={{photos: {{path: {photos['photos']}, pairs: {count}}}}}"
    validation = form["data"].get("validation")
    if isinstance(validation, dict) and "images" in validation:
        yield f"data.validation.images.path={photos['small']}"
    elif validation is not None:
        yield f"data.validation={photos['pairs']}"


def environment(checkout: Path) -> dict[str, str]:
    """The environment in which `python -m graphnet` is the checkout's, in one thread."""
    sources = [checkout, *sorted(checkout.glob("plugins/*/src"))]
    paths = os.pathsep.join(map(str, sources))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def make_photos(folder: Path) -> dict[str, Path]:
    """Folders and files of images: colour photos, small ones, one in grey, and ready pairs."""
    draw = np.random.default_rng(0)
    places = {name: folder / name for name in ("photos", "small")}
    for name, shape in (("photos", _IMAGE), ("small", (37, 44))):
        places[name].mkdir()
        for number in range(3):
            Image.fromarray(image(shape, draw)).save(places[name] / f"{number}.png")
    places["grey"] = folder / "grey.npy"
    np.save(places["grey"], image((96, 96), draw)[None, None, :, :, 0].astype(np.float32) / 255)
    places["pairs"] = folder / "pairs.npz"
    clean = np.stack([image((_SIDE, _SIDE), draw).transpose(2, 0, 1) for _ in range(6)])
    noise = draw.integers(-20, 21, clean.shape)
    noisy = np.clip(clean.astype(np.int64) + noise, 0, 255).astype(np.uint8)
    np.savez(places["pairs"], noisy=noisy, clean=clean)
    return places


def image(shape: tuple[int, int], draw: np.random.Generator) -> NDArray[np.uint8]:
    """Rectangles of many colours, with a little noise: (H, W, 3), uint8."""
    pixels = np.full((*shape, 3), 128, np.int64)
    for _ in range(40):
        top, left = (int(draw.integers(0, n)) for n in shape)
        high, wide = (int(draw.integers(1, n // 2)) for n in shape)
        pixels[top : top + high, left : left + wide] = draw.integers(0, 256, 3)
    noisy = pixels + draw.integers(-8, 9, pixels.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """A digest of each tensor's bits."""
    return {
        name: hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]
        for name, tensor in sorted(tensors.items())
    }


# One image alone.


def zero_shot(checkout: Path, folder: Path, photos: Mapping[str, Path]) -> dict[str, Any]:
    """The losses of zero-shot.yaml on one image, and the picture that `graphnet denoise` makes of it."""
    print("zero-shot", file=sys.stderr)
    path = checkout / "examples" / "denoisers" / "zero-shot.yaml"
    program = zero_shot_model(path).compile(
        (1, 3, _SIDE, _SIDE), loss="mse", optimizer={"adam": {"lr": 1e-3}}, device="cpu"
    )
    noisy = torch.rand(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(1, 12, _SIDE // 2, _SIDE // 2)
    found = [float(program.step(noisy, zeros)).hex() for _ in range(STEPS)]
    command = [
        sys.executable,
        "-m",
        "graphnet",
        "denoise",
        str(path),
        str(photos["small"] / "0.png"),
    ]
    command += ["-o", str(folder / "clean.png"), "--zero-shot", "--steps", str(STEPS)]
    subprocess.run([*command, "--device", "cpu"], env=environment(checkout), cwd=folder, check=True)
    clean = np.asarray(Image.open(folder / "clean.png"))
    return {"losses": found, "picture": hashlib.sha256(clean.tobytes()).hexdigest()[:16]}


def zero_shot_model(path: Path) -> Any:
    """The model that trains the network of a file on one image."""
    from graphnet_denoise.zeroshot import zero_shot_description

    import graphnet as gn

    return gn.Model(zero_shot_description(gn.load(path).description))


# Plans.


def plans(checkout: Path) -> Iterator[tuple[str, Any]]:
    """The steps of each model's plans: to train, as each of its training files has it, and to predict."""
    import graphnet as gn

    folder = checkout / "examples"
    recipes: dict[Path, list[Mapping[str, Any]]] = {}
    for path, form in training_files(checkout):
        recipes.setdefault((path.parent / form["model"]).resolve(), []).append(form)
    for path in sorted((*folder.rglob("*.yaml"), *folder.rglob("*.safetensors"))):
        if path in (file for file, _ in training_files(checkout)):
            continue
        print(f"plans of {path.name}", file=sys.stderr)
        model = gn.load(path)
        shape = (2, model.input_channels or 3, _SIDE, _SIDE)
        alone = path.name == "zero-shot.yaml"
        forms = recipes.get(path, [{"loss": "mse", "optimizer": "adam"}])
        for precision in (None, "bfloat16"):
            name = f"{path.name}, {precision or 'float32'}"
            yield f"{name}, predict", described(model.plan(shape, precision=precision))
            for form in forms:
                program = (zero_shot_model(path) if alone else model).compile(
                    shape,
                    loss=form["loss"],
                    optimizer=form["optimizer"],
                    precision=precision,
                    device="cpu",
                )
                rule = json.dumps([form["loss"], form["optimizer"]])
                yield f"{name}, train by {rule}", described(program.plan)
    for name, (file, options) in PLANS.items():
        print(f"plans with {name}", file=sys.stderr)
        program = gn.load(folder / "denoisers" / file).compile(
            (2, 3, _SIDE, _SIDE), loss="mse", optimizer="adamw", device="cpu", **options
        )
        yield f"{file}, {name}", described(program.plan)
        if "accumulate" in options:
            yield f"{file}, {name}, before the last batch", described(program.next_plan)


def described(plan: Any) -> list[str]:
    """Each step of a plan in a line: what kind of call, of what, on what, what it makes and frees.

    Values are known by their shape and dtype, without their names. This is the one place that reads a plan.
    """

    def words(names: Any) -> str:
        specs = (plan.values[name].spec for name in names)
        return ", ".join(
            f"{spec.dtype} {tuple(spec.shape)}".removeprefix("torch.") for spec in specs
        )

    lines = [] if plan.prelude is None else [f"ahead: {one}" for one in described(plan.prelude)]
    for step in plan.steps:
        call = step.call
        function = getattr(
            call, "function", call.method
        )  # former plans say "forward_" as the method
        lines.append(
            f"{call.kind} {call.title} {function}: {words(call.reads())} -> {words(call.makes())}; "
            f"writes {len(call.writes)}, frees {words(step.frees)}"
        )
    return [*lines, f"peak: {plan.peak_bytes} bytes"]


def training_files(checkout: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """The training files among the examples, with what they say."""
    files = sorted((checkout / "examples" / "denoisers").glob("*.yaml"))
    read = [(path.resolve(), YAML(typ="safe").load(path)) for path in files]
    return [(path, form) for path, form in read if "model" in form]


# Comparing.


def differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """In words, each place in which two files of figures are not equal."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            inner = f"{place} / {key}" if place else key
            if key not in after or key not in before:
                yield f"{inner}: only {'before' if key in before else 'after'}"
            else:
                yield from differences(before[key], after[key], inner)
    elif isinstance(before, list) and isinstance(after, list) and before != after:
        lines = difflib.unified_diff([*map(str, before)], [*map(str, after)], n=0, lineterm="")
        changed = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
        more = f"\n  and {len(changed) - 12} more" if len(changed) > 12 else ""
        yield f"{place}:\n  " + "\n  ".join(changed[:12]) + more
    elif before != after:
        yield f"{place}: {before!r} before, {after!r} after"


if __name__ == "__main__":
    sys.exit(main())

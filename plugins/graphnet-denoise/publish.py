"""Make a model file of a trained model, to be included in the distribution.

    python publish.py model.safetensors camera --recipe camera-train.yaml --trained "150 minutes"

The file has the description, and the weights in half precision, which takes half the bytes; it has neither
the optimizer's state nor the paths of the training. Its header names the recipe, the data, the time and the
license.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import graphnet
from graphnet.model import Checkpoint, read_checkpoint, write_checkpoint

SOURCES = Path(__file__).parent / "src" / "graphnet_denoise"
DATA = (
    "400 images of BSDS500 (train and test; University of California, Berkeley) and 545 photos of ImageNet, "
    "one of a class; both may be used for research"
)
LICENSE = "Apache-2.0; the data have their own terms, which allow research"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="the file that graphnet train wrote")
    parser.add_argument("name", help="of the included model")
    parser.add_argument("--recipe", required=True, help="a file of the folder recipes")
    parser.add_argument("--trained", required=True, help="how long, on what")
    parser.add_argument("--data", default=DATA)
    given = parser.parse_args()
    recipe = SOURCES / "recipes" / given.recipe
    if not recipe.is_file():
        raise SystemExit(f"error: {recipe}: there is no such recipe")
    checkpoint = read_checkpoint(given.model)
    about = {
        "recipe": given.recipe,
        "trained": given.trained,
        "data": given.data,
        "license": LICENSE,
    }
    target = SOURCES / "models" / f"{given.name}.safetensors"
    half = {name: weight.to(torch.float16) for name, weight in checkpoint.weights.items()}
    published = Checkpoint(checkpoint.description, half, checkpoint.versions, about=about)
    write_checkpoint(target, published)
    graphnet.load(target)  # it can be read
    print(f"wrote {target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

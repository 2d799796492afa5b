"""Zero-Shot Noise2Noise: a small network trained on the one noisy image that it is to denoise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphnet.description import ModelDescription, NodeDescription
from graphnet.errors import DescriptionError, Problem
from graphnet.model import Model, pad_to_multiple
from graphnet.plan import CompileOptions
from graphnet_denoise.embedding import NETWORK, as_block

STEPS = 2000
"""The default number of steps for which a network is trained on an image."""

_OPTIONS = CompileOptions()
_LR, _HALVED_EVERY = 1e-3, 1000


def zero_shot_description(description: ModelDescription) -> ModelDescription:
    """Make the model that trains a network on one image y (Mansour & Heckel 2023); its outputs are errors.

    With D1, D2 the two halves of an image (layers.py) and f the network, it returns, one after the other as
    channels, the differences whose squares are the residual and the consistency loss:

        f(D1 y) - D2 y,   f(D2 y) - D1 y,   f(D1 y) - D1 f(y),   f(D2 y) - D2 f(y).

    The paper's loss is twice their mean square, so mse with zeros as the target is half the paper's loss. All
    three uses of f share its parameters, and gradients go through all of them. Raises DescriptionError for a
    network of several inputs or outputs.
    """
    if len(description.inputs) != 1 or len(description.outputs) > 1:
        message = "zero-shot denoising needs a network of one input and one output"
        raise DescriptionError([Problem(message, description.name)])
    (image,) = description.inputs
    name, blocks = as_block(description)

    def node(layer: str, id: str, *inputs: str, share: str | None = None) -> NodeDescription:
        return NodeDescription(layer, id=id, inputs=inputs, share=share)

    differences = {
        "residual1": (NETWORK, "noisy.second"),
        "residual2": ("other", "noisy.first"),
        "consistency1": (NETWORK, "clean.first"),
        "consistency2": ("other", "clean.second"),
    }
    return ModelDescription(
        (
            node("denoise/diagonal_means", "noisy", f"${image}"),
            node(name, NETWORK, "noisy.first"),
            node(name, "other", "noisy.second", share=NETWORK),
            node(name, "whole", f"${image}", share=NETWORK),
            node("denoise/diagonal_means", "clean", "whole"),
            *(node("subtract", id, *pair) for id, pair in differences.items()),
            node("concat", "errors", *differences),
        ),
        name=f"{description.name}-zero-shot",
        inputs=description.inputs,
        blocks=blocks,
    )


def train_on_image(
    network: Model,
    image: Tensor,
    *,
    steps: int = STEPS,
    seed: int = 0,
    options: CompileOptions = _OPTIONS,
    advance: Callable[[], None] = lambda: None,
) -> Model:
    """Return the network with weights that are trained on a noisy image alone, float (N, C, H, W) in 0..1.

    Adam, with a learning rate of 1e-3 that is halved every 1000 steps; parameters are drawn from `seed`.
    Sides are padded by reflection to sizes that the network takes at half the size.
    """
    model = Model(zero_shot_description(network.description), registry=network.registry, seed=seed)
    padded = pad_to_multiple(image, 2 * network.divisor())
    program = model.compile(
        padded.shape, loss="mse", optimizer={"adam": {"lr": _LR}}, options=options
    )
    spec = program.plan.values[program.plan.inputs[0]].spec
    padded = padded.to(spec.device)
    n, c, h, w = padded.shape
    zeros = torch.zeros(n, 4 * c, h // 2, w // 2, device=spec.device)
    batch = program.pack(padded, zeros)
    for step in range(steps):
        program.lr = _LR * 0.5 ** (step // _HALVED_EVERY)
        program.step_packed(*batch)
        advance()
    trained = {name.removeprefix(f"{NETWORK}."): w for name, w in program.weights.items()}
    return network.with_weights(trained)

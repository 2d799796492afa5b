"""A denoiser with the course's interface: trained on pairs of noisy images, no clean one, no autograd."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

import graphnet as gn
from graphnet.nn import Conv2d, Sequential, Sigmoid

__all__ = ["Conv2d", "Model", "Sequential", "Sigmoid"]
HERE = Path(__file__).parent
BATCH_SIZE = 32


class Model:
    """The paper's network: two convolutions down, two transposed ones up (seed.yaml)."""

    def __init__(self) -> None:
        self.model = gn.load(HERE.parent.parent / "denoisers" / "seed.yaml")

    def load_pretrained_model(self) -> None:
        """Take the weights in bestmodel.safetensors."""
        self.model = gn.load(HERE / "bestmodel.safetensors")

    def train(self, train_input: Tensor, train_target: Tensor, num_epochs: int = 1) -> None:
        """Train on pairs of noisy images, uint8 N x 3 x H x W, from the weights as they are."""
        size = min(BATCH_SIZE, len(train_input))
        shape = (size, *train_input.shape[1:])
        program = self.model.compile(shape, loss="mse", optimizer=gn.SGD(lr=10.0), device="cpu")
        for _ in range(num_epochs):
            for index in torch.randperm(len(train_input)).split(size):
                if len(index) == size:
                    program.step(train_input[index] / 255, train_target[index] / 255)
        self.model = self.model.with_weights(program.weights)

    def predict(self, x: Tensor) -> Tensor:
        """Denoised images, float N x 3 x H x W in 0..255, from noisy ones in 0..255 of any size."""
        height, width = x.shape[2:]
        divisor = self.model.divisor()
        x = pad(x / 255, (0, -width % divisor, 0, -height % divisor), mode="replicate")
        y: Tensor = self.model.predict(x)[:, :, :height, :width] * 255
        return y.clamp(0, 255)

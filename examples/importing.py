"""Use graphnet from Python: build a graph with skips and shared parameters, train it, use it.

The model is that of the README's YAML; Python uses a function in place of a block, and `share=` in place of
`share:`.
"""

from __future__ import annotations

import torch

import graphnet as gn
from graphnet.model import Output


def residual(
    net: gn.Builder, x: Output, channels: int, share: tuple[Output, Output] | None = None
) -> tuple[Output, tuple[Output, Output]]:
    """x + conv(relu(conv(x))); returns the sum, and the two convolutions for sharing."""
    first, second = share or (None, None)
    options = {"out_channels": channels, "kernel_size": 3, "padding": 1}
    a = net("conv2d", x, share=first, **options)
    b = net("conv2d", net("relu", a), share=second, **options)
    return net("add", b, x), (a, b)


def main() -> None:
    net = gn.Builder(name="residual-denoiser", channels=3)
    stem = net("conv2d", net.input, out_channels=32, kernel_size=3, padding=1, id="stem")
    r1, convolutions = residual(net, stem, 32)
    r2, _ = residual(net, r1, 32, share=convolutions)  # the same parameters as r1
    net("conv2d", net("concat", stem, r2), out_channels=3, kernel_size=1)
    model = net.model()
    print(model.description.to_yaml())

    program = model.compile((8, 3, 32, 32), loss="mse", optimizer=gn.Adam(lr=1e-3))
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(8, 3, 32, 32, generator=generator)
    device = next(iter(program.weights.values())).device
    for number in range(20):
        noisy, other = (
            (clean + 0.1 * torch.randn(clean.shape, generator=generator)).to(device)
            for _ in range(2)
        )
        loss = program.step(noisy, other)
        if number % 5 == 4:
            print(f"step {number + 1}: loss {float(loss):.4f}")
    print("prediction:", tuple(program.predict(torch.rand(1, 3, 48, 64, device=device)).shape))


if __name__ == "__main__":
    main()

"""Every built-in layer, loss and kernel passes the kit; the registry says which there are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphnet.discovery import load_registry
from graphnet.errors import GraphError
from graphnet.layers.conv import Conv2d, TransposeConv2d, Upsampling
from graphnet.layers.loss import MSE
from graphnet.layers.masked_loss import MaskedMSE
from graphnet.layers.merge import Add, Concat
from graphnet.layers.norm import BatchNorm2d
from graphnet.layers.upsample import NearestUpsampling
from graphnet.registry import Entry
from graphnet.testing import CHECKS, Check, Sample, Status, cases_for
from graphnet.testing.report import judge

REGISTRY = load_registry(entry_points=False)
ENTRIES: dict[str, Entry] = {**REGISTRY.layers, **REGISTRY.losses, **REGISTRY.kernels}
IMAGE = (2, 4, 6, 6)


def conv(shape: tuple[int, ...] = IMAGE, **fields: Any) -> Sample:
    return Sample(Conv2d(**fields), [shape])


def transposed(cls: type[TransposeConv2d], **fields: Any) -> Sample:
    return Sample(cls(**fields), [(2, 4, 4, 3)])


CONVOLUTIONS = [
    conv(out_channels=3, kernel_size=3, padding=1),
    conv(out_channels=4, kernel_size=(2, 3), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    conv(out_channels=6, kernel_size=3, stride=2, groups=2, bias=False),
    conv(out_channels=4, kernel_size=2, groups=4),
    conv(out_channels=2, kernel_size=(4, 3), padding="same"),
    conv(out_channels=2, kernel_size=3, padding="valid", dilation=2),
    conv((2, 4, 7, 5), out_channels=2, kernel_size=1, stride=3),
]


def transposes(cls: type[TransposeConv2d]) -> list[Sample]:
    return [
        transposed(cls, out_channels=3, kernel_size=2, stride=2),
        transposed(cls, out_channels=4, kernel_size=3, stride=2, padding=1, output_padding=1),
        transposed(cls, out_channels=4, kernel_size=(2, 3), stride=(3, 1), groups=2, bias=False),
        transposed(cls, out_channels=2, kernel_size=2, dilation=2, output_padding=(1, 0)),
    ]


NORMS = [
    Sample(BatchNorm2d(), [IMAGE]),
    Sample(BatchNorm2d(affine=False, eps=0.1, momentum=1.0), [(3, 2, 5, 3)]),
    Sample(BatchNorm2d(num_features=3, momentum=0.0), [(1, 3, 3, 2)]),
]
MASK = (torch.arange(96) % 7 == 0).float().reshape(2, 3, 4, 4)
WRONG_CHANNELS = Conv2d(in_channels=3, out_channels=2, kernel_size=1)
SAMPLES: dict[str, list[Sample]] = {
    "conv2d": [
        *CONVOLUTIONS,
        Sample(WRONG_CHANNELS, [IMAGE], raises=GraphError),
        Sample(Conv2d(out_channels=2, kernel_size=9), [IMAGE], raises=GraphError),
    ],
    "aten/conv2d": CONVOLUTIONS,
    "transpose_conv2d": [
        *transposes(TransposeConv2d),
        Sample(TransposeConv2d(out_channels=2, kernel_size=1, padding=4), [IMAGE], GraphError),
    ],
    "aten/transpose_conv2d": transposes(TransposeConv2d),
    "upsampling": transposes(Upsampling),
    "aten/upsampling": transposes(Upsampling),
    "nearest_upsampling": [
        Sample(NearestUpsampling(scale_factor=(3, 2)), [IMAGE]),
        Sample(NearestUpsampling(scale_factor=1), [IMAGE]),
    ],
    "batch_norm2d": [
        *NORMS,
        Sample(
            BatchNorm2d(), [(1, 3, 1, 1)], skip={"parameter_gradients": "one value less itself"}
        ),
        Sample(BatchNorm2d(num_features=3), [IMAGE], raises=GraphError),
        Sample(BatchNorm2d(), [(2, 4)], raises=GraphError),
    ],
    "aten/batch_norm2d": NORMS,
    "add": [
        Sample(Add(), [(2, 3)]),
        Sample(Add(), [IMAGE] * 3),
        Sample(Add(), [(2, 3), (2, 4)], raises=GraphError),
    ],
    "concat": [
        Sample(Concat(), [IMAGE, (2, 1, 6, 6)]),
        Sample(Concat(dim=-1), [IMAGE, (2, 4, 6, 2), IMAGE]),
        Sample(Concat(dim=0), [(2, 3), (1, 3)]),
        Sample(Concat(), [IMAGE, (2, 4, 5, 6)], raises=GraphError),
    ],
    "mse": [
        Sample(MSE(), [(3, 5), (3, 5)]),
        Sample(MSE(), [torch.rand(2, 3), torch.rand(2, 3)]),
        Sample(MSE(), [(3, 5), (3, 4)], raises=GraphError),
    ],
    "masked_mse": [
        Sample(MaskedMSE(), [torch.rand(3, 5), torch.rand(3, 5), torch.rand(3, 5)]),
        Sample(MaskedMSE(), [torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), MASK]),
        Sample(MaskedMSE(), [(3, 5), (3, 5), (3, 4)], raises=GraphError),
        Sample(MaskedMSE(), [(3, 5), (3, 4), (3, 5)], raises=GraphError),
    ],
}


def given(name: str) -> list[Any]:
    """The layer on generated samples, and on those above."""
    return [None, *([SAMPLES[name]] if name in SAMPLES else [])]


KINDS = [(name, which) for name in ENTRIES for which in range(len(given(name)))]


@pytest.fixture(
    scope="module",
    params=KINDS,
    ids=[f"{name}-{'stated' if which else 'generated'}" for name, which in KINDS],
)
def cases(request: pytest.FixtureRequest) -> Any:
    name, which = request.param
    return cases_for(ENTRIES[name].value, given(name)[which], registry=REGISTRY)


@pytest.mark.parametrize("check", [c for c in CHECKS if not c.slow], ids=lambda check: check.name)
def test_builtin_passes(cases: Any, check: Check) -> None:
    row = judge(check, cases)
    assert row.status is not Status.FAILED, row.message
    # A check that runs for nobody guards nothing: these are for everyone.
    if check.name in ("runs", "docstring", "forward_pure", "forward_observed", "float32"):
        assert row.status is Status.PASSED


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRIES)
def test_builtin_compiles_with_inductor(name: str) -> None:
    (slow,) = (check for check in CHECKS if check.slow)
    row = judge(slow, cases_for(ENTRIES[name].value, registry=REGISTRY)[:1])
    assert row.status is Status.PASSED, row.message


def test_samples_above_belong_to_layers_that_exist() -> None:
    assert set(SAMPLES) <= set(ENTRIES)

"""Denoise images of any size and number of channels with a model that takes certain sizes and channels."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from graphnet.errors import CheckpointError, DataError
from graphnet.model import pad_to_multiple
from graphnet.plan import CompileOptions
from graphnet_denoise import grey
from graphnet_denoise.models import Kind
from graphnet_denoise.normalization import takes_numbers

if TYPE_CHECKING:
    from graphnet_denoise.noise.measure import FoundNoise

_TURNS = 8
_ONE_AT_A_TIME = threading.Lock()  # a prediction uses all processors and the memory that it may use


@runtime_checkable
class Denoiser(Protocol):
    """The attributes and methods that a model needs; graphnet.Model has them."""

    weights: Mapping[str, Tensor] | None

    @property
    def input_channels(self) -> int | None:
        """The number of channels of its images; None for any."""

    def divisor(self) -> int:
        """The number that must divide H and W."""

    def predict(self, *inputs: Tensor, options: CompileOptions) -> Any:
        """Return a clean image for each noisy one, float (N, C, H, W) in 0..1."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is found in whole images before their parts are denoised.

    Args:
        grey: which images are grey, one channel or equal ones: bool (N,).
        shared_level: the level of the noise that is the same in all channels: float (N,), 0 for colour.
        note: a line for the user about the noise that was found, or "".
        kind: which of the included models denoises the images, or None.
        noise: the noise that was found, or None if it was not measured.
        eight_bits: whether the result is stored in 8 bits. Then bfloat16 is exact enough, and it is used
            where the device has instructions for it, unless the settings name a precision.
    """

    grey: Tensor
    shared_level: Tensor
    note: str = ""
    kind: Kind | None = None
    noise: FoundNoise | None = None
    eight_bits: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """How images are denoised, whichever model does it.

    Args:
        options: how the model computes.
        self_ensemble: the result is the mean over an image's 8 flips and turns (Timofte et al. 2016):
            somewhat better, in 8 times the time.
        strength: how much of the noise is removed: with 0 an image stays as it is, with 1 it is the model's.
    """

    options: CompileOptions = CompileOptions()
    self_ensemble: bool = False
    strength: float = 1.0


_SETTINGS = Settings()


@dataclass(frozen=True, slots=True)
class Restorer:
    """A trained model, its settings, and the number that must divide the sides of its images.

    A model that `takes_numbers` knows the range of its images: it gets the numbers of their file, and its
    results are not clamped.
    """

    model: Denoiser
    divisor: int
    settings: Settings
    takes_numbers: bool
    _takes_grey: dict[int, bool] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, model: Denoiser, settings: Settings = _SETTINGS) -> Self:
        """Make a Restorer. Raises CheckpointError for a model without weights, which has no result."""
        trained_weights(model)
        return cls(model, model.divisor(), settings, takes_numbers(model))

    def restore(self, images: Tensor, *, noise_level: float | None = None) -> Tensor:
        """Denoise images, float (N, C, H, W); the result is clamped to 0..1, as in an image file.

        Sides are padded by reflection, and the result is cropped. A model of one channel denoises each
        channel of a colour image on its own. For a model of several channels, a grey image (one channel, or
        equal channels) is repeated, and the result is the mean of the model's channels. A model that was
        trained on colour alone takes noise that is equal in all channels for a part of the picture: for such
        a model, independent noise is added to each channel of a grey image (grey.py), always the same. The
        level of this noise is `noise_level`, by default an estimate. A model with a noise level map gets
        `noise_level`, the standard deviation in 255ths, as one more channel. Raises DataError if the channels
        still do not fit, and if the model returns another shape or numbers that are not finite.
        """
        restored = self.restore_part(images, self.look(images, noise_level), noise_level)
        return restored if self.takes_numbers else restored.clamp(0, 1)

    def look(self, images: Tensor, noise_level: float | None = None) -> Look:
        """Find in whole images, float (N, C, H, W), what the denoising of their parts needs to know."""
        equal = grey.is_grey(images)
        if bool(equal.any()) and self._removes_grey_noise(noise_level is not None):
            return Look(equal, images.new_zeros(len(images)))
        if noise_level is not None:
            return Look(equal, equal * (noise_level / 255))
        level = grey.noise_level(images.mean(dim=1, keepdim=True)) if bool(equal.any()) else 0.0
        return Look(equal, equal * level)

    def look_repeated(self, images: Tensor) -> Look:
        """The same for a model that was trained on these images: grey ones are repeated, without noise."""
        return Look(grey.is_grey(images), images.new_zeros(len(images)))

    def restore_part(
        self,
        part: Tensor,
        look: Look,
        noise_level: float | None = None,
        *,
        corner: tuple[int, int] = (0, 0),
    ) -> Tensor:
        """Denoise a part of images, float (N, C, h, w); the result is not clamped.

        Args:
            part: the part, with as many pixels around the wanted ones as the model reads. It begins at a
                multiple of the divisor, and if it ends within the image, its sides are equal to those of the
                image modulo the divisor.
            look: what `look` found in the whole images.
            noise_level: as for `restore`.
            corner: the row and column of the images at which the part begins.

        Raises:
            DataError: as for `restore`.
        """
        if not self.settings.self_ensemble:
            restored = self._restore(part, look, noise_level, corner, turn=0)
        else:
            restored = torch.zeros_like(part)
            for turn in range(_TURNS):
                restored += self._restore(part, look, noise_level, corner, turn=turn)
            restored /= _TURNS
        strength = self.settings.strength
        return restored if strength == 1 else part.lerp(restored, strength)

    def _removes_grey_noise(self, told: bool) -> bool:
        """Whether the model removes noise that is equal in all channels, which is tried once."""
        takes = self.model.input_channels
        channels = takes - told if takes else 1
        if channels < 2 or self.takes_numbers:  # it was trained on images like these
            return True
        if channels not in self._takes_grey:
            noisy, level = grey.example(channels)
            look = self.look_repeated(noisy)
            restored = self._restore(noisy, look, level * 255 if told else None, (0, 0), turn=0)
            self._takes_grey[channels] = float(restored[..., 8:-8, 8:-8].std()) < level / 2
        return self._takes_grey[channels]

    def _restore(
        self,
        part: Tensor,
        look: Look,
        noise_level: float | None,
        corner: tuple[int, int],
        *,
        turn: int,
    ) -> Tensor:
        """Predict once, in one of the 8 flips and turns."""
        n, c, *size = part.shape
        x = fitted(part, self.model.input_channels, told=noise_level is not None)
        wanted = x.shape[1]
        shared = (look.shared_level.reshape(-1, 1, 1, 1)).to(part)
        if wanted > 1 and bool(shared.any()):
            x = shared * grey.colour_noise(wanted, corner, size, seed=turn).to(x) + x
        x = turned(x, turn)
        h, w = x.shape[2:]
        x = pad_to_multiple(x, self.divisor)
        if noise_level is not None:
            level = torch.full_like(x[:, :1], noise_level / 255)
            if wanted > 1:
                level = torch.hypot(level, (wanted - 1) ** 0.5 * shared)
            x = torch.cat((x, level), dim=1)
        y = turned(self._predict(x, wanted, look)[..., :h, :w].to(part), turn, back=True)
        if wanted == 1:
            return y.reshape(n, c, *size)
        # A part may be grey alone, and a picture elsewhere only.
        alike = look.grey.to(part.device) & grey.is_grey(part)
        if bool(alike.all()):
            return y.mean(dim=1, keepdim=True).expand(n, c, *size)
        if bool(alike.any()):
            y = torch.where(alike.reshape(n, 1, 1, 1), y.mean(dim=1, keepdim=True), y)
        return y[:, :c]

    def _predict(self, x: Tensor, channels: int, look: Look) -> Tensor:
        options = self.settings.options
        if look.eight_bits and options.precision is None:
            options = replace(options, precision="auto")
        with _ONE_AT_A_TIME:
            y = self.model.predict(x, options=options)
        if not isinstance(y, Tensor) or y.shape != (len(x), channels, *x.shape[2:]):
            found = tuple(y.shape) if isinstance(y, Tensor) else f"{len(y)} outputs"
            raise DataError(
                f"the model is no denoiser of images: from {tuple(x.shape)} it makes {found}. Give "
                f"a model with one output, of the shape of its input."
            )
        if not bool(torch.isfinite(y).all()):
            raise DataError(
                "the model gives numbers that are not finite (NaN or infinity). Train it again, "
                "with a smaller learning rate."
            )
        return y


def trained_weights(model: Denoiser) -> Mapping[str, Tensor]:
    """The weights of a model. Raises CheckpointError if it has none: then it has no result."""
    if model.weights is None:
        raise CheckpointError(
            "the model has no weights, only a description. Train it, and give the .safetensors file that "
            "training writes."
        )
    return model.weights


def turned(images: Tensor, turn: int, *, back: bool = False) -> Tensor:
    """Return images (N, C, H, W) in one of the 8 flips and turns by right angles; `back` reverses it.

    >>> turned(torch.arange(4).reshape(1, 1, 2, 2), 1)
    tensor([[[[1, 3],
              [0, 2]]]])
    """
    if turn == 0:
        return images
    if back:
        images = images.rot90(-turn % 4, (2, 3))
        return images.flip(3) if turn >= 4 else images
    images = images.flip(3) if turn >= 4 else images
    return images.rot90(turn % 4, (2, 3))


def fitted(images: Tensor, takes: int | None, *, told: bool = False) -> Tensor:
    """Fit images (N, C, H, W) to a model of `takes` channels, None for any.

    Grey images are repeated for several channels; for one channel, the channels of colour images become
    N * C grey images.

    `told` says that the last of the model's channels is for the noise level. Raises DataError if the channels
    do not fit.
    """
    n, c, h, w = images.shape
    wanted = takes - told if takes else c
    if wanted == c:
        return images
    if c == 1 and wanted > 1 + told:  # two channels and the noise level are no model of images
        return images.expand(n, wanted, h, w)
    if wanted == 1:
        return images.reshape(n * c, 1, h, w)
    if told:
        raise DataError(
            f"the model takes {takes} channels, so it has no channel for the noise level of images of "
            f"{c} channels. Leave the noise level out, or give a model that has a channel for it."
        )
    hint = " If the last one is the noise level, give it too." if takes == c + 1 else ""
    raise DataError(
        f"the model takes images of {takes} channels, found {c}. Give images of {takes} channels or of "
        f"1, or train a model for {c}.{hint}"
    )

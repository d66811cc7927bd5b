"""What the models of this family share: continuous or dequantized data, and the noise they start from."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.data import dequantize, to_levels
from course_lib.inputs import (
    require_batch,
    require_count,
    require_event_shape,
    require_generator,
    require_levels,
    require_positive_integer,
    require_shape,
    require_tensor,
)
from course_lib.precision import at_least_float32
from course_lib.saved_settings import SavedSettings


class FromNoise(SavedSettings):
    """A model that carries standard normal noise to data, which are continuous or dequantized grey levels.

    Level k of K owns the interval from 2k/K − 1 to 2(k + 1)/K − 1, and dequantization fills it with a uniform
    number.

    Args:
        event_shape: shape of one example.
        levels: number K of grey levels; None for continuous data.

    Raises:
        ValueError: a size is below 1, or there is one grey level only.
    """

    def __init__(self, event_shape: Sequence[int], levels: int | None = None) -> None:
        super().__init__()
        self.event_shape = require_event_shape(event_shape)
        self.levels = None if levels is None else require_count(levels, "levels", at_least=2)
        self.register_buffer("mean", torch.zeros(self.event_shape))
        self.register_buffer("variance", torch.ones(self.event_shape))

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {"event_shape": self.event_shape, "levels": self.levels}

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Take the mean and the variance of every entry from data.

        Args:
            x: grey levels if the model has levels, else continuous data, shape ``(N, *event_shape)``, N ≥ 2.
        """
        x = self.middles(x)
        mean, variance = x.mean(0), x.var(0, correction=0)
        if self.levels is not None:
            # Dequantization adds uniform noise, whose variance is a twelfth of its width squared.
            variance = variance + (2 / self.levels) ** 2 / 12
        if not (variance > 0).all():
            raise ValueError(
                "an entry of x is the same in all examples; a positive variance of every entry is "
                "expected. Add a little noise, or leave the entry out."
            )
        own = self.mean.dtype
        if not all(moment.to(own).isfinite().all() for moment in (mean, variance)):
            raise ValueError(
                f"the mean or the variance of an entry of x is no number of {own}, the model's type; smaller "
                f"ones are expected. Scale the data, or call .half() after initialize."
            )
        self.mean.copy_(mean)
        self.variance.copy_(variance)

    def fill(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Dequantize: level k becomes a uniform number of its interval of [−1, 1], of width 2/K.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            generator: source of the noise; the global one if none is given.

        Returns:
            Continuous data, in the type of the parameters, at least float32.

        Raises:
            TypeError: `x` is not of an integer type.
            ValueError: the model has no levels, or `x` another shape, or levels outside 0 … K−1.
        """
        x = self._grey(x)
        return 2 * dequantize(x, self.levels, generator=generator, dtype=self._type()) - 1

    def middles(self, x: Tensor) -> Tensor:
        """The middles of the levels' intervals; continuous data as they are."""
        if self.levels is None:
            require_batch(x, self.event_shape)
            return at_least_float32(x)
        return (2 * self._grey(x).to(self._type()) + 1) / self.levels - 1

    def to_levels(self, x: Tensor) -> Tensor:
        """The grey level whose interval holds each value, the ends for values outside [−1, 1)."""
        levels = self._require_levels()
        require_batch(x, self.event_shape)
        return to_levels((at_least_float32(x) + 1) / 2, levels)

    def log_volume(self) -> float:
        """Log of the volume of the box that an image of grey levels owns: D log(2/K)."""
        return math.prod(self.event_shape) * math.log(2 / self._require_levels())

    def _grey(self, x: Tensor) -> Tensor:
        levels = self._require_levels()
        require_tensor(x)
        require_shape(x, self.event_shape)
        return require_levels(x, levels)

    def _require_levels(self) -> int:
        if self.levels is None:
            raise ValueError(
                "the model is of continuous data; one of grey levels is expected. Build it with levels=K."
            )
        return self.levels

    def _type(self) -> torch.dtype:
        return torch.promote_types(next(self.parameters()).dtype, torch.float32)

    def prior(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw `n` times standard normal noise, shape ``(n, *event_shape)``."""
        n = require_positive_integer(n, "n")
        device = self.mean.device
        require_generator(generator, device)
        return torch.randn(
            n, *self.event_shape, dtype=self._type(), device=device, generator=generator
        )

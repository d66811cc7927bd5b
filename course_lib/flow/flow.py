"""A flow: a bijection from data to a standard normal latent, hence a density and a sampler."""

import torch
from torch import Tensor

from course_lib.distributions import standard_normal_log_prob
from course_lib.flow.transform import Transform
from course_lib.inputs import (
    require_batch,
    require_count,
    require_generator,
    require_kind,
    require_positive_integer,
    require_real,
    where_values_can_be_read,
)
from course_lib.interpolation import spherical_path
from course_lib.networks import evaluation_mode
from course_lib.precision import at_least_float32, parameter_type


class Flow(Transform):
    """The distribution of f⁻¹(z) for z standard normal, with its exact density.

    A flow whose weights are in half precision rounds nothing but its weights: it computes and samples in
    float32, and takes float32 as well as its own type.

    Args:
        transform: the bijection f from data to latents.
    """

    def __init__(self, transform: Transform) -> None:
        require_kind(transform, Transform, "transform")
        super().__init__(transform.event_shape, transform.latent_shape)
        self.transform = transform

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to latents.

        Args:
            x: shape ``(N, *event_shape)``.

        Returns:
            z and the log-determinant of x → z, shape ``(N,)``, in nats.

        Raises:
            TypeError: `x` is not of a floating-point type.
            ValueError: `x` has another shape, or holds NaN or infinity.
        """
        return self.transform(self._taken(x, self.event_shape, "x"))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map latents to data.

        Where numbers are too coarse for a transform's latents (`Transform.is_coarse`), a latent gets
        the nearest x that there is, and the log-determinant is that of this x.

        Args:
            z: shape ``(N, *latent_shape)``.

        Returns:
            x and the log-determinant of z → x, shape ``(N,)``, in nats.

        Raises:
            TypeError: `z` is not of a floating-point type.
            ValueError: `z` has another shape, or holds NaN or infinity.
        """
        x, log_det = self.transform.inverse(self._taken(z, self.latent_shape, "z"))
        coarse = self.is_coarse(x)
        if coarse is not None:
            with where_values_can_be_read():
                if coarse.any():
                    log_det = torch.where(coarse, -self.transform(x)[1], log_det)
        return x, log_det

    def is_coarse(self, x: Tensor) -> Tensor | None:
        """Which examples have lost digits of their latents; see `Transform.is_coarse`."""
        return self.transform.is_coarse(x)

    def _taken(self, x: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
        """Require a batch, and return it in the type of the map, which is not of half precision."""
        dtype = self._dtype()
        # The type must be that of the map or of the parameters; under autocast any is taken.
        fits = dtype is None or (isinstance(x, Tensor) and x.dtype == dtype)
        require_batch(x, shape, name, model=None if fits else self)
        return at_least_float32(x) if dtype is None else x.to(dtype)

    def _dtype(self) -> torch.dtype | None:
        """The type of the map: that of the parameters, at least float32; None without any."""
        own = parameter_type(self)
        return None if own is None else torch.promote_types(own, torch.float32)

    def initialize(self, x: Tensor) -> Tensor:
        """Set what is to be set from a first batch of data, and return z for it.

        Args:
            x: shape ``(N, *event_shape)``; the training set, or a good part of it.
        """
        return self.transform.initialize(self._taken(x, self.event_shape, "x"))

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log density, equation ``eq-change-of-variables``.

        Args:
            x: shape ``(N, *event_shape)``.

        Returns:
            log p(x) in nats, shape ``(N,)``.
        """
        z, log_det = self(x)
        return standard_normal_log_prob(z) + log_det

    @torch.no_grad()
    def sample(
        self, n: int, *, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw samples, in evaluation mode whatever mode the module is in.

        Args:
            n: how many.
            generator: source of the noise; the global one if none is given.
            temperature: standard deviation of the latent; 1 samples the model, less gives samples
                nearer its centre, of a distribution that is no longer the model's.

        Returns:
            Samples, shape ``(n, *event_shape)``, without gradients.

        Raises:
            ValueError: `n` or `temperature` is not positive.
        """
        n = require_positive_integer(n, "n")
        expected = "a positive number"
        temperature = require_real(temperature, "temperature", expected, above=0)
        parameter = next(self.parameters(), torch.empty(0))
        require_generator(generator, parameter.device)
        z = torch.randn(
            n,
            *self.latent_shape,
            generator=generator,
            dtype=self._dtype(),
            device=parameter.device,
        )
        with evaluation_mode(self):
            return self.transform.inverse(temperature * z)[0]

    @torch.no_grad()
    def interpolate(self, start: Tensor, end: Tensor, steps: int) -> Tensor:
        """Walk from one example to another through latent space.

        The walk follows the arc between the latents, not the chord: the middle of a chord between
        two draws is nearer the origin than nearly every draw, where the model has seen no data. In
        evaluation mode whatever mode the module is in, so that the ends are the given examples.

        Args:
            start: where to begin, shape ``(N, *event_shape)``.
            end: where to arrive, same shape.
            steps: number of points, both ends included, at least 2.

        Returns:
            Shape ``(N, steps, *event_shape)``.

        Raises:
            ValueError: fewer than two steps, or different numbers of examples.
        """
        steps = require_count(steps, "steps", at_least=2)
        start = self._taken(start, self.event_shape, "start")
        end = self._taken(end, self.event_shape, "end")
        if len(start) != len(end):
            raise ValueError(
                f"start has {len(start)} examples and end {len(end)}; equal numbers are expected."
            )
        with evaluation_mode(self):
            a, b = (self(x)[0].flatten(1) for x in (start, end))
            z = spherical_path(a, b, steps)  # (N, steps, D)
            x = self.transform.inverse(z.flatten(0, 1).unflatten(1, self.latent_shape))[0]
        return x.unflatten(0, (len(start), steps))

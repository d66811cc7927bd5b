"""What a model can do, as protocols.

Losses, bounds and checks name these abilities rather than classes, so that a model of any family,
the course's or the reader's own, can be passed to them. Every model that the course trains is a
`Sampler`. Words and shapes are those of `torch.distributions`.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Distribution


@runtime_checkable
class Density(Protocol):
    """A model whose likelihood is exact and tractable."""

    event_shape: tuple[int, ...]

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, shape ``(N,)``, for `x` of shape ``(N, *event_shape)``."""
        ...


@runtime_checkable
class Bound(Protocol):
    """A model whose likelihood is only bounded from below."""

    event_shape: tuple[int, ...]

    def elbo(self, x: Tensor, n_samples: int = 1) -> Tensor:
        """Return an unbiased estimate of the ELBO in nats, shape ``(N,)``."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """A model that can be sampled."""

    event_shape: tuple[int, ...]

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` samples, shape ``(n, *event_shape)``, without gradients."""
        ...


@runtime_checkable
class Latent(Protocol):
    """A model with an encoder and a decoder."""

    event_shape: tuple[int, ...]
    latent_dim: int

    def encode(self, x: Tensor) -> Distribution:
        """Return q(z|x), with batch shape ``(N,)`` and event shape ``(latent_dim,)``."""
        ...

    def decode(self, z: Tensor) -> Distribution:
        """Return p(x|z), with batch shape ``z.shape[:-1]`` and event shape `event_shape`."""
        ...


@runtime_checkable
class Bijection(Protocol):
    """An invertible, differentiable map with a tractable Jacobian determinant."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = f(x) and log|det ∂z/∂x|, shape ``(N,)``."""
        ...

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x = f⁻¹(z) and log|det ∂x/∂z|, shape ``(N,)``."""
        ...

"""Generators: maps from noise to data, a multilayer perceptron and a convolutional one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.inputs import (
    require_batch,
    require_event_shape,
    require_generator,
    require_image_shape,
    require_labels,
    require_positive_integer,
)
from course_lib.networks import evaluation_mode, mlp
from course_lib.saved_settings import SavedSettings


class _BaseGenerator(SavedSettings):
    """What every generator shares: noise z ~ N(0, I) in, an example x = G(z) out."""

    event_shape: tuple[int, ...]
    latent_dim: int
    n_classes: int | None
    bounded: bool

    def __init__(
        self, event_shape: Sequence[int], latent_dim: int, n_classes: int | None, bounded: bool
    ) -> None:
        super().__init__()
        self.latent_dim = require_positive_integer(latent_dim, "latent_dim")
        self.event_shape = require_event_shape(event_shape)
        self.n_classes, self.bounded = require_n_classes(n_classes), bounded
        self.embedding = None
        if n_classes is not None:
            self.embedding = nn.Embedding(self.n_classes, self.latent_dim)

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {
            "event_shape": self.event_shape,
            "latent_dim": self.latent_dim,
            "n_classes": self.n_classes,
            "bounded": bool(self.bounded),
        }

    def _inputs(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Noise, and beside it the embedding of the class if the model has classes."""
        require_batch(z, (self.latent_dim,), "z", model=self)
        labels = require_labels(labels, len(z), self.n_classes)
        if labels is None:
            return z  # (N, latent_dim)
        return torch.cat([z, self.embedding(labels)], 1)  # (N, 2 latent_dim)

    @property
    def _n_inputs(self) -> int:
        return self.latent_dim * (1 if self.n_classes is None else 2)

    def _to_range(self, outputs: Tensor) -> Tensor:
        return torch.sigmoid(outputs) if self.bounded else outputs

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw `n` samples, in evaluation mode whatever mode the module is in.

        Args:
            n: number of samples.
            labels: class of each sample, int64, shape ``(n,)``; only with `n_classes`.
            generator: source of the noise; the global one if none is given.

        Returns:
            Samples, shape ``(n, *event_shape)``, without gradients.
        """
        n = require_positive_integer(n, "n")
        parameter = next(self.parameters())
        require_generator(generator, parameter.device)
        z = torch.randn(
            n, self.latent_dim, generator=generator, device=parameter.device, dtype=parameter.dtype
        )
        with evaluation_mode(self):
            return self(z, labels)


class Generator(_BaseGenerator):
    r"""A multilayer perceptron G that pushes noise forward: x = G(z), z ~ N(0, I).

    The distribution of x, p_g, is never written down: the model is *implicit*. Equation
    ``eq-gan-value``; Goodfellow et al. (2014).

    Args:
        event_shape: shape of one example.
        latent_dim: number of dimensions of z.
        hidden: width of each hidden layer.
        n_classes: number of classes, for a class-conditional generator (Mirza and Osindero, 2014).
        bounded: whether examples are intensities in [0, 1] (a sigmoid ends the network) or any
            real numbers.

    Example:
        >>> Generator((1, 8, 8)).sample(16).shape
        torch.Size([16, 1, 8, 8])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int = 16,
        hidden: Sequence[int] = (256, 256),
        *,
        n_classes: int | None = None,
        bounded: bool = True,
    ) -> None:
        super().__init__(event_shape, latent_dim, n_classes, bounded)
        self.network = mlp(self._n_inputs, hidden, math.prod(self.event_shape))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map noise to examples, the parameters of a distribution that puts all its mass on G(z).

        Args:
            z: noise, shape ``(N, latent_dim)``.
            labels: class of each example, int64, shape ``(N,)``; only with `n_classes`.

        Returns:
            Examples, shape ``(N, *event_shape)``.
        """
        return self._to_range(self.network(self._inputs(z, labels))).unflatten(1, self.event_shape)


class ConvGenerator(_BaseGenerator):
    """A DCGAN-style generator: transposed convolutions that double the side of the image.

    Each side is halved while it is even and no less than 8, down to the side that the first layer
    makes: 8 and 32 and 64 from 4, 28 from 7. Source: Radford, Metz and Chintala (2016).

    Args:
        event_shape: shape ``(C, H, W)`` of one image.
        latent_dim: number of dimensions of z.
        channels: channels of the last hidden layer; doubled for every layer before it.
        n_classes: number of classes, for a class-conditional generator.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int = 64,
        channels: int = 32,
        *,
        n_classes: int | None = None,
    ) -> None:
        super().__init__(event_shape, latent_dim, n_classes, bounded=True)
        channels = require_positive_integer(channels, "channels")
        halvings = count_halvings(self.event_shape)
        side = tuple(size // 2**halvings for size in self.event_shape[1:])
        width = channels * 2**halvings
        layers: list[nn.Module] = [
            nn.Linear(self._n_inputs, width * math.prod(side), bias=False),
            nn.Unflatten(1, (width, *side)),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        for _ in range(halvings):
            layers += [
                nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width // 2),
                nn.ReLU(),
            ]
            width //= 2
        self.network = nn.Sequential(*layers, nn.Conv2d(width, self.event_shape[0], 3, padding=1))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map noise, shape ``(N, latent_dim)``, to images in [0, 1], shape ``(N, C, H, W)``.

        Args:
            z: noise; while training at least two examples, because of batch normalization.
            labels: class of each image, int64, shape ``(N,)``; only with `n_classes`.

        Raises:
            ValueError: one example in training mode.
        """
        if self.training and isinstance(z, Tensor) and z.dim() and len(z) == 1:
            raise ValueError(
                "z is a batch of one in training mode; at least two examples are expected, because "
                "batch normalization averages over the batch. Call .eval() to generate one image."
            )
        return self._to_range(self.network(self._inputs(z, labels)))


def count_halvings(event_shape: Sequence[int]) -> int:
    """How often both sides of an image can be halved without falling below 4.

    Raises:
        ValueError: the shape is not ``(C, H, W)``, or a side is below 4.
    """
    advice = "Use Generator and Discriminator for data that are not images."
    _, *sides = require_image_shape(event_shape, at_least=4, advice=advice)
    halvings = 0
    while all(side % 2 == 0 and side >= 8 for side in sides):
        sides = [side // 2 for side in sides]
        halvings += 1
    return halvings


def require_n_classes(n_classes: int | None) -> int | None:
    """Require a number of classes of at least 1, or None for a model without classes; return it."""
    return None if n_classes is None else require_positive_integer(n_classes, "n_classes")

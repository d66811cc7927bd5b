"""Encoders and decoders: multilayer perceptrons and small convolutional networks."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.inputs import (
    require_generator,
    require_image_shape,
    require_positive_integer,
    require_shapes,
)
from course_lib.networks import mlp
from course_lib.precision import at_least_float32, in_type_of

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def mlp_encoder(
    event_shape: Sequence[int], hidden: Sequence[int], out_features: int, dropout: float = 0.0
) -> nn.Sequential:
    """Flatten an image and map it to `out_features` numbers."""
    body = mlp(math.prod(event_shape), hidden, out_features, dropout=dropout)
    return nn.Sequential(nn.Flatten(), *body)


def mlp_decoder(
    event_shape: Sequence[int],
    hidden: Sequence[int],
    latent_dim: int,
    dropout: float = 0.0,
    activation: str = "relu",
) -> nn.Sequential:
    """Map a latent vector to one number per pixel: `mlp_encoder` with its layers reversed."""
    body = mlp(
        latent_dim,
        hidden[::-1],
        math.prod(event_shape),
        activation=ACTIVATIONS[activation],
        dropout=dropout,
    )
    return nn.Sequential(*body, nn.Unflatten(-1, tuple(event_shape)))


def convolutional_encoder(
    event_shape: Sequence[int], channels: int, out_features: int
) -> nn.Sequential:
    """Halve the image twice by strided convolutions, then one affine map.

    Raises:
        ValueError: the height or the width is not a multiple of 4.
    """
    in_channels, height, width = _image(event_shape)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * (height // 4) * (width // 4), out_features),
    )


class ParametersLast(nn.Module):
    """Channels C·P of an image as P parameters of each of its C channels: ``(N, C, H, W, P)``."""

    def __init__(self, n_parameters: int) -> None:
        super().__init__()
        self.n_parameters = n_parameters

    def forward(self, x: Tensor) -> Tensor:
        """Move the parameters to the last axis."""
        return x.unflatten(1, (-1, self.n_parameters)).movedim(2, -1)


def convolutional_decoder(
    event_shape: Sequence[int], channels: int, latent_dim: int, n_parameters: int = 1
) -> nn.Sequential:
    """Mirror of `convolutional_encoder`: one affine map, then doubled twice; ``(N, C, H, W, P)``."""
    out_channels, height, width = _image(event_shape)
    small = (2 * channels, height // 4, width // 4)
    return nn.Sequential(
        nn.Linear(latent_dim, math.prod(small)),
        nn.ReLU(),
        nn.Unflatten(-1, small),
        nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(channels, out_channels * n_parameters, 4, stride=2, padding=1),
        ParametersLast(n_parameters),
    )


def apply_to_latents(decoder: nn.Module, z: Tensor, latent_dim: int) -> Tensor:
    """Decode latents with any number of batch dimensions, ``(..., latent_dim)``, of any real type.

    Raises:
        TypeError: `z` is not a tensor of real numbers.
        ValueError: its last dimension is not `latent_dim`.
    """
    advice = f"The model was built with latent_dim={latent_dim}."
    require_shapes(advice, z=(z, f"... {latent_dim}"))
    at_least_float32(z, "z")  # real numbers of any type
    out = decoder(in_type_of(decoder, z).reshape(-1, z.shape[-1]))
    return out.reshape(*z.shape[:-1], *out.shape[1:])


def _image(event_shape: Sequence[int]) -> tuple[int, int, int]:
    advice = "Pad the images, or use the perceptron with hidden=(500,)."
    return require_image_shape(event_shape, multiple=4, advice=advice)


def sample_prior(
    decoder: nn.Module, n: int, latent_dim: int, generator: torch.Generator | None
) -> Tensor:
    """Draw n points of the standard normal prior, shape ``(n, latent_dim)``, as `decoder` takes them.

    Raises:
        TypeError: `n` is not an integer.
        ValueError: `n` is below 1.
    """
    n = require_positive_integer(n, "n")
    weight = next(decoder.parameters())
    require_generator(generator, weight.device)
    return torch.randn(n, latent_dim, dtype=weight.dtype, device=weight.device, generator=generator)

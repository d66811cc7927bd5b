"""VQ-VAE: an autoencoder whose code is a grid of integers."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.distributions import Bernoulli, Conditional, OutputDistribution
from course_lib.inputs import (
    require_batch,
    require_count,
    require_generator,
    require_image_shape,
    require_kind,
    require_levels,
    require_positive_integer,
    require_real,
    require_shape,
    require_shapes,
    require_tensor,
)
from course_lib.networks import evaluation_mode
from course_lib.precision import at_least_float32, in_one_type, in_type_of, without_autocast
from course_lib.saved_settings import SavedSettings
from course_lib.vae.networks import ParametersLast


def nearest_code(z: Tensor, codebook: Tensor) -> Tensor:
    """Number of the codebook's vector that is nearest to each vector.

    Args:
        z: vectors, shape ``(..., d)``.
        codebook: shape ``(K, d)``.

    Returns:
        Integers 0 … K−1, shape ``(...)``.
    """
    require_shapes(codebook=(codebook, "K d"))
    require_shapes(z=(z, f"... {codebook.shape[-1]}"))
    z, codebook = in_one_type(z=z, codebook=codebook)
    # Differences of large squares would have no digits left, and in half precision few to begin with.
    with without_autocast(z):
        origin = codebook.mean(0)
        z, codebook = z - origin, codebook - origin
        # |z − e|² without |z|², which is the same for all of them.
        return (codebook.square().sum(1) - 2 * z @ codebook.T).argmin(-1)


def straight_through(z: Tensor, quantized: Tensor) -> Tensor:
    """The quantized vectors, whose gradient is passed to `z` as if nothing had been rounded.

    Source: equation ``eq-vq-straight-through``; Bengio, Léonard and Courville (2013).

    Args:
        z: what was quantized.
        quantized: the result, of the same shape.

    Returns:
        The values of `quantized`.
    """
    require_tensor(z, "z")
    require_tensor(quantized, "quantized")
    if z.shape != quantized.shape:
        raise ValueError(
            f"z has shape {tuple(z.shape)} and quantized {tuple(quantized.shape)}; equal shapes are expected."
        )
    z, quantized = in_one_type(z=z, quantized=quantized)
    return z + (quantized - z).detach()


def perplexity(codes: Tensor, n_codes: int) -> Tensor:
    """How many codes are in use: the exponential of the entropy of their frequencies.

    Args:
        codes: integers 0 … K−1, any shape, not empty.
        n_codes: their number K.

    Returns:
        A number between 1 and K, 0-d.
    """
    n_codes = require_positive_integer(n_codes, "n_codes")
    require_tensor(codes, "codes")
    try:
        codes = require_levels(codes, n_codes, "codes")
    except ValueError as error:
        raise ValueError(f"{error} Here n_codes is {n_codes}.") from None
    if not codes.numel():
        raise ValueError("codes has no entries; at least one code is expected.")
    share = torch.bincount(codes.flatten().long(), minlength=n_codes).double() / codes.numel()
    return torch.special.entr(share).sum().exp()


class PlaceBias(nn.Module):
    """A learned number for each channel and place of an image, added to it.

    A convolution does the same everywhere; what is drawn is not the same everywhere.

    Args:
        channels: number of channels.
        places: height and width.
    """

    def __init__(self, channels: int, places: Sequence[int]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, *places))

    def forward(self, x: Tensor) -> Tensor:
        """Add the bias to `x` of shape ``(N, channels, height, width)``."""
        return x + self.bias


class VQVAE(SavedSettings):
    r"""An autoencoder of images whose code is a grid of integers, each the number of a learned vector.

    The encoder maps an image to a grid of vectors, and each of these is replaced by the nearest one of a
    codebook of K vectors. As a VAE it has a posterior that puts all mass on one code, so that with a prior
    P(c) over codes

    .. math:: \log p(x) \ge \log P(c(x)) + \log p(x \mid c(x))

    (``eq-vq-bits``). Until a prior has been learned, P is uniform, and the first term is minus the number of
    codes times log K.

    Source: van den Oord, Vinyals and Kavukcuoglu, "Neural discrete representation learning" (2017).

    Args:
        event_shape: ``(C, H, W)``.
        n_codes: number K of vectors in the codebook.
        code_dim: their size.
        channels: of the hidden layers.
        halvings: how often the encoder halves the height and the width.
        likelihood: the distribution p(x|c) of one pixel; `Bernoulli` if none is given.

    Attributes:
        code_shape: shape ``(h, w)`` of the grid of codes.

    Raises:
        ValueError: a size is below 1, the height or the width is not a multiple of 2^halvings, or a code is a
            single number, which would be the same for all images.

    Example:
        >>> model = VQVAE((1, 8, 8), n_codes=16, channels=8)
        >>> model.codes(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 4, 4])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        n_codes: int = 64,
        *,
        code_dim: int = 8,
        channels: int = 64,
        halvings: int = 1,
        likelihood: OutputDistribution | None = None,
    ) -> None:
        super().__init__()
        self.n_codes = require_count(n_codes, "n_codes", at_least=2)
        self.code_dim = require_positive_integer(code_dim, "code_dim")
        channels = require_positive_integer(channels, "channels")
        halvings = require_positive_integer(halvings, "halvings")
        advice = "Pad the images, or halve them less often."
        self.event_shape = require_image_shape(event_shape, multiple=2**halvings, advice=advice)
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        require_kind(self.likelihood, OutputDistribution, "likelihood")
        colours, height, width = self.event_shape
        self.code_shape = (height // 2**halvings, width // 2**halvings)
        if self.code_dim * math.prod(self.code_shape) == 1:
            raise ValueError(
                "code_dim is 1 and the grid of codes has one place; at least two numbers are expected, for "
                "they are normalized together. Pass a larger code_dim, or halve the images less often."
            )
        self.codebook = nn.Parameter(torch.randn(self.n_codes, self.code_dim))
        halve, double = [], []
        for _ in range(halvings):
            halve += [nn.Conv2d(channels, channels, 4, stride=2, padding=1), nn.ReLU()]
            double += [nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1), nn.ReLU()]
        P = self.likelihood.n_parameters
        self.encoder = nn.Sequential(
            nn.Conv2d(colours, channels, 3, padding=1),
            PlaceBias(channels, (height, width)),
            nn.ReLU(),
            *halve,
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, self.code_dim, 1),
            # One scale for the vectors of every image, lest they shrink towards a single code.
            nn.GroupNorm(1, self.code_dim, affine=False),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(self.code_dim, channels, 3, padding=1),
            PlaceBias(channels, self.code_shape),
            nn.ReLU(),
            *double,
            nn.Conv2d(channels, channels, 3, padding=1),
            PlaceBias(channels, (height, width)),
            nn.ReLU(),
            nn.Conv2d(channels, colours * P, 1),
            PlaceBias(colours * P, (height, width)),
            ParametersLast(P),
        )

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {
            "event_shape": self.event_shape,
            "code_shape": self.code_shape,
            "likelihood": self.likelihood.label(),
        }

    def vectors(self, x: Tensor) -> Tensor:
        """The encoder's vectors, before they are quantized, shape ``(N, h, w, code_dim)``.

        Args:
            x: images as the likelihood has them, floating-point, shape ``(N, *event_shape)``.

        Raises:
            TypeError: `x` is not a floating-point tensor.
            ValueError: the shape is another one, the batch is empty, or a value is not allowed.
        """
        require_batch(x, self.event_shape, model=self)
        self.likelihood.check(x)
        return self.encoder(x).movedim(1, -1)

    def codes(self, x: Tensor) -> Tensor:
        """The codes c(x) of images, integers of shape ``(N, h, w)``; `x` as in `vectors`."""
        return nearest_code(self.vectors(x).detach(), self.codebook.detach())

    def decode(self, codes: Tensor) -> Conditional:
        """Return p(x|c) for `codes` of shape ``(N, h, w)``.

        Raises:
            TypeError: the codes are not integers.
            ValueError: they have another shape, or values outside 0 … K−1.
        """
        codes = require_levels(codes, self.n_codes, "codes")
        require_shape(codes, self.code_shape, "codes")
        return self._given(self.codebook[codes.long()])

    def forward(self, x: Tensor) -> Tensor:
        """Return the parameters of p(x|c(x)), ``(N, *event_shape, P)``; gradients pass through the code."""
        z = self.vectors(x)
        quantized = self.codebook[nearest_code(z.detach(), self.codebook.detach())]
        return self._decoded(straight_through(z, quantized))

    def elbo(self, x: Tensor, n_samples: int = 1) -> Tensor:
        """The bound (``eq-vq-bits``) under the uniform prior, in nats, shape ``(N,)``.

        Nothing is drawn: the posterior has one code. With a learned prior, replace the first term.

        Args:
            x: images, as in `vectors`.
            n_samples: not used.
        """
        require_positive_integer(n_samples, "n_samples")
        codes = self.codes(x)
        return self.decode(codes).log_prob(x) - codes[0].numel() * math.log(self.n_codes)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes from the uniform prior, then images from p(x|c), shape ``(n, *event_shape)``.

        For samples of a learned prior draw the codes from it, and the images from `decode`.

        Args:
            n: number of samples, at least 1.
            generator: source of the noise; the global one if none is given.
        """
        n = require_positive_integer(n, "n")
        device = self.codebook.device
        require_generator(generator, device)
        shape = (n, *self.code_shape)
        codes = torch.randint(self.n_codes, shape, generator=generator, device=device)
        with evaluation_mode(self):
            parameters = self._decoded(self.codebook[codes])
        return self.likelihood.draw(parameters, generator)

    @torch.no_grad()
    def restart_unused(self, x: Tensor, *, generator: torch.Generator | None = None) -> int:
        """Move every vector of the codebook that no part of `x` is coded by onto a vector of the encoder.

        A vector that is never the nearest one gets no gradient, and stays where it is: a dead code.

        Args:
            x: images, as in `vectors`; many of them.
            generator: chooses the encoder's vectors; the global one if none is given.

        Returns:
            The number of vectors that were moved, which is that of the unused ones if so many differ.
        """
        require_generator(generator, self.codebook.device)
        z = self.vectors(x).flatten(0, 2)
        used = torch.bincount(nearest_code(z, self.codebook).flatten(), minlength=self.n_codes) > 0
        unused = (~used).nonzero().squeeze(1)
        # Different ones: of two equal codes only the first is ever the nearest.
        drawn = torch.randperm(len(z), generator=generator, device=z.device)[: 4 * len(unused)]
        different = z[drawn].unique(dim=0)
        order = torch.randperm(len(different), generator=generator, device=z.device)
        moved = unused[: len(different)]
        self.codebook[moved] = different[order[: len(moved)]].to(self.codebook.dtype)
        return len(moved)

    def _decoded(self, vectors: Tensor) -> Tensor:
        """The decoder's output for code vectors ``(N, h, w, code_dim)`` of any type."""
        return self.decoder(in_type_of(self.decoder, vectors).movedim(-1, 1))

    def _given(self, vectors: Tensor) -> Conditional:
        """p(x | code vectors ``(N, h, w, code_dim)``)."""
        return self.likelihood.given(self._decoded(vectors), len(self.event_shape))


class VQObjective:
    """The loss of a VQ-VAE: reconstruction, codebook and commitment, in nats and squared distances.

    The codebook's term moves the vectors towards what is coded by them, the commitment the encoder towards
    the codebook. Both are sums over the grid; an image's log-probability is a sum over its pixels.

    Source: van den Oord, Vinyals and Kavukcuoglu (2017), equation 3.

    Args:
        commitment: weight β of the commitment.

    Raises:
        ValueError: `commitment` is negative.
    """

    def __init__(self, commitment: float = 0.25) -> None:
        self.commitment = require_real(
            commitment, "commitment", "a weight of at least 0", at_least=0
        )

    def __call__(self, model: VQVAE, x: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """Return the loss and its terms, means over the batch, as `course_lib.training.fit` calls it."""
        require_kind(model, VQVAE, "model")
        z = model.vectors(x)
        quantized = model.codebook[nearest_code(z.detach(), model.codebook.detach())]
        given = model._given(straight_through(z, quantized))
        z, quantized = at_least_float32(z), at_least_float32(quantized)
        terms = {
            "reconstruction": -given.log_prob(x).mean(),
            "codebook": F.mse_loss(quantized, z.detach(), reduction="sum") / len(x),
            "commitment": F.mse_loss(z, quantized.detach(), reduction="sum") / len(x),
        }
        loss = terms["reconstruction"] + terms["codebook"] + self.commitment * terms["commitment"]
        return {"loss": loss, **terms}

"""The variational autoencoder."""

from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.distributions import Bernoulli, Conditional, OutputDistribution
from course_lib.inputs import (
    require_batch,
    require_event_shape,
    require_positive_integer,
)
from course_lib.networks import evaluation_mode
from course_lib.precision import at_least_float32
from course_lib.saved_settings import SavedSettings
from course_lib.vae import bounds
from course_lib.vae.networks import (
    ACTIVATIONS,
    apply_to_latents,
    convolutional_decoder,
    convolutional_encoder,
    mlp_decoder,
    mlp_encoder,
    sample_prior,
)
from course_lib.vae.posterior import DiagonalGaussian


class VAE(SavedSettings):
    r"""Variational autoencoder with a standard normal prior and a diagonal Gaussian posterior.

    .. math:: \log p_\theta(x) \ge \mathbb{E}_{q_\phi(z|x)}[\log p_\theta(x|z)]
              - \mathrm{KL}(q_\phi(z|x)\,\|\,p(z))

    Kingma and Welling (2014), *Auto-Encoding Variational Bayes*; Rezende, Mohamed and Wierstra
    (2014). The default is the classic recipe, one hidden layer of 500 units on each side.

    Args:
        event_shape: shape of one example, for instance ``(1, 28, 28)``.
        latent_dim: number of latent dimensions, at least 1.
        hidden: widths of the encoder's hidden layers; the decoder has them reversed.
        channels: if given, convolutional networks with that many channels replace the
            perceptrons, and `hidden` is not used.
        likelihood: the distribution p(x|z) of one pixel, of `course_lib.distributions`: `Bernoulli`
            (default), `Gaussian`, or one of grey levels, whose data then are intensities k/(K−1).
        dropout: probability of dropping a hidden unit while training (perceptrons only).
        decoder_activation: of the decoder's hidden units, ``"relu"`` or ``"tanh"`` (perceptrons only).

    Attributes:
        event_shape: shape of one example.
        latent_dim: number of latent dimensions.

    Raises:
        TypeError: `likelihood` is not an output distribution, or a size not an integer.
        ValueError: `latent_dim` is below 1, the sizes do not suit convolutions, or there is no such
            activation.

    Example:
        >>> model = VAE((1, 8, 8), latent_dim=2)
        >>> x = torch.bernoulli(torch.full((5, 1, 8, 8), 0.5))
        >>> model.elbo(x).shape
        torch.Size([5])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        *,
        hidden: Sequence[int] = (500,),
        channels: int | None = None,
        likelihood: OutputDistribution | None = None,
        dropout: float = 0.0,
        decoder_activation: str = "relu",
    ) -> None:
        super().__init__()
        latent_dim = self.latent_dim = require_positive_integer(latent_dim, "latent_dim")
        event_shape = self.event_shape = require_event_shape(event_shape)
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        if not isinstance(self.likelihood, OutputDistribution):
            raise TypeError(
                f"likelihood is {likelihood!r}; an output distribution is expected, such as "
                f"Bernoulli() or Gaussian()."
            )
        if decoder_activation not in ACTIVATIONS:
            raise ValueError(
                f"decoder_activation is {decoder_activation!r}; one of {', '.join(ACTIVATIONS)} is "
                f"expected."
            )
        self.decoder_activation = decoder_activation
        n_parameters = self.likelihood.n_parameters
        if channels is None:
            self.encoder = mlp_encoder(event_shape, hidden, 2 * latent_dim, dropout)
            self.decoder = mlp_decoder(
                (*event_shape, n_parameters), hidden, latent_dim, dropout, self.decoder_activation
            )
        else:
            channels = require_positive_integer(channels, "channels")
            self.encoder = convolutional_encoder(event_shape, channels, 2 * latent_dim)
            self.decoder = convolutional_decoder(event_shape, channels, latent_dim, n_parameters)

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {
            "event_shape": self.event_shape,
            "latent_dim": self.latent_dim,
            "likelihood": self.likelihood.label(),
            "decoder_activation": self.decoder_activation,
        }

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """Return q(z|x) for `x` of shape ``(N, *event_shape)``; of a model in half precision in float32.

        Raises:
            TypeError: `x` is not a floating-point tensor.
            ValueError: the shape is another one, the batch is empty, or a value is not allowed.
        """
        require_batch(x, self.event_shape, model=self)
        self.likelihood.check(x)
        # What follows adds and compares densities: a log-weight needs more digits than bfloat16 has.
        parameters = at_least_float32(self.encoder(x))
        mu, logvar = parameters.chunk(2, dim=-1)  # each (N, latent_dim)
        return DiagonalGaussian(mu, logvar)

    def decode(self, z: Tensor) -> Conditional:
        """Return p(x|z) for `z` of shape ``(..., latent_dim)``, which is brought to the model's type.

        Raises:
            TypeError: `z` is not a tensor.
            ValueError: the last dimension is not `latent_dim`.
        """
        parameters = apply_to_latents(self.decoder, z, self.latent_dim)
        return self.likelihood.given(parameters, len(self.event_shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return the parameters of p(x|z) at one posterior sample of z, ``(N, *event_shape, P)``."""
        return apply_to_latents(self.decoder, self.encode(x).rsample(), self.latent_dim)

    def elbo(self, x: Tensor, n_samples: int = 1) -> Tensor:
        """Return an unbiased estimate of the ELBO in nats, shape ``(N,)``.

        See `course_lib.vae.elbo`. It is random: it samples z, also in evaluation mode.
        """
        return bounds.elbo(self, x, n_samples)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Sample z from the prior, then x from p(x|z): shape ``(n, *event_shape)``.

        No unit is dropped, whatever mode the module is in.

        Args:
            n: number of samples, at least 1.
            generator: source of the noise, on the model's device; the global one if none is given.

        Raises:
            ValueError: `n` is below 1.
        """
        z = sample_prior(self.decoder, n, self.latent_dim, generator)
        with evaluation_mode(self):
            return self.likelihood.draw(self.decoder(z), generator)

"""The Wasserstein autoencoder with an MMD penalty."""

from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.inputs import require_real
from course_lib.mmd import imq_kernel, mmd
from course_lib.networks import evaluation_mode
from course_lib.precision import at_least_float32
from course_lib.vae.autoencoder import Autoencoder
from course_lib.vae.networks import sample_prior


class WAE(Autoencoder):
    r"""Wasserstein autoencoder: the aggregate posterior, not each posterior, matches the prior.

    .. math:: \mathbb{E}\,\tfrac12\lVert x - g(f(x))\rVert^2 + \lambda\,\mathrm{MMD}^2(q(z), p(z))

    The encoder is deterministic. The model can be sampled but gives no likelihood.
    Tolstikhin, Bousquet, Gelly and Schölkopf (2018), *Wasserstein Auto-Encoders*.

    Args:
        event_shape: shape of one example.
        latent_dim: size of the code, at least 1.
        hidden: widths of the encoder's hidden layers; the decoder has them reversed.
        penalty: λ, positive.
        dropout: probability of dropping a hidden unit while training.

    Raises:
        ValueError: `penalty` is not positive, or `latent_dim` is below 1.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        *,
        hidden: Sequence[int] = (500,),
        penalty: float = 10.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(event_shape, latent_dim, hidden=hidden, dropout=dropout)
        self.penalty = require_real(penalty, "penalty", "a positive weight", above=0)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Decode n points of the prior, dropping no unit: shape ``(n, *event_shape)``."""
        z = sample_prior(self.decoder, n, self.latent_dim, generator)
        with evaluation_mode(self):
            return self.decoder(z)


def wae_objective(model: WAE, x: Tensor, progress: Tensor) -> dict[str, Tensor]:
    r"""The objective of a `WAE`, as `course_lib.training.fit` calls its losses.

    The constraint q(z) = p(z) of ``eq-wae-primal`` has become a penalty, ``eq-mmd-unbiased``.

    Args:
        model: a Wasserstein autoencoder.
        x: examples, shape ``(N, *event_shape)``, N ≥ 2.
        progress: not used.

    Returns:
        The loss and its two terms, each 0-d.

    Raises:
        ValueError: `x` has fewer than two examples.
    """
    z = model.code(x)
    if len(x) < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; at least two examples are expected, because the penalty "
            f"compares pairs. Use a larger batch."
        )
    difference = at_least_float32(x) - at_least_float32(model.decoder(z))
    error = 0.5 * difference.square().flatten(1).sum(1).mean()
    discrepancy = mmd(z, torch.randn_like(z), imq_kernel)
    return {
        "loss": error + model.penalty * discrepancy,
        "squared_error": error,
        "mmd": discrepancy,
    }

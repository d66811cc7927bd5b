"""The autoencoder: compression without a probability distribution."""

from collections.abc import Sequence

from torch import Tensor

from course_lib.inputs import require_batch, require_event_shape, require_positive_integer
from course_lib.precision import at_least_float32
from course_lib.saved_settings import SavedSettings
from course_lib.vae.networks import apply_to_latents, mlp_decoder, mlp_encoder


class Autoencoder(SavedSettings):
    r"""Deterministic encoder and decoder that minimize the squared error.

    .. math:: \min \tfrac12 \lVert x - g(f(x)) \rVert^2

    With no hidden layer both maps are affine and the optimum spans the subspace of the leading
    principal components (equation ``eq-linear-ae-pca``; Baldi and Hornik, 1989).

    Args:
        event_shape: shape of one example.
        latent_dim: size of the code, at least 1.
        hidden: widths of the encoder's hidden layers; the decoder has them reversed. Empty for
            the linear autoencoder.
        dropout: probability of dropping a hidden unit while training.

    Raises:
        ValueError: `latent_dim` is below 1.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        *,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.latent_dim = require_positive_integer(latent_dim, "latent_dim")
        self.event_shape = require_event_shape(event_shape)
        self.encoder = mlp_encoder(self.event_shape, hidden, self.latent_dim, dropout)
        self.decoder = mlp_decoder(self.event_shape, hidden, self.latent_dim, dropout)

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {"event_shape": self.event_shape, "latent_dim": self.latent_dim}

    def code(self, x: Tensor) -> Tensor:
        """Return the code of `x`, shape ``(N, latent_dim)``: a point, not a distribution."""
        require_batch(x, self.event_shape, model=self)
        return self.encoder(x)

    def reconstruct(self, z: Tensor) -> Tensor:
        """Return the decoded images for codes of shape ``(..., latent_dim)``."""
        return apply_to_latents(self.decoder, z, self.latent_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of `x`, the mean of a Gaussian output distribution."""
        return self.decoder(self.code(x))

    def squared_error(self, x: Tensor) -> Tensor:
        """Return ½‖x − g(f(x))‖², summed over pixels, shape ``(N,)``."""
        reconstruction = self(x)
        error = at_least_float32(x) - at_least_float32(reconstruction)
        return 0.5 * error.square().flatten(1).sum(1)

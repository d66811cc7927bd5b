"""What the course has to know of the variational autoencoders as a family."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from course_lib import vae
from course_lib.data import Dataset
from course_lib.family import PICTURED, Family, Recipe
from course_lib.training import Loss

IWAE_SAMPLES = 500  # of the estimate that is recorded


@dataclass(frozen=True)
class VAERecipe(Recipe):
    """How a VAE is trained: by a bound on its likelihood.

    Attributes:
        iwae_samples: train on the importance-weighted bound with that many samples; 1 is the ELBO.
        warm_up: share of training over which the weight of the KL term grows from 0 to 1.
    """

    family: str = field(default="vae", init=False)
    iwae_samples: int = 1
    warm_up: float = 0.0

    binary_dtype: ClassVar[torch.dtype] = torch.float32

    def build(self, model: type[nn.Module], data: Dataset) -> nn.Module:
        """The untrained model."""
        return model(data.event_shape, **self.arguments)

    def loss(self) -> Loss:
        """Minus the bound."""
        if self.iwae_samples > 1:
            return vae.NegativeIWAEBound(self.iwae_samples)
        return vae.NegativeELBO(warm_up=self.warm_up)

    def log_likelihood(self, model: nn.Module, x: Tensor) -> Tensor:
        """One draw of the ELBO of each image, in nats, shape ``(N,)``."""
        return model.elbo(x)

    def measure(
        self, model: nn.Module, test: Tensor, *, progress: bool = False
    ) -> dict[str, Tensor]:
        """Minus the importance-weighted estimate, and minus the ELBO."""
        log_p = vae.log_likelihood(model, test, IWAE_SAMPLES, progress=progress)
        elbo = torch.cat([model.elbo(part, 10) for part in test.split(500)])
        return {f"iwae_{IWAE_SAMPLES}": -log_p, "negative_elbo": -elbo}

    def samples(self, model: nn.Module, n: int, generator: torch.Generator) -> Tensor:
        """Means of p(x|z) for z from the prior: each pixel's probability, and no noise of single pixels."""
        weight = next(model.parameters())
        z = torch.randn(n, model.latent_dim, device=weight.device, generator=generator)
        return model.decode(z).mean

    def pictures(
        self, model: nn.Module, test: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Test images with their reconstructions; of two latent dimensions, the whole plane."""
        images = test[: 2 * PICTURED].unflatten(0, (2, PICTURED))
        means = model.decode(model.encode(images.flatten(0, 1)).mean).mean.view_as(images)
        # The images of a row above their reconstructions.
        drawn = {"reconstructions": torch.stack([images, means], 1).flatten(0, 1)}
        if model.latent_dim == 2:
            z = vae.latent_grid(PICTURED).to(images.device)
            drawn["manifold"] = model.decode(z).mean.unflatten(0, (PICTURED, PICTURED))
        return drawn


FAMILY = Family(
    name="vae",
    title="Variational autoencoders",
    models=(vae.Autoencoder, vae.VAE, vae.WAE, vae.VQVAE, vae.LinearGaussian),
    recipe=VAERecipe,
    hidden=("distributions.py", "divergences.py", "mmd.py"),
)

"""What the course has to know of the diffusion models as a family."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from course_lib import diffusion
from course_lib.data import Dataset
from course_lib.family import Family, Recipe
from course_lib.progress import progress_bar
from course_lib.training import Loss

PART = 200  # images whose bound is computed at once: each pixel has a number for each of 256 levels


@dataclass(frozen=True)
class DiffusionRecipe(Recipe):
    """How a diffusion model of grey levels is trained: by its continuous-time bound.

    Attributes:
        share: in training, one of so many examples has its reconstruction estimated.
        bound_samples: draws of time and noise for each test image, from which the bound is measured.
    """

    family: str = field(default="diffusion", init=False)
    share: int = 4
    bound_samples: int = 100

    def build(self, model: type[nn.Module], data: Dataset) -> nn.Module:
        """The untrained model."""
        return model(data.event_shape, self.levels(data), **self.arguments)

    def loss(self) -> Loss:
        """Minus the bound."""
        return diffusion.NegativeBound(share=self.share)

    def log_likelihood(self, model: nn.Module, x: Tensor) -> Tensor:
        """One draw of the bound of each image, in nats, shape ``(N,)``."""
        return model.elbo(x)

    def measure(
        self, model: nn.Module, test: Tensor, *, progress: bool = False
    ) -> dict[str, Tensor]:
        """Minus the bound, the mean of `bound_samples` draws for each image."""
        draws = progress_bar(show=progress, iterable=range(self.bound_samples), desc="draws")
        bounds = [torch.cat([model.elbo(part) for part in test.split(PART)]) for _ in draws]
        return {"negative_elbo": -torch.stack(bounds).mean(0)}


FAMILY = Family(
    name="diffusion",
    title="Diffusion and score-based models",
    models=(diffusion.Diffusion,),
    recipe=DiffusionRecipe,
    hidden=(
        "distributions.py",
        "divergences.py",
        "guidance.py",
        "mixtures.py",
        "schedules.py",
        "solvers.py",
    ),
)

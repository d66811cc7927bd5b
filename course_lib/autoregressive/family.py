"""What the course has to know of the autoregressive models as a family."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from course_lib import autoregressive
from course_lib.data import Dataset
from course_lib.family import PICTURED, Family, Recipe
from course_lib.progress import progress_bar
from course_lib.training import Loss, negative_log_likelihood


@dataclass(frozen=True)
class AutoregressiveRecipe(Recipe):
    """How an autoregressive model is trained: by its exact likelihood."""

    family: str = field(default="autoregressive", init=False)

    def build(self, model: type[nn.Module], data: Dataset) -> nn.Module:
        """The untrained model."""
        return model(data.event_shape, self.levels(data), **self.arguments)

    def loss(self) -> Loss:
        """The negative log-likelihood; of one of several orderings at a time."""
        if self.arguments.get("n_orderings", 1) > 1:
            return autoregressive.one_ordering_loss
        return negative_log_likelihood

    def log_likelihood(self, model: nn.Module, x: Tensor) -> Tensor:
        """The log-likelihood of each image, in nats, shape ``(N,)``."""
        return model.log_prob(x)

    def measure(
        self, model: nn.Module, test: Tensor, *, progress: bool = False
    ) -> dict[str, Tensor]:
        """The negative log-likelihood."""
        parts = progress_bar(show=progress, iterable=test.split(500), desc="test images")
        return {"negative_log_likelihood": -torch.cat([model.log_prob(part) for part in parts])}

    def pictures(
        self, model: nn.Module, test: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Test images, and three completions of the upper half of each."""
        images = test[:PICTURED]
        known = torch.zeros(images.shape[1:], dtype=torch.bool, device=images.device)
        known[..., : images.shape[-2] // 2, :] = True
        completed = model.complete(images.repeat(3, 1, 1, 1), known, generator=generator)
        return {"completions": torch.stack([images, *completed.split(len(images))])}


@dataclass(frozen=True)
class AnyOrderRecipe(AutoregressiveRecipe):
    """How a masked diffusion model is trained: by a bound, the mean over all orders.

    Attributes:
        bound_samples: masks for each test image, from which the bound is measured.
        orders: random orders whose mixture is measured too, exactly, in a pass for each order and dimension.
    """

    bound_samples: int = 64
    orders: int = 8

    def loss(self) -> Loss:
        """Minus the bound, from one mask for each image."""
        return autoregressive.any_order_loss

    def log_likelihood(self, model: nn.Module, x: Tensor) -> Tensor:
        """One draw of the bound of each image, in nats, shape ``(N,)``."""
        return model.elbo(x)

    def measure(
        self, model: nn.Module, test: Tensor, *, progress: bool = False
    ) -> dict[str, Tensor]:
        """Minus the bound, and minus the log-likelihood of a mixture of some orders, alike for all images."""
        draws = progress_bar(show=progress, iterable=range(self.bound_samples), desc="draws")
        bounds = [torch.cat([model.elbo(part) for part in test.split(500)]) for _ in draws]
        measured = {"negative_elbo": -torch.stack(bounds).mean(0)}
        if self.orders:
            chance = torch.rand(self.orders, model.n_dims, device=test.device)
            parts = progress_bar(show=progress, iterable=test.split(500), desc="orders")
            exact = [model.log_prob(part, order=chance.argsort(1)) for part in parts]
            measured[f"mixture_of_{self.orders}_orders"] = -torch.cat(exact)
        return measured

    def pictures(
        self, model: nn.Module, test: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Test images, and three completions of the middle of each."""
        images = test[:PICTURED]
        height, width = images.shape[-2:]
        known = torch.ones(images.shape[1:], dtype=torch.bool, device=images.device)
        known[..., height // 4 : -(height // 4), width // 4 : -(width // 4)] = False
        completed = model.complete(images.repeat(3, 1, 1, 1), known, generator=generator)
        return {"completions": torch.stack([images, *completed.split(len(images))])}


FAMILY = Family(
    name="autoregressive",
    title="Autoregressive models",
    models=(
        autoregressive.FVSBN,
        autoregressive.NADE,
        autoregressive.MADE,
        autoregressive.PixelCNN,
        autoregressive.GatedPixelCNN,
        autoregressive.RowLSTM,
        autoregressive.DiagonalBiLSTM,
        autoregressive.Transformer,
        autoregressive.WaveNet,
        autoregressive.MaskedDiffusion,
    ),
    recipe=AutoregressiveRecipe,
    hidden=("attention.py", "distributions.py", "evaluation.py", "masked.py"),
)

"""What the course has to know of the normalizing flows as a family."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from course_lib import flow
from course_lib.data import Dataset
from course_lib.family import PICTURED, Family, Recipe
from course_lib.interpolation import spherical_path
from course_lib.progress import progress_bar
from course_lib.training import Loss


@dataclass(frozen=True)
class FlowRecipe(Recipe):
    """How a flow is trained as a model of grey levels: by the dequantization bound.

    Attributes:
        variational_dequantization: the noise is learned, not uniform.
        dequantization_samples: draws of that noise for each test image, from which the bounds are
            measured.
    """

    family: str = field(default="flow", init=False)
    variational_dequantization: bool = False
    dequantization_samples: int = 100

    def build(self, model: type[nn.Module], data: Dataset) -> nn.Module:
        """The untrained flow with its dequantizer; activation normalization starts from data."""
        shape, levels = data.event_shape, self.levels(data)
        dequantizer = (
            flow.VariationalDequantizer(shape, dropout=self.arguments.get("dropout", 0.0))
            if self.variational_dequantization
            else None
        )
        built = flow.DequantizedFlow(model(shape, **self.arguments), levels, dequantizer)
        with torch.no_grad():
            built.flow.initialize(built.dequantizer(data.train[:2000], levels)[0])
        return built

    def loss(self) -> Loss:
        """Minus the dequantization bound."""
        return flow.negative_dequantization_bound

    def log_likelihood(self, model: nn.Module, x: Tensor) -> Tensor:
        """One draw of the dequantization bound of each image, in nats, shape ``(N,)``."""
        return model.elbo(x)

    def measure(
        self, model: nn.Module, test: Tensor, *, progress: bool = False
    ) -> dict[str, Tensor]:
        """Two bounds from the same draws: the mean of the log weights, the log of their mean."""
        k = self.dequantization_samples
        draws = progress_bar(show=progress, iterable=range(k), desc="draws of the noise")
        weights = torch.stack(
            [torch.cat([model.log_weight(part) for part in test.split(500)]) for _ in draws]
        )
        return {
            "dequantization_bound": -weights.mean(0),
            f"importance_{k}": math.log(k) - weights.logsumexp(0),
        }

    def pictures(
        self, model: nn.Module, test: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Paths from one test image to another, along great circles of the latent space."""
        rows = 4
        y, _ = model.dequantizer(test[: 2 * rows], model.levels, generator)
        start, end = model.flow(y)[0].split(rows)
        path = spherical_path(start.flatten(1), end.flatten(1), PICTURED)
        y = model.flow.inverse(path.reshape(-1, *start.shape[1:]))[0]
        return {"interpolations": model.to_levels(y).unflatten(0, (rows, PICTURED))}


FAMILY = Family(
    name="flow",
    title="Normalizing flows",
    models=(
        flow.NICE,
        flow.RealNVP,
        flow.MultiScaleRealNVP,
        flow.Glow,
        flow.MAF,
        flow.IAF,
        flow.TarFlow,
        flow.PlanarFlow,
        flow.SplineFlow,
    ),
    recipe=FlowRecipe,
    hidden=("distributions.py",),
)

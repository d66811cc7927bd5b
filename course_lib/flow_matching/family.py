"""What the course has to know of flow matching as a family."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from course_lib import flow_matching
from course_lib.data import Dataset
from course_lib.family import Family, Recipe
from course_lib.inputs import require_positive_integer
from course_lib.progress import progress_bar
from course_lib.training import Loss

PART = 200  # images that are measured at once: each pixel has a number for each of 256 levels


@dataclass(frozen=True)
class FlowMatchingRecipe(Recipe):
    """How a flow of grey levels is trained by flow matching, and its likelihood measured.

    Attributes:
        power: times of training are u^power, with uniform u.
        solver_steps: steps of the midpoint method, of which each evaluates the velocity twice.
        n_probes: random vectors from which the divergence is estimated.
        dequantization_samples: draws of the noise in the levels' intervals, each with probes of its own.
        measured_every: one of so many test images is measured, evenly over the split, whose halves may
            differ; a likelihood by an ODE takes as long as hundreds of evaluations.

    Raises:
        ValueError: `measured_every` is below 1.
    """

    family: str = field(default="flow_matching", init=False)
    power: float = 1.7
    solver_steps: int = 30
    n_probes: int = 1
    dequantization_samples: int = 4
    measured_every: int = 1

    def __post_init__(self) -> None:
        require_positive_integer(self.measured_every, "measured_every")

    def build(self, model: type[nn.Module], data: Dataset) -> nn.Module:
        """The untrained model; its Gaussian part is that of the training images."""
        built = model(data.event_shape, self.levels(data), **self.arguments)
        built.initialize(data.train)
        return built

    def loss(self) -> Loss:
        """The conditional flow-matching loss."""
        return flow_matching.FlowMatching(power=self.power)

    def log_likelihood(self, model: nn.Module, x: Tensor) -> Tensor:
        """One draw of the dequantization bound of each image, in nats, shape ``(N,)``."""
        return model.elbo(x, steps=self.solver_steps, n_probes=self.n_probes)

    def measure(
        self, model: nn.Module, test: Tensor, *, progress: bool = False
    ) -> dict[str, Tensor]:
        """Minus the dequantization bound, and the same made larger by the solver's estimated error."""
        test = test[:: self.measured_every]
        draws = progress_bar(
            show=progress, iterable=range(self.dequantization_samples), desc="draws of the noise"
        )
        options = {"steps": self.solver_steps, "n_probes": self.n_probes}
        found = [
            [model.log_prob_with_error(model.fill(part), **options) for part in test.split(PART)]
            for _ in draws
        ]
        log_prob = torch.stack([torch.cat([f.log_prob for f in draw]) for draw in found]).mean(0)
        error = torch.stack([torch.cat([f.error for f in draw]) for draw in found]).mean(0)
        bound = -log_prob - model.log_volume()
        return {"dequantization_bound": bound, "bound_plus_solver_error": bound + error}


FAMILY = Family(
    name="flow_matching",
    title="Flow matching",
    models=(flow_matching.VelocityFlow, flow_matching.MeanFlow),
    recipe=FlowMatchingRecipe,
    hidden=(
        "distributions.py",
        "divergences.py",
        "guidance.py",
        "mixtures.py",
        "schedules.py",
        "solvers.py",
    ),
)

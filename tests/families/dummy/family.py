"""What the course has to know of the dummies as a family."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from course_lib import dummy
from course_lib.data import Dataset
from course_lib.family import Family, Recipe
from course_lib.training import Loss


@dataclass(frozen=True)
class DummyRecipe(Recipe):
    """How a dummy is trained.

    Attributes:
        weight: of the loss.
    """

    family: str = field(default="dummy", init=False)
    weight: float = 1.0

    def build(self, model: type[nn.Module], data: Dataset) -> nn.Module:
        """The untrained model."""
        return model(data.event_shape, self.levels(data))

    def loss(self) -> Loss:
        """The weighted negative log-likelihood."""
        return lambda model, x, progress: -self.weight * model.log_prob(x).mean()

    def log_likelihood(self, model: nn.Module, x: Tensor) -> Tensor:
        """The log-likelihood of each image."""
        return model.log_prob(x)

    def measure(
        self, model: nn.Module, test: Tensor, *, progress: bool = False
    ) -> dict[str, Tensor]:
        """The negative log-likelihood."""
        return {"dummy_measure": -model.log_prob(test)}


FAMILY = Family("dummy", "Dummies", (dummy.Dummy,), DummyRecipe)

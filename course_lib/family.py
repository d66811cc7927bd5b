"""What a family of models says of itself: its name, its models, and how they are built, trained and measured.

Every family has a module ``family`` with one `Family`; `course_lib.families` lists them. Whatever treats all
families alike (experiments, counts of the book, tests, benchmarks) reads that list and names no family.
"""

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor, nn

from course_lib.data import Dataset, intensities
from course_lib.training import Loss

# Columns of every picture of a trained model.
PICTURED = 10


@dataclass(frozen=True)
class Recipe(ABC):
    """How one model is built, trained and measured; every family with a likelihood has its own kind.

    Attributes:
        family: name of the family.
        steps: optimizer steps.
        batch_size: examples per step.
        learning_rate: at the start; it falls to zero along half a cosine.
        arguments: of the model, beside the shape and the number of grey levels.
        binary: pixels are binarized: anew at every step in training, once and for all with a fixed
            seed for validation and test. Otherwise the grey levels themselves are modelled.
        ema: decay of the average of the weights that is measured.
        precision: of training, as in `course_lib.training.fit`; what is recorded is measured in
            float32.
        channels_last: lay the weights of convolutions out for it.
        evaluations: how often the validation split is looked at, and a checkpoint is written.
        validation_examples: how many validation images choose the best step; all if None.
        stages: shares of training, such as 0 and 0.5, at which samples are drawn beside those of the end.
    """

    family: str = field(init=False)
    steps: int
    batch_size: int
    learning_rate: float
    arguments: dict = field(default_factory=dict)
    binary: bool = False
    ema: float | None = None
    precision: str = "32-true"
    channels_last: bool = False
    evaluations: int = 40
    validation_examples: int | None = None
    stages: tuple[float, ...] = ()

    # Of the binary pixels that the models of the family take.
    binary_dtype: ClassVar[torch.dtype] = torch.int64

    @property
    def protocol(self) -> str:
        """What the data are, in words, for a table."""
        return "dynamic binarization" if self.binary else "grey levels"

    def levels(self, data: Dataset) -> int:
        """Number of values of a pixel."""
        return 2 if self.binary else data.levels

    @property
    def evaluate_every(self) -> int:
        """Steps between two evaluations."""
        return max(1, self.steps // self.evaluations)

    def intensities(self, x: Tensor, data: Dataset) -> Tensor:
        """Images as the model has them, as intensities in [0, 1]."""
        return x.float() if self.binary else intensities(x, data.levels)

    @abstractmethod
    def build(self, model: type[nn.Module], data: Dataset) -> nn.Module:
        """The untrained model."""

    @abstractmethod
    def loss(self) -> Loss:
        """The loss, for `course_lib.training.fit`."""

    @abstractmethod
    def log_likelihood(self, model: nn.Module, x: Tensor) -> Tensor:
        """The log-likelihood of each image, or one draw of its bound, in nats, shape ``(N,)``."""

    @abstractmethod
    def measure(
        self, model: nn.Module, test: Tensor, *, progress: bool = False
    ) -> dict[str, Tensor]:
        """What is recorded of a trained model.

        Args:
            model: in evaluation mode.
            test: all test images, as the recipe has them.
            progress: show a progress bar.

        Returns:
            By name, negative log-likelihoods or bounds of them in nats, shape ``(N,)``; by the first
            two records are compared.
        """

    def samples(self, model: nn.Module, n: int, generator: torch.Generator) -> Tensor:
        """Samples to look at, as the data are, shape ``(n, *event_shape)``."""
        return model.sample(n, generator=generator)

    def pictures(
        self, model: nn.Module, test: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What can be drawn of a trained model beside its samples; nothing for a family that says nothing.

        Args:
            model: in evaluation mode.
            test: test images, as the recipe has them; the first of them are used.
            generator: source of the noise, on the model's device.

        Returns:
            By name, images as the data are, shape ``(rows, columns, *event_shape)``.
        """
        return {}


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        name: of its package, its chapter, its tests and its assignment.
        title: of its chapter.
        models: the models that a reader trains.
        recipe: the kind of its recipes; None where no likelihood can be measured.
        hidden: files and packages of the library, beside the family's own package, that answer questions of
            its assignment; a student's notebook must not see them while it is graded.

    Raises:
        ValueError: the recipes name another family.
    """

    name: str
    title: str
    models: tuple[type[nn.Module], ...]
    recipe: type[Recipe] | None = None
    hidden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.recipe is not None and getattr(self.recipe, "family", None) != self.name:
            raise ValueError(
                f"the recipes of the family {self.name!r} name the family "
                f"{getattr(self.recipe, 'family', None)!r}; the same name is expected."
            )

    @property
    def package(self) -> ModuleType:
        """Its package, whose ``__all__`` are its public names."""
        return importlib.import_module(f"course_lib.{self.name}")

    def model(self, name: str) -> type[nn.Module]:
        """The model of that name.

        Raises:
            ValueError: the family has none; the message lists those that it has.
        """
        for model in self.models:
            if model.__name__ == name:
                return model
        known = ", ".join(sorted(model.__name__ for model in self.models))
        raise ValueError(
            f"the family {self.name!r} has no model {name!r}; one of {known} is expected."
        )

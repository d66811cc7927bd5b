"""Losses for `course_lib.training.fit`: means over examples of sums over dimensions, in nats."""

from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.diffusion.diffusion import Diffusion
from course_lib.guidance import require_unlabelled
from course_lib.inputs import require_kind, require_labels, require_positive_integer
from course_lib.training.batches import Batch


@dataclass(kw_only=True)
class NegativeBound:
    """Minus the bound of a `Diffusion`, from one time for each example.

    In training the reconstruction is estimated from a part of the batch; in evaluation every term is averaged
    over several draws, so that the best weights are not chosen by luck.

    Args:
        share: in training every `share`-th example has its reconstruction looked at.
        evaluations: draws of each example in evaluation.
        unlabelled: probability of training without a class, for classifier-free guidance.

    Raises:
        ValueError: a number is below 1, or `unlabelled` not a probability.
    """

    share: int = 4
    evaluations: int = 8
    unlabelled: float = 0.1

    def __post_init__(self) -> None:
        self.share = require_positive_integer(self.share, "share")
        self.evaluations = require_positive_integer(self.evaluations, "evaluations")
        self.unlabelled = require_unlabelled(self.unlabelled)

    def __call__(self, model: Diffusion, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """Return the loss and its three terms, each a mean over the batch in nats per example."""
        require_kind(model, Diffusion, "model")
        x, labels = batch if isinstance(batch, tuple) else (batch, None)
        labels = require_labels(labels, len(x), model.n_classes)
        if model.training:
            terms = model.bound_terms(x, labels, share=self.share, unlabelled=self.unlabelled)
        else:
            draws = [model.bound_terms(x, labels) for _ in range(self.evaluations)]
            terms = type(draws[0])(
                *(torch.stack(term).mean(0) for term in zip(*draws, strict=True))
            )
        return {
            "loss": terms.total().mean(),
            **{name: term.mean() for name, term in terms._asdict().items()},
        }

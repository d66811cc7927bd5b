"""The flow-matching loss, for `course_lib.training.fit`: a mean over examples of sums over dimensions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.flow_matching.couplings import paired
from course_lib.flow_matching.paths import conditional_velocity
from course_lib.flow_matching.velocity_flow import VelocityFlow
from course_lib.guidance import leave_out, require_unlabelled
from course_lib.inputs import (
    require_exact_shape,
    require_function,
    require_kind,
    require_labels,
    require_positive_integer,
    require_real,
    where_values_can_be_read,
)
from course_lib.precision import at_least_float32
from course_lib.schedules import low_discrepancy_times, require_times
from course_lib.training.batches import Batch

COUPLINGS = ("independent", "optimal")


@dataclass(kw_only=True)
class FlowMatching:
    r"""E‖v(x_t, t) − (α̇x + σ̇ε)‖², the conditional flow-matching loss.

    Its gradient is that of the loss against the marginal velocity, ``eq-cfm-gradient``; its least value is
    not 0, but the mean variance of the conditional velocity given x_t.

    Grey levels are dequantized anew in every step. The times of a batch are spread evenly, then raised to a
    power: more of them near the data, where a likelihood is won, and a single example's time has the density
    t^{1/p − 1}/p. In evaluation the loss is averaged over several draws, so that the best weights are not
    chosen by luck.

    Args:
        power: p ≥ 1; times are u^p with u uniform on [0, 1]. 1 for uniform times.
        quantiles: instead of the power, a function from u to times in [0, 1], such as `logit_normal_times`.
        weight: a function from times to weights ≥ 0; None for the weight 1.
        coupling: ``"independent"``, or ``"optimal"`` for the optimal pairing of each batch; of a conditional
            model, within each class.
        given_noise: the batches hold pairs (x, ε), or (x, ε, labels), of continuous data and the noise that
            belongs to them, as `reflow_pairs` makes them; nothing is drawn or paired anew.
        evaluations: draws of each example in evaluation.
        unlabelled: probability of training without a class, so that a conditional model is also one without.

    Raises:
        TypeError: a function is not one.
        ValueError: a number is out of range, there is no such coupling, or given noise is to be paired.
    """

    power: float = 1.7
    quantiles: Callable[[Tensor], Tensor] | None = None
    weight: Callable[[Tensor], Tensor] | None = None
    coupling: str = "independent"
    given_noise: bool = False
    evaluations: int = 8
    unlabelled: float = 0.1

    def __post_init__(self) -> None:
        self.power = require_real(self.power, "power", "a number ≥ 1", at_least=1)
        for name in ("quantiles", "weight"):
            if getattr(self, name) is not None:
                require_function(getattr(self, name), name, "a function of times")
        if not isinstance(self.coupling, str) or self.coupling not in COUPLINGS:
            raise ValueError(
                f"coupling is {self.coupling!r}; one of {', '.join(map(repr, COUPLINGS))} is expected."
            )
        if self.given_noise and self.coupling != "independent":
            raise ValueError(
                f"coupling is {self.coupling!r} for given noise; 'independent' is expected, because given "
                f"pairs stay as they are."
            )
        self.evaluations = require_positive_integer(self.evaluations, "evaluations")
        self.unlabelled = require_unlabelled(self.unlabelled)

    def __call__(self, model: VelocityFlow, batch: Batch, progress: Tensor) -> Tensor:
        """Return the loss, a mean over the batch."""
        if model.training:
            return self.errors(model, batch).mean()
        return torch.stack([self.errors(model, batch) for _ in range(self.evaluations)]).mean()

    def errors(self, model: VelocityFlow, batch: Batch) -> Tensor:
        """The weighted squared error of each example at a time of its own, shape ``(N,)``."""
        x, noise, labels = self.ends(model, batch)
        t = self.times(x)
        target = conditional_velocity(model.schedule, x, noise, t)
        error = model(model.schedule.noised(x, noise, t), t, labels) - target
        error = error.square().flatten(1).sum(1)
        return error if self.weight is None else error * self._weight_at(t)

    def ends(self, model: VelocityFlow, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Both ends of every example's path, data and noise, and the classes."""
        require_kind(model, VelocityFlow, "model")
        parts = batch if isinstance(batch, tuple) else (batch,)
        kinds = ("(x, noise)", "(x, noise, labels)") if self.given_noise else ("x", "(x, labels)")
        if len(parts) not in ((2, 3) if self.given_noise else (1, 2)):
            raise ValueError(
                f"the batch holds {len(parts)} tensors; {kinds[0]} or {kinds[1]} is expected with "
                f"given_noise={self.given_noise}."
            )
        labels = parts[2:] if self.given_noise else parts[1:]
        if not self.given_noise and labels and labels[0].shape == parts[0].shape:
            raise ValueError(
                "the second tensor of the batch has the shape of the first, which classes have not; "
                "(x, labels) is expected. For pairs (x, noise) pass given_noise=True."
            )
        labels = require_labels(labels[0] if labels else None, len(parts[0]), model.n_classes)
        x = parts[0] if model.levels is None or self.given_noise else model.fill(parts[0])
        x = at_least_float32(x)  # a batch may come in half precision, in which times are too coarse
        if self.given_noise:
            noise = at_least_float32(parts[1])
        else:
            noise = torch.randn_like(x)
            if self.coupling == "optimal":
                noise = paired(x, noise, labels, n_classes=model.n_classes)
        if model.training:
            labels = leave_out(labels, self.unlabelled, model.n_classes)
        return x, noise, labels

    def _weight_at(self, t: Tensor) -> Tensor:
        weight = require_exact_shape(self.weight(t), t.shape, "weight(t)")
        with where_values_can_be_read():
            if not (weight >= 0).all():  # NaN is caught too
                raise ValueError(
                    f"weight(t) has a least value of {weight.min().item():.4g}; weights of at least 0 are "
                    f"expected, since a negative one trains away from the data."
                )
        return weight

    def times(self, x: Tensor) -> Tensor:
        """A time for each example, in random order, shape ``(N,)``."""
        u = low_discrepancy_times(len(x), shuffled=True, dtype=x.dtype, device=x.device)
        return u**self.power if self.quantiles is None else self.quantiles(u)


def logit_normal_times(u: Tensor, mean: float = 0.0, deviation: float = 1.0) -> Tensor:
    """Times whose logits are normal, from uniform numbers: few at both ends.

    Esser et al. (2024), "Scaling rectified flow transformers for high-resolution image synthesis".

    Args:
        u: uniform numbers in [0, 1], any shape.
        mean: of the logits; above 0 there is more noise.
        deviation: standard deviation of the logits.

    Returns:
        Times in [0, 1], in the shape of `u`.
    """
    u = require_times(u, "u")
    mean = require_real(mean, "mean")
    deviation = require_real(deviation, "deviation", "a positive number", above=0)
    return torch.sigmoid(mean + deviation * torch.special.ndtri(u))

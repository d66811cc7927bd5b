"""The diffusion model of grey levels: a fixed noising, a learned denoiser, and a bound in three terms."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data import intensities
from course_lib.diffusion import samplers
from course_lib.diffusion.parametrizations import require_prediction, to_clean
from course_lib.guidance import (
    guided,
    leave_out,
    require_classes,
    require_unlabelled,
    require_weight,
)
from course_lib.inputs import (
    require_batch,
    require_count,
    require_event_shape,
    require_generator,
    require_kind,
    require_levels,
    require_positive_integer,
    require_real,
    require_shape,
    require_tensor,
)
from course_lib.networks import evaluation_mode
from course_lib.precision import at_least_float32, parameter_type, without_autocast
from course_lib.saved_settings import SavedSettings
from course_lib.schedules import (
    LinearLogSNR,
    Schedule,
    VariancePreserving,
    low_discrepancy_times,
    per_example,
    require_falling_snr,
    require_single,
    require_times,
)
from course_lib.solvers import time_grid
from course_lib.timed_networks import timed_network

PREDICTIONS = ("levels", "clean", "noise", "velocity")


class BoundTerms(NamedTuple):
    """The three terms of minus the bound, each in nats, shape ``(N,)``.

    Attributes:
        prior: KL of the noisiest latent from the prior.
        diffusion: the sum, or integral, of the KLs of all denoising steps.
        reconstruction: minus the expected log-probability of the grey levels given the least noisy latent.
    """

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor

    def total(self) -> Tensor:
        """Minus the bound, shape ``(N,)``."""
        return self.prior + self.diffusion + self.reconstruction


class Diffusion(SavedSettings):
    r"""A hierarchical VAE of grey levels whose encoder only adds noise, with infinitely many layers.

    .. math:: -\log P(x) \le \mathrm{KL}(q(z_1|x)\,\|\,p(z_1))
              + \tfrac12\int_0^1 -\frac{\mathrm d\,\mathrm{SNR}}{\mathrm dt}\,
                \mathbb{E}\lVert x - \hat x(z_t)\rVert^2\,\mathrm dt
              - \mathbb{E}\log P(x|z_0)

    Equations ``eq-diffusion-elbo`` and ``eq-continuous-bound``; Ho, Jain and Abbeel (2020), Kingma et al.
    (2021).

    Grey level k sits at 2k/(K−1) − 1. With the prediction ``"levels"`` the network gives K logits for each
    entry, of what the other entries say of it; the noised entry itself is added by Bayes' rule, in closed
    form. Their mean is the denoised entry, and at time 0 they are P(x|z_0). With the other predictions the
    network gives one number for each entry, and P(x|z_0) is the posterior over the levels under a uniform
    prior.

    Args:
        event_shape: shape of one example.
        levels: number K of grey levels.
        hidden: widths of the perceptron's layers, all alike.
        channels: if given, a convolutional network with that many channels replaces the perceptron.
        n_blocks: its number of blocks.
        prediction: ``"levels"``, ``"clean"``, ``"noise"`` or ``"velocity"``.
        schedule: the noise; by default a linear log SNR with learned ends.
        n_classes: number of classes, for a conditional model; none if None.
        dropout: probability of dropping a hidden unit while training.

    Raises:
        TypeError: `schedule` is not one that preserves the variance.
        ValueError: a size is below 1, there is one grey level only, no such prediction, or the
            signal-to-noise ratio of `schedule` does not fall.

    Example:
        >>> model = Diffusion((1, 8, 8), 17, channels=8, n_blocks=1)
        >>> model.elbo(torch.randint(17, (5, 1, 8, 8))).shape
        torch.Size([5])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        hidden: Sequence[int] = (256, 256, 256),
        channels: int | None = None,
        n_blocks: int = 3,
        prediction: str = "levels",
        schedule: Schedule | None = None,
        n_classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.event_shape = require_event_shape(event_shape)
        self.levels = require_positive_integer(levels, "levels")
        if self.levels < 2:
            raise ValueError(f"levels is {self.levels}; at least 2 grey levels are expected.")
        self.prediction = require_prediction(prediction, PREDICTIONS)
        if schedule is None:
            schedule = LinearLogSNR(6.0, -6.0, learned=True)
        require_kind(schedule, VariancePreserving, "schedule")
        require_falling_snr(schedule, _times_for(schedule, 64))
        self.schedule = schedule
        n_outputs = self.levels if prediction == "levels" else 1
        self.network = timed_network(
            self.event_shape, hidden, channels, n_blocks, n_outputs, n_classes, dropout
        )
        self.n_classes = self.network.n_classes

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {
            "event_shape": self.event_shape,
            "levels": self.levels,
            "prediction": self.prediction,
        }

    # --- the denoiser ---------------------------------------------------------------------------

    def forward(self, z: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the network's numbers for noised examples: logits of levels, or its prediction.

        Args:
            z: noised examples, shape ``(N, *event_shape)``.
            log_snr: λ of each, shape ``(N,)``.
            labels: classes, shape ``(N,)``, ``n_classes`` for none; None for none at all.

        Returns:
            Shape ``(N, *event_shape, K)`` with the prediction ``"levels"``, else ``(N, *event_shape)``;
            at least float32.
        """
        require_batch(z, self.event_shape, "z")
        require_single(log_snr, "log_snr")
        if log_snr.shape != z.shape[:1]:
            raise ValueError(
                f"log_snr has shape {tuple(log_snr.shape)}; one number for each example, shape "
                f"({len(z)},), is expected."
            )
        own = parameter_type(self.network)
        return at_least_float32(self.network(z.to(own), log_snr, labels))

    def level_logits(self, z: Tensor, log_snr: Tensor, outputs: Tensor | None = None) -> Tensor:
        """Unnormalized log-probabilities of every level of every entry, given the noised example.

        Bayes' rule: the logits of the network, or equal ones, plus log N(z_i; α x_k, σ²).

        Args:
            z: noised examples, shape ``(N, *event_shape)``.
            log_snr: λ of each, shape ``(N,)``.
            outputs: the network's numbers; equal logits if None.

        Returns:
            Shape ``(N, *event_shape, K)``.
        """
        snr = per_example(log_snr.exp(), z)
        alpha = per_example((0.5 * F.logsigmoid(log_snr)).exp(), z)
        places = self.places(z)
        # −(z − α x_k)²/2σ² without the part that is the same for all levels.
        logits = (snr / alpha * z).unsqueeze(-1) * places - snr.unsqueeze(-1) / 2 * places.square()
        return logits if outputs is None else logits + outputs

    def mean_level(self, logits: Tensor) -> Tensor:
        """The mean place under logits of levels, shape ``(N, *event_shape)``: the denoised example."""
        with without_autocast(
            logits
        ):  # a network may round; the error that the bound weighs must not
            return F.softmax(logits, -1) @ self.places(logits)

    def places(self, like: Tensor) -> Tensor:
        """Where the levels sit: 2k/(K−1) − 1, shape ``(K,)``."""
        every = torch.arange(self.levels, device=like.device)
        return 2 * intensities(every, self.levels, dtype=like.dtype) - 1

    def scaled(self, x: Tensor) -> Tensor:
        """Grey levels as numbers in [−1, 1], in the type of the parameters, at least float32."""
        dtype = torch.promote_types(parameter_type(self.network), torch.float32)
        return 2 * intensities(x, self.levels, dtype=dtype) - 1

    def _clean(self, z: Tensor, log_snr: Tensor, labels: Tensor | None) -> Tensor:
        outputs = self(z, log_snr, labels)
        if self.prediction == "levels":
            return self.mean_level(self.level_logits(z, log_snr, outputs))
        return to_clean(self.prediction, outputs, z, *_factors(log_snr))

    def denoise(
        self, z: Tensor, t: Tensor | float, labels: Tensor | None = None, *, guidance: float = 0.0
    ) -> Tensor:
        """Return x̂(z, t), the estimate of E[x | z_t = z], in the mode that the model is in.

        Args:
            z: noised examples, shape ``(N, *event_shape)``.
            t: a time in [0, 1], or one for each example, shape ``(N,)``.
            labels: classes, shape ``(N,)``, of a conditional model; None for none at all.
            guidance: w ≥ 0 of classifier-free guidance, equation ``eq-guidance``; 0 for none.

        Returns:
            Numbers on the scale where the levels span [−1, 1], shape ``(N, *event_shape)``.

        Raises:
            ValueError: a time is outside [0, 1], a class out of range, `guidance` is negative, or it is asked
                for without labels.
        """
        require_batch(z, self.event_shape, "z")
        per_example(require_times(t), z, "t")
        z = at_least_float32(z)
        t = require_times(t).to(z)
        log_snr = self.schedule.log_snr(t).expand(len(z))
        labels, w = self._classes(labels, len(z)), self._weight(guidance, labels)
        clean = self._clean(z, log_snr, labels)
        if w == 0:
            return clean
        # x̂ is affine in the score, so guiding one guides the other.
        return guided(clean, self._clean(z, log_snr, None), w)

    def _classes(self, labels: Tensor | None, n: int) -> Tensor | None:
        return require_classes(labels, n, self.n_classes)

    def _weight(self, guidance: float, labels: Tensor | None) -> float:
        return require_weight(guidance, labels, self.n_classes)

    # --- the bound ------------------------------------------------------------------------------

    def bound_terms(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        *,
        steps: int | None = None,
        share: int = 1,
        unlabelled: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> BoundTerms:
        """Estimate the three terms of minus the bound, equation ``eq-diffusion-elbo``.

        The prior's term is exact. The diffusion term is estimated at one time for each example; the times of
        a batch are spread evenly over [0, 1].

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            labels: classes, shape ``(N,)``, of a conditional model; None for none at all.
            steps: number T of steps of the discrete-time model; the limit of infinitely many if None.
            share: estimate the reconstruction from every `share`-th example only, and give it to all: for
                training, where only the mean counts.
            unlabelled: probability of leaving out the class of an example: for training, after which one
                network knows the conditional model and the one without classes.
            generator: source of the noise; the global one if none is given.

        Returns:
            The terms in nats, each of shape ``(N,)``, differentiable.

        Raises:
            TypeError: `x` is not of an integer type.
            ValueError: `x` has another shape, or levels outside 0 … K−1; a class is out of range; `steps` is
                below 1, or more than numbers of this type can tell apart.
        """
        require_tensor(x)
        require_shape(x, self.event_shape)
        x = self.scaled(require_levels(x, self.levels))
        steps = None if steps is None else _require_steps(steps, x.dtype)
        require_generator(generator, x.device)
        share = require_positive_integer(share, "share")
        labels = self._classes(labels, len(x))
        labels = leave_out(labels, require_unlabelled(unlabelled), self.n_classes, generator)
        n, first = len(x), x[::share]
        times = low_discrepancy_times(
            n, shuffled=True, generator=generator, dtype=x.dtype, device=x.device
        )
        if steps is not None:
            times = ((times * steps).floor() + 1) / steps
        noise = torch.empty_like(torch.cat([x, first])).normal_(generator=generator)
        # All that the network has to look at, in one pass: latents at random times, then at time 0.
        if self.prediction == "levels":
            clean, seen = (
                torch.cat([x, first]),
                torch.cat([times, torch.zeros_like(times[::share])]),
            )
        else:
            clean, seen, noise = x, times, noise[:n]
        if labels is not None and len(clean) > n:
            labels = torch.cat([labels, labels[::share]])
        log_snr = self.schedule.log_snr(seen)
        alpha, sigma = _factors(log_snr)
        z = per_example(alpha, clean) * clean + per_example(sigma, clean) * noise
        outputs = self(z, log_snr, labels)
        if self.prediction == "levels":
            logits = self.level_logits(z, log_snr, outputs)
            predicted = self.mean_level(logits[:n])
            index = ((first + 1) * (self.levels - 1) / 2).round().long()
            cost = F.cross_entropy(logits[n:].flatten(0, -2), index.flatten(), reduction="none")
            reconstruction = cost.view(len(first), -1).sum(1)
        else:
            predicted = to_clean(self.prediction, outputs, z, alpha, sigma)
            reconstruction = self._uniform_reconstruction(first)
        if share > 1:
            reconstruction = reconstruction.mean().expand(n)
        error = (x - predicted).square().flatten(1).sum(1)
        if steps is None:
            rate = -self.schedule.log_snr_rate(times) * log_snr[:n].exp()
            diffusion = 0.5 * rate * error
        else:
            before = (times - 1 / steps).clamp(min=0)
            difference = self.schedule.snr(before) - log_snr[:n].exp()
            diffusion = 0.5 * steps * difference * error
        return BoundTerms(self.prior_term(x), diffusion, reconstruction)

    def prior_term(self, scaled: Tensor) -> Tensor:
        """KL(N(α x, σ² I) ‖ N(0, I)) at time 1, exact, shape ``(N,)``."""
        log_snr = self.schedule.log_snr(scaled.new_ones(()))
        log_variance = F.logsigmoid(-log_snr)
        # σ² − 1 = −α² under α² + σ² = 1.
        each = torch.sigmoid(log_snr) * (scaled.square() - 1) - log_variance
        return 0.5 * each.flatten(1).sum(1)

    def _uniform_reconstruction(self, scaled: Tensor) -> Tensor:
        """−E log P(x|z_0) if P(x|z_0) is the posterior over all K levels under a uniform prior.

        Each entry is by itself, so the expectation is an integral over one normal number.

        Args:
            scaled: examples on the scale of [−1, 1], shape ``(N, *event_shape)``.

        Returns:
            Nats, shape ``(N,)``.
        """
        table = self.reconstruction_table(scaled)
        index = ((scaled + 1) * (self.levels - 1) / 2).round().long()
        return table[index].flatten(1).sum(1)

    def reconstruction_table(self, like: Tensor, n_points: int = 65) -> Tensor:
        """−E log P(level k | z_0) of each level by itself, under a uniform prior, shape ``(K,)``.

        An integral over [−8, 8] by the trapezoidal rule, whose error is below rounding.

        Args:
            like: a tensor of the type and on the device of the result.
            n_points: points of the integral.
        """
        n_points = require_count(n_points, "n_points", at_least=2)
        log_snr = self.schedule.log_snr(like.new_zeros(()))
        ratio = (0.5 * log_snr).exp()  # α/σ
        noise = torch.linspace(-8, 8, n_points, dtype=like.dtype, device=like.device)
        weight = (-0.5 * noise.square()).exp()
        weight = weight / weight.sum()
        places = self.places(like)
        # (level, point, candidate): −½ (ratio (x_k − x_j) + ε)²
        apart = ratio * (places[:, None, None] - places) + noise[:, None]
        log_p = F.log_softmax(-0.5 * apart.square(), -1)
        true = log_p.diagonal(dim1=0, dim2=2)  # (point, level)
        return -(weight @ true)

    def elbo(
        self,
        x: Tensor,
        n_samples: int = 1,
        *,
        labels: Tensor | None = None,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Unbiased estimate of the evidence lower bound of grey levels, in nats, shape ``(N,)``.

        Nothing is dropped out, whatever mode the model is in; training goes by `bound_terms`.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``.
            n_samples: estimates that are averaged, each at another time and with other noise.
            labels: classes, shape ``(N,)``, of a conditional model; None for none at all.
            steps: number of steps of the discrete-time model; infinitely many if None.
            generator: source of the noise; the global one if none is given.

        Raises:
            TypeError: `x` is not of an integer type.
            ValueError: `x` has another shape, or levels outside 0 … K−1; a class is out of range; a number is
                below 1, or `steps` too large.
        """
        n_samples = require_positive_integer(n_samples, "n_samples")
        with evaluation_mode(self):
            totals = [
                self.bound_terms(x, labels, steps=steps, generator=generator).total()
                for _ in range(n_samples)
            ]
        return -torch.stack(totals).mean(0)

    # --- sampling -------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        steps: int = 100,
        eta: float = 1.0,
        method: str = "ddim",
        labels: Tensor | None = None,
        guidance: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw images: noise, then `steps` denoising steps, then grey levels from P(x|z_0).

        Args:
            n: how many.
            steps: denoising steps, at least 1.
            eta: 1 for ancestral sampling, 0 for the deterministic steps of DDIM; between them a mixture.
            method: ``"ddim"``, or ``"heun"``, which is deterministic and evaluates twice in each step.
            labels: class of each, int64, shape ``(n,)``; of a conditional model, None for none at all.
            guidance: weight w ≥ 0 of classifier-free guidance.
            generator: source of the noise, on the model's device; the global one if none is given.

        Returns:
            Grey levels, int64, shape ``(n, *event_shape)``.

        Raises:
            ValueError: `n` or `steps` is below 1, `eta` is not in [0, 1], a class is out of range, `guidance`
                is negative, or there is no such method.
        """
        n = require_positive_integer(n, "n")
        times = self.sampling_times(steps)
        labels = self._classes(labels, n)
        guidance = self._weight(guidance, labels)
        eta = require_real(eta, "eta", "a number in [0, 1]", at_least=0, at_most=1)
        z = self._prior(n, generator)

        def denoiser(z: Tensor, t: Tensor) -> Tensor:
            return self.denoise(z, t, labels, guidance=guidance)

        with evaluation_mode(self):
            if method == "heun":
                z = samplers.heun(denoiser, self.schedule, z, times)
            elif method == "ddim":
                z = samplers.ddim(denoiser, self.schedule, z, times, eta=eta, generator=generator)
            else:
                raise ValueError(f"method is {method!r}; 'ddim' or 'heun' is expected.")
            return self.to_levels(z, labels, generator=generator)

    @torch.no_grad()
    def complete(
        self,
        x: Tensor,
        known: Tensor,
        *,
        steps: int = 100,
        repeats: int = 5,
        labels: Tensor | None = None,
        guidance: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Fill in what is not known of images; see `course_lib.diffusion.inpaint` for what it samples.

        The unknown entries are *not* drawn from their distribution given the known ones, only nearly so;
        more repeats and steps bring them closer.

        Args:
            x: integer grey levels, shape ``(N, *event_shape)``; the unknown ones do not matter.
            known: True where an entry is known, of type bool, a shape that broadcasts to `x`.
            steps: denoising steps.
            repeats: how often each step is made.
            labels: class of each image, of a conditional model; None for none at all.
            guidance: weight w ≥ 0 of classifier-free guidance.
            generator: source of the noise; the global one if none is given.

        Returns:
            Grey levels, int64, in the shape of `x`; the known ones are those of `x`.

        Raises:
            TypeError: `x` is not of an integer type, or `known` not of type bool.
            ValueError: a shape does not fit, a level or a class is out of range, `steps` or `repeats` is
                below 1, or `guidance` is negative.
        """
        require_tensor(x)
        require_shape(x, self.event_shape)
        x = require_levels(x, self.levels)
        samplers.require_known(known, x)
        known = known.expand(x.shape)
        labels = self._classes(labels, len(x))
        guidance = self._weight(guidance, labels)
        times = self.sampling_times(steps)
        z = self._prior(len(x), generator)
        with evaluation_mode(self):
            z = samplers.inpaint(
                lambda z, t: self.denoise(z, t, labels, guidance=guidance),
                self.schedule,
                z,
                times,
                self.scaled(x),
                known,
                repeats=repeats,
                generator=generator,
            )
            return torch.where(known, x.long(), self.to_levels(z, labels, generator=generator))

    def to_levels(
        self, z: Tensor, labels: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw grey levels from P(x | z_0 = z), int64, in the shape of `z`."""
        require_batch(z, self.event_shape, "z")
        z = at_least_float32(z)
        labels = self._classes(labels, len(z))
        log_snr = self.schedule.log_snr(z.new_zeros(len(z)))
        with evaluation_mode(self):
            outputs = self(z, log_snr, labels) if self.prediction == "levels" else None
        cumulative = F.softmax(self.level_logits(z, log_snr, outputs), -1).cumsum(-1)[..., :-1]
        u = torch.rand(z.shape, dtype=z.dtype, device=z.device, generator=generator)
        return (cumulative <= u.unsqueeze(-1)).sum(-1)

    def sampling_times(self, steps: int) -> Tensor:
        """Equally spaced times from noise to data, in float64, shape ``(steps + 1,)``."""
        return _times_for(self, steps)

    def _prior(self, n: int, generator: torch.Generator | None) -> Tensor:
        parameter = next(self.parameters())
        require_generator(generator, parameter.device)
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        return torch.randn(
            n, *self.event_shape, dtype=dtype, device=parameter.device, generator=generator
        )


def _times_for(module: nn.Module, steps: int) -> Tensor:
    """Equally spaced times on the device of a module, in the widest type that it has."""
    own = next(chain(module.parameters(), module.buffers()), torch.empty(0))
    wide = torch.float32 if own.device.type == "mps" else torch.float64
    return time_grid(steps, dtype=wide, device=own.device)


def _factors(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ of a λ whose schedule preserves the variance, without asking the schedule again."""
    alpha, sigma = ((0.5 * F.logsigmoid(sign * log_snr)).exp() for sign in (1, -1))
    return alpha, sigma


def _require_steps(steps: int, dtype: torch.dtype) -> int:
    """Require a number of steps whose times are told apart in a type."""
    steps = require_positive_integer(steps, "steps")
    most = int(0.1 / torch.finfo(dtype).eps)
    if steps > most:
        raise ValueError(
            f"steps is {steps}; at most {most} are expected, since {dtype} does not tell more times apart. "
            f"None is the limit of infinitely many."
        )
    return steps

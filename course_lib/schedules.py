r"""Noise schedules: how much signal and how much noise an example has at each time.

Time 0 is the data and time 1 is noise. At time t

.. math:: x_t = \alpha(t)\, x + \sigma(t)\, \varepsilon, \qquad \varepsilon \sim \mathcal{N}(0, I),

and all that matters of a schedule, up to a rescaling of :math:`x_t`, is the log signal-to-noise ratio
:math:`\lambda(t) = \log(\alpha^2/\sigma^2)`. Some other sources run time backwards, call the ratio
:math:`\alpha/\sigma` the SNR, or write :math:`\alpha` for what is :math:`\alpha^2` here.

A schedule is a function of times alone: it returns one number for each time, in their shape. `per_example`
gives these numbers the axes of a batch, so that nothing broadcasts by accident.
"""

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.inputs import (
    require_floating,
    require_floating_type,
    require_positive_integer,
    require_real,
    require_tensor,
    where_values_can_be_read,
)
from course_lib.saved_settings import SavedSettings


def require_times(t: Tensor | float, name: str = "t") -> Tensor:
    """Require times in [0, 1], and return them as a tensor.

    Args:
        t: a tensor of float32 or float64, of any shape, or a number, which becomes float64.
        name: what to call it in the message.

    Raises:
        TypeError: `t` is a tensor of integers, or of half precision, in which log SNR is too coarse.
        ValueError: a time is not in [0, 1], or NaN.
    """
    if not isinstance(t, Tensor):
        expected = "a time, a number in [0, 1],"
        return torch.tensor(
            require_real(t, name, expected, at_least=0, at_most=1), dtype=torch.float64
        )
    require_single(t, name)
    with where_values_can_be_read():
        low, high = (value.item() for value in t.aminmax()) if t.numel() else (0, 0)
        if not (low >= 0 and high <= 1):  # NaN is caught too
            raise ValueError(
                f"{name} has values in [{low:.4g}, {high:.4g}]; times in [0, 1] are expected, 0 for "
                f"the data and 1 for noise. Divide the index of a step by the number of steps."
            )
    return t


def require_single(x: Tensor, name: str) -> Tensor:
    """Require a tensor of float32 or float64; raise `TypeError` otherwise."""
    require_floating(x, name)
    if x.dtype.itemsize < 4:
        raise TypeError(
            f"{name} has dtype {x.dtype}; float32 or float64 is expected, because ratios of signal and "
            f"noise over many orders of magnitude are computed. Call .float() on it."
        )
    return x


def require_single_type(dtype: torch.dtype | None, name: str = "dtype") -> None:
    """Require float32, float64 or, for the default, None; raise `TypeError` otherwise."""
    if dtype is not None:
        require_floating_type(dtype, name)
        if dtype.itemsize < 4:
            raise TypeError(
                f"{name} is {dtype}; float32 or float64 is expected, since times in half precision are too "
                f"coarse."
            )


def require_noise(sigma: Tensor | float, *, above: bool = False) -> None:
    """Require standard deviations that are not negative or, with `above`, positive.

    Raises:
        ValueError: one is not, or NaN.
    """
    with where_values_can_be_read():
        sigma = torch.as_tensor(sigma)
        if not ((sigma > 0) if above else (sigma >= 0)).all():
            raise ValueError(
                f"sigma has a least value of {sigma.min().item():.4g}; a standard deviation "
                f"{'above' if above else 'of at least'} 0 is expected."
            )


def require_alike(**tensors: Tensor) -> None:
    """Require non-empty tensors of float32 or float64 in one shape ``(N, *event_shape)``.

    Raises:
        TypeError: one is not a tensor, or of another type.
        ValueError: the shapes differ, or there are no entries.
    """
    (first, pattern), *_ = tensors.items()
    for name, x in tensors.items():
        require_single(x, name)
        if x.shape != pattern.shape or x.dim() == 0 or x.numel() == 0:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)} and {first} {tuple(pattern.shape)}; one shape with at "
                f"least one entry, (N, *event_shape), is expected of both."
            )


def per_example(value: Tensor, x: Tensor, name: str = "value") -> Tensor:
    """Numbers of a schedule with as many axes as the examples that they multiply.

    Args:
        value: one number for all examples, shape ``()``, or one for each, shape ``(N,)``.
        x: examples, shape ``(N, *event_shape)``.
        name: what to call `value` in a message.

    Returns:
        The numbers, shape ``()`` or ``(N, 1, …, 1)``.

    Raises:
        ValueError: there is neither one number nor one for each example.
    """
    require_tensor(value, name)
    if value.dim() == 0:
        return value
    if value.shape != x.shape[:1]:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} for examples of shape {tuple(x.shape)}; one "
            f"number, or one for each example, shape ({len(x)},), is expected."
        )
    return value.reshape(-1, *[1] * (x.dim() - 1))


class Schedule(SavedSettings):
    """Signal α and noise σ as functions of time, with derivatives and the inverse of the log SNR.

    The log SNR falls strictly from time 0 to time 1. Every method takes times as `require_times` has
    them, but for `time`, and returns numbers in their shape.
    """

    def settings(self) -> dict[str, object]:
        """Which schedule it is: two with the same parameters may be different functions."""
        return {"schedule": type(self).__name__}

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The factor of the signal."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The standard deviation of the noise."""

    @abstractmethod
    def alpha_rate(self, t: Tensor) -> Tensor:
        """The derivative of α with respect to time."""

    @abstractmethod
    def sigma_rate(self, t: Tensor) -> Tensor:
        """The derivative of σ with respect to time."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """λ = log(α²/σ²)."""

    @abstractmethod
    def log_snr_rate(self, t: Tensor) -> Tensor:
        """The derivative of λ with respect to time, negative."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The time at which the log SNR has a value: the inverse of `log_snr`."""

    def snr(self, t: Tensor) -> Tensor:
        """The signal-to-noise ratio α²/σ²."""
        return self.log_snr(t).exp()

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = α(t) x + σ(t) ε, equation ``eq-noising-marginal``.

        Args:
            x: examples, shape ``(N, *event_shape)``.
            noise: ε, in the shape of `x`.
            t: a time, shape ``()``, or one for each example, shape ``(N,)``.

        Returns:
            In the shape and type of `x`.
        """
        require_alike(x=x, noise=noise)
        alpha, sigma = (per_example(f(t).to(x), x, "t") for f in (self.alpha, self.sigma))
        return alpha * x + sigma * noise


def require_falling_snr(schedule: Schedule, times: Tensor) -> None:
    """Require a schedule whose signal-to-noise ratio falls with time.

    Args:
        schedule: the noise.
        times: where it is looked at, rising or falling, shape ``(n,)``.

    Raises:
        ValueError: it does not fall between two of the times, or is NaN.
    """
    with torch.no_grad(), where_values_can_be_read():
        times = times.sort().values
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        # α/σ falls; multiplied out, since σ may be 0 at time 0.
        falls = alpha[1:] * sigma[:-1] < alpha[:-1] * sigma[1:]
        if not falls.all():
            first = (~falls).nonzero()[0].item()
            raise ValueError(
                f"the signal-to-noise ratio of the schedule {type(schedule).__name__} does not fall from "
                f"time {times[first]:.4g} to {times[first + 1]:.4g}; one that falls strictly is expected, "
                f"since time 0 is the data and time 1 noise. Run its time the other way."
            )


class LinearPath(Schedule):
    """α = 1 − t and σ = t: a straight line from each example to its noise.

    The log SNR is +∞ at time 0 and −∞ at time 1. Its velocity is ε − x at every time.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """1 − t."""
        return 1 - require_times(t)

    def sigma(self, t: Tensor) -> Tensor:
        """The time itself."""
        return require_times(t)

    def alpha_rate(self, t: Tensor) -> Tensor:
        """−1."""
        return torch.full_like(require_times(t), -1)

    def sigma_rate(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(require_times(t))

    def log_snr(self, t: Tensor) -> Tensor:
        """2 log((1 − t)/t)."""
        return -2 * torch.logit(require_times(t))

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """−2/(t (1 − t))."""
        t = require_times(t)
        return -2 / (t * (1 - t))

    def time(self, log_snr: Tensor) -> Tensor:
        """1/(1 + e^{λ/2})."""
        return torch.sigmoid(-require_single(log_snr, "log_snr") / 2)


class VariancePreserving(Schedule):
    r"""α² + σ² = 1, so that data of unit variance keep it: α² = sigmoid(λ), σ² = sigmoid(−λ).

    A subclass says what λ is at each time; the rest follows. From
    :math:`\mathrm d\alpha^2/\mathrm d\lambda = \alpha^2\sigma^2` come
    :math:`\dot\alpha = \tfrac12\alpha\sigma^2\dot\lambda` and
    :math:`\dot\sigma = -\tfrac12\sigma\alpha^2\dot\lambda`.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """The root of sigmoid(λ)."""
        return (0.5 * F.logsigmoid(self.log_snr(t))).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """The root of sigmoid(−λ)."""
        return (0.5 * F.logsigmoid(-self.log_snr(t))).exp()

    def alpha_rate(self, t: Tensor) -> Tensor:
        """½ α σ² times the derivative of λ."""
        return 0.5 * self.alpha(t) * torch.sigmoid(-self.log_snr(t)) * self.log_snr_rate(t)

    def sigma_rate(self, t: Tensor) -> Tensor:
        """−½ σ α² times the derivative of λ."""
        return -0.5 * self.sigma(t) * torch.sigmoid(self.log_snr(t)) * self.log_snr_rate(t)


def _require_ends(first: float, last: float) -> tuple[float, float]:
    """The log SNR at time 0 and at time 1, as Python's own numbers."""
    expected = "a log signal-to-noise ratio, a finite number in [-80, 80],"
    first = require_real(first, "log_snr_max", expected, at_least=-80, at_most=80)
    last = require_real(last, "log_snr_min", expected, at_least=-80, at_most=80)
    if not first > last:
        raise ValueError(
            f"log_snr_max is {first:.4g} and log_snr_min {last:.4g}; a log SNR that falls from time 0 to "
            f"time 1 is expected. Exchange them."
        )
    return first, last


def _require_between(log_snr: Tensor, first: Tensor | float, last: Tensor | float) -> Tensor:
    """Require values of λ that a schedule has, up to rounding."""
    require_single(log_snr, "log_snr")
    with where_values_can_be_read():
        first, last = (float(torch.as_tensor(end).detach()) for end in (first, last))
        low, high = (v.item() for v in log_snr.aminmax()) if log_snr.numel() else (last, first)
        slack = 1e-4 * (1 + abs(first) + abs(last))
        if not (low >= last - slack and high <= first + slack):  # NaN is caught too
            raise ValueError(
                f"log_snr has values in [{low:.4g}, {high:.4g}]; the schedule has those in "
                f"[{last:.4g}, {first:.4g}]. Take a schedule with other ends."
            )
    return log_snr


class LinearLogSNR(VariancePreserving):
    """λ falls along a straight line, between ends that are given or learned.

    The continuous-time bound depends on the ends and not on the path between them, equation
    ``eq-continuous-bound``; a straight line is the simplest. Source: Kingma, Salimans, Poole and Ho
    (2021), "Variational Diffusion Models".

    Args:
        log_snr_max: λ at time 0.
        log_snr_min: λ at time 1.
        learned: whether the two ends are parameters that training moves.

    Raises:
        ValueError: an end is not a number, or λ would not fall.
    """

    def __init__(
        self, log_snr_max: float = 8.0, log_snr_min: float = -8.0, *, learned: bool = False
    ) -> None:
        super().__init__()
        first, last = _require_ends(log_snr_max, log_snr_min)
        self.learned = bool(learned)
        self.given = None if learned else (first, last)
        if learned:
            # The end and the width, whose exponential keeps λ falling whatever a step does.
            self.last = nn.Parameter(torch.tensor(last))
            self.log_width = nn.Parameter(torch.tensor(math.log(first - last)))

    def settings(self) -> dict[str, object]:
        """The ends, if they are given."""
        return {**super().settings(), "ends": self.given}

    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """λ at time 0 and at time 1, each of shape ``()``, in the type of `like`."""
        if self.given is not None:
            first, last = (
                torch.full((), e, dtype=like.dtype, device=like.device) for e in self.given
            )
            return first, last
        last = self.last.to(like.dtype)
        return last + self.log_width.to(like.dtype).exp(), last

    def log_snr(self, t: Tensor) -> Tensor:
        """λ_max + (λ_min − λ_max) t."""
        t = require_times(t)
        first, last = self.ends(t)
        return first + (last - first) * t

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """λ_min − λ_max."""
        t = require_times(t)
        first, last = self.ends(t)
        return (last - first).expand(t.shape)

    def time(self, log_snr: Tensor) -> Tensor:
        """(λ_max − λ)/(λ_max − λ_min)."""
        require_single(log_snr, "log_snr")
        first, last = self.ends(log_snr)
        _require_between(log_snr, first, last)
        return ((first - log_snr) / (first - last)).clamp(0, 1)


class Cosine(VariancePreserving):
    r"""α = cos(πu/2) and σ = sin(πu/2), where u runs from near 0 to near 1.

    The ends of u are chosen so that λ is finite at both ends: u = 0 would be no noise at all, with an
    infinite λ. Source: Nichol and Dhariwal (2021), "Improved Denoising Diffusion Probabilistic Models".

    Args:
        log_snr_max: λ at time 0.
        log_snr_min: λ at time 1.

    Raises:
        ValueError: an end is not a number, or λ would not fall.
    """

    def __init__(self, log_snr_max: float = 10.0, log_snr_min: float = -10.0) -> None:
        super().__init__()
        self.given = _require_ends(log_snr_max, log_snr_min)
        # λ = −2 log tan(πu/2), so u = (2/π) arctan e^{−λ/2}, and 1 − u is the same of −λ.
        high, low = self.given
        self.first = 2 / math.pi * math.atan(math.exp(-high / 2))
        self.rest = 2 / math.pi * math.atan(math.exp(low / 2))
        self.width = 1 - self.rest - self.first

    def settings(self) -> dict[str, object]:
        """The ends."""
        return {**super().settings(), "ends": self.given}

    def _sines(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sin(πu/2) and sin(π(1 − u)/2), which is cos(πu/2): either is right to all digits near 0."""
        t = require_times(t)
        u, rest = self.first + self.width * t, self.rest + self.width * (1 - t)
        return (math.pi / 2 * u).sin(), (math.pi / 2 * rest).sin()

    def log_snr(self, t: Tensor) -> Tensor:
        """−2 log tan(πu/2)."""
        noise, signal = self._sines(t)
        return 2 * (signal.log() - noise.log())

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """−2π (u(1) − u(0)) / sin(πu)."""
        noise, signal = self._sines(t)
        return -math.pi * self.width / (noise * signal)

    def time(self, log_snr: Tensor) -> Tensor:
        """From u = (2/π) arctan e^{−λ/2}."""
        u = 2 / math.pi * (-_require_between(log_snr, *self.given) / 2).exp().atan()
        return ((u - self.first) / self.width).clamp(0, 1)


class Tabulated(VariancePreserving):
    """λ through given values at equally spaced times, and straight lines between them.

    Args:
        log_snr: λ at the times 0, 1/n, …, 1, shape ``(n + 1,)``, strictly falling.

    Raises:
        TypeError: `log_snr` is not a tensor of float32 or float64.
        ValueError: it has fewer than two values, does not fall, or has values outside [−80, 80].
    """

    def __init__(self, log_snr: Tensor) -> None:
        super().__init__()
        require_single(log_snr, "log_snr")
        finite = log_snr.isfinite().all()
        if log_snr.dim() != 1 or len(log_snr) < 2 or not (finite and (log_snr.diff() < 0).all()):
            raise ValueError(
                f"log_snr has shape {tuple(log_snr.shape)} and does not fall strictly; at least two finite "
                f"values that fall from time 0 to time 1 are expected, shape (n + 1,). Sort them with "
                f"log_snr.unique().flip(0)."
            )
        _require_ends(log_snr[0], log_snr[-1])
        self.register_buffer("table", log_snr)

    def _piece(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The index of the piece, and the share of it that has passed."""
        place = require_times(t) * (len(self.table) - 1)
        index = place.detach().floor().long().clamp(max=len(self.table) - 2)
        return index, place - index

    def log_snr(self, t: Tensor) -> Tensor:
        """Linear between the two neighbouring values."""
        index, share = self._piece(t)
        return torch.lerp(self.table[index].to(share), self.table[index + 1].to(share), share)

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """The slope of the piece; at a time between two pieces, of the later one."""
        index, share = self._piece(t)
        return (self.table.diff()[index] * (len(self.table) - 1)).to(share)

    def time(self, log_snr: Tensor) -> Tensor:
        """The time on the piece that holds the value."""
        require_single(log_snr, "log_snr")
        table = self.table.to(log_snr)
        _require_between(log_snr, table[0], table[-1])
        index = torch.searchsorted(-table, -log_snr.detach()).clamp(1, len(table) - 1) - 1
        share = (table[index] - log_snr) / (table[index] - table[index + 1])
        return ((index + share) / (len(table) - 1)).clamp(0, 1)


def low_discrepancy_times(
    n: int,
    *,
    shuffled: bool = False,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Times (u + i)/n for i = 0 … n−1 with one uniform u: one in each n-th of [0, 1), uniform there.

    In random order each is uniform on [0, 1) by itself. An average over such times has the expectation
    of one over independent times, and for a smooth integrand a far smaller variance.
    Source: Kingma et al. (2021), appendix I.1.

    Args:
        n: how many, at least 1.
        shuffled: in random order, so that examples in any order see times in any order.
        generator: source of u and of the order; the global one if none is given.
        dtype: of the result, float32 or float64.
        device: of the result.

    Returns:
        Times in [0, 1), shape ``(n,)``; increasing unless they are shuffled.
    """
    n = require_positive_integer(n, "n")
    require_single_type(dtype)
    offset = torch.rand((), generator=generator, dtype=dtype, device=device)
    times = (torch.arange(n, dtype=offset.dtype, device=offset.device) + offset) / n
    times = times.clamp(max=1 - torch.finfo(times.dtype).eps / 2)
    if not shuffled:
        return times
    return times[torch.randperm(n, generator=generator, device=times.device)]

"""Coupling by rational-quadratic splines: flexible monotone curves with a formula for the inverse."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.flow.coupling import Coupling, bounded
from course_lib.inputs import require_positive_integer, require_real

MIN_BIN = 0.01  # least width and height of a bin, as a share of the interval
MAX_LOG_SLOPE = 3.0  # largest absolute log-slope at a knot


class SplineCoupling(Coupling):
    """Each transformed entry passes through a monotone spline of its own; the identity far out.

    Inside [−limit, limit] the curve has `bins` pieces, each a quotient of two quadratics, joined with
    continuous slope; outside it is the identity. Source: Durkan, Bekasov, Murray and Papamakarios
    (2019), "Neural Spline Flows".

    Args:
        mask: boolean, true where an entry passes unchanged.
        conditioner: gives ``3 * bins - 1`` parameters per transformed entry: widths, heights, and
            slopes at the inner knots.
        bins: number of pieces, below 100: each takes at least a hundredth of the interval.
        limit: half the length of the interval.

    Raises:
        ValueError: `bins` is below 1, or so large that the least pieces fill the interval.
    """

    def __init__(
        self, mask: Tensor, conditioner: nn.Module, bins: int = 8, limit: float = 4.0
    ) -> None:
        super().__init__(mask, conditioner)
        self.bins = require_bins(bins)
        self.limit = require_real(limit, "limit", "a positive number", above=0)

    def settings(self) -> dict[str, object]:
        """What the weights' meaning depends on."""
        return {**super().settings(), "bins": self.bins, "limit": self.limit}

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return spline(x, *self._curves(parameters), self.limit)

    def _untransform(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return spline_inverse(z, *self._curves(parameters), self.limit)

    def _curves(self, parameters: Tensor) -> tuple[Tensor, ...]:
        return parameters.transpose(1, 2).split((self.bins, self.bins, self.bins - 1), -1)


def require_bins(bins: int) -> int:
    """Require a number of pieces that leaves something of the interval to distribute; return it.

    Raises:
        TypeError: `bins` is not an integer.
        ValueError: `bins` is below 1, or so large that the least pieces fill the interval.
    """
    bins = require_positive_integer(bins, "bins")
    if bins * MIN_BIN >= 1:
        raise ValueError(
            f"bins is {bins}; fewer than {1 / MIN_BIN:.0f} are expected, because each takes at least "
            f"{MIN_BIN:g} of the interval. Take 8 to 32 bins, and more couplings for sharper curves."
        )
    return bins


def spline(
    x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, limit: float
) -> tuple[Tensor, Tensor]:
    """Evaluate rational-quadratic splines.

    Args:
        x: where, any shape ``(...)``.
        widths: free parameters of the bins' widths, shape ``(..., K)``.
        heights: free parameters of the bins' heights, shape ``(..., K)``.
        slopes: free parameters of the slopes at the inner knots, shape ``(..., K - 1)``.
        limit: half the length of the interval on which the curve is not the identity.

    Returns:
        The values and the logarithms of the derivatives, both of shape ``(...)``.
    """
    inside = x.abs() < limit
    clamped = x.clamp(-limit, limit)
    knots = _knots(widths, heights, slopes, limit)
    x0, width, y0, height, left, right = _bin(clamped, knots[0], knots)
    share = (clamped - x0) / width  # position within the bin, in [0, 1]
    secant = height / width
    both = share * (1 - share)
    below = secant + (left + right - 2 * secant) * both
    y = y0 + height * (secant * share.square() + left * both) / below
    log_slope = _log_slope(share, both, secant, left, right, below)
    return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(x))


def spline_inverse(
    z: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, limit: float
) -> tuple[Tensor, Tensor]:
    """Invert `spline`: a quadratic equation in each bin, solved in the form that does not cancel.

    Args:
        z: values of the splines, shape ``(...)``.
        widths: as for `spline`.
        heights: as for `spline`.
        slopes: as for `spline`.
        limit: as for `spline`.

    Returns:
        The arguments and the logarithms of the inverse's derivatives, both of shape ``(...)``.
    """
    inside = z.abs() < limit
    clamped = z.clamp(-limit, limit)
    knots = _knots(widths, heights, slopes, limit)
    x0, width, y0, height, left, right = _bin(clamped, knots[1], knots)
    secant = height / width
    rise = clamped - y0
    bend = left + right - 2 * secant
    a = height * (secant - left) + rise * bend
    b = height * left - rise * bend
    c = -secant * rise
    # The root in [0, 1]; 2c / (−b − √…) stays accurate where a vanishes. b² − 4ac ≥ 0 but for rounding.
    share = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
    both = share * (1 - share)
    log_slope = _log_slope(share, both, secant, left, right, secant + bend * both)
    x = x0 + share * width
    return torch.where(inside, x, z), torch.where(inside, -log_slope, torch.zeros_like(z))


def _knots(
    widths: Tensor, heights: Tensor, slopes: Tensor, limit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn free parameters into knots: K + 1 abscissas, ordinates and positive slopes."""

    def positions(free: Tensor) -> Tensor:
        bins = free.shape[-1]
        sizes = MIN_BIN + (1 - MIN_BIN * bins) * free.softmax(-1)
        inner = limit * (2 * sizes.cumsum(-1)[..., :-1] - 1)
        # The ends are exact, so that the curve meets the identity there.
        return F.pad(F.pad(inner, (1, 0), value=-limit), (0, 1), value=limit)

    # Free parameters 0 give slope 1 and equal bins: the identity.
    slopes = F.pad(bounded(slopes, MAX_LOG_SLOPE).exp(), (1, 1), value=1.0)
    return positions(widths), positions(heights), slopes


def _bin(at: Tensor, along: Tensor, knots: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Find each value's bin among the knots `along`, and return what describes it."""
    index = (at[..., None] >= along[..., 1:-1]).sum(-1, keepdim=True)
    (x0, y0, left), (x1, y1, right) = (
        [k.gather(-1, index + step).squeeze(-1) for k in knots] for step in (0, 1)
    )
    return x0, x1 - x0, y0, y1 - y0, left, right


def _log_slope(
    share: Tensor, both: Tensor, secant: Tensor, left: Tensor, right: Tensor, below: Tensor
) -> Tensor:
    above = right * share.square() + 2 * secant * both + left * (1 - share).square()
    return 2 * secant.log() + above.log() - 2 * below.log()

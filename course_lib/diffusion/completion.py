"""What completion by replacement samples, where it can be computed.

`course_lib.diffusion.inpaint` replaces the known entries by their own noised values at every level. For two
correlated Gaussian entries and many short steps the outcome has a closed form, which says how far it is from
the conditional distribution that one wants.
"""

import torch
from numpy.polynomial import legendre
from torch import Tensor

from course_lib.inputs import require_positive_integer
from course_lib.schedules import require_single

MOST_REPEATS = 2000  # the points of an integral are found in time that grows as the cube


def replacement_moments(correlation: Tensor, repeats: int = 1) -> tuple[Tensor, Tensor]:
    r"""Mean and variance of a completed entry, if the known one is 1, equation ``eq-replacement``.

    .. math:: \frac{\mathbb E[u]}{\rho} = \int_0^1 \frac{r\,s^r}{\sqrt{1-\rho^2+\rho^2s^2}}\,\mathrm ds,
              \qquad \frac{\operatorname{Var}[u]}{1-\rho^2}
              = \int_0^1 \frac{(2r-1)\,s^{2r-2}}{\sqrt{1-\rho^2+\rho^2s^2}}\,\mathrm ds

    Both entries are standard normal with the correlation ρ, the denoiser is exact, the schedule preserves the
    variance and runs from no signal to no noise, and every one of its many short steps is made r times. The
    conditional distribution has the mean ρ and the variance 1 − ρ², to which both tend as r grows.

    Args:
        correlation: ρ, each in (−1, 1), of any shape.
        repeats: r, how often each step is made.

    Returns:
        The mean for a known value of 1, and the variance, each in the shape of `correlation`.

    Raises:
        ValueError: a correlation is not in (−1, 1), or `repeats` is below 1 or above 2000.
    """
    require_single(correlation, "correlation")
    r = require_positive_integer(repeats, "repeats")
    if not (correlation.abs() < 1).all():
        raise ValueError(
            f"correlation has a largest size of {correlation.abs().max().item():.4g}; numbers in (-1, 1) are "
            f"expected."
        )
    if r > MOST_REPEATS:
        raise ValueError(
            f"repeats is {r}; at most {MOST_REPEATS} are expected, because the integral is computed with as "
            f"many points. Far above, mean and variance hardly differ from the conditional ones."
        )
    # Gauss–Legendre: exact for the powers of s, and far below rounding for the smooth rest.
    nodes, weights = (
        torch.from_numpy(values).to(correlation) for values in legendre.leggauss(64 + r)
    )
    s, weights = (nodes + 1) / 2, weights / 2
    rest = 1 - correlation.unsqueeze(-1).square()
    each = weights / (rest + (1 - rest) * s**2).sqrt()
    mean = correlation * (each @ (r * s**r))
    return mean, rest.squeeze(-1) * (each @ ((2 * r - 1) * s ** (2 * r - 2)))

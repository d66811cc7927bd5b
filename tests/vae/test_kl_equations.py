"""The divergences between Gaussians, against integrals and traces computed another way."""

import pytest
import torch

from course_lib.divergences import kl_univariate_gaussian


@pytest.mark.equation(
    "eq-kl-univariate",
    formula=kl_univariate_gaussian,
    wrong={
        "half dropped": lambda mq, sq, mp, sp: 2 * kl_univariate_gaussian(mq, sq, mp, sp),
        "arguments swapped": lambda mq, sq, mp, sp: kl_univariate_gaussian(mp, sp, mq, sq),
    },
    implemented_by="course_lib.divergences.kl_univariate_gaussian",
)
def test_kl_univariate(formula):
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    q, p = torch.distributions.Normal(1.0, 0.5), torch.distributions.Normal(-0.3, 1.7)
    integral = torch.trapezoid(q.log_prob(x).exp() * (q.log_prob(x) - p.log_prob(x)), x)
    torch.testing.assert_close(
        formula(*(torch.tensor(v, dtype=torch.float64) for v in (1.0, 0.5, -0.3, 1.7))), integral
    )

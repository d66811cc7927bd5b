"""The divergences between Gaussians and their ingredients, against integrals on grids."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from course_lib.divergences import kl_gaussian, kl_standard_normal, kl_univariate_gaussian

pytestmark = pytest.mark.usefixtures("float64")

# Two distributions in the plane, neither diagonal, with unequal determinants.
MEAN_Q, COV_Q = (0.6, -0.4), ((0.5, 0.3), (0.3, 0.9))
MEAN_P, COV_P = (-0.5, 0.3), ((1.8, -0.7), (-0.7, 1.1))


def on_a_line(distribution, values, limit=12.0):
    x = torch.linspace(-limit, limit, 40_001)
    return torch.trapezoid(distribution.log_prob(x).exp() * values(x), x)


def on_the_plane(distribution, values, limit=9.0, points=501):
    side = torch.linspace(-limit, limit, points)
    x = torch.cartesian_prod(side, side)
    # Both densities vanish at the border, where the trapezoid's weights would differ.
    return (distribution.log_prob(x).exp() * values(x)).sum() * (side[1] - side[0]) ** 2


def plane_distributions():
    q = MultivariateNormal(torch.tensor(MEAN_Q), torch.tensor(COV_Q))
    p = MultivariateNormal(torch.tensor(MEAN_P), torch.tensor(COV_P))
    return q, p


@pytest.mark.equation(
    "eq-second-moment",
    formula=lambda mu, sigma, m: sigma**2 + (mu - m) ** 2,
    wrong={
        "standard deviation for the variance": lambda mu, sigma, m: sigma + (mu - m) ** 2,
        "difference of squares": lambda mu, sigma, m: sigma**2 + mu**2 - m**2,
        "variance dropped": lambda mu, sigma, m: (mu - m) ** 2,
    },
)
def test_second_moment(formula):
    mu, sigma, m = torch.tensor(0.7), torch.tensor(0.4), torch.tensor(-1.1)
    integral = on_a_line(Normal(mu, sigma), lambda x: (x - m) ** 2)
    torch.testing.assert_close(formula(mu, sigma, m), integral)


@pytest.mark.equation(
    "eq-kl-univariate",
    formula=kl_univariate_gaussian,
    wrong={
        "half dropped": lambda mq, sq, mp, sp: 2 * kl_univariate_gaussian(mq, sq, mp, sp),
        "arguments swapped": lambda mq, sq, mp, sp: kl_univariate_gaussian(mp, sp, mq, sq),
        "2σ for 2σ²": lambda mq, sq, mp, sp: (
            (sp / sq).log() + (sq**2 + (mq - mp) ** 2) / (2 * sp) - sq / 2
        ),
        "log-ratio inverted": lambda mq, sq, mp, sp: (
            (sq / sp).log() + (sq**2 + (mq - mp) ** 2) / (2 * sp**2) - 0.5
        ),
    },
    implemented_by="course_lib.divergences.kl_univariate_gaussian",
)
def test_kl_univariate(formula):
    q, p = Normal(1.0, 0.5), Normal(-0.3, 1.7)
    integral = on_a_line(q, lambda x: q.log_prob(x) - p.log_prob(x))
    torch.testing.assert_close(formula(q.loc, q.scale, p.loc, p.scale), integral)


@pytest.mark.equation(
    "eq-quadratic-expectation",
    formula=lambda a, mu, cov, m: (a @ cov).trace() + (mu - m) @ a @ (mu - m),
    wrong={
        "trace of A alone": lambda a, mu, cov, m: a.trace() + (mu - m) @ a @ (mu - m),
        "covariance's diagonal only": lambda a, mu, cov, m: (
            a.diagonal() @ cov.diagonal() + (mu - m) @ a @ (mu - m)
        ),
        "mean dropped": lambda a, mu, cov, m: (a @ cov).trace(),
    },
)
def test_quadratic_expectation(formula):
    q, _ = plane_distributions()
    a, m = torch.tensor([[1.3, -0.8], [0.2, 0.6]]), torch.tensor([-0.9, 0.5])
    integral = on_the_plane(q, lambda x: torch.einsum("ni,ij,nj->n", x - m, a, x - m))
    torch.testing.assert_close(formula(a, q.loc, q.covariance_matrix, m), integral)


@pytest.mark.equation(
    "eq-gaussian-entropy",
    formula=lambda cov: 0.5 * torch.linalg.slogdet(2 * math.pi * math.e * cov).logabsdet,
    wrong={
        "half dropped": lambda cov: torch.linalg.slogdet(2 * math.pi * math.e * cov).logabsdet,
        "factor once, not per dimension": lambda cov: (
            0.5 * (math.log(2 * math.pi * math.e) + torch.linalg.slogdet(cov).logabsdet)
        ),
        "e dropped": lambda cov: 0.5 * torch.linalg.slogdet(2 * math.pi * cov).logabsdet,
    },
)
def test_gaussian_entropy(formula):
    q, _ = plane_distributions()
    integral = on_the_plane(q, lambda x: -q.log_prob(x))
    torch.testing.assert_close(formula(q.covariance_matrix), integral)


def cross_entropy(mean_q, cov_q, mean_p, cov_p):
    precision, shift = torch.linalg.inv(cov_p), mean_q - mean_p
    constant = torch.linalg.slogdet(cov_p).logabsdet + len(mean_q) * math.log(2 * math.pi)
    return 0.5 * (constant + (precision @ cov_q).trace() + shift @ precision @ shift)


@pytest.mark.equation(
    "eq-gaussian-cross-entropy",
    formula=cross_entropy,
    wrong={
        "arguments swapped": lambda mq, cq, mp, cp: cross_entropy(mp, cp, mq, cq),
        "covariance for precision": lambda mq, cq, mp, cp: cross_entropy(
            mq, cq, mp, torch.linalg.inv(cp)
        ),
        "trace taken for d": lambda mq, cq, mp, cp: cross_entropy(mq, cp, mp, cp),
    },
)
def test_gaussian_cross_entropy(formula):
    q, p = plane_distributions()
    integral = on_the_plane(q, lambda x: -p.log_prob(x))
    value = formula(q.loc, q.covariance_matrix, p.loc, p.covariance_matrix)
    torch.testing.assert_close(value, integral)


@pytest.mark.equation(
    "eq-kl-multivariate",
    formula=kl_gaussian,
    wrong={
        "half dropped": lambda mq, cq, mp, cp: 2 * kl_gaussian(mq, cq, mp, cp),
        "arguments swapped": lambda mq, cq, mp, cp: kl_gaussian(mp, cp, mq, cq),
        "1 for d": lambda mq, cq, mp, cp: kl_gaussian(mq, cq, mp, cp) + 0.5 * (len(mq) - 1),
        "log-determinants exchanged": lambda mq, cq, mp, cp: (
            kl_gaussian(mq, cq, mp, cp) + cq.logdet() - cp.logdet()
        ),
        "correlations ignored": lambda mq, cq, mp, cp: kl_gaussian(
            mq, cq.diagonal().diag(), mp, cp.diagonal().diag()
        ),
    },
    implemented_by="course_lib.divergences.kl_gaussian",
)
def test_kl_multivariate(formula):
    q, p = plane_distributions()
    integral = on_the_plane(q, lambda x: q.log_prob(x) - p.log_prob(x))
    value = formula(q.loc, q.covariance_matrix, p.loc, p.covariance_matrix)
    torch.testing.assert_close(value, integral)


@pytest.mark.equation(
    "eq-kl-diag-standard",
    formula=kl_standard_normal,
    wrong={
        "half dropped": lambda mu, logvar: 2 * kl_standard_normal(mu, logvar),
        "log σ for log σ²": lambda mu, logvar: kl_standard_normal(mu, 0.5 * logvar),
        "-1 counted once": lambda mu, logvar: (
            kl_standard_normal(mu, logvar) + 0.5 * (mu.shape[-1] - 1)
        ),
        "mean over dimensions": lambda mu, logvar: kl_standard_normal(mu, logvar) / mu.shape[-1],
        "sign flipped": lambda mu, logvar: -kl_standard_normal(mu, logvar),
        "arguments swapped": lambda mu, logvar: (
            0.5 * ((1 + mu**2) / logvar.exp() - 1 + logvar).sum(-1)
        ),
    },
    implemented_by="course_lib.divergences.kl_standard_normal",
)
def test_kl_diag_standard(formula):
    mu = torch.tensor([[1.0, -0.4], [0.2, 0.7]])
    logvar = torch.tensor([[-1.4, 0.5], [0.3, -0.6]])
    prior = MultivariateNormal(torch.zeros(2), torch.eye(2))
    integrals = []
    for mean, log_variance in zip(mu, logvar, strict=True):
        q = MultivariateNormal(mean, log_variance.exp().diag())
        integrals.append(
            on_the_plane(q, lambda x, q=q: q.log_prob(x) - prior.log_prob(x), limit=10)
        )
    torch.testing.assert_close(formula(mu, logvar), torch.stack(integrals))


@pytest.mark.equation(
    "eq-kl-additive",
    formula=lambda parts: sum(parts),
    wrong={
        "product for sum": lambda parts: math.prod(parts),
        "mean for sum": lambda parts: sum(parts) / len(parts),
    },
)
def test_kl_is_additive(formula):
    q = [torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.9, 0.1]), torch.tensor([0.4, 0.6])]
    p = [torch.tensor([0.6, 0.1, 0.3]), torch.tensor([0.3, 0.7]), torch.tensor([0.5, 0.5])]
    joint_q, joint_p = (torch.einsum("i,j,k->ijk", *distributions) for distributions in (q, p))
    whole = (joint_q * (joint_q / joint_p).log()).sum()
    parts = [(a * (a / b).log()).sum() for a, b in zip(q, p, strict=True)]
    torch.testing.assert_close(formula(parts), whole)

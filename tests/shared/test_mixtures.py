"""Exact mixtures under noise: each value against autograd, quadrature or draws."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from course_lib.mixtures import GaussianMixture
from course_lib.schedules import Cosine, LinearPath
from tests.diffusion.exact import grid, line, plane

ONE, THREE = torch.ones(1, 1).double(), torch.ones(3).double()
LEVELS = [(1.0, 0.0), (0.8, 0.6), (0.3, 1.4)]


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_the_density_integrates_to_one_and_its_gradient_is_the_score(float64, alpha, sigma):
    points, area = grid(12.0, 481)
    assert plane().log_prob(points, alpha, sigma).exp().sum() * area == pytest.approx(1, abs=1e-8)
    x = torch.tensor([[0.3, 0.8], [-1.1, 0.2]], requires_grad=True)
    (slope,) = torch.autograd.grad(plane().log_prob(x, alpha, sigma).sum(), x)
    found = plane().score(x.detach(), alpha, sigma)
    torch.testing.assert_close(found, slope, atol=1e-12, rtol=0)


def test_the_posterior_variance_is_that_of_the_points_behind(float64):
    points, _ = grid()
    alpha, sigma = torch.tensor(0.8), torch.tensor(0.6)
    x_t = torch.tensor([[0.3, 0.8], [-1.1, 0.2]])
    given = -0.5 * ((x_t[:, None] - alpha * points) / sigma).square().sum(-1)
    weight = (plane().log_prob(points) + given).exp()
    weight = weight / weight.sum(1, keepdim=True)
    mean = weight @ points
    spread = (weight * (points - mean[:, None]).square().sum(-1)).sum(1)
    torch.testing.assert_close(plane().posterior_mean(x_t, alpha, sigma), mean)
    torch.testing.assert_close(plane().posterior_variance(x_t, alpha, sigma), spread)


def test_posterior_mean_and_velocity_are_finite_at_both_ends(float64):
    x = torch.tensor([[0.3, 0.8]])
    mixture, path = plane(), LinearPath()
    # Without noise the clean example is what is seen; without signal it is the mean.
    torch.testing.assert_close(mixture.posterior_mean(x, 1.0, 0.0), x)
    torch.testing.assert_close(mixture.posterior_mean(x, 0.0, 1.0)[0], mixture.mean)
    torch.testing.assert_close(mixture.velocity(x, torch.tensor(1.0), path)[0], x[0] - mixture.mean)
    assert mixture.velocity(x, torch.tensor(0.0), path).isfinite().all()


@pytest.mark.parametrize("schedule", [LinearPath(), Cosine(7.0, -7.0)])
def test_the_velocity_carries_the_density(float64, schedule):
    """The residual of the continuity equation ∂p + ∇·(p v) = 0, by autograd."""
    mixture, t = plane(), torch.tensor(0.37)

    def density(x, t):
        return mixture.log_prob(x[None], schedule.alpha(t), schedule.sigma(t)).exp()[0]

    for x in torch.tensor([[0.3, 0.8], [-1.1, 0.2], [0.9, -0.5]]):
        change = torch.func.jacfwd(lambda t, x=x: density(x, t))(t)
        flux = torch.func.jacrev(
            lambda x: density(x, t) * mixture.velocity(x[None], t, schedule)[0]
        )(x)
        assert abs(change + flux.trace()) < 1e-10


def test_levels_may_differ_by_example(float64):
    x = torch.randn(3, 2)
    alpha, sigma = torch.tensor([1.0, 0.5, 0.1]), torch.tensor([0.2, 0.5, 1.0])
    for method in ("log_prob", "score", "posterior_mean", "posterior_variance", "responsibilities"):
        together = getattr(plane(), method)(x, alpha, sigma)
        for i in range(3):
            alone = getattr(plane(), method)(x[i : i + 1], alpha[i], sigma[i])
            torch.testing.assert_close(together[i], alone[0])


def test_moments_are_those_of_draws():
    mixture = plane(torch.float32)
    x = mixture.sample(100_000, generator=torch.Generator().manual_seed(0))
    assert (x.mean(0) - mixture.mean).abs().max() < 0.02
    assert (x.T.cov() - mixture.covariance).abs().max() < 0.03
    again = mixture.sample(10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, mixture.sample(10, generator=torch.Generator().manual_seed(0)))


def test_points_are_gaussians_without_spread(float64):
    """With noise they have a density, which is torch's."""
    points = torch.tensor([[1.0, 0.0], [-0.5, 0.4]])
    mixture = GaussianMixture(torch.tensor([0.5, 0.5]), points, torch.zeros(2, 2, 2))
    x = torch.tensor([[0.2, 0.3]])
    parts = MultivariateNormal(0.7 * points, 0.09 * torch.eye(2)).log_prob(x)
    expected = torch.logsumexp(parts, 0) - torch.log(torch.tensor(2.0))
    torch.testing.assert_close(mixture.log_prob(x, 0.7, 0.3)[0], expected)


@pytest.mark.parametrize("name", ["log_prob", "score", "responsibilities"])
def test_a_singular_covariance_without_noise_is_named(float64, name):
    flat = GaussianMixture(
        torch.ones(1), torch.zeros(1, 2), torch.diag(torch.tensor([1.0, 0.0]))[None]
    )
    x = torch.tensor([[0.3, 0.0]])
    assert torch.isfinite(getattr(flat, name)(x, 1.0, 0.2)).all()
    with pytest.raises(ValueError, match="sigma is 0"):
        getattr(flat, name)(x)
    with pytest.raises(ValueError, match="sigma is 0"):
        flat.denoiser(LinearPath())(x, torch.tensor(0.0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: GaussianMixture(torch.ones(2), torch.zeros(2, 1), torch.ones(2, 1, 1)),
            ValueError,
            "sum to 1",
        ),
        (
            lambda: GaussianMixture(torch.ones(1), torch.zeros(2, 1), torch.ones(2, 1, 1)),
            ValueError,
            r"\(K,\), \(K, D\) and \(K, D, D\)",
        ),
        (
            lambda: GaussianMixture(torch.ones(1), torch.zeros(1, 1), -torch.ones(1, 1, 1)),
            ValueError,
            "eigenvalue -1",
        ),
        (
            lambda: GaussianMixture(torch.ones(1).half(), torch.zeros(1, 1), torch.ones(1, 1, 1)),
            TypeError,
            "float16",
        ),
        (
            lambda: GaussianMixture(
                torch.ones(1), torch.zeros(1, 2), torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])
            ),
            ValueError,
            "not symmetric",
        ),
        (
            lambda: GaussianMixture(
                torch.ones(1), torch.zeros(1, 2), torch.tensor([[[1e-6, 5e-7], [0.0, 1e-6]]])
            ),
            ValueError,
            "not symmetric",
        ),
        (lambda: line().log_prob(torch.zeros(3, 2, dtype=torch.float64)), ValueError, "shape"),
        (lambda: line().sample(0), ValueError, "n is 0"),
        (lambda: line().score(torch.zeros(3, 1)), TypeError, "float32, and what is known exactly"),
        (lambda: line().score(torch.zeros(3, 1).half()), TypeError, "float16"),
        (
            lambda: GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None].double()),
            TypeError,
            "covariances has dtype torch.float64, and what",
        ),
        (
            lambda: GaussianMixture(torch.ones(1), torch.zeros(1, 0), torch.ones(1, 0, 0)),
            ValueError,
            "K and D at least 1",
        ),
        (
            lambda: GaussianMixture(
                torch.ones(1), torch.full((1, 1), torch.nan), torch.ones(1, 1, 1)
            ),
            ValueError,
            "means has dtype",
        ),
        (
            lambda: GaussianMixture(
                torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None].requires_grad_()
            ),
            ValueError,
            "covariances require a gradient",
        ),
        (lambda: line().log_prob(ONE * torch.nan), ValueError, "x holds NaN"),
        (lambda: line().score(torch.ones(2, 1).double(), torch.nan, 0.5), ValueError, "no density"),
        (lambda: line().log_prob(ONE, THREE, THREE), ValueError, r"alpha has shape \(3,\)"),
        (lambda: line().log_prob(ONE, 1.0, THREE), ValueError, r"sigma has shape \(3,\)"),
        (lambda: line().log_prob(ONE, ONE, 1.0), ValueError, r"alpha has shape \(1, 1\)"),
        (
            lambda: line().score(torch.zeros(3, 1, dtype=torch.float64), 1.0, -0.5),
            ValueError,
            "sigma has a least value of -0.5",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()

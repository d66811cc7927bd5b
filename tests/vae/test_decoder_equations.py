"""What the decoder's distribution implies: linear autoencoders, likelihoods, hidden weights, collapse."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from course_lib.data import digits
from course_lib.distributions import Bernoulli, Gaussian
from course_lib.divergences import kl_standard_normal
from course_lib.vae import reparameterize

pytestmark = pytest.mark.usefixtures("float64")


# --- the linear autoencoder ---------------------------------------------------------------------


def principal_subspace(x, d):
    """The least error and the reconstructions that the theorem promises."""
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))  # ascending
    leading = vectors[:, -d:]
    return values[:-d].sum(), mean + (x - mean) @ leading @ leading.T


def trained_linear_autoencoder(x, d, steps=400):
    """Alternate least squares over decoder and codes: both stay affine maps of x."""
    codes = torch.randn(len(x), d)
    for _ in range(steps):
        decoder = torch.linalg.lstsq(torch.cat([codes, torch.ones(len(x), 1)], 1), x).solution
        weight, bias = decoder[:-1], decoder[-1]
        codes = torch.linalg.lstsq(weight.T, (x - bias).T).solution.T
    reconstruction = codes @ weight + bias
    return (x - reconstruction).square().sum(1).mean(), reconstruction


@pytest.mark.equation(
    "eq-linear-ae-pca",
    formula=principal_subspace,
    wrong={
        "kept variance for the lost one": lambda x, d: (
            torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x))[-d:].sum(),
            principal_subspace(x, d)[1],
        ),
        "covariance with N − 1": lambda x, d: (
            principal_subspace(x, d)[0] * len(x) / (len(x) - 1),
            principal_subspace(x, d)[1],
        ),
        "data not centred": lambda x, d: principal_subspace(torch.cat([x, -x]), d),
        "trailing eigenvectors": lambda x, d: (
            principal_subspace(x, d)[0],
            x - principal_subspace(x, x.shape[1] - d)[1] + x.mean(0),
        ),
    },
)
def test_linear_autoencoder(formula):
    mixing = torch.randn(5, 5) * torch.tensor([3.0, 2.0, 1.0, 0.6, 0.3])
    x = torch.randn(60, 5) @ mixing.T + torch.tensor([2.0, -1.0, 0.5, 3.0, -2.0])
    error, reconstruction = formula(x, 2)
    trained_error, trained = trained_linear_autoencoder(x, 2)
    torch.testing.assert_close(error, trained_error)
    torch.testing.assert_close(reconstruction[: len(x)], trained, atol=1e-6, rtol=0)
    reference = PCA(2).fit(x.numpy())
    projected = reference.inverse_transform(reference.transform(x.numpy()))
    torch.testing.assert_close(reconstruction[: len(x)], torch.from_numpy(projected))


# --- the Bernoulli decoder ------------------------------------------------------------------------


def bernoulli_log_prob(x, logits):
    return Bernoulli().log_prob(logits.unsqueeze(-1), x).sum(-1)


@pytest.mark.equation(
    "eq-bernoulli-decoder",
    formula=bernoulli_log_prob,
    wrong={
        "mean over pixels": lambda x, logits: bernoulli_log_prob(x, logits) / x.shape[-1],
        "ones only": lambda x, logits: (x * F.logsigmoid(logits)).sum(-1),
        "sign of the logits": lambda x, logits: bernoulli_log_prob(x, -logits),
        "normalizer dropped": lambda x, logits: (x * logits).sum(-1),
    },
    implemented_by="course_lib.distributions.Bernoulli",
)
def test_bernoulli_decoder(formula):
    logits = torch.tensor([0.8, -1.5, 0.3])
    probability = [1 / (1 + math.exp(-value)) for value in logits.tolist()]
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    expected = [
        math.prod(p if pixel else 1 - p for p, pixel in zip(probability, image, strict=True))
        for image in images.tolist()
    ]
    value = formula(images, logits.expand(8, 3)).exp()
    torch.testing.assert_close(value, torch.tensor(expected))
    torch.testing.assert_close(value.sum(), torch.tensor(1.0))


@pytest.mark.equation(
    "eq-continuous-bernoulli",
    formula=lambda pi: (2 * pi - 1) / (math.log(pi) - math.log(1 - pi)),
    wrong={
        "doubled": lambda pi: 2 * (2 * pi - 1) / (math.log(pi) - math.log(1 - pi)),
        "already normalized": lambda pi: 1.0,
        "reciprocal": lambda pi: (math.log(pi) - math.log(1 - pi)) / (2 * pi - 1),
        "2 dropped": lambda pi: (pi - 1) / (math.log(pi) - math.log(1 - pi)),
        "sum of logarithms": lambda pi: (2 * pi - 1) / (math.log(pi) + math.log(1 - pi)),
    },
)
def test_cross_entropy_of_grey_pixels_is_not_normalized(formula):
    for pi in (0.15, 0.8):
        integral, _ = scipy.integrate.quad(lambda x, pi=pi: pi**x * (1 - pi) ** (1 - x), 0, 1)
        assert formula(pi) == pytest.approx(integral, rel=1e-9)
    assert formula(0.5 + 1e-6) == pytest.approx(0.5, abs=1e-6)
    # At most one half: log 2 nats are missing for each pixel.
    assert all(formula(pi) < 0.5 for pi in (1e-6, 0.1, 0.499, 0.7, 0.999))


def test_cross_entropy_of_grey_pixels_has_a_floor_above_zero():
    x = torch.tensor([[0.2, 0.5, 0.9]])
    logits = torch.zeros_like(x, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = -bernoulli_log_prob(x, logits).sum()
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(loss)
    floor = -(x * x.log() + (1 - x) * (1 - x).log()).sum()
    assert floor > 1
    torch.testing.assert_close(loss().detach(), floor)
    torch.testing.assert_close(logits.detach().sigmoid(), x, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="value"):
        torch.distributions.Bernoulli(logits=logits, validate_args=True).log_prob(x)


# --- the Gaussian decoder -------------------------------------------------------------------------


def gaussian_loss(x, mean, sigma):
    return -Gaussian(sigma).log_prob(mean.unsqueeze(-1), x).sum(-1)


@pytest.mark.equation(
    "eq-mse-is-gaussian",
    formula=gaussian_loss,
    wrong={
        "constant dropped": lambda x, mean, sigma: (x - mean).square().sum(-1) / (2 * sigma**2),
        "half dropped": lambda x, mean, sigma: (
            gaussian_loss(x, mean, sigma) + (x - mean).square().sum(-1) / (2 * sigma**2)
        ),
        "σ for σ²": lambda x, mean, sigma: gaussian_loss(x, mean, math.sqrt(sigma)),
        "mean over pixels": lambda x, mean, sigma: gaussian_loss(x, mean, sigma) / x.shape[-1],
    },
    implemented_by="course_lib.distributions.Gaussian",
)
def test_squared_error_is_a_gaussian_likelihood(formula):
    x, mean, sigma = torch.randn(4, 3), torch.randn(4, 3), 0.3
    expected = [
        -scipy.stats.multivariate_normal(m, sigma**2 * np.eye(3)).logpdf(row)
        for row, m in zip(x.numpy(), mean.numpy(), strict=True)
    ]
    torch.testing.assert_close(formula(x, mean, sigma), torch.tensor(expected))


def weighted_error_from_the_bound(bound, pixels, weight):
    """The right side of the equation: `bound` is the ELBO as a function of σ²."""
    variance = weight * pixels / 2
    return -2 * variance / pixels * bound(variance) - variance * math.log(2 * math.pi * variance)


@pytest.mark.equation(
    "eq-mse-weight",
    formula=weighted_error_from_the_bound,
    wrong={
        "half dropped": lambda bound, pixels, weight: weighted_error_from_the_bound(
            bound, pixels, 2 * weight
        ),
        "number of pixels dropped": lambda bound, pixels, weight: weighted_error_from_the_bound(
            bound, pixels, weight / pixels
        ),
        "constant dropped": lambda bound, pixels, weight: -weight * bound(weight * pixels / 2),
    },
)
def test_mean_squared_error_hides_a_weight(formula):
    pixels, weight = 12, 0.3
    x, decode = torch.rand(1, pixels), torch.randn(2, pixels)
    mu, logvar = torch.tensor([[0.4, -0.9]]), torch.tensor([[-1.0, 0.3]])
    z = reparameterize(mu, logvar, torch.randn(2000, 2))
    mean, kl = z @ decode, kl_standard_normal(mu, logvar).squeeze()
    loss = F.mse_loss(mean, x.expand_as(mean)) + weight * kl

    def bound(variance):
        distribution = torch.distributions.Normal(mean, math.sqrt(variance))
        return distribution.log_prob(x).sum(1).mean() - kl

    torch.testing.assert_close(formula(bound, pixels, weight), loss)


def best_variance(errors):
    variance = errors.square().mean()
    return variance, -0.5 * errors.shape[1] * (2 * math.pi * math.e * variance).log()


@pytest.mark.equation(
    "eq-optimal-sigma",
    formula=best_variance,
    wrong={
        "not divided by D": lambda errors: (
            errors.square().sum(1).mean(),
            best_variance(errors)[1],
        ),
        "standard deviation for variance": lambda errors: (
            best_variance(errors)[0].sqrt(),
            best_variance(errors)[1],
        ),
        "e dropped": lambda errors: (
            best_variance(errors)[0],
            best_variance(errors)[1] + 0.5 * errors.shape[1],
        ),
    },
)
def test_optimal_sigma(formula):
    errors = 0.4 * torch.randn(50, 3) + torch.tensor([0.1, -0.2, 0.3])

    def loss(log_variance):
        return -scipy.stats.norm(0, math.exp(log_variance / 2)).logpdf(errors).sum(1).mean()

    found = scipy.optimize.minimize_scalar(loss, bracket=(-4, 1), options={"xtol": 1e-10})
    variance, value = formula(errors)
    assert variance.item() == pytest.approx(math.exp(found.x), rel=1e-5)
    assert value.item() == pytest.approx(-found.fun, rel=1e-9)


# --- collapse -------------------------------------------------------------------------------------


def optimal_weight(s, sigma, beta):
    return max(0.0, s**2 - beta * sigma**2)


@pytest.mark.equation(
    "eq-collapse-threshold",
    formula=optimal_weight,
    wrong={
        "no threshold": lambda s, sigma, beta: s**2 - beta * sigma**2,
        "β without effect": lambda s, sigma, beta: optimal_weight(s, sigma, 1.0),
        "β squared": lambda s, sigma, beta: optimal_weight(s, sigma, beta**2),
        "standard deviations": lambda s, sigma, beta: max(0.0, s - beta * sigma),
    },
)
def test_threshold_of_collapse(formula):
    for s, sigma, beta in ((1.5, 0.6, 2.5), (0.7, 0.6, 2.0), (1.2, 0.5, 0.4)):

        def loss(parameters, s=s, sigma=sigma, beta=beta):
            w, a, log_tau = parameters
            tau = math.exp(log_tau)
            # With z = a x + τ ε: E(x − w z)² = s² (1 − w a)² + w² τ².
            error = s**2 * (1 - w * a) ** 2 + w**2 * tau**2
            kl = 0.5 * (tau**2 + a**2 * s**2 - 1 - 2 * log_tau)
            return error / (2 * sigma**2) + beta * kl

        starts = [(1.0, 0.5, -1.0), (0.2, 0.1, 0.0), (2.0, 1.0, -0.5)]
        best = min(
            (
                scipy.optimize.minimize(
                    loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15}
                )
                for start in starts
            ),
            key=lambda result: result.fun,
        )
        assert formula(s, sigma, beta) == pytest.approx(best.x[0] ** 2, abs=1e-4)


def test_unit_variance_switches_every_direction_of_the_digits_off():
    x = digits().train
    x = torch.as_tensor(x, dtype=torch.float64).flatten(1) / 16
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0))
    assert values.max() < 1
    assert values.sum() <= x.shape[1] / 4

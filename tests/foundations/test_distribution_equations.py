"""What a distribution is, and in which unit: volumes, changes of scale, bits, and a density on integers."""

import math

import pytest
import torch
from torch.distributions import Categorical, MultivariateNormal, Normal

from course_lib.evaluation import bits_per_dim

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.equation(
    "eq-generative-classifier",
    formula=lambda prior, likelihood: prior * likelihood / (prior * likelihood).sum(),
    wrong={
        "prior dropped": lambda prior, likelihood: likelihood / likelihood.sum(),
        "not normalized": lambda prior, likelihood: prior * likelihood,
        "divided by the prior": lambda prior, likelihood: (
            (likelihood / prior) / (likelihood / prior).sum()
        ),
    },
)
def test_generative_model_classifies(formula):
    prior = torch.tensor([0.2, 0.5, 0.3])
    images = Normal(torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([0.5, 1.5, 0.8]))
    # How often is each class the cause of an x that falls into a short interval?
    for x in (-0.7, 0.4, 1.9):
        mass = prior * (images.cdf(torch.tensor(x + 1e-4)) - images.cdf(torch.tensor(x - 1e-4)))
        answer = formula(prior, images.log_prob(torch.tensor(x)).exp())
        torch.testing.assert_close(answer, mass / mass.sum(), atol=1e-6, rtol=0)


@pytest.mark.equation(
    "eq-manifold-volume",
    formula=lambda lipschitz, n, d, n_dims: lipschitz**n_dims * n ** (d - n_dims),
    wrong={
        "cubes of half the side": lambda lipschitz, n, d, n_dims: (
            (lipschitz / 2) ** n_dims * n ** (d - n_dims)
        ),
        "one cube": lambda lipschitz, n, d, n_dims: (lipschitz / n) ** n_dims,
        "sides, not volumes": lambda lipschitz, n, d, n_dims: n**d * (lipschitz / n),
        "dimensions exchanged": lambda lipschitz, n, d, n_dims: (
            lipschitz**n_dims * n ** (n_dims - d)
        ),
    },
)
def test_image_of_few_dimensions_has_no_volume(formula):
    # Tight on the diagonal z -> 3 (z, z, z): the cubes meet in corners only, so the volume
    # of their union, counted on a raster, is the bound.
    lipschitz, n, per_cube = 3.0, 5, 4
    raster = n * per_cube
    centres = (torch.arange(raster) + 0.5) * lipschitz / raster
    point = torch.cartesian_prod(centres, centres, centres)
    in_cube = (point / (lipschitz / n)).floor()
    covered = (in_cube == in_cube[:, :1]).all(1).double().mean() * lipschitz**3
    assert formula(lipschitz, n, 1, 3) == pytest.approx(covered.item())
    # A curved surface in space stays inside its cover, whose volume shrinks like 1/n.
    for n in (4, 8):
        z = torch.cartesian_prod(*[torch.linspace(0, 1, 40 * n + 1)] * 2)

        def surface(z):
            return torch.stack([z[:, 0], z[:, 1], torch.sin(2 * z[:, 0]) / 2 - z[:, 1] ** 2 / 2], 1)

        centre = ((z * n).floor().clamp(max=n - 1) + 0.5) / n
        lipschitz = 2.0  # of the last coordinate: |cos| + |z_2| ≤ 2
        off = (surface(z) - surface(centre)).abs().max()
        assert off <= lipschitz / (2 * n)
        assert formula(lipschitz, n, 2, 3) == pytest.approx(n**2 * (lipschitz / n) ** 3)


@pytest.mark.equation(
    "eq-bits-per-dim-discrete",
    formula=bits_per_dim,
    wrong={
        "nats per dimension": lambda log_prob, shape: -log_prob / math.prod(shape),
        "bits per image": lambda log_prob, shape: -log_prob / math.log(2),
        "sign": lambda log_prob, shape: -bits_per_dim(log_prob, shape),
        "rows only": lambda log_prob, shape: bits_per_dim(log_prob, shape[:2]),
        "multiplied by log 2": lambda log_prob, shape: -log_prob * math.log(2) / math.prod(shape),
    },
    implemented_by="course_lib.evaluation.bits_per_dim",
)
def test_bits_per_dim(formula):
    # The length of an actual code. Two symbols with 1/4 and one with 1/2 have the words 00, 01, 1.
    words = {0: "00", 1: "01", 2: "1"}
    distribution = torch.tensor([0.25, 0.25, 0.5])
    image = torch.tensor([[[0, 2, 1], [2, 2, 0]]])
    message = "".join(words[int(pixel)] for pixel in image.flatten())
    log_prob = distribution.log()[image].sum()
    assert formula(log_prob, image.shape).item() == pytest.approx(len(message) / image.numel())
    uniform = Categorical(torch.ones(256)).log_prob(torch.zeros(3, 8, 8)).sum()
    assert formula(uniform, (3, 8, 8)).item() == pytest.approx(8)


@pytest.mark.equation(
    "eq-rescaled-density",
    formula=lambda log_prob, y, c, n_dims: log_prob(y / c) - n_dims * math.log(abs(c)),
    wrong={
        "sign": lambda log_prob, y, c, n_dims: log_prob(y / c) + n_dims * math.log(abs(c)),
        "one dimension only": lambda log_prob, y, c, n_dims: log_prob(y / c) - math.log(abs(c)),
        "term dropped": lambda log_prob, y, c, n_dims: log_prob(y / c),
        "scaled the wrong way": lambda log_prob, y, c, n_dims: (
            log_prob(y * c) - n_dims * math.log(abs(c))
        ),
    },
)
def test_density_in_another_unit(formula):
    mean, factor = torch.tensor([0.3, -1.0, 0.8]), torch.randn(3, 3).tril() + 2 * torch.eye(3)
    y = torch.randn(7, 3)
    for c in (2.5, -0.4):
        p_x = MultivariateNormal(mean, factor @ factor.mT)
        p_y = MultivariateNormal(c * mean, c**2 * factor @ factor.mT)
        torch.testing.assert_close(formula(p_x.log_prob, y, c, 3), p_y.log_prob(y))


@pytest.mark.equation(
    "eq-unbounded-likelihood",
    formula=lambda entropy, sigma: -entropy - math.log(sigma) - 0.5 * math.log(2 * math.pi),
    wrong={
        "sign of the entropy": lambda entropy, sigma: (
            entropy - math.log(sigma) - 0.5 * math.log(2 * math.pi)
        ),
        "sign of log sigma": lambda entropy, sigma: (
            -entropy + math.log(sigma) - 0.5 * math.log(2 * math.pi)
        ),
        "constant dropped": lambda entropy, sigma: -entropy - math.log(sigma),
        "log of the variance": lambda entropy, sigma: (
            -entropy - 2 * math.log(sigma) - 0.5 * math.log(2 * math.pi)
        ),
    },
)
def test_density_on_integers_explodes(formula):
    weights = torch.distributions.Dirichlet(torch.ones(5)).sample()
    levels = torch.arange(5.0)
    entropy = Categorical(weights).entropy().item()

    def average(sigma):
        log_prob = Normal(levels, sigma).log_prob(levels[:, None]) + weights.log()
        return (weights * log_prob.logsumexp(-1)).sum().item()

    for sigma in (0.7, 0.4, 0.2):
        assert average(sigma) > formula(entropy, sigma)
    for sigma in (1e-2, 1e-4, 1e-8):  # and nothing stops it
        assert average(sigma) == pytest.approx(formula(entropy, sigma), abs=1e-10)

"""Grids and paths in latent space, and the two gradient estimators."""

import pytest
import torch
from torch.distributions import Normal

from course_lib.vae import (
    interpolate,
    latent_grid,
    pathwise_gradient,
    reparameterize,
    score_function_gradient,
    traversal,
)


def test_grid_has_equal_prior_mass_per_cell_and_reads_like_an_image():
    grid = latent_grid(5).reshape(5, 5, 2)
    shares = Normal(0.0, 1.0).cdf(grid)
    torch.testing.assert_close(shares[0, :, 0], (torch.arange(5) + 0.5) / 5)
    assert (grid[0, :, 1] > grid[-1, :, 1]).all()  # top row: large z2
    assert (grid[:, 0, 0] < grid[:, -1, 0]).all()  # left column: small z1


def test_traversal_changes_one_coordinate_only():
    z = torch.tensor([1.0, 2.0, 3.0])
    points = traversal(z, 1, torch.tensor([-5.0, 5.0]))
    assert points.tolist() == [[1.0, -5.0, 3.0], [1.0, 5.0, 3.0]]
    assert z.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="dim is 3"):
        traversal(z, 3, torch.zeros(1))


def test_interpolation_reaches_both_ends_and_the_spherical_one_keeps_the_radius():
    start, end = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    for spherical in (False, True):
        path = interpolate(start, end, 7, spherical=spherical)
        torch.testing.assert_close(path[[0, -1]], torch.stack([start, end]))
    torch.testing.assert_close(path.norm(dim=1), torch.full((7,), 2.0))
    assert interpolate(start, 3 * start, 3, spherical=True)[1].tolist() == [4.0, 0.0]
    # The origin has no angle.
    assert interpolate(0 * start, start, 3, spherical=True)[1].tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="n is 1; an integer of at least 2"):
        interpolate(start, end, 1)


def test_reparameterized_sample_has_the_standard_deviation_of_half_the_logvar():
    logvar = torch.tensor([0.25]).log() * 2  # σ² = 0.0625, σ = 0.25
    z = reparameterize(torch.tensor([3.0]), logvar, torch.randn(100_000, 1))
    assert z.mean().item() == pytest.approx(3.0, abs=0.01)
    assert z.std().item() == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize("estimator", [pathwise_gradient, score_function_gradient])
def test_estimators_are_unbiased(estimator, float64):
    """f(z) = Σ a_j z_j³ has E f = Σ a_j (μ³ + 3 μ σ²): gradients in closed form."""
    a = torch.tensor([1.0, -0.5])
    mu, logvar = torch.tensor([0.7, -1.2]), torch.tensor([-0.4, 0.3])
    n = 400_000
    by_mu, by_logvar = estimator(lambda z: (a * z**3).sum(-1), mu, logvar, n)
    exact_mu = a * (3 * mu**2 + 3 * logvar.exp())
    exact_logvar = a * 3 * mu * logvar.exp()
    for estimate, exact in ((by_mu, exact_mu), (by_logvar, exact_logvar)):
        error = estimate.std(0) / n**0.5
        assert (estimate.mean(0) - exact).abs().lt(4.5 * error).all()


def test_a_baseline_changes_the_variance_and_not_the_mean(float64):
    mu, logvar, n = torch.tensor([0.5]), torch.tensor([0.0]), 200_000

    def f(z):
        return z[:, 0] ** 2 + 10

    plain, _ = score_function_gradient(f, mu, logvar, n)
    reduced, _ = score_function_gradient(f, mu, logvar, n, baseline=11.25)
    assert reduced.var() < 0.1 * plain.var()
    assert reduced.mean().item() == pytest.approx(1.0, abs=5 * (reduced.std() / n**0.5).item())

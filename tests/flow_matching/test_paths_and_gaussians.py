"""Velocities along paths, against mixtures of which all is known, and what Gaussians say in closed form."""

import math

import pytest
import torch

from course_lib.flow_matching import (
    conditional_velocity,
    ends_from_velocity,
    gaussian_average_velocity,
    gaussian_flow_map,
    gaussian_loss_floor,
    gaussian_optimal_map,
    gaussian_pair_velocity,
    gaussian_velocity,
    noise_loss_weight,
    score_from_velocity,
    velocity_from_score,
)
from course_lib.mixtures import GaussianMixture
from course_lib.schedules import Cosine, LinearLogSNR, LinearPath, per_example
from course_lib.solvers import integrate, time_grid
from tests.diffusion.exact import plane

PATHS = [LinearPath(), Cosine(8.0, -9.0), LinearLogSNR(7.0, -6.0)]
IDS = [type(path).__name__ for path in PATHS]


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_the_conditional_velocity_is_the_derivative_of_the_path(path, float64):
    x, noise, t = torch.randn(5, 1, 2, 3), torch.randn(5, 1, 2, 3), 0.1 + 0.8 * torch.rand(5)
    found = conditional_velocity(path, x, noise, t)
    expected = torch.func.jvp(
        lambda s: per_example(path.alpha(s), x) * x + per_example(path.sigma(s), x) * noise,
        (t,),
        (torch.ones(5),),
    )[1]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_velocity_score_and_ends_are_those_of_the_mixture(path, float64):
    mixture, z, t = plane(), torch.randn(7, 2), torch.linspace(0.1, 0.9, 7)
    alpha, sigma = path.alpha(t), path.sigma(t)
    velocity, score = mixture.velocity(z, t, path), mixture.score(z, alpha, sigma)
    torch.testing.assert_close(velocity_from_score(path, score, z, t), velocity)
    torch.testing.assert_close(score_from_velocity(path, velocity, z, t), score)
    clean, noise = ends_from_velocity(path, velocity, z, t)
    torch.testing.assert_close(clean, mixture.posterior_mean(z, alpha, sigma))
    torch.testing.assert_close(noise, -per_example(sigma, z) * score)


def test_the_ends_are_known_at_both_ends_of_the_linear_path(float64):
    path, x, noise = LinearPath(), torch.randn(4, 3), torch.randn(4, 3)
    for t, z in ((0.0, x), (1.0, noise)):
        found = ends_from_velocity(path, noise - x, z, torch.tensor(t))
        torch.testing.assert_close(found, (x, noise))


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_the_gaussian_velocity_is_that_of_a_mixture_of_one(path, float64):
    mean, variance = torch.tensor([0.7, -1.2]), torch.tensor([0.3, 2.0])
    one = GaussianMixture(torch.ones(1), mean[None], torch.diag(variance)[None])
    z, t = torch.randn(6, 2), torch.linspace(0, 1, 6)
    found = gaussian_velocity(path, z, t, mean, variance)
    torch.testing.assert_close(found, one.velocity(z, t, path))


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_the_flow_map_of_a_gaussian_solves_the_ode(path, float64):
    mean, variance = torch.tensor([0.7, -1.2]), torch.tensor([0.3, 2.0])
    z = torch.randn(5, 2)
    for start, end in ((0.2, 0.9), (1.0, 0.1)):
        solved = integrate(
            lambda x, t: gaussian_velocity(path, x, t, mean, variance),
            z,
            time_grid(300, start, end),
            "rk4",
        )
        ends = torch.tensor(start), torch.tensor(end)
        torch.testing.assert_close(
            gaussian_flow_map(path, z, *ends, mean, variance), solved, atol=1e-7, rtol=0
        )


def test_the_average_velocity_is_the_mean_of_the_velocity_along_a_trajectory(float64):
    path, mean, variance = LinearPath(), torch.tensor([0.7, -1.2]), torch.tensor([0.3, 2.0])
    z, t = torch.randn(4, 2), torch.tensor(0.8)
    for r in (0.0, 0.5):
        r = torch.tensor(r)
        nodes = r + (t - r) * (torch.arange(2000) + 0.5) / 2000
        along = [gaussian_flow_map(path, z, t, s, mean, variance) for s in nodes]
        speeds = [
            gaussian_velocity(path, x, s, mean, variance) for x, s in zip(along, nodes, strict=True)
        ]
        found = gaussian_average_velocity(z, r, t, mean, variance)
        torch.testing.assert_close(found, torch.stack(speeds).mean(0), atol=1e-6, rtol=0)
    # At r = t it is the velocity, and close to it nothing cancels, in float32 either.
    found = gaussian_average_velocity(z, t, t, mean, variance)
    torch.testing.assert_close(found, gaussian_velocity(path, z, t, mean, variance))
    near = [a.float() for a in (z, t - 1e-6, t, mean, variance)]
    torch.testing.assert_close(
        gaussian_average_velocity(*near), found.float(), atol=1e-5, rtol=1e-5
    )


def test_the_floor_of_the_loss_is_the_mean_variance_of_the_conditional_velocity(float64):
    variance = torch.tensor([0.3, 1.0, 2.5])
    t = (torch.arange(20_000) + 0.5)[:, None] / 20_000
    # Var(ε − x | x_t) of joint normals, one entry at a time.
    spread = (1 - t) ** 2 * variance + t**2
    explained = (t - (1 - t) * variance) ** 2 / spread
    floor = (1 + variance - explained).mean(0)
    torch.testing.assert_close(gaussian_loss_floor(variance), floor.sum(), atol=1e-7, rtol=0)
    assert gaussian_loss_floor(torch.ones(1)).item() == pytest.approx(math.pi / 2)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_the_weight_turns_one_loss_into_the_other(path, float64):
    """Of an arbitrary error of the noise that depends on time."""
    z, t = torch.randn(50, 2), torch.linspace(0.05, 0.95, 50)
    velocity, error = torch.randn(50, 2), torch.randn(50, 2)
    noise = [ends_from_velocity(path, v, z, t)[1] for v in (velocity, velocity + error)]
    change = (noise[1] - noise[0]).square().sum(1) * path.log_snr_rate(t).abs()
    torch.testing.assert_close(error.square().sum(1), noise_loss_weight(path, t) * change)
    if isinstance(path, LinearPath):
        torch.testing.assert_close(noise_loss_weight(path, t), (-path.log_snr(t) / 2).exp() / 2)


def test_from_noise_the_flow_is_the_optimal_transport_and_from_another_source_it_is_not(float64):
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]])
    costs = {}
    for name, source in (
        ("noise", torch.eye(2)),
        ("other", torch.tensor([[2.0, -0.9], [-0.9, 0.7]])),
    ):
        # The flow is linear: what it makes of the basis is its matrix.
        matrix = integrate(
            lambda z, t, q=source: gaussian_pair_velocity(z, t, covariance, q),
            torch.eye(2),
            time_grid(300),
            "rk4",
        ).mT
        torch.testing.assert_close(matrix @ source @ matrix.mT, covariance, atol=1e-8, rtol=0)
        best = gaussian_optimal_map(covariance, source)
        torch.testing.assert_close(best @ source @ best.mT, covariance)
        torch.testing.assert_close(best, best.mT)
        cost = [
            (source + covariance - 2 * (m @ source)).diagonal().sum().item() for m in (matrix, best)
        ]
        costs[name] = cost
    assert costs["noise"][0] == pytest.approx(costs["noise"][1], abs=1e-8)
    assert costs["other"][0] > costs["other"][1] + 0.01


def test_the_velocity_between_gaussians_is_that_of_the_mixture_where_the_source_is_noise(float64):
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]])
    one = GaussianMixture(torch.ones(1), torch.zeros(1, 2), covariance[None])
    z, t = torch.randn(5, 2), torch.tensor(0.3)
    found = gaussian_pair_velocity(z, t, covariance, torch.eye(2))
    torch.testing.assert_close(found, one.velocity(z, t, LinearPath()))

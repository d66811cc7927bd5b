"""What other sources call things: there and back, and the same samples on either side."""

import pytest
import torch

from course_lib.flow_matching import (
    alpha_from_ddim,
    edm_sigma,
    guidance_scale,
    guidance_weight,
    log_snr_from_ratio,
    on_another_path,
    reversed_time,
    time_of_edm_sigma,
)
from course_lib.schedules import Cosine, LinearLogSNR, LinearPath
from course_lib.solvers import integrate, time_grid
from tests.diffusion.exact import plane


def test_reversed_time_runs_from_noise_to_data_forwards(float64):
    mixture, noise = plane(), torch.randn(6, 2)

    def velocity(x, t):
        return mixture.velocity(x, t, LinearPath())

    ours = integrate(velocity, noise, time_grid(50), "rk4")
    theirs = integrate(reversed_time(velocity), noise, time_grid(50, 0.0, 1.0), "rk4")
    torch.testing.assert_close(theirs, ours)
    x, t = torch.randn(6, 2), torch.rand(6)
    torch.testing.assert_close(reversed_time(reversed_time(velocity))(x, t), velocity(x, t))
    # Their convention: x_s = (1 − s) ε + s x, whose velocity x − ε has the opposite sign.
    at = torch.tensor(0.3)
    clean = mixture.posterior_mean(x, at, 1 - at)
    noisy = (x - at * clean) / (1 - at)
    torch.testing.assert_close(reversed_time(velocity)(x, at), clean - noisy)


def test_scales_and_weights_of_guidance():
    assert guidance_scale(0.0) == 1
    assert guidance_scale(2.0) == 3
    assert guidance_weight(guidance_scale(0.7)) == pytest.approx(0.7)


@pytest.mark.parametrize("path", [LinearPath(), Cosine(8.0, -8.0), LinearLogSNR(6.0, -7.0)])
def test_levels_of_noise_in_other_symbols(path, float64):
    t = torch.linspace(0.1, 0.9, 9)
    alpha, sigma = path.alpha(t), path.sigma(t)
    torch.testing.assert_close(log_snr_from_ratio(alpha / sigma), path.log_snr(t))
    torch.testing.assert_close(edm_sigma(path, t), sigma / alpha)
    torch.testing.assert_close(time_of_edm_sigma(path, sigma / alpha), t)
    if not isinstance(path, LinearPath):
        found = alpha_from_ddim(alpha**2)
        torch.testing.assert_close(found, (alpha, sigma))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LinearPath(), Cosine(9.0, -9.0)),
        (Cosine(9.0, -9.0), LinearPath()),
        (LinearLogSNR(9.0, -9.0), LinearPath()),
    ],
)
def test_a_velocity_on_another_path_is_the_mixtures_velocity_there(old, new, float64):
    mixture, x = plane(), torch.randn(5, 2)
    moved = on_another_path(lambda x, t: mixture.velocity(x, t, old), old, new)
    for t in (0.05, 0.4, 0.9):
        t = torch.tensor(t)
        torch.testing.assert_close(moved(x, t), mixture.velocity(x, t, new))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: guidance_scale(-0.5), "w is -0.5"),
        (lambda: guidance_weight(0.5), "scale is 0.5"),
        (lambda: log_snr_from_ratio(torch.tensor([1.0, 0.0])), "ratio has a value"),
        (lambda: alpha_from_ddim(torch.tensor([1.2])), "alpha_bar has a value outside"),
        (lambda: time_of_edm_sigma(LinearPath(), torch.tensor([-1.0])), "sigma has a value"),
        (lambda: edm_sigma(LinearPath(), torch.tensor([1.5])), r"times in \[0, 1\]"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reversed_time(3), "velocity is 3"),
        (lambda: on_another_path(lambda x, t: x, LinearPath(), 3), "new is 3"),
        (lambda: edm_sigma(3, torch.tensor(0.5)), "schedule is 3"),
        (lambda: alpha_from_ddim(torch.tensor([0.5]).half()), "float16"),
    ],
)
def test_bad_types_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()

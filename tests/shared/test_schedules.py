"""Noise schedules: each function against what it must follow from."""

import math

import pytest
import torch

from course_lib.diffusion import DDPMSchedule, linear_betas
from course_lib.schedules import (
    Cosine,
    LinearLogSNR,
    LinearPath,
    Tabulated,
    low_discrepancy_times,
    per_example,
    require_falling_snr,
    require_times,
)

SCHEDULES = {
    "LinearPath": LinearPath,
    "LinearLogSNR": lambda: LinearLogSNR(7.0, -5.0),
    "LinearLogSNR, learned": lambda: LinearLogSNR(7.0, -5.0, learned=True),
    "Cosine": lambda: Cosine(8.0, -6.0),
    "Tabulated": lambda: Tabulated(torch.tensor([6.0, 2.5, 1.0, -4.0], dtype=torch.float64)),
}


@pytest.fixture(params=SCHEDULES.values(), ids=SCHEDULES)
def schedule(request, float64):
    return request.param()


# Not special: no piece of a table ends here.
TIMES = [0.013, 0.21, 0.5003, 0.77, 0.984]


def test_the_log_snr_is_that_of_signal_and_noise_and_falls(schedule):
    t = torch.tensor(TIMES)
    log_snr = schedule.log_snr(t)
    expected = 2 * (schedule.alpha(t) / schedule.sigma(t)).log()
    torch.testing.assert_close(log_snr, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(schedule.snr(t), log_snr.exp())
    assert (log_snr.diff() < 0).all()


def test_time_is_the_inverse_of_the_log_snr(schedule):
    t = torch.tensor(TIMES)
    torch.testing.assert_close(schedule.time(schedule.log_snr(t)), t, atol=1e-12, rtol=0)


def test_rates_are_the_derivatives_that_autograd_finds(schedule):
    for name in ("alpha", "sigma", "log_snr"):
        t = torch.tensor(TIMES, requires_grad=True)
        (slope,) = torch.autograd.grad(getattr(schedule, name)(t).sum(), t)
        rate = getattr(schedule, f"{name}_rate")(t)
        torch.testing.assert_close(rate.detach(), slope, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", ["LinearLogSNR", "Cosine", "Tabulated"])
def test_variance_is_preserved_and_the_ends_are_as_given(float64, name):
    schedule = SCHEDULES[name]()
    t = torch.tensor(TIMES)
    ones = torch.ones(len(TIMES))
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, ones)
    ends = {"LinearLogSNR": (7.0, -5.0), "Cosine": (8.0, -6.0), "Tabulated": (6.0, -4.0)}[name]
    found = schedule.log_snr(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(found, torch.tensor(ends), atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cosine_with_far_ends_keeps_its_digits(dtype):
    """Near its ends tan(πu/2) and 1 − u would lose all of them in float32."""
    schedule = Cosine(40.0, -60.0)
    t = torch.tensor([0.0, 0.5, 1.0], dtype=dtype)
    found = schedule.log_snr(t)
    torch.testing.assert_close(
        found, torch.tensor([40.0, 0.0, -60.0], dtype=dtype), atol=2e-5, rtol=0
    )
    assert (schedule.log_snr_rate(t) < 0).all()


def test_the_linear_path_is_a_line_between_data_and_noise(float64):
    x, noise, t = torch.randn(3, 2), torch.randn(3, 2), torch.tensor([0.2, 0.5, 1.0])
    torch.testing.assert_close(LinearPath().noised(x, noise, t), torch.lerp(x, noise, t[:, None]))
    slope = LinearPath().alpha_rate(t)[:, None] * x + LinearPath().sigma_rate(t)[:, None] * noise
    torch.testing.assert_close(slope, noise - x)


def test_learned_ends_have_gradients_and_keep_the_log_snr_falling(float64):
    schedule = LinearLogSNR(1.0, 0.5, learned=True)
    t = torch.tensor([0.3, 0.9])
    (schedule.log_snr(t).sum() + schedule.log_snr_rate(t).sum()).backward()
    assert schedule.last.grad != 0
    assert schedule.log_width.grad != 0
    with torch.no_grad():
        schedule.log_width -= 10
    assert (schedule.log_snr(torch.tensor([0.0, 1.0])).diff() < 0).all()


def test_a_discrete_schedule_has_its_levels_and_no_others(float64):
    betas = linear_betas(10, 0.01, 0.3)
    schedule = DDPMSchedule(betas)
    t = torch.arange(11) / 10
    torch.testing.assert_close(schedule.alpha(t)[1:] ** 2, (1 - betas).cumprod(0))
    assert schedule.sigma(torch.tensor(0.0)) == 0
    torch.testing.assert_close(schedule.time(schedule.log_snr(t[1:])), t[1:])
    grid = schedule.grid(4)
    assert grid[0] == 1
    assert grid[-1] == 0
    schedule.alpha(grid)


def test_low_discrepancy_times_lie_one_in_each_part_and_are_uniform_there():
    draws = torch.stack([low_discrepancy_times(8) for _ in range(2000)])
    # One in each eighth …
    assert torch.equal((draws * 8).long(), torch.arange(8).expand(2000, 8))
    # … and uniform within it: mean and variance of a uniform number.
    within = draws[:, 3] * 8 - 3
    assert abs(within.mean() - 0.5) < 4 / math.sqrt(12 * 2000)
    assert abs(within.var() - 1 / 12) < 0.01


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: require_times(1.5), ValueError, "t is 1.5; a time"),
        (lambda: require_times(torch.tensor([0.5, float("nan")])), ValueError, "times in"),
        (lambda: require_times(torch.tensor([0.5]).half()), TypeError, "float16"),
        (lambda: require_times(torch.tensor([1])), TypeError, "floating-point"),
        (lambda: LinearLogSNR(-3.0, 4.0), ValueError, "falls from time 0"),
        (lambda: Cosine(float("inf"), -4.0), ValueError, "finite"),
        (lambda: Cosine(10.0, -2000.0), ValueError, r"log_snr_min is -2000.0; .* in \[-80, 80\]"),
        (lambda: LinearLogSNR(1e6, -4.0), ValueError, "log_snr_max is 1000000"),
        (lambda: Tabulated(torch.tensor([math.inf, 1.0, -1.0])), ValueError, "two finite values"),
        (lambda: Tabulated(torch.tensor([1.0, 2.0])), ValueError, "fall strictly"),
        (lambda: Tabulated(torch.tensor([2.0, 1.0]).half()), TypeError, "float16"),
        (
            lambda: low_discrepancy_times(9, dtype=torch.float16),
            TypeError,
            "dtype is torch.float16",
        ),
        (
            lambda: LinearLogSNR(4.0, -4.0).time(torch.tensor(5.0)),
            ValueError,
            r"those in \[-4, 4\]",
        ),
        (lambda: Cosine(4.0, -4.0).time(torch.tensor(-5.0)), ValueError, "Take a schedule with"),
        (
            lambda: Tabulated(torch.tensor([2.0, 1.0])).time(torch.tensor(3.0)),
            ValueError,
            "values in",
        ),
        (lambda: LinearLogSNR().time(torch.tensor(math.nan)), ValueError, "values in .nan"),
        (lambda: LinearPath().alpha(torch.tensor(1.01)), ValueError, r"times in \[0, 1\]"),
        (lambda: Cosine().log_snr(-0.1), ValueError, "t is -0.1"),
        (
            lambda: require_falling_snr(LinearPath(), torch.tensor([0.5, 0.5])),
            ValueError,
            "does not fall from time 0.5",
        ),
        (lambda: Tabulated(torch.tensor([3.0, 3.0, 1.0])), ValueError, "fall strictly"),
        (lambda: Tabulated(torch.tensor([200.0, 0.0])), ValueError, "log_snr_max is .*200"),
        (lambda: Tabulated(torch.tensor([3, 1])), TypeError, "floating-point"),
        (lambda: low_discrepancy_times(0), ValueError, "n is 0"),
        (
            lambda: per_example(torch.ones(2), torch.ones(3, 2)),
            ValueError,
            r"value has shape \(2,\) for examples of shape \(3, 2\)",
        ),
        (
            lambda: LinearPath().noised(torch.ones(2, 2), torch.ones(2, 1), torch.ones(2)),
            ValueError,
            "one shape with at least one entry",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_number_for_each_example_never_broadcasts_over_dimensions():
    """With as many examples as dimensions, silence would be wrong in every entry but the diagonal."""
    x, t = torch.ones(2, 2), torch.tensor([0.0, 1.0])
    noised = LinearPath().noised(x, torch.zeros(2, 2), t)
    assert torch.equal(noised, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


def test_noised_examples_keep_their_type():
    x, noise = torch.randn(2, 3, 4)
    for schedule, t in (
        (DDPMSchedule(linear_betas(10)), torch.tensor([0.1, 0.5, 1.0])),
        (LinearPath(), torch.tensor([0.1, 0.5, 1.0]).double()),
    ):
        assert schedule.noised(x, noise, t).dtype == torch.float32
        wide = schedule.noised(x.double(), noise.double(), t.double())
        torch.testing.assert_close(schedule.noised(x, noise, t), wide.float())


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_tells_its_shapes_without_values(name):
    t = torch.zeros(3, device="meta")
    assert SCHEDULES[name]().to("meta").alpha(t).shape == (3,)

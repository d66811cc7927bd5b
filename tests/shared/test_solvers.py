"""Solvers: their order, the divergence along the way, and the log-density that follows."""

import math

import pytest
import torch

from course_lib.distributions import standard_normal_log_prob
from course_lib.schedules import LinearPath
from course_lib.solvers import (
    METHODS,
    draw_probes,
    exact_divergence,
    flow_log_prob,
    integrate,
    integrate_with_divergence,
    probed_divergence,
    require_grid,
    time_grid,
)
from tests.diffusion.exact import plane


@pytest.mark.parametrize("name", METHODS)
def test_halving_the_step_divides_the_error_by_two_to_the_order(float64, name):
    """On a velocity that depends on time too, or midpoint and Heun would not be told from worse ones."""
    x = torch.tensor([[0.7], [-0.4]])

    def velocity(x, t):
        return x.sin() * (3 * t).cos() + t

    truth = integrate(velocity, x, time_grid(800, 0.0, 1.0), "rk4")
    errors = [
        (integrate(velocity, x, time_grid(n, 0.0, 1.0), name) - truth).norm() for n in (60, 120)
    ]
    assert errors[0] / errors[1] == pytest.approx(2 ** METHODS[name].order, rel=0.12)


@pytest.mark.parametrize("name", METHODS)
def test_a_way_back_leads_back(float64, name):
    mixture, path = plane(), LinearPath()
    x = torch.tensor([[0.3, 0.8], [-1.1, 0.2]])
    there = integrate(lambda x, t: mixture.velocity(x, t, path), x, time_grid(100, 0.0, 1.0), name)
    back = integrate(lambda x, t: mixture.velocity(x, t, path), there, time_grid(100), name)
    bound = {1: 0.15, 2: 2e-3, 4: 1e-6}[METHODS[name].order]
    assert (back - x).abs().max() < bound


def test_the_flow_between_gaussians_is_its_closed_form(float64):
    """N(0, I) and N(m, C) on the linear path: x = m + C^½ ε."""
    from course_lib.mixtures import GaussianMixture

    mean, cov = torch.tensor([[0.4, -1.0]]), torch.tensor([[0.5, 0.2], [0.2, 0.8]])
    mixture = GaussianMixture(torch.ones(1), mean, cov[None])
    values, vectors = torch.linalg.eigh(cov)
    noise = torch.tensor([[0.3, 1.2], [-0.8, 0.1]])
    found = integrate(
        lambda x, t: mixture.velocity(x, t, LinearPath()), noise, time_grid(200), "rk4"
    )
    expected = mean + noise @ (vectors * values.sqrt()) @ vectors.mT
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


def test_evaluations_are_as_many_as_stated():
    for name, method in METHODS.items():
        calls = []
        integrate(lambda x, t, c=calls: c.append(t) or x, torch.ones(1, 1), time_grid(5), name)
        assert len(calls) == 5 * method.evaluations


def curved(x, t):
    """A velocity whose Jacobian is neither symmetric nor constant, for any shape."""
    flat = x.flatten(1)
    return (flat.roll(1, 1) * flat + (t + 1) * flat.sin()).view_as(x)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3)])
def test_the_exact_divergence_is_the_trace_of_the_jacobian(float64, shape):
    x, t = torch.randn(4, *shape), torch.tensor(0.3)
    v, divergence = exact_divergence(curved, x, t)
    torch.testing.assert_close(v, curved(x, t))
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(
            lambda p: curved(p[None], t).flatten(), x[i]
        ).reshape(x[i].numel(), -1)
        torch.testing.assert_close(divergence[i], jacobian.trace())


def test_a_velocity_that_does_not_depend_on_x_has_no_divergence(float64):
    x, t = torch.randn(4, 2), torch.tensor(0.3)
    shift = torch.ones(2, requires_grad=True)
    for field in (
        lambda x, t: torch.ones_like(x),
        lambda x, t: t * torch.ones_like(x),
        lambda x, t: shift.expand_as(x),
    ):
        assert torch.equal(exact_divergence(field, x, t)[1], torch.zeros(4))
        assert torch.equal(probed_divergence(field, x, t, draw_probes(x))[1], torch.zeros(4))
    log_prob = flow_log_prob(
        lambda x, t: torch.ones_like(x), x, time_grid(3, 0, 1), standard_normal_log_prob
    )
    torch.testing.assert_close(log_prob, standard_normal_log_prob(x + 1))


def test_the_divergence_of_what_cannot_be_differentiated_is_named(float64):
    x, t, shift = torch.randn(4, 2), torch.tensor(0.3), torch.ones(2, requires_grad=True)
    for field in (
        torch.no_grad()(lambda x, t: 2 * x),
        lambda x, t: x.detach(),
        lambda x, t: shift * x.detach(),
    ):
        with pytest.raises(ValueError, match="has no gradient with respect to it"):
            exact_divergence(field, x, t)
        with pytest.raises(ValueError, match="has no gradient with respect to it"):
            probed_divergence(field, x, t, draw_probes(x))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="call under torch"):
        exact_divergence(curved, x, t)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_probes_are_unbiased_and_have_unit_covariance(float64, kind):
    x, t = torch.randn(1, 4), torch.tensor(0.3)
    probes = draw_probes(x, 40_000, kind, generator=torch.Generator().manual_seed(0))
    assert (probes[:, 0].T.cov() - torch.eye(4)).abs().max() < 0.05
    estimate = probed_divergence(curved, x, t, probes[:2000])[1]
    each = torch.stack([probed_divergence(curved, x, t, p[None])[1] for p in probes[:300]])
    torch.testing.assert_close(estimate, exact_divergence(curved, x, t)[1], rtol=0, atol=0.3)
    assert abs(each.mean() - exact_divergence(curved, x, t)[1]) < 4 * each.std() / math.sqrt(300)
    if kind == "rademacher":
        assert set(probes.unique().tolist()) == {-1.0, 1.0}


def test_one_solve_uses_one_probe(float64):
    """With a constant Jacobian A the integral is zᵀAz whatever the method: no stage sees another z."""
    a = torch.tensor([[0.7, 0.3], [-0.4, -0.2]])
    x = torch.randn(5, 2)
    probes = draw_probes(x, 1, "gaussian", generator=torch.Generator().manual_seed(1))
    expected = ((probes[0] @ a) * probes[0]).sum(1)
    for name in METHODS:
        found = integrate_with_divergence(lambda x, t: x @ a, x, time_grid(3, 0, 1), name, probes)[
            1
        ]
        torch.testing.assert_close(found, expected)


def test_the_log_density_by_probes_is_unbiased(float64):
    mixture, path = plane(), LinearPath()
    x = torch.tensor([[0.3, 0.8]]).expand(400, 2)
    found = flow_log_prob(
        lambda x, t: mixture.velocity(x, t, path),
        x,
        time_grid(20, 0.0, 1.0),
        standard_normal_log_prob,
        "rk4",
        draw_probes(x, generator=torch.Generator().manual_seed(0)),
    )
    error = found.std() / math.sqrt(400)
    assert abs(found.mean() - mixture.log_prob(x)[0]) < 4 * error + 1e-3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: time_grid(0), ValueError, "steps is 0"),
        (lambda: time_grid(3, 1.5, 0.0), ValueError, "start is 1.5"),
        (lambda: require_grid(torch.tensor([0.0, 0.5, 0.2])), ValueError, "run one way"),
        (lambda: require_grid(torch.tensor([0.5])), ValueError, "run one way"),
        (lambda: require_grid(torch.tensor([0.0, 1.1])), ValueError, r"times in \[0, 1\]"),
        (
            lambda: integrate(curved, torch.ones(1, 2), time_grid(2), "rk5"),
            ValueError,
            "method is 'rk5'",
        ),
        (lambda: draw_probes(torch.ones(1, 2), 1, "sign"), ValueError, "kind is 'sign'"),
        (
            lambda: integrate(lambda x, t: x[:, None], torch.ones(4), time_grid(3)),
            ValueError,
            r"velocity has shape \(4, 1\); \(4,\) is expected",
        ),
        (
            lambda: integrate(lambda x, t: x[:, :1], torch.ones(4, 2), time_grid(3)),
            ValueError,
            "velocity has shape",
        ),
        (
            lambda: integrate(lambda x, t: x.sum(1), torch.ones(4, 4), time_grid(3)),
            ValueError,
            "velocity has shape",
        ),
        (
            lambda: exact_divergence(lambda x, t: x[:, :1], torch.ones(4, 2), torch.tensor(0.0)),
            ValueError,
            "velocity has shape",
        ),
        (
            lambda: flow_log_prob(
                curved, torch.ones(4, 2), time_grid(3, 0, 1), lambda z: z.sum(1, keepdim=True)
            ),
            ValueError,
            r"log_prior\(x\) has shape \(4, 1\)",
        ),
        (lambda: integrate(lambda x, t: None, torch.ones(4), time_grid(3)), TypeError, "NoneType"),
        (
            lambda: probed_divergence(
                curved, torch.ones(1, 2), torch.tensor(0.0), torch.ones(1, 2)
            ),
            ValueError,
            "probes has shape",
        ),
        (
            lambda: flow_log_prob(curved, torch.ones(1, 2), time_grid(2), standard_normal_log_prob),
            ValueError,
            "times fall",
        ),
        (lambda: time_grid(3, dtype=torch.float16), TypeError, "dtype is torch.float16"),
        (lambda: integrate(curved, torch.ones(1, 2).half(), time_grid(2)), TypeError, "float16"),
        (
            lambda: exact_divergence(curved, torch.ones(1, 2).half(), torch.tensor(0.5)),
            TypeError,
            "float16",
        ),
        (
            lambda: probed_divergence(
                curved, torch.ones(1, 2).half(), torch.tensor(0.5), torch.ones(1, 1, 2).half()
            ),
            TypeError,
            "float16",
        ),
        (
            lambda: integrate(curved, torch.ones(1, 2).long(), time_grid(2)),
            TypeError,
            "x has dtype",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""Divergences of finite distributions and of samples: closed forms, other programs' answers, bad input."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.spatial.distance
import scipy.special
import scipy.stats
import torch

from course_lib.divergences import (
    histogram_kl,
    js_discrete,
    kl_discrete,
    kl_standard_normal,
    kl_univariate_gaussian,
    wasserstein_1d,
)

P = torch.tensor([0.5, 0.25, 0.25])
Q = torch.tensor([0.125, 0.375, 0.5])


def test_kl_discrete_by_hand():
    expected = 0.5 * math.log(4) + 0.25 * math.log(2 / 3) - 0.25 * math.log(2)
    assert kl_discrete(P, Q).item() == pytest.approx(expected, rel=1e-6)


def test_kl_discrete_agrees_with_scipy_row_by_row(float64):
    p, q = (torch.distributions.Dirichlet(torch.full((2, 3, 7), 0.5)).sample() for _ in range(2))
    expected = scipy.special.rel_entr(p.numpy(), q.numpy()).sum(-1)
    torch.testing.assert_close(kl_discrete(p, q), torch.as_tensor(expected))


def test_kl_discrete_where_an_outcome_is_impossible():
    sure, fair = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    assert kl_discrete(sure, fair).item() == pytest.approx(math.log(2))
    assert kl_discrete(fair, sure) == math.inf
    assert kl_discrete(sure, sure) == 0


def test_kl_discrete_has_the_gradient_of_the_formula(float64):
    logits = torch.randn(5, requires_grad=True)
    kl_discrete(torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15]), logits.softmax(0)).backward()
    # d/dlogits of the cross-entropy: softmax minus target.
    expected = logits.detach().softmax(0) - torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15])
    torch.testing.assert_close(logits.grad, expected)


def test_js_discrete_by_hand():
    # p loses a mode of weight one half: three quarters of log 4/3.
    p, q = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.4, 0.6, 0.0])
    assert js_discrete(p, q).item() == pytest.approx(0.75 * math.log(4 / 3), rel=1e-6)


def test_js_discrete_is_symmetric_and_its_root_a_metric(float64):
    p, q, r = torch.distributions.Dirichlet(torch.full((3, 200, 4), 0.3)).sample()
    torch.testing.assert_close(js_discrete(p, q), js_discrete(q, p))
    sides = [js_discrete(a, b).clamp(min=0).sqrt() for a, b in ((p, r), (p, q), (q, r))]
    assert (sides[0] <= sides[1] + sides[2] + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_js_discrete_of_distributions_far_apart_stays_below_log_2(dtype):
    # The smallest positive number has no half.
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    p, q = torch.tensor([[1, 0, tiny], [tiny, 1, 0]], dtype=dtype)
    assert p[2] > 0
    assert p[2] / 2 == 0
    assert js_discrete(p, q).item() == pytest.approx(math.log(2))


def test_js_discrete_agrees_with_scipy(float64):
    p, q = torch.distributions.Dirichlet(torch.full((2, 6), 0.5)).sample()
    root = scipy.spatial.distance.jensenshannon(p.numpy(), q.numpy())
    assert js_discrete(p, q).item() == pytest.approx(root**2)


@pytest.mark.parametrize("divergence", [kl_discrete, js_discrete])
@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        (2 * P, Q, r"^p has .* sum to 2 .*Normalize with p"),
        (P, Q - 0.05, r"^q has .* sum to 0\.85"),
        (torch.tensor([1.2, -0.2, 0.0]), Q, r"^p has a least value of -0\.2"),
        (P, torch.tensor([0.5, float("nan"), 0.5]), "^q has a least value of nan"),
        (P, torch.tensor([1.0]), "p has 3 outcomes and q has 1"),
        (P, torch.tensor([0.4, 0.6]), "p has 3 outcomes and q has 2"),
    ],
)
def test_what_is_no_distribution_is_refused(divergence, p, q, message):
    with pytest.raises(ValueError, match=message):
        divergence(p, q)


@pytest.mark.parametrize("divergence", [kl_discrete, js_discrete])
def test_lists_are_refused(divergence):
    with pytest.raises(TypeError, match=r"q is a list.*torch\.as_tensor\(q\)"):
        divergence(P, [0.5, 0.25, 0.25])


def test_histogram_kl_counts_by_hand():
    edges = torch.tensor([0.0, 1.0, 2.0])  # four bins, the outer ones unbounded
    x = torch.tensor([-5.0, 0.5, 0.6, 1.5, 9.0])
    y = torch.tensor([0.1, 1.1, 1.2, 2.5])
    p, q = torch.tensor([1.5, 2.5, 1.5, 1.5]) / 7, torch.tensor([0.5, 1.5, 2.5, 1.5]) / 6
    expected = (p * (p / q).log()).sum().item()
    assert histogram_kl(x, y, edges).item() == pytest.approx(expected, rel=1e-6)
    p, q = torch.tensor([2.0, 3.0, 2.0, 2.0]) / 9, torch.tensor([1.0, 2.0, 3.0, 2.0]) / 8
    expected = (p * (p / q).log()).sum().item()
    assert histogram_kl(x, y, edges, pseudo_count=1.0).item() == pytest.approx(expected, rel=1e-6)


def test_histogram_kl_equal_bins_are_those_of_numpy():
    x, y = torch.randn(500), 0.5 * torch.randn(400) + 1
    low, high = torch.cat([x, y]).aminmax()
    counts = [np.histogram(s, bins=12, range=(low.item(), high.item()))[0] + 0.5 for s in (x, y)]
    assert histogram_kl(x, y, 12).item() == pytest.approx(scipy.stats.entropy(*counts))


def test_histogram_kl_approaches_the_divergence_of_the_distributions():
    x, y = torch.randn(400_000), 1.5 * torch.randn(400_000) + 0.5
    expected = math.log(1.5) + (1 + 0.5**2) / (2 * 1.5**2) - 0.5
    edges = torch.linspace(-5, 5, 101)
    assert histogram_kl(x, y, edges).item() == pytest.approx(expected, abs=0.01)
    assert histogram_kl(x, x, edges) == 0


def test_histogram_kl_without_pseudo_count_is_infinite_off_the_support():
    x, y = torch.tensor([0.5, 1.5]), torch.tensor([0.5])
    edges = torch.tensor([1.0])
    assert histogram_kl(x, y, edges, pseudo_count=0.0) == math.inf
    assert histogram_kl(y, x, edges, pseudo_count=0.0).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("distance", [histogram_kl, wasserstein_1d])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.empty(0), r"y has shape \(0,\)"),
        (torch.zeros(3, 1), r"y has shape \(3, 1\).*y\.flatten\(\)"),
        (torch.tensor([0.0, float("nan"), 2.0]), r"y has .* 1 values that are NaN"),
        (torch.tensor([0.0, -math.inf]), r"y has .* 1 values that are NaN"),
    ],
)
def test_what_is_no_sample_is_refused(distance, x, message):
    with pytest.raises(ValueError, match=message):
        distance(torch.tensor([1.0, 2.0]), x)
    with pytest.raises(ValueError, match=message.replace("y", "x")):
        distance(x, torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("distance", [histogram_kl, wasserstein_1d])
def test_samples_are_tensors(distance):
    with pytest.raises(TypeError, match="y is a ndarray"):
        distance(torch.tensor([1.0]), np.ones(3))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bins": 0}, ValueError, "bins is 0"),
        ({"bins": True}, TypeError, "bins is True"),
        ({"bins": torch.tensor([0.0, 2.0, 1.0])}, ValueError, "do not increase"),
        ({"bins": torch.tensor([0.0, 1.0, 1.0])}, ValueError, "do not increase"),
        ({"pseudo_count": -0.5}, ValueError, "pseudo_count is -0.5"),
    ],
)
def test_histogram_options_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        histogram_kl(torch.tensor([1.0, 2.0]), torch.tensor([1.5]), **options)


def test_wasserstein_of_a_shift_is_the_shift(float64):
    x = torch.randn(50)
    for shift in (-3.0, 0.0, 0.7):
        assert wasserstein_1d(x, x + shift).item() == pytest.approx(abs(shift))


def test_wasserstein_by_hand():
    # Half of the mass at 0 goes to 3, half to 1.
    assert wasserstein_1d(torch.tensor([0.0]), torch.tensor([3.0, 1.0])).item() == 2.0
    assert wasserstein_1d(torch.tensor([0, 4]), torch.tensor([1, 1, 1])).item() == 2.0


def test_wasserstein_is_the_least_cost_of_a_transport_plan(float64):
    x, y = 2 * torch.randn(7), torch.rand(5) - 1
    cost = (x[:, None] - y[None, :]).abs().numpy()
    # A plan has the row sums 1/7 and the column sums 1/5.
    rows = np.kron(np.eye(7), np.ones(5))
    columns = np.kron(np.ones(7), np.eye(5))
    plan = scipy.optimize.linprog(
        cost.ravel(),
        A_eq=np.vstack([rows, columns]),
        b_eq=np.concatenate([np.full(7, 1 / 7), np.full(5, 1 / 5)]),
    )
    assert wasserstein_1d(x, y).item() == pytest.approx(plan.fun)


@pytest.mark.parametrize("sizes", [(1, 1), (40, 40), (31, 77)])
def test_wasserstein_agrees_with_scipy(sizes, float64):
    x, y = torch.randn(sizes[0]).round(decimals=1), torch.randn(sizes[1]).exp()
    expected = scipy.stats.wasserstein_distance(x.numpy(), y.numpy())
    assert wasserstein_1d(x, y).item() == pytest.approx(expected)
    assert wasserstein_1d(y, x).item() == pytest.approx(expected)


def test_wasserstein_of_mixed_precision_is_that_of_the_finer_type():
    x, y = torch.tensor([0.25, 1.0]), torch.tensor([1.0 + 1e-12, 0.25], dtype=torch.float64)
    assert wasserstein_1d(x, y).item() == pytest.approx(5e-13, rel=1e-3)


def test_wasserstein_moves_a_sample_towards_the_other(float64):
    x = torch.tensor([0.0, 1.0, 5.0], requires_grad=True)
    wasserstein_1d(x, torch.tensor([2.0, 3.0, 4.0])).backward()
    # Sorted points are matched in order: the first two rise, the last falls, each with weight 1/3.
    torch.testing.assert_close(x.grad, torch.tensor([-1.0, -1.0, 1.0]) / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [1e-30, 1e-25, 1e-10, 1e10, 1e18, 1e25])
def test_univariate_gaussians_of_very_different_widths(sigma, dtype):
    narrow = torch.tensor(sigma, dtype=dtype)
    given = kl_univariate_gaussian(torch.zeros((), dtype=dtype), narrow, 0.0, 1.0)
    expected = 0.5 * (sigma**2 - 1) - math.log(sigma)
    expected = torch.tensor(expected, dtype=torch.float64).to(
        dtype
    )  # infinite where it is too large
    torch.testing.assert_close(given, expected)


def test_complex_numbers_are_not_cut_to_their_real_parts():
    z = torch.randn(3, 2, dtype=torch.complex64)
    with pytest.raises(TypeError, match=r"mu has dtype torch.complex64; a tensor of real numbers"):
        kl_standard_normal(z, z.real)

"""The library's three Gaussian divergences: against PyTorch's, sampling, and bad input."""

import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from course_lib.divergences import kl_gaussian, kl_standard_normal, kl_univariate_gaussian

pytestmark = pytest.mark.usefixtures("float64")


def random_covariances(*shape, d):
    root = torch.randn(*shape, d, d)
    return root @ root.mT + 0.3 * torch.eye(d)


def test_univariate_agrees_with_torch_elementwise_and_broadcasts():
    mu_q, sigma_q = torch.randn(5, 1), torch.rand(5, 1) + 0.2
    mu_p, sigma_p = torch.randn(3), torch.rand(3) + 0.2
    expected = kl_divergence(Normal(mu_q, sigma_q), Normal(mu_p, sigma_p))
    value = kl_univariate_gaussian(mu_q, sigma_q, mu_p, sigma_p)
    assert value.shape == (5, 3)
    torch.testing.assert_close(value, expected)


def test_univariate_takes_plain_numbers_in_double_precision():
    value = kl_univariate_gaussian(1.0, 0.5, 0.0, 1.0)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(math.log(2) + 1 / 8, abs=1e-15)


def test_integers_do_not_cut_the_fractions_of_the_numbers_beside_them():
    expected = kl_univariate_gaussian(0.0, 1.5, 0.3, 2.0)
    for zero in (torch.tensor(0), torch.zeros(3, dtype=torch.uint8)):
        value = kl_univariate_gaussian(zero, 1.5, 0.3, 2.0)
        torch.testing.assert_close(value, expected.expand(zero.shape))
    beside = kl_univariate_gaussian(torch.tensor(0), torch.tensor([1.5]).float(), 0.3, 2.0)
    assert beside.dtype == torch.float32
    torch.testing.assert_close(beside, expected.float()[None])


@pytest.mark.parametrize("d", [1, 2, 7])
def test_multivariate_agrees_with_torch(d):
    mu_q, mu_p = torch.randn(4, d), torch.randn(4, d)
    cov_q, cov_p = random_covariances(4, d=d), random_covariances(4, d=d)
    expected = kl_divergence(MultivariateNormal(mu_q, cov_q), MultivariateNormal(mu_p, cov_p))
    torch.testing.assert_close(kl_gaussian(mu_q, cov_q, mu_p, cov_p), expected)


def test_multivariate_survives_determinants_that_underflow():
    d = 400  # det(1e-3 I) = 1e-1200 is zero in any float
    scale_q, scale_p = 1e-3, 3e-3
    ratio = scale_q / scale_p
    value = kl_gaussian(
        torch.zeros(d), scale_q * torch.eye(d), torch.zeros(d), scale_p * torch.eye(d)
    )
    assert value.item() == pytest.approx(0.5 * d * (ratio - 1 - math.log(ratio)), rel=1e-10)


def test_standard_normal_agrees_with_torch_and_with_the_general_form():
    mu, logvar = torch.randn(6, 5), torch.randn(6, 5)
    q = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    p = Independent(Normal(torch.zeros(5), torch.ones(5)), 1)
    value = kl_standard_normal(mu, logvar)
    assert value.shape == (6,)
    torch.testing.assert_close(value, kl_divergence(q, p))
    general = kl_gaussian(mu, torch.diag_embed(logvar.exp()), torch.zeros(6, 5), torch.eye(5))
    torch.testing.assert_close(value, general)


def test_all_three_agree_with_sampling_within_four_standard_errors():
    mu, logvar = torch.tensor([0.8, -0.3, 1.1]), torch.tensor([-1.2, 0.4, -0.5])
    cov_q, cov_p = random_covariances(d=3), random_covariances(d=3)
    q, p = MultivariateNormal(mu, cov_q), MultivariateNormal(-mu, cov_p)
    diagonal = MultivariateNormal(mu, logvar.exp().diag())
    standard = MultivariateNormal(torch.zeros(3), torch.eye(3))
    line_q, line_p = Normal(0.4, 0.6), Normal(-0.5, 1.3)
    for value, first, second in (
        (kl_gaussian(mu, cov_q, -mu, cov_p), q, p),
        (kl_standard_normal(mu, logvar), diagonal, standard),
        (kl_univariate_gaussian(0.4, 0.6, -0.5, 1.3), line_q, line_p),
    ):
        x = first.sample((200_000,))
        log_ratio = first.log_prob(x) - second.log_prob(x)
        error = log_ratio.std() / math.sqrt(len(x))
        assert error < 0.02 * value  # the comparison can tell a few per cent
        assert (log_ratio.mean() - value).abs() < 4 * error
        # A single draw estimates a positive number and may itself be negative.
        assert (log_ratio < 0).any()


def test_zero_only_for_equal_distributions_and_never_negative():
    mu, cov = torch.randn(3), random_covariances(d=3)
    assert kl_gaussian(mu, cov, mu, cov).abs() < 1e-12
    assert kl_univariate_gaussian(0.3, 0.7, 0.3, 0.7) == 0
    assert (kl_standard_normal(torch.zeros(2, 4), torch.zeros(2, 4)) == 0).all()
    assert (kl_standard_normal(torch.randn(500, 3), torch.randn(500, 3)) > 0).all()
    assert kl_gaussian(mu, 1.001 * cov, mu, cov) > 0
    assert kl_univariate_gaussian(0.3, 0.7, 0.3, 0.7001) > 0


def test_divergences_do_not_depend_on_units():
    # Metres or centimetres: the slip 2σ for 2σ² breaks this.
    torch.testing.assert_close(
        kl_univariate_gaussian(0.4, 0.6, -0.5, 1.3),
        kl_univariate_gaussian(40.0, 60.0, -50.0, 130.0),
    )
    a = torch.tensor([[2.0, 0.5], [-0.3, 1.5]])
    mu_q, mu_p = torch.randn(2), torch.randn(2)
    cov_q, cov_p = random_covariances(d=2), random_covariances(d=2)
    torch.testing.assert_close(
        kl_gaussian(a @ mu_q, a @ cov_q @ a.T, a @ mu_p, a @ cov_p @ a.T),
        kl_gaussian(mu_q, cov_q, mu_p, cov_p),
    )


def test_gradients_are_those_of_the_text():
    mu = torch.tensor([[0.7, -1.2]], requires_grad=True)
    logvar = torch.tensor([[-0.8, 0.5]], requires_grad=True)
    kl_standard_normal(mu, logvar).sum().backward()
    torch.testing.assert_close(mu.grad, mu.detach())
    torch.testing.assert_close(logvar.grad, 0.5 * (logvar.detach().exp() - 1))


def test_numbers_of_the_table_of_mistakes():
    right = kl_univariate_gaussian(1.0, 0.5, 0.0, 1.0).item()
    swapped = kl_univariate_gaussian(0.0, 1.0, 1.0, 0.5).item()
    log_sigma = kl_standard_normal(torch.ones(1), torch.tensor([math.log(0.5)])).item()
    assert right == pytest.approx(math.log(2) + 1 / 8)
    assert swapped == pytest.approx(7 / 2 - math.log(2))
    assert 2 * right == pytest.approx(2 * math.log(2) + 1 / 4)
    assert log_sigma == pytest.approx(0.5 * math.log(2) + 1 / 4)
    rounded = [round(v, 3) for v in (right, swapped, 2 * right, log_sigma)]
    assert rounded == [0.818, 2.807, 1.636, 0.597]


def test_kl_div_of_torch_has_its_arguments_the_other_way_round():
    x, y = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.6, 0.3, 0.1])
    value = torch.nn.functional.kl_div(x.log(), y, reduction="sum")
    torch.testing.assert_close(value, (y * (y / x).log()).sum())


@pytest.mark.parametrize(
    ("sigma_q", "sigma_p", "name"),
    [(0.0, 1.0, "sigma_q"), (0.5, -1.0, "sigma_p"), (torch.tensor([0.4, -0.1]), 1.0, "sigma_q")],
)
def test_univariate_refuses_standard_deviations_that_are_not_positive(sigma_q, sigma_p, name):
    with pytest.raises(ValueError, match=f"{name} has the value .*positive.*exp"):
        kl_univariate_gaussian(0.0, sigma_q, 0.0, sigma_p)


def test_multivariate_refuses_bad_covariances():
    mu, good = torch.zeros(2), torch.tensor([[1.0, 0.2], [0.2, 0.5]])
    skew, indefinite = (
        torch.tensor([[1.0, 0.2], [0.3, 0.5]]),
        torch.tensor([[1.0, 2.0], [2.0, 1.0]]),
    )
    with pytest.raises(ValueError, match="cov_q is not symmetric"):
        kl_gaussian(mu, skew, mu, good)
    with pytest.raises(ValueError, match="cov_p has the eigenvalue -1"):
        kl_gaussian(mu, good, mu, indefinite)


def test_covariances_in_single_precision_are_symmetric_up_to_rounding():
    mu, basis = torch.zeros(10), torch.linalg.qr(torch.randn(200, 10, 10)).Q
    exact = (basis * torch.rand(200, 1, 10).add(0.01)) @ basis.mT
    rounded = (basis.float() * torch.linspace(0.01, 1, 10).float()) @ basis.float().mT
    assert kl_gaussian(mu.float(), rounded, mu.float(), rounded).abs().max() < 1e-3
    bent = exact.clone()
    bent[7, 0, 3] += 0.01  # one of many matrices
    with pytest.raises(ValueError, match=r"cov_q is not symmetric.* differ by 0\.01;"):
        kl_gaussian(mu, bent, mu, exact)


def test_multivariate_refuses_shapes_that_do_not_fit():
    good = torch.eye(2)
    for bad in (torch.eye(3), torch.ones(2)):
        with pytest.raises(ValueError, match=r"cov_p .*\(\.\.\., d\) and \(\.\.\., d, d\)"):
            kl_gaussian(torch.zeros(2), good, torch.zeros(2), bad)
    with pytest.raises(ValueError, match=r"mu_p \(3,\)"):
        kl_gaussian(torch.zeros(2), good, torch.zeros(3), good)


def test_nan_is_not_swallowed():
    nan = torch.tensor([0.3, math.nan])
    assert kl_standard_normal(nan, torch.zeros(2)).isnan()
    assert kl_standard_normal(torch.zeros(2), nan).isnan()
    assert kl_univariate_gaussian(math.nan, 1.0, 0.0, 1.0).isnan()
    assert kl_gaussian(nan, torch.eye(2), torch.zeros(2), torch.eye(2)).isnan()
    with pytest.raises(ValueError, match="cov_q"):
        kl_gaussian(torch.zeros(2), nan.diag(), torch.zeros(2), torch.eye(2))

"""Losses for training: what is minimized, and that the true ELBO is recorded beside it."""

import pytest
import torch

from course_lib.distributions import Gaussian
from course_lib.vae import (
    VAE,
    NegativeELBO,
    NegativeIWAEBound,
    disentanglement,
    iwae_bound,
    kl_decomposition,
)

DONE, HALF = torch.tensor(1.0), torch.tensor(0.5)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VAE((1, 4, 4), 3, hidden=(8,)).double()


@pytest.fixture
def x():
    return torch.bernoulli(torch.full((40, 1, 4, 4), 0.4, dtype=torch.float64))


def terms(model, x, progress=DONE, **settings):
    torch.manual_seed(1)
    return NegativeELBO(**settings)(model, x, progress)


def test_default_is_minus_the_elbo(model, x):
    result = terms(model, x)
    torch.manual_seed(1)
    torch.testing.assert_close(result["loss"], -model.elbo(x).mean())
    torch.testing.assert_close(result["loss"], result["negative_elbo"])
    torch.testing.assert_close(result["loss"], result["reconstruction"] + result["kl"])


def test_beta_weighs_the_kl_and_leaves_the_recorded_elbo(model, x):
    plain, heavy = terms(model, x), terms(model, x, beta=4.0)
    torch.testing.assert_close(heavy["loss"], plain["reconstruction"] + 4 * plain["kl"])
    torch.testing.assert_close(heavy["negative_elbo"], plain["negative_elbo"])


def test_warm_up_grows_to_beta_and_stops(model, x):
    plain = terms(model, x)
    half_way = terms(model, x, progress=torch.tensor(0.1), beta=2.0, warm_up=0.2)
    torch.testing.assert_close(half_way["loss"], plain["reconstruction"] + plain["kl"])
    after = terms(model, x, progress=HALF, beta=2.0, warm_up=0.2)
    torch.testing.assert_close(after["loss"], plain["reconstruction"] + 2 * plain["kl"])


def test_free_nats_leave_small_dimensions_alone(model, x):
    plain = terms(model, x)
    free = terms(model, x, free_nats=100.0)
    torch.testing.assert_close(free["loss"], plain["reconstruction"] + 3 * 100.0)
    torch.testing.assert_close(free["negative_elbo"], plain["negative_elbo"])


def test_total_correlation_is_added_with_its_weight(model, x):
    plain, penalized = terms(model, x), terms(model, x, total_correlation=5.0)
    torch.testing.assert_close(
        penalized["loss"], plain["loss"] + 5 * penalized["total_correlation"]
    )


def test_iwae_loss_is_minus_the_bound(model, x):
    torch.manual_seed(1)
    loss = NegativeIWAEBound(7)(model, x, DONE)["loss"]
    torch.manual_seed(1)
    torch.testing.assert_close(loss, -iwae_bound(model, x, 7).mean())


@pytest.mark.parametrize(
    "settings", [{"beta": -1.0}, {"warm_up": 1.5}, {"free_nats": -0.1}, {"total_correlation": -2}]
)
def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        NegativeELBO(**settings)


def test_decomposition_adds_up_and_each_part_is_what_it_says():
    """Two far clusters in one dimension: one bit of mutual information, no total correlation."""
    generator = torch.Generator().manual_seed(0)
    n = 4000
    cluster = torch.where(torch.arange(n) % 2 == 0, 6.0, -6.0).double()
    mu = torch.stack([cluster, torch.zeros(n).double()], 1)
    logvar = torch.tensor([-1.0, 0.4], dtype=torch.float64).expand(n, 2)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    z = mu + (0.5 * logvar).exp() * noise
    information, correlation, dimension_wise = kl_decomposition(mu, logvar, z)
    assert information.item() == pytest.approx(0.6931, abs=0.01)
    assert correlation.item() == pytest.approx(0.0, abs=0.01)
    exact = 0.5 * (logvar.exp() + mu**2 - 1 - logvar).sum(1).mean()
    assert (information + correlation + dimension_wise - exact).abs() < 0.5


def test_the_decomposition_in_pieces_is_that_of_all_pairs(monkeypatch):
    """So that the memory stays bounded; the last piece is smaller than the others."""
    generator = torch.Generator().manual_seed(0)
    mu, logvar, noise = torch.randn(3, 50, 4, generator=generator, dtype=torch.float64)
    z = mu + (0.5 * logvar).exp() * noise
    whole = kl_decomposition(mu, logvar, z)
    sizes, logsumexp = set(), torch.Tensor.logsumexp

    def recorded(pairs, dim):
        sizes.add(pairs.numel())
        return logsumexp(pairs, dim)

    monkeypatch.setattr(disentanglement, "CHUNK", 12 * 50 * 4)
    monkeypatch.setattr(torch.Tensor, "logsumexp", recorded)
    torch.testing.assert_close(kl_decomposition(mu, logvar, z), whole)
    assert max(sizes) == 12 * 50 * 4


def test_total_correlation_sees_dependence():
    """The same cluster in both dimensions: log 2 of total correlation."""
    cluster = torch.where(torch.arange(2000) % 2 == 0, 6.0, -6.0).double()
    mu = torch.stack([cluster, cluster], 1)
    logvar = torch.zeros_like(mu)
    z = mu + torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, correlation, _ = kl_decomposition(mu, logvar, z)
    assert correlation.item() == pytest.approx(0.6931, abs=0.01)


def test_gaussian_sigma_is_trained(x):
    model = VAE((1, 4, 4), 2, hidden=(8,), likelihood=Gaussian()).double()
    NegativeELBO()(model, x, DONE)["loss"].backward()
    assert model.likelihood.log_sigma.grad.abs() > 0

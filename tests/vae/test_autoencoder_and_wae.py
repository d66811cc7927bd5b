"""Autoencoder, maximum mean discrepancy and Wasserstein autoencoder."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from course_lib.mmd import gaussian_kernel, imq_kernel, mmd
from course_lib.training import fit
from course_lib.vae import WAE, Autoencoder, wae_objective


def test_linear_autoencoder_finds_the_principal_subspace():
    rng = np.random.default_rng(0)
    scales = np.array([4.0, 2.5, 1.0, 0.5, 0.3, 0.1])
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    x = (rng.normal(size=(500, 6)) * scales) @ rotation + rng.normal(size=6)
    data = torch.as_tensor(x, dtype=torch.float32)
    model = Autoencoder((6,), 2)
    fit(
        model, lambda model, batch, _: model.squared_error(batch).mean(), data,
        steps=3000, batch_size=500, learning_rate=2e-2, progress=False,
        schedule=lambda share: 1 - share,
    )  # fmt: skip
    pca = PCA(2).fit(x)
    optimum = 0.5 * (x - pca.inverse_transform(pca.transform(x))) ** 2
    reached = model.squared_error(data).mean().item()
    assert reached == pytest.approx(optimum.sum(1).mean(), rel=1e-3)
    decoder = model.decoder[0].weight.detach().double().numpy()
    span = np.linalg.qr(decoder)[0]
    # Cosines of the principal angles between the two planes.
    assert np.linalg.svd(span.T @ pca.components_.T)[1].min() > 0.999


def test_squared_error_sums_over_pixels_and_has_its_half():
    model = Autoencoder((1, 2, 2), 2)
    x = torch.rand(3, 1, 2, 2)
    expected = 0.5 * ((x - model(x)) ** 2).sum((1, 2, 3))
    torch.testing.assert_close(model.squared_error(x), expected)


@pytest.mark.parametrize("kernel", [gaussian_kernel, imq_kernel])
def test_mmd_is_unbiased_zero_for_equal_distributions_and_positive_for_others(kernel):
    generator = torch.Generator().manual_seed(0)

    def draw(n, shift=0.0):
        return torch.randn(n, 3, generator=generator, dtype=torch.float64) + shift

    same = torch.stack([mmd(draw(20), draw(25), kernel) for _ in range(400)])
    assert same.mean().abs() < 4 * same.std() / 20
    assert same.min() < 0  # unbiased, so it must fall on both sides of zero
    assert mmd(draw(200), draw(200, 1.5), kernel) > 6 * same.std()


def test_mmd_of_two_gaussians_has_its_closed_form():
    """E k(x, y) of Gaussian points under a Gaussian kernel is known."""
    d, shift, n = 2, 1.0, 4000
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y[:, 0] += shift
    within = (1 / 3) ** (d / 2)  # (h² / (h² + 2σ²))^{d/2} with h = σ = 1
    across = within * np.exp(-(shift**2) / (2 * 3))
    assert mmd(x, y, gaussian_kernel).item() == pytest.approx(2 * within - 2 * across, abs=0.01)


@pytest.mark.parametrize("kernel", [gaussian_kernel, imq_kernel])
def test_mmd_depends_on_differences_alone(kernel):
    """In float32, moved far from the origin, and with samples far from one another."""
    torch.manual_seed(0)
    # Multiples of 1/64 stay exact under every shift below.
    x, y = (torch.randint(-64, 64, (40, 3)) / 64 + centre for centre in (0.0, 0.5))
    for shift in (0.0, 1e4, -1e5):
        moved = mmd(x + shift, y + shift, kernel)
        torch.testing.assert_close(moved, mmd(x, y, kernel), rtol=1e-5, atol=1e-7)
    apart = mmd(torch.cat([x, x + 65536]), torch.cat([y, y + 65536]), kernel)
    exact = mmd(torch.cat([x, x + 65536]).double(), torch.cat([y, y + 65536]).double(), kernel)
    torch.testing.assert_close(apart.double(), exact, rtol=1e-4, atol=1e-6)


def test_mmd_gradient_is_finite_at_equal_points():
    x = torch.zeros(4, 2, requires_grad=True)
    mmd(x, torch.zeros(4, 2)).backward()
    assert x.grad.isfinite().all()


def test_mmd_refuses_single_points_and_other_dimensions():
    with pytest.raises(ValueError, match="at least 2"):
        mmd(torch.zeros(1, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        mmd(torch.zeros(4, 2), torch.zeros(4, 3))


def test_wae_pulls_the_aggregate_posterior_to_the_prior():
    torch.manual_seed(0)
    x = torch.rand(256, 1, 4, 4)
    model = WAE((1, 4, 4), 2, hidden=(32,), penalty=20.0)
    prior = torch.randn(2000, 2)
    before = mmd(model.code(x).detach() * 4 + 2, prior)
    fit(model, wae_objective, x, steps=400, batch_size=128, learning_rate=3e-3, progress=False)
    after = mmd(model.code(x).detach(), prior)
    assert after < 0.05 * before


def test_wae_samples_without_dropping_units():
    model = WAE((1, 4, 4), 2, hidden=(16,), dropout=0.5)
    a, b = (model.sample(4, generator=torch.Generator().manual_seed(3)) for _ in "ab")
    assert torch.equal(a, b)
    assert model.decoder.training


def test_the_loss_of_the_wae_weighs_the_discrepancy_by_its_penalty():
    x = torch.rand(20, 1, 4, 4)
    for penalty in (0.5, 7.0):
        model = WAE((1, 4, 4), 2, hidden=(8,), penalty=penalty)
        terms = wae_objective(model, x, torch.tensor(0.0))
        assert terms["mmd"].abs() > 1e-3
        torch.testing.assert_close(terms["loss"], terms["squared_error"] + penalty * terms["mmd"])


@pytest.mark.parametrize("d", [1, 5])
def test_imq_kernel_sums_over_scales_in_units_of_the_priors_distances(d):
    """At the mean squared distance 2d of prior points a scale s gives s / (s + 1)."""
    point = torch.full((1, d), 2**0.5, dtype=torch.float64)
    scales = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    value = imq_kernel(point, torch.zeros_like(point))
    assert value.item() == pytest.approx(sum(s / (s + 1) for s in scales))
    assert imq_kernel(point, point).item() == pytest.approx(len(scales))


def test_wae_refuses_a_weight_that_is_not_positive():
    with pytest.raises(ValueError, match="penalty is 0"):
        WAE((1, 4, 4), 2, penalty=0.0)

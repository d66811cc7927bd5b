"""What the KL term consists of, rotations, transport and kernel discrepancies."""

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch.distributions import MultivariateNormal, Normal

from course_lib.divergences import kl_standard_normal
from course_lib.mmd import gaussian_kernel, mmd
from course_lib.vae import kl_decomposition

pytestmark = pytest.mark.usefixtures("float64")


# --- the averaged KL term -------------------------------------------------------------------------


def surgery(conditionals, prior, step, sign=1.0, swap=False):
    """Mutual information plus KL of the aggregate, for densities given on a grid."""
    aggregate = conditionals.mean(0)
    information = (conditionals * (conditionals / aggregate).log()).sum(1).mean() * step
    first, second = (prior, aggregate) if swap else (aggregate, prior)
    return sign * information + (first * (first / second).log()).sum() * step


@pytest.mark.equation(
    "eq-elbo-surgery",
    formula=surgery,
    wrong={
        "information subtracted": lambda q, p, step: surgery(q, p, step, sign=-1.0),
        "information dropped": lambda q, p, step: surgery(q, p, step, sign=0.0),
        "aggregate's divergence reversed": lambda q, p, step: surgery(q, p, step, swap=True),
    },
)
def test_elbo_surgery(formula):
    mu = torch.tensor([[-1.2], [0.3], [1.9]])
    logvar = torch.tensor([[-0.5], [-1.3], [0.2]])
    z = torch.linspace(-11, 11, 20_001)
    conditionals = Normal(mu, (0.5 * logvar).exp()).log_prob(z).exp() + 1e-300
    value = formula(conditionals, Normal(0.0, 1.0).log_prob(z).exp(), z[1] - z[0])
    torch.testing.assert_close(value, kl_standard_normal(mu, logvar).mean())


def decomposition_on_a_grid(mu, logvar):
    """The three terms by quadrature in the plane, from densities alone."""
    side = torch.linspace(-8, 8, 641)
    step = side[1] - side[0]
    # (N, G) one-dimensional densities, (N, G, G) in the plane
    lines = Normal(mu.T.unsqueeze(-1), (0.5 * logvar.T).exp().unsqueeze(-1)).log_prob(side).exp()
    plane = lines[0].unsqueeze(2) * lines[1].unsqueeze(1)
    aggregate, tiny = plane.mean(0), 1e-300
    marginals = aggregate.sum(1) * step, aggregate.sum(0) * step
    information = (plane * ((plane + tiny) / (aggregate + tiny)).log()).sum((1, 2)).mean()
    product = torch.outer(*marginals)
    correlation = (aggregate * ((aggregate + tiny) / (product + tiny)).log()).sum()
    prior = Normal(0.0, 1.0).log_prob(side)
    per_dimension = sum((m * ((m + tiny).log() - prior)).sum() for m in marginals)
    return torch.stack([information * step**2, correlation * step**2, per_dimension * step])


@pytest.mark.equation(
    "eq-kl-decomposition",
    formula=kl_decomposition,
    wrong={
        "information and correlation exchanged": lambda mu, logvar, z: tuple(
            kl_decomposition(mu, logvar, z)[i] for i in (1, 0, 2)
        ),
        "correlation dropped": lambda mu, logvar, z: tuple(
            t * keep
            for t, keep in zip(kl_decomposition(mu, logvar, z), (1.0, 0.0, 1.0), strict=True)
        ),
        "dimension-wise term averaged": lambda mu, logvar, z: tuple(
            t * factor
            for t, factor in zip(kl_decomposition(mu, logvar, z), (1.0, 1.0, 0.5), strict=True)
        ),
        "log σ for log σ²": lambda mu, logvar, z: kl_decomposition(mu, 0.5 * logvar, z),
    },
    implemented_by="course_lib.vae.kl_decomposition",
)
def test_kl_decomposition(formula):
    mu = torch.tensor([[-1.1, -0.8], [0.2, 0.5], [1.3, 0.4], [0.1, 1.6]])
    logvar = torch.tensor([[-1.0, -0.3], [-1.6, 0.1], [-0.4, -1.2], [-2.0, -0.9]])
    exact = decomposition_on_a_grid(mu, logvar)
    torch.testing.assert_close(exact.sum(), kl_standard_normal(mu, logvar).mean())
    assert (exact > 0.05).all()
    # Copies leave the aggregate as it is and give more samples.
    many_mu, many_logvar = mu.repeat(125, 1), logvar.repeat(125, 1)
    draws = []
    for _ in range(60):
        z = many_mu + (0.5 * many_logvar).exp() * torch.randn_like(many_mu)
        draws.append(torch.stack(formula(many_mu, many_logvar, z)))
    draws = torch.stack(draws)
    error = draws.std(0) / math.sqrt(len(draws))
    assert (error < 0.01).all()
    assert ((draws.mean(0) - exact).abs() < 4 * error).all()


def test_mutual_information_never_exceeds_log_n():
    mu, logvar = 50 * torch.randn(8, 2), torch.full((8, 2), -3.0)
    information, *_ = kl_decomposition(mu, logvar, mu + 0.01 * torch.randn(8, 2))
    torch.testing.assert_close(information, torch.tensor(math.log(8)), atol=1e-6, rtol=0)


# --- rotations ------------------------------------------------------------------------------------


def turned(angle):
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


@pytest.mark.equation(
    "eq-rotation-invariance",
    formula=lambda z: z @ turned(0.7),  # row by row Qᵀ z
    wrong={
        "shear": lambda z: z @ torch.tensor([[1.0, 0.6], [0.0, 1.0]]),
        "dilation": lambda z: 1.3 * z,
        "shift": lambda z: z + torch.tensor([0.4, 0.0]),
    },
)
def test_rotation_of_the_latent_space(formula):
    side = torch.linspace(-8, 8, 401)
    z = torch.cartesian_prod(side, side)
    prior = MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(z).exp()

    def marginal(latent):
        # Two binary pixels whose logits are neither symmetric nor linear.
        logits = torch.stack([2 * latent[:, 0] + latent[:, 1] ** 2 - 1, latent.prod(1) - 0.4], 1)
        return (prior * logits.sigmoid().prod(1)).sum() * (side[1] - side[0]) ** 2

    torch.testing.assert_close(marginal(formula(z)), marginal(z))


# --- Wasserstein autoencoders ---------------------------------------------------------------------


def transport(cost, rows, columns):
    """Least cost of moving the distribution `rows` to the distribution `columns`: a linear programme."""
    n, m = cost.shape
    equal_rows = np.kron(np.eye(n), np.ones(m))
    equal_columns = np.kron(np.ones(n), np.eye(m))
    result = scipy.optimize.linprog(
        cost.ravel(),
        A_eq=np.vstack([equal_rows, equal_columns]),
        b_eq=np.concatenate([rows, columns]),
    )
    return result.fun


def best_encoder(cost_of_codes, data, prior):
    """Least reconstruction cost over encoders whose aggregate posterior is the prior."""
    return transport(cost_of_codes, data, prior)


@pytest.mark.equation(
    "eq-wae-primal",
    formula=best_encoder,
    wrong={
        "every posterior matched to the prior": lambda cost, data, prior: data @ cost @ prior,
        "no constraint on the codes": lambda cost, data, prior: data @ cost.min(1),
        "uniform aggregate": lambda cost, data, prior: best_encoder(
            cost, data, np.full(len(prior), 1 / len(prior))
        ),
    },
)
def test_transport_is_the_best_encoder(formula):
    points = np.array([[0.0, 0.3], [1.0, -0.5], [2.2, 1.0], [-1.0, 0.8]])
    data = np.array([0.1, 0.4, 0.3, 0.2])
    prior = np.array([0.35, 0.15, 0.3, 0.1, 0.1])
    outputs = np.array([[0.5, 0.0], [2.0, 1.5], [-0.7, -1.0]])
    decode = np.array([0, 0, 1, 2, 1])  # several codes give the same image
    generated = np.bincount(decode, weights=prior)
    cost = ((points[:, None] - outputs[None]) ** 2).sum(-1)
    assert formula(cost[:, decode], data, prior) == pytest.approx(
        transport(cost, data, generated), abs=1e-9
    )


BANDWIDTH = 0.8


def discrepancy(within_p, within_q, between):
    return within_p + within_q - 2 * between


@pytest.mark.equation(
    "eq-mmd",
    formula=discrepancy,
    wrong={
        "2 dropped": lambda p, q, pq: p + q - pq,
        "sign flipped": lambda p, q, pq: p + q + 2 * pq,
        "only one distribution with itself": lambda p, q, pq: p - pq,
        "not squared": lambda p, q, pq: math.sqrt(p + q - 2 * pq),
    },
)
def test_mmd_is_a_distance_of_characteristic_functions(formula):
    # Expectations of the kernel by Gauss–Hermite quadrature …
    nodes, weights = map(torch.from_numpy, hermegauss(60))
    weights = weights / weights.sum()
    p, q = Normal(0.4, 0.6), Normal(-0.5, 1.3)

    def mean_kernel(first, second):
        x = (first.loc + first.scale * nodes).unsqueeze(1)
        y = (second.loc + second.scale * nodes).unsqueeze(1)
        return (weights @ gaussian_kernel(x, y, BANDWIDTH) @ weights).item()

    value = formula(mean_kernel(p, p), mean_kernel(q, q), mean_kernel(p, q))
    # … against the Fourier side: ∫ |φ_P − φ_Q|² with the kernel's spectral distribution N(0, 1/h²).
    t = torch.linspace(-12, 12, 20_001)
    phi_p, phi_q = (
        torch.exp(1j * t * distribution.loc - 0.5 * t**2 * distribution.scale**2)
        for distribution in (p, q)
    )
    spectrum = Normal(0.0, 1 / BANDWIDTH).log_prob(t).exp()
    integral = torch.trapezoid((phi_p - phi_q).abs() ** 2 * spectrum, t)
    assert value == pytest.approx(integral.item(), rel=1e-7)


def narrow_kernel(x, y):
    return gaussian_kernel(x, y, BANDWIDTH)


def with_diagonal(x, y):
    return narrow_kernel(x, x).mean() + narrow_kernel(y, y).mean() - 2 * narrow_kernel(x, y).mean()


@pytest.mark.equation(
    "eq-mmd-unbiased",
    formula=lambda x, y: mmd(x, y, narrow_kernel),
    wrong={
        "diagonal included": with_diagonal,
        "2 dropped": lambda x, y: mmd(x, y, narrow_kernel) + narrow_kernel(x, y).mean(),
        "n² for n(n − 1)": lambda x, y: (
            with_diagonal(x, y) - 1 / len(x) - 1 / len(y)  # k(x, x) = 1
        ),
    },
    implemented_by="course_lib.mmd.mmd",
)
def test_estimate_of_mmd_is_unbiased(formula):
    # In the plane, with different sizes; E k for Gaussians is itself a Gaussian density.
    shift, scale_p, scale_q = torch.tensor([0.7, -0.4]), 0.6, 1.3

    def mean_kernel(distance, variance):
        total = BANDWIDTH**2 + variance
        return (BANDWIDTH**2 / total) * math.exp(-distance / (2 * total))

    exact = (
        mean_kernel(0.0, 2 * scale_p**2)
        + mean_kernel(0.0, 2 * scale_q**2)
        - 2 * mean_kernel(shift.square().sum().item(), scale_p**2 + scale_q**2)
    )
    draws = torch.stack(
        [
            formula(scale_p * torch.randn(6, 2) + shift, scale_q * torch.randn(9, 2))
            for _ in range(4000)
        ]
    )
    error = draws.std() / math.sqrt(len(draws))
    assert error < 0.01
    assert (draws.mean() - exact).abs() < 4 * error
    if formula is not with_diagonal:
        assert (draws < 0).any()


def bias_of_the_diagonal(gram, p, q, n, m):
    """The right side, from expectations over pairs of points of two finite distributions."""
    within = gram.diagonal()
    return (p @ within - p @ gram @ p) / n + (q @ within - q @ gram @ q) / m


@pytest.mark.equation(
    "eq-mmd-bias",
    formula=bias_of_the_diagonal,
    wrong={
        "one sample only": lambda gram, p, q, n, m: bias_of_the_diagonal(gram, p, p, n, 10**9),
        "sizes exchanged": lambda gram, p, q, n, m: bias_of_the_diagonal(gram, p, q, m, n),
        "sign flipped": lambda gram, p, q, n, m: -bias_of_the_diagonal(gram, p, q, n, m),
        "similarity to others forgotten": lambda gram, p, q, n, m: (
            p @ gram.diagonal() / n + q @ gram.diagonal() / m
        ),
    },
)
def test_bias_of_mmd_with_the_diagonal(formula):
    points = torch.tensor([[0.0], [0.7], [2.0]])
    p, q, n, m = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.6, 0.1, 0.3]), 2, 3
    # The last kernel is a product, for which a point need not be most similar to itself.
    for kernel in (narrow_kernel, lambda x, y: x @ y.T):
        gram = kernel(points, points)
        exact = p @ gram @ p + q @ gram @ q - 2 * p @ gram @ q
        mean = 0.0  # of the estimate with i = j, over all samples there are
        for indices in itertools.product(range(3), repeat=n + m):
            i, j = torch.tensor(indices[:n]), torch.tensor(indices[n:])
            within = gram[i][:, i].mean() + gram[j][:, j].mean()
            mean += p[i].prod() * q[j].prod() * (within - 2 * gram[i][:, j].mean())
        value = formula(gram, p, q, n, m)
        torch.testing.assert_close(value, mean - exact)
        assert value > 0


# --- the decoder that overlapping posteriors get --------------------------------------------------


def weighted_mean(densities, x):
    return densities.T @ x / densities.sum(0).unsqueeze(1)


@pytest.mark.equation(
    "eq-optimal-decoder",
    formula=weighted_mean,
    wrong={
        "nearest example": lambda densities, x: x[densities.argmax(0)],
        "densities normalized over z instead": lambda densities, x: (
            (densities / densities.sum(1, keepdim=True)).T @ x
        ),
        "mean of all examples": lambda densities, x: x.mean(0).expand(densities.shape[1], -1),
    },
)
def test_best_decoder_is_a_mean_of_examples(formula):
    x = torch.tensor([[0.0, 1.0, 0.2], [1.0, 0.0, 0.4], [0.5, 0.5, 1.0]])
    z = torch.linspace(-4, 4, 41)
    mu, sigma = torch.tensor([[-1.0], [0.6], [1.5]]), torch.tensor([[0.9], [0.5], [1.2]])
    densities = Normal(mu, sigma).log_prob(z).exp()  # (N, G)
    # Least squares over all functions on the grid: one row per example and grid point.
    rows = densities.reshape(-1).sqrt().unsqueeze(1)
    design = rows * torch.eye(len(z)).repeat(3, 1)
    target = rows * x.repeat_interleave(len(z), 0)
    solution = torch.linalg.lstsq(design, target).solution
    torch.testing.assert_close(formula(densities, x), solution, atol=1e-6, rtol=0)

"""Likelihood against samples: the claims of the comparison chapter, on distributions of a few values."""

import math
from itertools import chain, combinations

import pytest
import torch

P = torch.tensor([0.31, 0.24, 0.2, 0.14, 0.11], dtype=torch.float64)
A = torch.tensor([True, True, False, True, False])
RESTRICTED = torch.where(A, P, 0.0) / P[A].sum()


def mixture_floor(log_p, epsilon):
    return log_p + torch.log(epsilon)


@pytest.mark.equation(
    "eq-mixture-floor",
    formula=mixture_floor,
    wrong={
        "the share not logged": lambda log_p, epsilon: log_p + epsilon,
        "the sign of the share": lambda log_p, epsilon: log_p - torch.log(epsilon),
        "the other share": lambda log_p, epsilon: log_p + torch.log1p(-epsilon),
        "too low a floor": lambda log_p, epsilon: log_p + 2 * torch.log(epsilon),
    },
)
def test_the_mixture_loses_at_most_the_log_of_its_share(formula):
    """Draws say what the mixture is; where the noise is absent the floor is reached."""
    noise = torch.tensor([0.0, 0.5, 0.2, 0.3, 0.0], dtype=torch.float64)
    epsilon = torch.tensor(0.3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    n = 400_000
    of_model = torch.rand(n, generator=generator) < epsilon
    draws = torch.where(
        of_model,
        torch.multinomial(P, n, replacement=True, generator=generator),
        torch.multinomial(noise, n, replacement=True, generator=generator),
    )
    frequency = torch.bincount(draws, minlength=5).double() / n
    standard_error = (frequency * (1 - frequency) / n).sqrt()
    floor = formula(P.log(), epsilon).exp()
    assert (frequency + 4 * standard_error >= floor).all()
    reached = noise == 0
    assert ((frequency - floor).abs() < 4 * standard_error)[reached].all()
    assert (frequency > floor + 4 * standard_error)[~reached].all()


@pytest.mark.equation(
    "eq-restricted-tv",
    formula=lambda mass: 1 - mass,
    wrong={
        "the mass that is kept": lambda mass: mass,
        "half of it": lambda mass: (1 - mass) / 2,
        "the factor ½ forgotten": lambda mass: 2 * (1 - mass),
    },
)
def test_no_event_tells_the_restricted_distribution_better_than_what_it_lacks(formula):
    """Total variation as the largest difference of probability over all events, one by one."""
    values = range(len(P))
    events = chain.from_iterable(combinations(values, size) for size in range(len(P) + 1))
    largest = max(abs(P[list(e)].sum() - RESTRICTED[list(e)].sum()) for e in events)
    torch.testing.assert_close(formula(P[A].sum()), largest)


@pytest.mark.equation(
    "eq-restricted-kl",
    formula=lambda mass: -torch.log(mass),
    wrong={
        "the sign": lambda mass: torch.log(mass),
        "to first order only": lambda mass: 1 - mass,
        "the mass that is left out": lambda mass: -torch.log(1 - mass),
    },
)
def test_the_restricted_distribution_is_near_in_reverse_divergence(formula):
    """The divergence as a mean of log-ratios; the other direction is infinite."""
    log_ratio = RESTRICTED[A].log() - P[A].log()
    torch.testing.assert_close(formula(P[A].sum()), (RESTRICTED[A] * log_ratio).sum())
    assert (P * (P.log() - RESTRICTED.log())).sum() == torch.inf


@pytest.mark.equation(
    "eq-noisy-importance",
    formula=lambda log_mean, s: log_mean + s**2 / 2,
    wrong={
        "the errors cancel": lambda log_mean, s: log_mean,
        "the sign": lambda log_mean, s: log_mean - s**2 / 2,
        "the variance without the half": lambda log_mean, s: log_mean + s**2,
        "the standard deviation": lambda log_mean, s: log_mean + s / 2,
    },
)
def test_noise_of_log_densities_makes_the_log_of_a_mean_of_densities_larger(formula):
    """Draws of exact and of estimated densities: the limit is met up to the draws' standard error."""
    generator = torch.Generator().manual_seed(0)
    s, n = torch.tensor(0.6, dtype=torch.float64), 400_000
    # A density on an interval that is no straight line, and its mean by quadrature.
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    middles = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    exact = (0.3 + middles.square()).mean().log()
    noise = s * torch.randn(n, generator=generator, dtype=torch.float64)
    density = ((0.3 + u.square()).log() + noise).exp()
    standard_error = density.std() / n**0.5 / density.mean()
    assert (formula(exact, s) - density.mean().log()).abs() < 4 * standard_error


def test_the_numbers_of_the_exercises():
    """The fewest samples that show what is left out; bits per dimension of the mixture."""

    def seen(samples):
        return 1 - 0.99**samples

    assert seen(299) >= 0.95 > seen(298)
    for n_dims, parts in ((64, 6), (784, 70), (65536, 6000)):
        assert 10 / n_dims < 1 / parts
    assert torch.log(torch.tensor(100.0)) < 5
    assert 0.01 < 1 / (128 * math.log(2)) < 0.012

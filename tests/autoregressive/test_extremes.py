"""Output distributions at parameters that no training should meet, but some initialization does."""

import pytest
import torch

from course_lib.distributions import Bernoulli, Categorical, DiscretizedLogisticMixture

DISTRIBUTIONS = [
    Bernoulli(),
    *(kind(k) for kind in (Categorical, DiscretizedLogisticMixture) for k in (2, 3, 256)),
]


@pytest.mark.parametrize("distribution", [*DISTRIBUTIONS, DiscretizedLogisticMixture(65536, 2)])
@pytest.mark.parametrize("size", [1, 100, 1e4, 1e8])
def test_values_and_gradients_are_numbers(distribution, size):
    parameters = (size * torch.randn(50, distribution.n_parameters)).requires_grad_()
    x = torch.randint(0, distribution.levels, (50,))
    x[:2] = torch.tensor([0, distribution.levels - 1])
    log_prob = distribution.log_prob(parameters, x)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert (log_prob <= 1e-5).all()
    assert torch.isfinite(parameters.grad).all()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("size", [1, 100, 1e4])
def test_what_is_drawn_has_a_probability(distribution, size):
    parameters = size * torch.randn(50, distribution.n_parameters)
    probabilities = distribution.probabilities(parameters)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(50), atol=1e-3, rtol=0)
    drawn = distribution.quantile(parameters, torch.rand(50))
    assert (probabilities.gather(-1, drawn.unsqueeze(-1)) > 0).all()

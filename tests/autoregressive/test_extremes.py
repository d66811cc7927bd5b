"""Output laws at parameters that no training should meet, but some initialization does."""

import pytest
import torch

from course_lib.autoregressive import BernoulliLaw, LogisticMixtureLaw, SoftmaxLaw

LAWS = [
    BernoulliLaw(),
    *(kind(k) for kind in (SoftmaxLaw, LogisticMixtureLaw) for k in (2, 3, 256)),
]


@pytest.mark.parametrize("law", [*LAWS, LogisticMixtureLaw(65536, 2)])
@pytest.mark.parametrize("size", [1, 100, 1e4, 1e8])
def test_values_and_gradients_are_numbers(law, size):
    parameters = (size * torch.randn(50, law.n_parameters)).requires_grad_()
    x = torch.randint(0, law.levels, (50,))
    x[:2] = torch.tensor([0, law.levels - 1])
    log_prob = law.log_prob(parameters, x)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert (log_prob <= 1e-5).all()
    assert torch.isfinite(parameters.grad).all()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("size", [1, 100, 1e4])
def test_what_is_drawn_has_a_probability(law, size):
    parameters = size * torch.randn(50, law.n_parameters)
    probabilities = law.probabilities(parameters)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(50), atol=1e-3, rtol=0)
    drawn = law.draw(parameters, torch.rand(50))
    assert (probabilities.gather(-1, drawn.unsqueeze(-1)) > 0).all()

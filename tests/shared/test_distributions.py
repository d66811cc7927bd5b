"""Output distributions: each is normalized, draws what it scores, and serves every kind of network."""

import math

import pytest
import torch
from scipy.stats import norm

from course_lib.data import intensities
from course_lib.distributions import (
    Bernoulli,
    Categorical,
    DiscretizedLogisticMixture,
    Gaussian,
    normal_log_prob,
    standard_normal_log_prob,
)
from course_lib.vae import VAE, NegativeELBO, elbo

GREY = {
    "Bernoulli": Bernoulli(),
    "Categorical": Categorical(5),
    "DiscretizedLogisticMixture": DiscretizedLogisticMixture(5, 2),
}
SHAPE = (2, 4, 4)


def source(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=GREY)
def grey(request):
    return GREY[request.param]


@pytest.mark.usefixtures("float64")
def test_draws_follow_the_probabilities_and_their_mean(grey):
    parameters = torch.randn(grey.n_parameters, generator=source())
    mass = grey.probabilities(parameters)
    torch.testing.assert_close(mass.sum(), torch.tensor(1.0))
    x = grey.draw(parameters.expand(100_000, -1), source(1))
    grey.check(x)
    levels = (x * (grey.levels - 1)).round().long()
    share = torch.bincount(levels, minlength=grey.levels) / len(x)
    torch.testing.assert_close(share, mass, atol=0.01, rtol=0)
    torch.testing.assert_close(x.mean(), grey.mean(parameters), atol=0.01, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_levels_and_their_intensities_are_the_same_data(grey, dtype):
    levels = torch.arange(grey.levels)
    parameters = torch.randn(grey.levels, grey.n_parameters, generator=source())
    images = intensities(levels, grey.levels, dtype=dtype)
    grey.check(levels)
    grey.check(images)
    expected = grey.log_prob(parameters, levels).double()
    found = grey.log_prob(parameters, images).double()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["Categorical", "DiscretizedLogisticMixture"])
def test_values_between_the_levels_are_refused(name):
    for x in (torch.tensor([0.1]), torch.tensor([0.25, 0.6]), torch.tensor([0.5, 1.2])):
        with pytest.raises(ValueError, match="are expected"):
            GREY[name].check(x)
    with pytest.raises(ValueError, match="0 … 4 are expected"):
        GREY[name].check(torch.tensor([5]))


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("name", [*GREY, "Gaussian"])
def test_every_distribution_is_a_likelihood_of_a_decoder(name, channels):
    likelihood = GREY.get(name) or Gaussian(0.3)
    torch.manual_seed(0)
    model = VAE(SHAPE, 3, hidden=(7,), channels=channels, likelihood=likelihood)
    levels = torch.randint(0, getattr(likelihood, "levels", 2), (6, *SHAPE), generator=source())
    x = intensities(levels, getattr(likelihood, "levels", 2))
    assert model(x).shape == (6, *SHAPE, likelihood.n_parameters)
    z = torch.randn(4, 6, 3, generator=source())
    given = model.decode(z)
    assert given.batch_shape == (4, 6)
    assert given.event_shape == SHAPE
    assert given.mean.shape == given.sample().shape == (4, 6, *SHAPE)
    each = likelihood.log_prob(given.parameters, x)
    torch.testing.assert_close(given.log_prob(x), each.flatten(2).sum(2))
    likelihood.check(model.sample(3, generator=source()))
    loss = NegativeELBO()(model, x, torch.tensor(1.0))["loss"]
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch.isfinite(elbo(model, x)).all()


@pytest.mark.parametrize("channels", [None, 3])
def test_parameters_of_a_pixel_come_from_its_own_place(channels):
    """A pixel's logits move its own distribution, and no other pixel's or channel's."""
    model = VAE(SHAPE, 1, hidden=(5,), channels=channels, likelihood=Categorical(3)).eval()
    last = [p for p in model.decoder.parameters()][-1]  # one bias per output, or per channel
    z = torch.zeros(1, 1)
    before = model.decode(z).parameters.detach()
    with torch.no_grad():
        last[0] += 1.0  # the first parameter of the first pixel, or of the first channel
    changed = (model.decode(z).parameters - before).abs() > 1e-6
    place = changed.nonzero()
    assert set(place[:, -1].tolist()) == {0}
    assert set(place[:, 1].tolist()) == {0}
    assert changed.sum() == (1 if channels is None else 16)


def test_normal_densities_are_those_of_scipy():
    x = torch.randn(6, 4, generator=source(), dtype=torch.float64)
    mean, logvar = torch.randn(2, 4, generator=source(1), dtype=torch.float64)
    expected = norm.logpdf(x.numpy(), mean.numpy(), (0.5 * logvar).exp().numpy())
    torch.testing.assert_close(normal_log_prob(x, mean, logvar), torch.from_numpy(expected))
    expected = torch.from_numpy(norm.logpdf(x.numpy()))
    torch.testing.assert_close(normal_log_prob(x), expected)
    torch.testing.assert_close(standard_normal_log_prob(x), expected.sum(1))
    means, at = x.unsqueeze(-1), x + 0.1
    expected = torch.from_numpy(norm.logpdf(at.numpy(), x.numpy(), 0.2))
    torch.testing.assert_close(Gaussian(0.2).log_prob(means, at), expected)
    assert math.isclose(Gaussian(0.2).mean(means)[0, 0], x[0, 0])

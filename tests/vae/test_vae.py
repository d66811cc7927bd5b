"""The VAE's own promises: shapes of meaning, reproducible samples, and clear refusals."""

import math

import pytest
import torch
from torch.distributions import Normal

from course_lib.distributions import Bernoulli, Gaussian
from course_lib.divergences import kl_standard_normal
from course_lib.protocols import Bound, Latent, Sampler
from course_lib.vae import VAE

MODELS = {
    "perceptron": lambda: VAE((1, 8, 8), 3, hidden=(16,)),
    "deep, dropout": lambda: VAE((1, 8, 8), 3, hidden=(16, 12), dropout=0.3),
    "convolutional": lambda: VAE((1, 8, 8), 3, channels=4),
    "colour": lambda: VAE((3, 8, 12), 3, channels=4),
    "Gaussian": lambda: VAE((1, 8, 8), 3, hidden=(16,), likelihood=Gaussian(0.4)),
    "Gaussian, learned": lambda: VAE((1, 8, 8), 3, channels=4, likelihood=Gaussian()),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def model(request):
    torch.manual_seed(1)
    return request.param().eval()


def data(model, n=5):
    return torch.bernoulli(torch.full((n, *model.event_shape), 0.3))


def test_abilities(model):
    assert isinstance(model, Bound)
    assert isinstance(model, Latent)
    assert isinstance(model, Sampler)


def test_elbo_is_the_mean_of_log_weights(model):
    """With one noise for both, log p(x|z) + log p(z) − log q(z|x) averages to the ELBO."""
    x = data(model, 2)
    posterior = model.encode(x)
    z = posterior.sample((4000,))
    prior = torch.distributions.Normal(0, 1).log_prob(z).sum(-1)
    with torch.no_grad():
        log_w = model.decode(z).log_prob(x) + prior - posterior.log_prob(z)
        difference = log_w.mean(0) - model.elbo(x, 4000)
    assert difference.abs().max() < 5 * log_w.std() / 4000**0.5 + 0.05


def test_each_example_has_its_own_elbo(model):
    """The ELBO of an example depends on that example alone."""
    x = data(model).requires_grad_()
    torch.manual_seed(0)
    (gradient,) = torch.autograd.grad(model.elbo(x)[2], x)
    touched = gradient.flatten(1).abs().sum(1) > 0
    assert touched.tolist() == [False, False, True, False, False]


def test_samples_follow_the_generator(model):
    def draw(seed):
        return model.sample(6, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    assert not draw(3).requires_grad


def test_samples_have_the_mean_of_the_model():
    torch.manual_seed(2)
    for likelihood in (Bernoulli(), Gaussian(0.5)):
        model = VAE((1, 2, 2), 2, hidden=(8,), likelihood=likelihood)
        z = torch.randn(200_000, 2)
        expected = model.decode(z).mean.mean(0)
        samples = model.sample(200_000)
        error = samples.std(0) / 200_000**0.5
        assert (samples.mean(0) - expected).abs().lt(6 * error + 1e-3).all()
        torch.testing.assert_close(
            samples.var(0), model.decode(z).sample().var(0), rtol=0.05, atol=0.01
        )


def test_posterior_carries_its_log_variance(model):
    posterior = model.encode(data(model))
    torch.testing.assert_close(posterior.stddev, (0.5 * posterior.logvar).exp())
    prior = torch.distributions.Independent(
        torch.distributions.Normal(torch.zeros_like(posterior.mu), 1.0), 1
    )
    torch.testing.assert_close(
        kl_standard_normal(posterior.mu, posterior.logvar),
        torch.distributions.kl_divergence(posterior, prior),
    )


def test_decoder_takes_any_batch_of_latents(model):
    z = torch.randn(4, 5, 3)
    together = model.decode(z).mean
    assert together.shape == (4, 5, *model.event_shape)
    torch.testing.assert_close(together[2, 3], model.decode(z[2, 3].unsqueeze(0)).mean[0])


def test_forward_gives_parameters_of_the_output_distribution():
    model = VAE((1, 8, 8), 3, hidden=(16,)).eval()
    x = data(model)
    torch.manual_seed(5)
    logits = model(x)
    torch.manual_seed(5)
    z = model.encode(x).rsample()
    torch.testing.assert_close(logits.squeeze(-1).sigmoid(), model.decode(z).mean)


def test_gaussian_log_prob_keeps_its_constant():
    """−log p(x|z) is not the squared error alone: log σ and ½ log 2π count."""
    given = Gaussian(0.5).given(torch.zeros(1, 1, 2, 2, 1), 3)
    x = torch.full((1, 1, 2, 2), 0.25)
    expected = 4 * (
        -0.5 * (0.25 / 0.5) ** 2 - torch.tensor(0.5).log() - 0.5 * torch.tensor(2 * torch.pi).log()
    )
    torch.testing.assert_close(given.log_prob(x), expected.reshape(1))


def test_learned_sigma_is_a_parameter_and_a_fixed_one_is_not():
    assert Gaussian().log_sigma.requires_grad
    assert not list(Gaussian(0.1).parameters())


@pytest.mark.parametrize("sigma", [0.1, 1e-4])
def test_a_given_sigma_is_taken_exactly_in_double_precision(sigma):
    """Also below the bound of a learned one, and in a model that was built in single precision."""
    likelihood = VAE((1, 8, 8), 2, hidden=(4,), likelihood=Gaussian(sigma)).double().likelihood
    means = torch.randn(5, 3, dtype=torch.float64)
    x = means + sigma * torch.randn(5, 3, dtype=torch.float64)
    expected = Normal(means, torch.tensor(sigma, dtype=torch.float64)).log_prob(x).sum(1)
    given = likelihood.given(means.unsqueeze(-1), 1)
    torch.testing.assert_close(given.log_prob(x), expected, rtol=1e-12, atol=0)
    noise = likelihood.draw(torch.zeros(1000, 1, dtype=torch.float64)) / sigma
    assert noise.std().item() == pytest.approx(1, abs=0.1)


def test_a_given_sigma_keeps_its_digits_beside_means_in_half_precision():
    mean = torch.zeros(1, 1, dtype=torch.bfloat16)
    density = Gaussian(0.1).log_prob(mean, torch.zeros(1)).exp()
    assert density.item() == pytest.approx(1 / (0.1 * math.sqrt(2 * math.pi)), rel=1e-6)


def test_sampling_drops_no_unit_and_leaves_the_mode_as_it_is():
    model = VAE((1, 8, 8), 2, hidden=(16,), likelihood=Gaussian(0.1), dropout=0.5)
    model.encoder.eval()  # a part may be frozen
    a = model.sample(4, generator=torch.Generator().manual_seed(3))
    assert model.training
    assert model.decoder.training
    assert not model.encoder.training
    assert torch.equal(a, model.eval().sample(4, generator=torch.Generator().manual_seed(3)))


BAD = {
    "missing batch": (torch.zeros(1, 8, 8), ValueError, "unsqueeze"),
    "other shape": (torch.zeros(2, 1, 7, 8), ValueError, r"\(2, 1, 7, 8\).*\(N, 1, 8, 8\)"),
    "flattened": (torch.zeros(2, 64), ValueError, r"\(2, 64\)"),
    "integers": (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), TypeError, "intensities"),
    "not a tensor": ([[0.0]], TypeError, "list"),
    "above one": (torch.full((2, 1, 8, 8), 16.0), ValueError, r"\[16, 16\].*\[0, 1\]"),
    "below zero": (torch.full((2, 1, 8, 8), -0.1), ValueError, r"\[0, 1\]"),
    "NaN": (torch.full((2, 1, 8, 8), torch.nan), ValueError, "NaN"),
    "empty": (torch.zeros(0, 1, 8, 8), ValueError, "empty"),
}


@pytest.mark.parametrize(("x", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(x, error, message):
    model = VAE((1, 8, 8), 2, hidden=(4,))
    for call in (model.encode, model.elbo, model):
        with pytest.raises(error, match=message):
            call(x)


def test_values_outside_the_unit_interval_suit_a_gaussian():
    model = VAE((1, 8, 8), 2, hidden=(4,), likelihood=Gaussian())
    assert model.elbo(torch.full((2, 1, 8, 8), 16.0)).isfinite().all()


def test_the_floor_of_a_learned_sigma_lets_it_rise_again():
    likelihood = Gaussian()
    floor = math.exp(-7)
    for log_sigma, error, gradient in (
        (-8.0, 0.0, "none"),  # a perfect fit: σ would like to fall further, and must not
        (-8.0, 0.5, "rises"),  # bad means: the loss falls as σ rises
        (-2.0, 0.0, "falls"),
        (-2.0, 0.5, "rises"),
    ):
        with torch.no_grad():
            likelihood.log_sigma.fill_(log_sigma)
        assert likelihood.sigma.item() == pytest.approx(max(floor, math.exp(log_sigma)))
        loss = -likelihood.log_prob(torch.zeros(5, 1), torch.full((5,), error)).sum()
        assert loss >= 5 * (0.5 * math.log(2 * math.pi) - 7)  # what σ at the floor can give
        (slope,) = torch.autograd.grad(loss, likelihood.log_sigma)
        direction = {0: "none", 1: "falls", -1: "rises"}[int(slope.sign())]
        assert direction == gradient, (log_sigma, error)


@pytest.mark.parametrize("latent_dim", [0, -3, 1.5, "2"])
def test_latent_dim_is_checked(latent_dim):
    with pytest.raises((ValueError, TypeError), match="latent_dim"):
        VAE((1, 8, 8), latent_dim)


def test_latents_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(5, 3\).*latent_dim=2"):
        VAE((1, 8, 8), 2).decode(torch.zeros(5, 3))


def test_convolutions_refuse_odd_sizes():
    with pytest.raises(ValueError, match="multiples of 4"):
        VAE((1, 9, 9), 2, channels=4)


def test_zero_samples_and_bad_sigma_are_refused():
    with pytest.raises(ValueError, match="n is 0"):
        VAE((1, 8, 8), 2).sample(0)
    with pytest.raises(ValueError, match="sigma is 0"):
        Gaussian(0.0)

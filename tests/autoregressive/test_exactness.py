"""Likelihoods are normalized, and samplers draw from them: exactly, for every model and distribution."""

import pytest
import torch

from course_lib.autoregressive import (
    FVSBN,
    GatedPixelCNN,
    one_ordering_loss,
)
from course_lib.distributions import Bernoulli, Categorical, DiscretizedLogisticMixture
from course_lib.training import negative_log_likelihood
from tests.autoregressive.properties import (
    GREY,
    MODELS,
    all_images,
    build,
    cached_is_naive,
    samples_follow_log_prob,
    sums_to_one,
)

DISTRIBUTIONS = {
    "Bernoulli": (2, None),
    "categorical": (3, Categorical(3)),
    "logistic mixture": (3, DiscretizedLogisticMixture(3, 2)),
}
pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_all_grey_images_sum_to_one(name, distribution):
    levels, distribution = DISTRIBUTIONS[distribution]
    sums_to_one(build(name, (1, 2, 3), levels, distribution=distribution))


@pytest.mark.parametrize("name", GREY)
def test_all_colour_images_sum_to_one(name):
    sums_to_one(build(name, (3, 2, 1), 2))
    sums_to_one(build(name, (2, 1, 2), 3, distribution=DiscretizedLogisticMixture(3, 2)))


class LogLikelihood(torch.nn.Module):
    """`torch.func.functional_call` calls ``forward``."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.log_prob(x)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_each_example_by_vmap_sum_to_that_of_the_batch(name):
    model = build(name, (1, 2, 3), 3)
    x = torch.randint(3, (4, *model.event_shape))
    parameters = {f"model.{name}": p for name, p in model.named_parameters()}
    wrapped = LogLikelihood(model)

    def loss(parameters, example):
        return -torch.func.functional_call(wrapped, parameters, (example[None],)).mean()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    negative_log_likelihood(model, x, None).backward()
    for parameter, gradients in zip(model.parameters(), each.values(), strict=True):
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradients.mean(0), expected)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_samples_follow_the_likelihood(name, distribution):
    levels, distribution = DISTRIBUTIONS[distribution]
    samples_follow_log_prob(build(name, (1, 2, 2), levels, distribution=distribution))


@pytest.mark.parametrize("name", GREY)
def test_colour_samples_follow_the_likelihood(name):
    samples_follow_log_prob(build(name, (3, 2, 1), 2))


@pytest.mark.parametrize(
    ("shape", "levels", "n"),
    [((1, 1, 1), 2, 3), ((1, 1, 6), 2, 4), ((1, 5, 1), 3, 1), ((1, 6, 5), 4, 2), ((3, 4, 3), 3, 5)],
)
@pytest.mark.parametrize("name", MODELS)
def test_cached_samples_are_the_naive_ones(name, shape, levels, n):
    cached_is_naive(build(name, shape, levels), n)
    cached_is_naive(
        build(name, shape, levels, distribution=DiscretizedLogisticMixture(levels, 2)), n
    )


def test_conditional_model_is_normalized_cached_and_uses_its_class():
    model = GatedPixelCNN((1, 2, 3), 2, channels=5, n_layers=3, n_classes=4)
    log_probs = []
    for label in range(4):
        labels = torch.full((64,), label)
        sums_to_one(model, labels=labels)
        log_probs.append(model.log_prob(all_images(model), labels))
        as_bytes = model.log_prob(all_images(model), labels.to(torch.uint8))
        assert torch.equal(as_bytes, log_probs[-1])
    assert (log_probs[0] - log_probs[3]).abs().max() > 0.01
    cached_is_naive(model, 4, labels=torch.tensor([3, 0, 0, 2]))
    bytes_ = torch.tensor([3, 0, 0, 2], dtype=torch.uint8)
    cached_is_naive(model, 4, labels=bytes_)
    known = torch.zeros(model.event_shape, dtype=torch.bool)
    x = model.sample(4, labels=bytes_)
    filled = [
        model.complete(x, known, labels=labels, generator=torch.Generator().manual_seed(0))
        for labels in (bytes_, bytes_.long())
    ]
    assert torch.equal(*filled)
    model = GatedPixelCNN((3, 3, 4), 3, channels=6, n_layers=2, n_classes=2)
    cached_is_naive(model, 3, labels=torch.tensor([1, 0, 1]))


@pytest.mark.parametrize("name", MODELS)
def test_completion_keeps_the_known_and_continues_as_a_sample_would(name):
    model = build(name, (1, 4, 4), 3)
    generator = torch.Generator
    x = model.sample(3, generator=generator().manual_seed(0))
    known = torch.rand(x.shape) < 0.4
    marked = torch.where(known, x, torch.full_like(x, -1))  # unknown entries are not read
    filled = [
        model.complete(marked, known, generator=generator().manual_seed(1), cached=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*filled)
    assert torch.equal(filled[0][known], x[known])
    assert (filled[0] >= 0).all()
    assert not torch.equal(filled[0], x)
    # The same noise with the true past known gives the same sample again.
    early = torch.zeros(model.n_dims, dtype=torch.bool)
    early[: model.n_dims // 2] = True
    again = model.complete(x, early.view(model.event_shape), generator=generator().manual_seed(0))
    assert torch.equal(again, x) or len(getattr(model, "orderings", [0])) > 1


@pytest.mark.parametrize("name", MODELS)
def test_a_completion_is_conditioned_on_what_it_was_given(name):
    # One known dimension: frequencies of the rest against p(x | x_1), by Bayes from log_prob.
    model = build(name, (1, 1, 2), 2)
    if len(getattr(model, "orderings", [0])) > 1:
        pytest.skip("with several orderings the known dimension may be drawn last")
    images = all_images(model)
    p = model.log_prob(images).exp().view(2, 2)
    x = torch.ones(4000, *model.event_shape, dtype=torch.int64)
    known = torch.tensor([True, False]).view(model.event_shape)
    filled = model.complete(x, known, generator=torch.Generator().manual_seed(0))
    rate = filled.flatten(1)[:, 1].double().mean().item()
    expected = (p[1, 1] / p[1].sum()).item()
    assert abs(rate - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_distribution_draws_its_quantile(distribution):
    """Also the one that compares logits instead of probabilities: not just the right frequencies."""
    distribution = DISTRIBUTIONS[distribution][1] or Bernoulli()
    parameters, u = torch.randn(500, distribution.n_parameters), torch.rand(500)
    below = distribution.cdf(parameters) <= u.unsqueeze(-1)
    assert torch.equal(distribution.quantile(parameters, u), below.sum(-1))


def test_sampling_ignores_dropout_and_leaves_the_mode():
    model = GatedPixelCNN((1, 4, 4), 4, channels=8, n_layers=2, dropout=0.5)
    model.train()
    cached_is_naive(model, 8)
    assert model.training
    trained = model.sample(8, generator=torch.Generator().manual_seed(0))
    model.eval()
    assert torch.equal(trained, model.sample(8, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", MODELS)
def test_autocast_does_not_change_what_is_drawn(name):
    torch.set_default_dtype(torch.float32)  # the fixture sets it back
    model = build(name, (1, 4, 3), 3)
    for cached in (True, False):
        expected = model.sample(8, generator=torch.Generator().manual_seed(1), cached=cached)
        with torch.autocast("cpu", torch.bfloat16):
            drawn = model.sample(8, generator=torch.Generator().manual_seed(1), cached=cached)
        assert torch.equal(drawn, expected)


@pytest.mark.parametrize("levels", [2, 3])
def test_rare_levels_are_drawn_in_half_precision_too(levels):
    # The softmax has the probabilities 0.9955, 0.0025, 0.0020, the Bernoulli distribution 0.9975, 0.0025.
    model = FVSBN((4,), levels).bfloat16()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.bias.view(4, -1)[:] = torch.tensor([-6.0] if levels == 2 else [0.0, -6.0, -6.2])
    x = model.sample(100_000, generator=torch.Generator().manual_seed(0))
    rare = torch.bincount(x.flatten(), minlength=levels)[1:] / x.numel()
    expected = model.distribution.probabilities(model.bias.float().view(4, -1)[0])[1:]
    torch.testing.assert_close(rare, expected, rtol=0.1, atol=0, check_dtype=False)


def test_samples_can_be_trained_on():
    # Tensors made in inference mode could not be saved for a backward pass.
    model = GatedPixelCNN((1, 3, 3), 4, channels=4, n_layers=2)
    loss = negative_log_likelihood(model, model.sample(4), None)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_mixture_of_orderings_is_the_mean_of_their_probabilities():
    model = build("MADE, 3 orderings", (1, 2, 2), 2)
    images = all_images(model)
    each = torch.stack([model.log_prob(images, ordering=r).exp() for r in range(3)])
    torch.testing.assert_close(each.sum(1), torch.ones(3))
    torch.testing.assert_close(model.log_prob(images).exp(), each.mean(0))
    assert (each[0] - each[1]).abs().max() > 1e-3


def test_one_ordering_loss_draws_every_ordering_and_bounds_the_mixture():
    model = build("MADE, 3 orderings", (1, 2, 2), 2)
    images = all_images(model)
    each = torch.stack([-model.log_prob(images, ordering=r).mean() for r in range(3)])
    torch.manual_seed(0)
    drawn = torch.stack([one_ordering_loss(model, images, None) for _ in range(60)])
    # Every value is that of one ordering, and each ordering is drawn about as often.
    matches = (drawn[:, None] - each).abs() < 1e-12
    assert (matches.sum(1) == 1).all()
    assert (matches.sum(0) > 10).all()
    assert each.mean() > negative_log_likelihood(model, images, None)  # Jensen's inequality


def test_orderings_share_the_masks_between_hidden_layers():
    model = build("MADE, 3 orderings", (1, 2, 2), 2)
    assert [len(model.get_buffer(f"mask_{index}")) for index in range(3)] == [3, 1, 3]

"""The velocity of dequantized grey levels: Bayes' rule against quadrature, and likelihoods that are known."""

import math

import pytest
import torch

from course_lib.flow_matching import FlowMatching, VelocityFlow, level_ends
from course_lib.schedules import Cosine
from course_lib.training import fit

SHAPE = (1, 3, 3)


def by_quadrature(logits, z, alpha, sigma, points=20_000):
    """Both means, by sums over fine points of every level's interval."""
    levels, u = torch.arange(logits.shape[-1])[:, None], (torch.arange(points) + 0.5) / points
    y = (2 * (levels + u) / logits.shape[-1] - 1).flatten()
    exponent = -0.5 * ((z[:, None] - alpha * y) / sigma) ** 2
    weight = (exponent + logits.repeat_interleave(points, -1)).softmax(-1)
    return weight @ y, (weight * (z[:, None] - alpha * y) / sigma).sum(-1)


@pytest.mark.parametrize("t", [0.003, 0.05, 0.3, 0.5, 0.62, 0.68, 0.9, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_both_ends_are_those_of_quadrature(t, dtype, float64):
    """On both sides of where the series takes over, and where one interval is far from the other."""
    alpha, sigma = torch.tensor(1 - t), torch.tensor(t)
    logits = torch.randn(30, 5)
    z = alpha * (2 * torch.rand(30) - 1) + sigma * torch.randn(30)
    found = level_ends(*(a.to(dtype) for a in (logits, z, alpha, sigma)))
    tolerance = 3e-6 if dtype == torch.float64 else 2e-5
    for one, other in zip(found, by_quadrature(logits, z, alpha, sigma), strict=True):
        torch.testing.assert_close(one.double(), other, atol=tolerance, rtol=0)


def test_the_ends_and_their_gradients_are_finite_for_any_noise():
    z = torch.linspace(-3, 3, 60, requires_grad=True)
    for t in (1e-4, 1e-3, 0.2, 0.7, 0.999, 1.0):
        logits = torch.zeros(60, 17, requires_grad=True)
        ends = level_ends(logits, z, torch.tensor(1 - t), torch.tensor(t))
        gradients = torch.autograd.grad(sum(end.sum() for end in ends), (z, logits))
        assert all(x.isfinite().all() for x in (*ends, *gradients))
        assert (ends[0].abs() < 1 + 1e-6).all()


@pytest.mark.parametrize("schedule", [None, Cosine(20.0, -30.0)])
def test_an_untrained_flow_has_the_frequencies_of_the_levels_as_its_likelihood(schedule, float64):
    """Each entry by itself, and the dequantization bound has no gap: the density is flat on each interval."""
    generator = torch.Generator().manual_seed(0)
    x = torch.multinomial(torch.tensor([0.1, 0.5, 0.1, 0.3]), 3000, True, generator=generator)
    model = VelocityFlow((1,), 4, hidden=(4,), prediction="levels", schedule=schedule)
    model.initialize(x[:, None])
    expected = model.log_frequencies[0]
    assert (expected.exp() - torch.bincount(x) / 3000).abs().max() < 1e-3
    # From the middle of each interval, where the edges are far, and on the mean over it.
    middles = model.middles(torch.arange(4)[:, None])
    found = model.log_prob(middles, steps=60, method="rk4") + model.log_volume()
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
    bound = model.elbo(torch.arange(4)[:, None].repeat(400, 1), steps=60).view(400, 4).mean(0)
    torch.testing.assert_close(bound, expected, atol=0.03, rtol=0)
    drawn = model.sample(4000, steps=30).flatten()
    assert (torch.bincount(drawn, minlength=4) / 4000 - expected.exp()).abs().max() < 0.03


def test_the_probabilities_of_all_images_sum_to_one(float64):
    """Of a flow that is nobody's, of two entries: by quadrature over the intervals of all nine images."""
    torch.manual_seed(2)
    model = VelocityFlow((2,), 3, hidden=(8, 8), prediction="levels").double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    images, points = torch.cartesian_prod(torch.arange(3), torch.arange(3)), 20
    u = (torch.arange(points) + 0.5) / points
    y = 2 * (images[:, None] + torch.cartesian_prod(u, u)) / 3 - 1
    log_density = model.log_prob(y.reshape(-1, 2), steps=30, method="rk4").view(9, -1)
    probability = log_density.exp().mean(1) * (2 / 3) ** 2
    assert probability.max() > 3 * probability.min()
    assert probability.sum().item() == pytest.approx(1, abs=0.01)
    # And samples have them.
    drawn = model.sample(4000, steps=40)
    share = (drawn[:, None] == images).all(-1).double().mean(0)
    assert (share - probability).abs().max() < 0.03


def test_training_finds_that_entries_belong_together():
    """Two images, each of which tells all its entries from one."""
    one = torch.randint(4, SHAPE, generator=torch.Generator().manual_seed(1))
    data = torch.stack([one, 3 - one]).repeat(100, 1, 1, 1)
    model = VelocityFlow(SHAPE, 4, hidden=(32,), prediction="levels")
    model.initialize(data)
    before = model.elbo(data[:40], steps=20).mean()
    assert before < -0.6 * 9 * math.log(2)  # independent entries pay a bit each
    fit(
        model,
        FlowMatching(),
        data,
        steps=150,
        batch_size=32,
        learning_rate=1e-2,
        progress=False,
    )
    assert model.elbo(data[:40], steps=20).mean() > -0.6 * 9 * math.log(2)
    made = model.sample(50, steps=10)
    right = (made == data[0]).flatten(1).all(1) | (made == data[1]).flatten(1).all(1)
    assert right.float().mean() > 0.7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VelocityFlow((2,), prediction="levels"), "for continuous data"),
        (lambda: VelocityFlow((2,), 4, prediction="noise"), "prediction is 'noise'"),
        (
            lambda: level_ends(
                torch.zeros(2, 3), torch.zeros(3), torch.tensor(0.5), torch.tensor(0.5)
            ),
            r"logits has shape \(2, 3\)",
        ),
        (
            lambda: level_ends(
                torch.zeros(3, 1), torch.zeros(3), torch.tensor(0.5), torch.tensor(0.5)
            ),
            "at least 2 levels",
        ),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_flow_of_levels_is_no_flow_of_velocities():
    saved = VelocityFlow(SHAPE, 4, hidden=(4,), prediction="levels").state_dict()
    with pytest.raises((ValueError, RuntimeError), match=r"prediction|log_frequencies"):
        VelocityFlow(SHAPE, 4, hidden=(4,)).load_state_dict(saved)

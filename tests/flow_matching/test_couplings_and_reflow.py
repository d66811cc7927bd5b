"""Who is paired with whom: marginals are kept, costs fall, and pairs stay pairs."""

import itertools

import pytest
import torch
from scipy.stats import chisquare, kstest

from course_lib.flow_matching import (
    FlowMatching,
    VelocityFlow,
    optimal_pairing,
    paired,
    reflow_pairs,
    transport_cost,
)
from course_lib.schedules import LinearPath
from course_lib.solvers import integrate, time_grid
from tests.diffusion.exact import plane


def test_the_pairing_is_the_best_of_all_permutations(float64):
    x, noise = torch.randn(6, 1, 2), torch.randn(6, 1, 2)
    index = optimal_pairing(x, noise)
    assert sorted(index.tolist()) == list(range(6))
    costs = [transport_cost(x, noise[list(p)]) for p in itertools.permutations(range(6))]
    torch.testing.assert_close(transport_cost(x, noise[index]), torch.stack(costs).min())


def test_in_one_dimension_the_pairing_sorts():
    x, noise = torch.randn(200, 1), torch.randn(200, 1)
    found = noise[optimal_pairing(x, noise)]
    torch.testing.assert_close(found[x.flatten().argsort()], noise.sort(0).values)


def test_both_marginals_are_kept_exactly_and_a_single_pair_has_the_noise_distribution():
    x = torch.tensor([[-2.0], [0.5], [3.0]])
    draws = []
    for _ in range(3000):
        noise = torch.randn(3, 1)
        own = paired(x, noise)
        assert torch.equal(own.sort(0).values, noise.sort(0).values)
        draws.append(own)
    draws = torch.stack(draws)
    # Of an example drawn at random the noise is normal; given the example it is not.
    at_random = draws[torch.arange(3000), torch.randint(3, (3000,)), 0]
    assert kstest(at_random.numpy(), "norm").pvalue > 0.01
    assert draws[:, 0].mean() < -0.5
    assert draws[:, 2].mean() > 0.5


def test_each_class_keeps_its_own_noise():
    """Two classes far apart: a pairing blind to them would send half of the space to each."""
    x = torch.cat([torch.randn(40, 2) - 5, torch.randn(40, 2) + 5])
    labels, noise = torch.arange(80) // 40, torch.randn(80, 2)
    own = paired(x, noise, labels, n_classes=2)
    for label in (0, 1):
        found, given = own[labels == label], noise[labels == label]
        assert torch.equal(found[found[:, 0].argsort()], given[given[:, 0].argsort()])
        assert found.mean(0).abs().max() < 0.6
        cost = transport_cost(x[labels == label], given)
        assert transport_cost(x[labels == label], found) < cost
    blind = noise[optimal_pairing(x, noise)]
    assert blind[:40].mean() < -0.4
    assert blind[40:].mean() > 0.4


def test_the_loss_pairs_within_classes():
    """A conditional flow of two point-like classes, trained on optimal pairs, knows both."""
    model = VelocityFlow((1,), hidden=(4,), n_classes=2)
    x = torch.cat([torch.randn(20, 1) - 5, torch.randn(20, 1) + 5])
    labels = torch.arange(40) // 20
    loss = FlowMatching(coupling="optimal", unlabelled=0.0)
    means = torch.zeros(2)
    for _ in range(50):
        ends, noise, kept = loss.ends(model, (x, labels))
        assert torch.equal(ends, x)
        assert torch.equal(kept, labels)
        means += torch.stack([noise[labels == c].mean() for c in (0, 1)]) / 50
    assert means.abs().max() < 0.15
    # Within a class the pairing still sorts.
    one = labels == 0
    assert torch.equal(x[one].flatten().argsort(), noise[one].flatten().argsort())


def curved():
    """A flow whose velocity is not that of a Gaussian: an untrained network with larger weights."""
    torch.manual_seed(3)
    model = VelocityFlow((2,), hidden=(8,)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def test_reflow_pairs_hold_the_noise_from_which_each_example_came():
    model = curved()
    x, noise = reflow_pairs(
        model, 25, steps=8, batch_size=10, generator=torch.Generator().manual_seed(1)
    )
    assert x.shape == noise.shape == (25, 2)
    torch.testing.assert_close(model.from_noise(noise, steps=8), x)
    again = reflow_pairs(model, 25, steps=8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again[1], noise)
    torch.testing.assert_close(again[0], x)


def test_given_pairs_stay_as_they_are_in_the_loss():
    model, loss = curved(), FlowMatching(given_noise=True)
    x, noise = reflow_pairs(model, 12, steps=2)
    ends = loss.ends(model, (x, noise))
    assert ends[0] is x
    assert ends[1] is noise
    assert ends[2] is None


def test_reflow_straightens(float64):
    """The flow's own pairs, of the exact mixture, cost less than independent ones, and have its marginals."""
    mixture, noise = plane(), torch.randn(2000, 2)
    x = integrate(
        lambda z, t: mixture.velocity(z, t, LinearPath()), noise, time_grid(40), "midpoint"
    )
    independent = mixture.covariance.trace() + mixture.mean.square().sum() + 2
    assert transport_cost(x, noise) < 0.8 * independent
    assert (x.mean(0) - mixture.mean).abs().max() < 0.1


def test_an_untrained_conditional_flow_gives_pairs_with_labels():
    model = VelocityFlow((2,), hidden=(4,), n_classes=3)
    labels = torch.tensor([0, 2, 1, 1, 0])
    made = reflow_pairs(model, 5, steps=1, labels=labels, batch_size=2)
    assert torch.equal(made[2], labels)
    loss = FlowMatching(given_noise=True)(model, made, torch.ones(()))
    assert loss.isfinite()


def test_times_have_the_density_that_the_power_says():
    x = torch.zeros(64, 1)
    for loss, power in ((FlowMatching(), 1.7), (FlowMatching(power=1.0), 1.0)):
        drawn = torch.cat([loss.times(x) for _ in range(50)])
        # Uniform after the inverse power; counted in tenths.
        counts = torch.histc(drawn ** (1 / power), 10, 0, 1)
        assert chisquare(counts.numpy()).pvalue > 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: optimal_pairing(torch.randn(3, 2), torch.randn(4, 2)),
            r"noise has shape \(4, 2\)",
        ),
        (
            lambda: optimal_pairing(torch.full((2, 1), torch.nan), torch.zeros(2, 1)),
            "finite real numbers are expected",
        ),
        (
            lambda: paired(torch.randn(2, 1), torch.randn(2, 1), torch.tensor([0, 3]), n_classes=3),
            "labels has levels 0 … 3; 0 … 2 are expected",
        ),
        (lambda: paired(torch.randn(2, 1), torch.randn(2, 1), n_classes=3), "no labels were given"),
        (lambda: FlowMatching(coupling="ot"), "coupling is 'ot'; one of"),
        (
            lambda: FlowMatching(coupling="optimal", given_noise=True),
            "given pairs stay as they are",
        ),
        (lambda: FlowMatching(power=0.5), "power is 0.5"),
        (lambda: FlowMatching(unlabelled=1.5), "unlabelled is 1.5"),
        (lambda: reflow_pairs(VelocityFlow((2,), hidden=(4,)), 0), "n is 0"),
        (
            lambda: reflow_pairs(VelocityFlow((2,), hidden=(4,)), 2, batch_size=0),
            "batch_size is 0",
        ),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

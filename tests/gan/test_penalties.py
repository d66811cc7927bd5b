"""Penalties: points, norms, factors, what is refused, and no NaN."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from course_lib.gan import (
    Discriminator,
    gradient_penalty,
    r1_penalty,
    roth_penalty,
    weight_clipping,
)

PENALTIES = {
    "gradient_penalty": lambda d, real, fake, w=1.0: gradient_penalty(d, real, fake, weight=w),
    "one-sided": lambda d, real, fake, w=1.0: gradient_penalty(
        d, real, fake, weight=w, one_sided=True
    ),
    "r1": lambda d, real, fake, w=1.0: r1_penalty(d, real, gamma=w),
    "roth": lambda d, real, fake, w=1.0: roth_penalty(d, real, fake, gamma=w),
}


def cubic(x):
    """A critic whose gradient (x₁², 2x₂) depends on where it is taken."""
    return x[:, 0] ** 3 / 3 + x[:, 1] ** 2


def gradient_norm(x):
    return torch.stack([x[:, 0] ** 2, 2 * x[:, 1]], 1).norm(dim=1)


@pytest.fixture
def distributions(float64):
    return torch.randn(7, 2) + 2, 3 * torch.randn(7, 2) - 1


def test_gradient_penalty_is_taken_at_interpolates_with_a_weight_per_pair(distributions):
    real, fake = distributions
    u = torch.rand(7, 1, generator=torch.Generator().manual_seed(3))
    # Real and fake may change roles; the distribution of the interpolates is the same.
    expected = [
        10 * (gradient_norm(a * real + (1 - a) * fake) - 1).square().mean() for a in (u, 1 - u)
    ]
    value = gradient_penalty(
        cubic, real, fake, weight=10, generator=torch.Generator().manual_seed(3)
    )
    assert min((value - e).abs().item() for e in expected) < 1e-12


def test_one_sided_penalty_leaves_flat_critics_alone(distributions):
    real, fake = distributions
    value = gradient_penalty(lambda x: 0.6 * x[:, 0], real, fake, one_sided=True)
    assert value.item() == 0
    value = gradient_penalty(lambda x: 3.0 * x[:, 0], real, fake, one_sided=True)
    assert value.item() == pytest.approx(4)
    value = gradient_penalty(lambda x: 0.6 * x[:, 0], real, fake)
    assert value.item() == pytest.approx(0.16)


@pytest.mark.parametrize("n", [1, 2, 50])
def test_norm_is_per_example_over_all_dimensions(float64, n):
    """A critic of gradient norm 1 everywhere is not penalized, however large the batch or the image."""
    real, fake = torch.randn(2, n, 3, 4, 5)
    direction = torch.randn(3, 4, 5)
    direction /= direction.norm()
    value = gradient_penalty(lambda x: (x * direction).sum((1, 2, 3)), real, fake)
    assert value.item() == pytest.approx(0, abs=1e-20)


def test_r1_is_taken_at_real_examples_with_gamma_over_two(distributions):
    real, _ = distributions
    torch.testing.assert_close(
        r1_penalty(cubic, real, gamma=0.3), 0.15 * gradient_norm(real).square().mean()
    )


def test_roth_weighs_both_distributions_by_the_discriminators_doubt(distributions):
    real, fake = distributions
    on_real = ((1 - torch.sigmoid(cubic(real))) * gradient_norm(real)).square().mean()
    on_fake = (torch.sigmoid(cubic(fake)) * gradient_norm(fake)).square().mean()
    torch.testing.assert_close(
        roth_penalty(cubic, real, fake, gamma=0.3), 0.15 * (on_real + on_fake)
    )


def test_roth_is_half_of_r1_where_distributions_are_equal_and_the_discriminator_undecided(float64):
    real = torch.randn(5, 2)
    flat = lambda x: 1e-6 * x[:, 0]  # noqa: E731
    ratio = roth_penalty(flat, real, real) / r1_penalty(flat, real)
    assert ratio.item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_train_the_discriminator_and_send_nothing_to_the_generator(distributions, name):
    real, fake = distributions
    fake = fake.clone().requires_grad_()
    discriminator = Discriminator((2,), (8,))
    nn.init.constant_(discriminator.head.weight, 5.0)  # steep enough for the one-sided penalty
    PENALTIES[name](discriminator, real, 2 * fake).backward()
    assert fake.grad is None
    assert discriminator.body[1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_can_be_differentiated_when_compiled(name):
    critic = Discriminator((2,), hidden=(8,))
    nn.init.normal_(critic.body[1].weight, std=3)  # steep enough for the one-sided penalty
    real, fake = torch.randn(2, 7, 2)
    gradients = []
    for run in (PENALTIES[name], torch.compile(PENALTIES[name], backend="aot_eager")):
        torch.manual_seed(0)  # of the points between real and fake
        critic.zero_grad()
        run(critic, real, fake).backward()
        gradients.append(critic.body[1].weight.grad.clone())
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_penalty_gradient_against_differences(distributions):
    """The second derivative is there: d/ds of the penalty of the critic s·x₁."""
    real, fake = distributions
    slope = torch.tensor(1.7, requires_grad=True)
    value = gradient_penalty(lambda x: slope * x[:, 0], real, fake, weight=10)
    (derivative,) = torch.autograd.grad(value, slope)
    assert derivative.item() == pytest.approx(2 * 10 * 0.7)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("probe", ["zero gradient", "equal batches", "saturated logits"])
def test_no_nan(name, probe):
    """Value and gradient by the parameters are finite where a square root or a sigmoid degenerates."""
    torch.manual_seed(0)
    discriminator = Discriminator((2,), (8,))
    real = torch.randn(6, 2)
    fake = real.clone() if probe == "equal batches" else torch.randn(6, 2)
    if probe == "zero gradient":
        nn.init.zeros_(discriminator.head.weight)
    if probe == "saturated logits":
        nn.init.constant_(discriminator.head.bias, 1e4)
    value = PENALTIES[name](discriminator, real, fake)
    gradients = torch.autograd.grad(value, list(discriminator.parameters()), allow_unused=True)
    assert torch.isfinite(value)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)


@pytest.mark.parametrize("name", PENALTIES)
def test_batch_normalization_is_refused(name):
    critic = nn.Sequential(
        nn.Linear(2, 4), nn.BatchNorm1d(4), nn.LeakyReLU(), nn.Linear(4, 1), nn.Flatten(0)
    )
    real, fake = torch.randn(2, 6, 2)
    for given in (critic, partial(critic)):
        with pytest.raises(ValueError, match=r"layer '1' is BatchNorm1d.*whole batch"):
            PENALTIES[name](given, real, fake)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_negative_weights_are_refused(name, weight):
    real, fake = torch.randn(2, 6, 2)
    with pytest.raises(ValueError, match=rf"\((λ|γ)\) is {weight}; a number ≥ 0"):
        PENALTIES[name](cubic, real, fake, weight)


def test_shapes_are_checked():
    real, fake = torch.randn(6, 2), torch.randn(5, 2)
    with pytest.raises(ValueError, match="the same shape"):
        gradient_penalty(cubic, real, fake)
    with pytest.raises(ValueError, match="one output per example"):
        r1_penalty(nn.Linear(2, 1), real)


def test_weight_clipping_clips_after_every_step():
    layer = nn.Linear(3, 2)
    optimizer = weight_clipping(0.05, torch.optim.SGD)(layer.parameters(), lr=1.0)
    layer(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    assert max(p.abs().max().item() for p in layer.parameters()) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="bound is 0"):
        weight_clipping(0.0)

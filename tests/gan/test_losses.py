"""Objectives: against the definitions with logarithms, their gradients, and saturated logits."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from course_lib.gan import (
    critic_loss,
    discriminator_loss,
    hinge_loss,
    minimax_loss,
    non_saturating_loss,
    relativistic_generator_loss,
    relativistic_loss,
    wasserstein_loss,
)

REAL = torch.tensor([1.3, -0.4, 2.2], dtype=torch.float64)
FAKE = torch.tensor([-0.7, 0.9, -1.6, 0.1], dtype=torch.float64)


def test_discriminator_minimizes_the_sum_of_two_cross_entropies():
    real, fake = torch.sigmoid(REAL), torch.sigmoid(FAKE)
    expected = binary_cross_entropy(real, torch.ones(3).double()) + binary_cross_entropy(
        fake, torch.zeros(4).double()
    )
    torch.testing.assert_close(discriminator_loss(REAL, FAKE), expected)


def test_only_the_real_label_is_smoothed():
    real, fake = torch.sigmoid(REAL), torch.sigmoid(FAKE)
    expected = binary_cross_entropy(real, torch.full((3,), 0.9).double()) + binary_cross_entropy(
        fake, torch.zeros(4).double()
    )
    torch.testing.assert_close(discriminator_loss(REAL, FAKE, real_label=0.9), expected)


def test_generator_losses_are_logarithms_of_probabilities():
    d = torch.sigmoid(FAKE)
    torch.testing.assert_close(minimax_loss(FAKE), (1 - d).log().mean())
    torch.testing.assert_close(non_saturating_loss(FAKE), -d.log().mean())


def test_minimax_is_a_zero_sum_game():
    """What the discriminator loses on generated examples, the generator wins."""
    torch.testing.assert_close(
        minimax_loss(FAKE), -(discriminator_loss(REAL, FAKE) - discriminator_loss(REAL, FAKE - 99))
    )


def test_gradients_of_both_generators_where_the_discriminator_is_sure():
    logit = torch.tensor([math.log(1e-4 / (1 - 1e-4))], dtype=torch.float64, requires_grad=True)
    (saturating,) = torch.autograd.grad(minimax_loss(logit), logit)
    (not_saturating,) = torch.autograd.grad(non_saturating_loss(logit), logit)
    assert saturating.item() == pytest.approx(-1e-4)
    assert not_saturating.item() == pytest.approx(-0.9999)


def test_critic_estimates_the_distance_with_the_right_sign():
    """Real examples at 3, generated at 1, f(x) = x: the estimate of W1 is 2, the loss −2."""
    real, fake = torch.full((5,), 3.0), torch.full((4,), 1.0)
    assert critic_loss(real, fake).item() == -2
    assert wasserstein_loss(fake).item() == -1


def test_beyond_its_margin_the_hinge_has_no_gradient():
    real = torch.tensor([1.5, 0.5, -3.0], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([-1.5, -0.5], dtype=torch.float64, requires_grad=True)
    to_real, to_fake = torch.autograd.grad(hinge_loss(real, fake), (real, fake))
    assert to_real.tolist() == pytest.approx([0, -1 / 3, -1 / 3])
    assert to_fake.tolist() == pytest.approx([0, 1 / 2])


def test_only_differences_of_a_pair_count_in_the_relativistic_game():
    fake = FAKE[:3]
    shifted = relativistic_loss(REAL + 7, fake + 7)
    torch.testing.assert_close(relativistic_loss(REAL, fake), shifted)
    expected = -torch.sigmoid(REAL - fake).log().mean()
    torch.testing.assert_close(relativistic_loss(REAL, fake), expected)
    other = -torch.sigmoid(fake - REAL).log().mean()
    torch.testing.assert_close(relativistic_generator_loss(fake, REAL), other)
    # Pairs belong together: another order of the generated examples is another loss.
    assert relativistic_loss(REAL, fake.flip(0)) != relativistic_loss(REAL, fake)
    with pytest.raises(ValueError, match="judged in pairs"):
        relativistic_loss(REAL, FAKE)


@pytest.mark.parametrize("size", [0.0, 1e4])
@pytest.mark.parametrize(
    "loss",
    [
        discriminator_loss,
        critic_loss,
        hinge_loss,
        relativistic_loss,
        lambda r, f: relativistic_generator_loss(f, r),
        lambda r, f: discriminator_loss(r, f, real_label=0.9),
        lambda r, f: minimax_loss(f) + 0 * r.sum(),
        lambda r, f: non_saturating_loss(f) + 0 * r.sum(),
    ],
)
def test_saturated_logits_give_finite_losses_and_gradients(loss, size):
    for sign in (1, -1):
        real = torch.full((3,), sign * size, requires_grad=True)
        fake = torch.full((3,), -sign * size, requires_grad=True)
        value = loss(real, fake)
        gradients = torch.autograd.grad(value, (real, fake))
        assert torch.isfinite(value)
        assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("label", [0.5, 0.0, 1.1, math.nan])
def test_labels_out_of_range_are_refused(label):
    with pytest.raises(ValueError, match="real_label is"):
        discriminator_loss(REAL, FAKE, real_label=label)


def test_outputs_must_be_one_per_example():
    with pytest.raises(ValueError, match=r"fake_logits has shape \(4, 1\)"):
        minimax_loss(FAKE.unsqueeze(1))
    with pytest.raises(ValueError, match="real_scores"):
        critic_loss(REAL[:0], FAKE)
    with pytest.raises(TypeError, match="list"):
        non_saturating_loss([1.0])

"""The Dirac-GAN: its fields are the gradients of the library's own losses; its spectra are known."""

import math

import pytest
import torch

from course_lib.gan import (
    MINIMAX,
    NON_SATURATING,
    WASSERSTEIN,
    dirac,
    gradient_penalty,
    r1_penalty,
    roth_penalty,
)

GAMMA = 0.3
CASES = {
    "minimax": (dirac.minimax(), MINIMAX, None),
    "non-saturating": (dirac.non_saturating(), NON_SATURATING, None),
    "R1": (dirac.minimax(GAMMA), MINIMAX, lambda d, r, f: r1_penalty(d, r, gamma=GAMMA)),
    "non-saturating R1": (
        dirac.non_saturating(GAMMA),
        NON_SATURATING,
        lambda d, r, f: r1_penalty(d, r, gamma=GAMMA),
    ),
    "Roth": (dirac.roth(GAMMA), MINIMAX, lambda d, r, f: roth_penalty(d, r, f, gamma=GAMMA)),
    "WGAN": (dirac.wasserstein(), WASSERSTEIN, None),
    "WGAN-GP": (
        dirac.wasserstein_gp(0.7),
        WASSERSTEIN,
        lambda d, r, f: gradient_penalty(d, r, f, weight=0.7),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fields_are_minus_the_gradients_of_the_losses(float64, case):
    method, objective, penalty = CASES[case]
    for state in ([0.8, -1.7], [-1.1, 0.4], [0.6, 1.3]):
        theta, psi = torch.tensor(state).unbind()
        theta.requires_grad_()
        psi.requires_grad_()
        real, fake = torch.zeros(3, 1), theta.expand(3, 1)

        def judge(x, slope=psi):
            return slope * x.squeeze(1)

        loss_d = objective.discriminator(judge(real), judge(fake.detach()))
        if penalty is not None:
            loss_d = loss_d + penalty(judge, real, fake)
        loss_g = objective.generator(judge(fake))
        expected = torch.stack(
            [-torch.autograd.grad(loss_g, theta)[0], -torch.autograd.grad(loss_d, psi)[0]]
        )
        torch.testing.assert_close(method.field(torch.tensor(state)), expected)


@pytest.mark.parametrize("case", [c for c in CASES if c != "WGAN-GP"])
def test_jacobians_are_those_of_the_fields(float64, case):
    method = CASES[case][0]
    torch.testing.assert_close(
        torch.autograd.functional.jacobian(method.field, torch.zeros(2)),
        torch.tensor(method.jacobian),
    )


@pytest.mark.parametrize("alternating", [False, True])
@pytest.mark.parametrize("case", [c for c in CASES if c != "WGAN-GP"])
def test_eigenvalues_predict_the_radius_near_the_equilibrium(case, alternating):
    """Averaged over a turn, the growth per step is the largest modulus."""
    method = CASES[case][0]
    states = dirac.trajectory(method, (1e-7, 1e-7), 500, 0.2, alternating=alternating)
    radius = states.norm(dim=1)
    predicted = dirac.predicted_radius(method, 1.0, 500, 0.2, alternating=alternating)
    measured = (radius[-40:].log().mean() - radius[:40].log().mean()).item() / 461 * 500
    assert measured == pytest.approx(math.log(predicted), abs=0.35)


def test_known_radii_after_500_steps():
    def radius(method):
        # Here a high output means real; with the opposite sign this start is (1, 1).
        return dirac.trajectory(method, (1.0, -1.0), 500, 0.2)[-1].norm().item()

    assert radius(dirac.minimax()) == pytest.approx(3.10, abs=0.005)
    assert radius(dirac.minimax(0.3)) == pytest.approx(2.6e-6, rel=0.05)
    assert radius(dirac.wasserstein()) == pytest.approx(math.sqrt(2) * 1.04**250)
    assert 1.0 < radius(dirac.wasserstein(clip=1.0)) < 1.4


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_wgan_gp_with_a_strong_penalty_rests_away_from_the_equilibrium(weight):
    path = dirac.trajectory(dirac.wasserstein_gp(weight), (1.0, -1.0), 1000, 0.2)
    theta, psi = path[-1].tolist()
    assert abs(theta) == pytest.approx(2 * weight)
    assert psi == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("weight", [1.0, 1.7])
def test_where_wgan_gp_rests_it_is_stable_from_one_side_only(weight):
    """Back from the left and above; a push across the line, or beyond the point, ends at −2λ."""
    method = dirac.wasserstein_gp(weight)
    ends = [
        dirac.trajectory(method, (2 * weight + by, psi), 4000, 0.02)[-1, 0].item()
        for by, psi in ((-0.01, 1e-3), (-0.01, -1e-3), (0.01, 1e-3))
    ]
    assert ends == pytest.approx([2 * weight, -2 * weight, -2 * weight], abs=0.05)
    # The field just across the line is no zero: it is as large as 4λ.
    across = method.field(torch.tensor([2 * weight, -1e-9], dtype=torch.float64))
    assert across.abs().max().item() == pytest.approx(4 * weight)


def test_wgan_gp_cycles_and_has_no_linearization():
    method = dirac.wasserstein_gp(0.5)
    last = dirac.trajectory(method, (1e-7, 1e-7), 2000, 0.05)[-400:]
    assert last.norm(dim=1).min() > 0.5
    assert (last.amin(0) < 0).all()
    assert (last.amax(0) > 0).all()
    assert dirac.update_eigenvalues(method, 0.1) is None
    assert dirac.predicted_radius(method, 1.0, 10, 0.1) is None


def test_alternating_uses_the_new_discriminator():
    """θ₁ = θ₀ + hψ₁ with ψ₁ = ψ₀ − hθ₀, for the Wasserstein game."""
    states = dirac.trajectory(dirac.wasserstein(), (1.0, 0.5), 1, 0.2, alternating=True)
    torch.testing.assert_close(states[1], torch.tensor([1.06, 0.3], dtype=torch.float64))


def test_bad_settings_are_named():
    for build in (dirac.minimax, dirac.non_saturating, dirac.roth, dirac.wasserstein_gp):
        with pytest.raises(ValueError, match=r"is -1; a number ≥ 0"):
            build(-1)
    with pytest.raises(ValueError, match="clip is 0"):
        dirac.wasserstein(clip=0)
    with pytest.raises(ValueError, match="step_size"):
        dirac.trajectory(dirac.minimax(), (1.0, 1.0), 3, 0.0)
    with pytest.raises(ValueError, match="step_size"):
        dirac.update_eigenvalues(dirac.minimax(), -1.0)

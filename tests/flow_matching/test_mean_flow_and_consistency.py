"""Average velocities and consistency functions, against Gaussians and mixtures."""

import pytest
import torch

from course_lib.flow_matching import (
    MeanFlow,
    MeanFlowLoss,
    VelocityFlow,
    consistency_function,
    consistency_weights,
    gaussian_average_velocity,
    gaussian_flow_map,
    gaussian_velocity,
    mean_flow_target,
)
from course_lib.protocols import Sampler
from course_lib.schedules import Cosine, LinearPath
from course_lib.solvers import integrate, time_grid
from course_lib.training import fit
from tests.diffusion.exact import plane

MEAN, VARIANCE = torch.tensor([0.7, -1.2]), torch.tensor([0.3, 2.0])


def initialized(**options):
    model = MeanFlow((2,), hidden=(8,), **options)
    model.mean.copy_(MEAN)
    model.variance.copy_(VARIANCE)
    return model


# --- MeanFlow -------------------------------------------------------------------------------------


def test_an_untrained_model_is_exact_for_a_gaussian(float64):
    """One step from any time to any earlier one is the flow map."""
    model = initialized().double()
    z, t, r = torch.randn(5, 2), torch.rand(5) / 2 + 0.5, torch.rand(5) / 2
    u = model(z, r, t)
    expected = gaussian_flow_map(LinearPath(), z, t, r, model.mean, model.variance)
    torch.testing.assert_close(z - (t - r)[:, None] * u, expected)
    velocity = gaussian_velocity(LinearPath(), z, t, model.mean, model.variance)
    torch.testing.assert_close(model(z, t, t), velocity)


def test_the_true_average_velocity_is_its_own_target(float64):
    """With the marginal velocity the target at the truth is the truth; and not without the transport."""
    mean, variance = MEAN.double(), VARIANCE.double()

    def average(x, r, t):
        return gaussian_average_velocity(x, r, t, mean, variance)

    z, t, r = torch.randn(6, 2), torch.rand(6) / 2 + 0.5, torch.rand(6) / 2
    velocity = gaussian_velocity(LinearPath(), z, t, mean, variance)
    u, target = mean_flow_target(average, z, velocity, r, t)
    torch.testing.assert_close(u, target)
    still = mean_flow_target(average, z, torch.zeros_like(z), r, t)[1] + velocity
    assert (still - u).abs().max() > 0.1


def test_the_target_is_that_of_finite_differences_on_images(float64):
    torch.manual_seed(1)
    model = MeanFlow((1, 4, 4), channels=3, n_blocks=1).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    z, v, r, t = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4), torch.rand(2) / 2, torch.ones(2)
    t = t * 0.8
    u, target = mean_flow_target(model, z, v, r, t)
    h = 1e-5
    change = (model(z + h * v, r, t + h) - model(z - h * v, r, t - h)) / (2 * h)
    expected = v - (t - r).view(-1, 1, 1, 1) * change
    torch.testing.assert_close(target, expected, atol=1e-6, rtol=0)
    assert u.requires_grad
    assert not target.requires_grad


def test_the_loss_teaches_a_step_that_no_velocity_could_make():
    """Two points on the line: one Euler step would return their mean, the trained model returns them."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(2, (2000, 1), generator=generator) * 4.0 - 2
    data = data + 0.2 * torch.randn(2000, 1, generator=generator)
    model = MeanFlow((1,), hidden=(32,))
    model.initialize(data)
    before = model.sample(400, generator=torch.Generator().manual_seed(1))
    fit(
        model,
        MeanFlowLoss(share=0.5, power=0.0),
        data,
        steps=300,
        batch_size=128,
        learning_rate=1e-2,
        progress=False,
    )
    after = model.sample(400, generator=torch.Generator().manual_seed(1))
    near = [((x.abs() - 2).abs() < 0.7).float().mean() for x in (before, after)]
    assert near[1] > near[0] + 0.15
    # A single Euler step of the true velocity would have brought all of them to 0.
    assert near[1] > 0.5


def test_intervals_keep_the_distribution_of_the_times():
    loss = MeanFlowLoss(share=0.25, mean=0.3, deviation=0.8)
    r, t = (
        torch.cat(parts)
        for parts in zip(*[loss.intervals(torch.zeros(64, 1)) for _ in range(80)], strict=True)
    )
    assert (r <= t).all()
    assert ((r < t).float().mean() - 0.25).abs() < 0.01
    together = torch.logit(t[r == t])
    assert (together.mean() - 0.3).abs() < 0.06
    assert (together.std() - 0.8).abs() < 0.06


def test_each_example_by_itself_and_on_no_device_at_all():
    model, x, t = initialized(), torch.randn(3, 2), torch.tensor([0.4, 0.6, 0.8])
    each = torch.func.vmap(lambda x, t: model(x[None], t / 2, t)[0])(x, t)
    torch.testing.assert_close(each, model(x, t / 2, t))
    with torch.device("meta"):
        assert MeanFlow((2,), hidden=(8,))(torch.zeros(3, 2), 0.2, 0.5).shape == (3, 2)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_continuous_data_are_trained_on_in_half_precision(precision):
    model = MeanFlow((2,), hidden=(8,))
    options = {"steps": 2, "batch_size": 8, "progress": False, "precision": precision}
    fit(model, MeanFlowLoss(), torch.randn(16, 2) + 3, **options)
    assert any(parameter.abs().max() > 0 for parameter in model.network.last.parameters())


def test_several_steps_and_one_agree_for_a_gaussian(float64):
    model = initialized().double()
    noise = torch.randn(4, 2)
    one, three = (model.from_noise(noise, steps=n) for n in (1, 3))
    torch.testing.assert_close(one, three)
    torch.testing.assert_close(one, model.mean + model.variance.sqrt() * noise)


def test_samples_of_mean_flow_are_grey_levels_and_follow_the_generator():
    model = MeanFlow((1, 4, 4), 5, channels=2, n_blocks=1)
    assert isinstance(model, Sampler)
    first, second = (model.sample(6, generator=torch.Generator().manual_seed(4)) for _ in "ab")
    assert torch.equal(first, second)
    assert first.dtype == torch.int64
    assert first.min() >= 0
    assert first.max() <= 4


# --- consistency ----------------------------------------------------------------------------------


def test_the_consistency_function_is_the_same_all_along_a_trajectory(float64):
    mixture = plane()
    model = VelocityFlow((2,), hidden=(4,)).double()
    model.forward = lambda x, t, labels=None: mixture.velocity(x, t, LinearPath())
    x = torch.randn(5, 2)
    middle = integrate(model.velocity(), x, time_grid(100, 1.0, 0.45), "rk4")
    ends = [
        consistency_function(model, z, t, steps=100, method="rk4")
        for z, t in ((x, 1.0), (middle, 0.45))
    ]
    torch.testing.assert_close(*ends, atol=1e-5, rtol=0)
    assert torch.equal(consistency_function(model, x, 0.0), x)


@pytest.mark.parametrize("path", [LinearPath(), Cosine(40.0, -40.0)])
def test_the_consistency_function_of_a_gaussian(path, float64):
    """√(c/S_t) (x − αm) + m, whatever the path."""
    model = VelocityFlow((2,), hidden=(4,), schedule=path).double()
    model.mean.copy_(MEAN)
    model.variance.copy_(VARIANCE)
    x, t = torch.randn(4, 2), torch.tensor(0.7)
    spread = path.alpha(t) ** 2 * model.variance + path.sigma(t) ** 2
    expected = model.mean + (model.variance / spread).sqrt() * (x - path.alpha(t) * model.mean)
    found = consistency_function(model, x, 0.7, steps=60, method="rk4")
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_weights_keep_the_least_noisy_example_whatever_the_network(float64):
    sigma = torch.tensor([0.002, 0.1, 2.0, 80.0])
    of_x, of_network = consistency_weights(sigma, 0.002, 0.5)
    assert of_x[0] == 1
    assert of_network[0] == 0
    # For N(0, s²) data and a network that has learned it, the sum is the consistency function, up to ε.
    s, x = 0.5, (0.25 + sigma**2).sqrt()  # one standard deviation at each level
    wanted = s * torch.ones(4)
    network = (wanted - of_x * x) / of_network.clamp(min=1e-12)
    assert (network[1:].abs() < 1.01).all()
    assert (of_x.diff() < 0).all()
    assert (of_network.diff() > 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.randn(2, 2), 0.0, 1.1), "t is 1.1"),
        (lambda m: m(torch.randn(2, 2), torch.tensor([0.1, -0.1]), 1.0), r"r has values in"),
        (lambda m: m(torch.randn(2, 2), 0.8, 0.3), "r is later than t"),
        (lambda m: m(torch.randn(2, 3), 0.0, 1.0), r"x has shape \(2, 3\)"),
        (lambda m: m(torch.randn(2, 2), torch.zeros(3), 1.0), r"r has shape \(3,\)"),
        (lambda m: m.sample(2, steps=0), "steps is 0"),
        (lambda m: m.sample(0), "n is 0"),
        (lambda m: MeanFlow((2,), 1), "levels is 1"),
        (lambda m: MeanFlowLoss(share=1.5), "share is 1.5"),
        (lambda m: MeanFlowLoss(deviation=0.0), "deviation is 0"),
        (lambda m: MeanFlowLoss(power=-1.0), "power is -1"),
        (lambda m: consistency_weights(torch.tensor([0.001]), 0.002), "sigma has a value below"),
        (
            lambda m: consistency_function(VelocityFlow((2,), hidden=(4,)), torch.randn(2, 2), 1.5),
            "t is 1.5",
        ),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(initialized())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.randn(2, 2), torch.tensor(0.1).half(), 1.0), "float16"),
        (lambda m: m(torch.zeros(2, 2).long(), 0.0, 1.0), "floating-point"),
        (lambda m: consistency_function(m, torch.randn(2, 2), 0.5), "class VelocityFlow"),
    ],
)
def test_bad_types_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call(initialized())

"""The flow: its density where the truth is known, its samples, its training, and what it refuses."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from course_lib.data import digits
from course_lib.diffusion import DDPMSchedule, NegativeBound, linear_betas
from course_lib.flow_matching import (
    FlowMatching,
    MeanFlow,
    MeanFlowLoss,
    VelocityFlow,
    gaussian_loss_floor,
    velocity_from_score,
)
from course_lib.mixtures import GaussianMixture
from course_lib.protocols import Density, Sampler
from course_lib.schedules import Cosine, LinearLogSNR, LinearPath
from course_lib.solvers import METHODS
from course_lib.training import fit
from tests.diffusion.exact import plane

SHAPE = (1, 4, 4)


def exact(mixture, schedule=None):
    """A flow with the exact velocity of a mixture; its Gaussian part is not that of the data."""
    flow = VelocityFlow(mixture.event_shape, hidden=(4,), schedule=schedule).double()
    flow.forward = lambda x, t, labels=None: mixture.velocity(x, t, flow.schedule)
    return flow


def curved(shape=SHAPE, levels=None, scale=0.2, **options):
    """An untrained flow that is not Gaussian."""
    torch.manual_seed(3)
    options = options or {"channels": 3, "n_blocks": 1}
    model = VelocityFlow(shape, levels, **options)
    model.mean.copy_(0.3 * torch.randn(shape))
    model.variance.copy_(0.2 + torch.rand(shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model.eval()


# --- the velocity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [None, Cosine(40.0, -40.0)])
def test_an_untrained_flow_is_that_of_a_gaussian(schedule, float64):
    """Exactly: its density is the normal one with the data's means and variances."""
    model = VelocityFlow((3,), hidden=(8,), schedule=schedule)
    data = torch.randn(500, 3) * torch.tensor([0.3, 1.0, 2.0]) + torch.tensor([1.0, -2.0, 0.5])
    model.initialize(data)
    variance = data.var(0, correction=0)
    one = GaussianMixture(torch.ones(1), data.mean(0)[None], torch.diag(variance)[None])
    found = model.log_prob(data[:6], steps=40, method="rk4")
    torch.testing.assert_close(found, one.log_prob(data[:6]), atol=1e-3, rtol=0)


def test_what_the_network_sees_and_is_asked_for_has_unit_size(float64):
    """For Gaussian data, at all times: the preconditioning's purpose."""
    model = VelocityFlow((4,), hidden=(8,))
    mean, std = torch.tensor([0.5, -1.0, 0.0, 2.0]), torch.tensor([0.1, 1.0, 0.5, 3.0])
    x, noise = mean + std * torch.randn(40_000, 4), torch.randn(40_000, 4)
    model.initialize(x)
    model.network = Spy()
    for t in (0.03, 0.4, 0.97):
        t = torch.tensor(t)
        gaussian = model(model.schedule.noised(x, noise, t), t)
        assert model.network.seen.square().mean().item() == pytest.approx(1, abs=0.02)
        model.network.answer = 1.0
        scale = (model(model.schedule.noised(x, noise, t), t) - gaussian)[0]
        model.network.answer = 0.0
        asked = (noise - x - gaussian) / scale
        assert (asked.var(0) - 1).abs().max() < 0.05


class Spy(nn.Module):
    """A network that keeps what it sees and answers with one number."""

    answer, n_classes = 0.0, None

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x, time, labels=None):
        self.seen = x
        return torch.full_like(x, self.answer)


def test_grey_levels_have_the_moments_of_their_dequantized_values():
    x = torch.randint(5, (3000, *SHAPE)) ** 2 % 5
    model = VelocityFlow(SHAPE, 5, hidden=(4,))
    model.initialize(x)
    filled = model.fill(x)
    assert (model.mean - filled.mean(0)).abs().max() < 0.02
    assert (model.variance / filled.var(0) - 1).abs().max() < 0.05
    assert torch.equal(model.to_levels(filled), x)
    assert filled.min() >= -1
    assert filled.max() < 1


# --- likelihood -----------------------------------------------------------------------------------


def test_the_density_of_the_exact_velocity_is_the_mixtures(float64):
    mixture = plane()
    model, x = exact(mixture), mixture.sample(20)
    found = model.log_prob(x, steps=100, method="rk4")
    torch.testing.assert_close(found, mixture.log_prob(x), atol=5e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_estimated_error_is_the_error(method, float64):
    """Of each method: within a factor of two in the mean, at a number of steps where its order holds."""
    mixture = plane()
    model, x = exact(mixture), mixture.sample(60)
    steps = 40 if method == "rk4" else 80
    found = model.log_prob_with_error(x, steps=steps, method=method)
    true = (found.log_prob - mixture.log_prob(x)).abs()
    assert 0.5 < found.error.mean() / true.mean() < 2
    assert torch.equal(found.log_prob, model.log_prob(x, steps=steps, method=method))


def test_halving_the_steps_multiplies_the_error_by_the_order(float64):
    mixture = plane()
    model, x = exact(mixture), mixture.sample(60)
    truth = mixture.log_prob(x)
    for method, start in (("euler", 60), ("midpoint", 30), ("heun", 30), ("rk4", 20)):
        coarse, fine = (
            (model.log_prob(x, steps=n, method=method) - truth).abs().mean()
            for n in (start, 2 * start)
        )
        expected = 2 ** METHODS[method].order
        assert (coarse / fine).item() == pytest.approx(expected, rel=0.3), method


def test_a_density_integrates_to_one(float64):
    """Of a flow that is nobody's: a sum over a fine grid of the plane."""
    model = curved((2,), scale=0.3, hidden=(8, 8)).double()
    side = torch.linspace(-6, 6, 121)
    points = torch.cartesian_prod(side, side)
    log_density = model.log_prob(points, steps=20, method="rk4")
    normal = torch.distributions.Normal(model.mean, model.variance.sqrt()).log_prob(points).sum(1)
    inside = points.abs().amax(1) < 2
    assert (log_density - normal)[inside].std() > 0.2
    assert (log_density.exp().sum() * 0.1**2).item() == pytest.approx(1, abs=1e-4)


def test_the_log_density_is_that_of_the_maps_jacobian(float64):
    """On images, by another route: the determinant of the whole map's Jacobian, by autograd."""
    model = curved(channels=3, n_blocks=1).double()
    x = torch.randn(2, *SHAPE)

    def to_noise(flat):
        state = flat.view(1, *SHAPE)
        for t, s in pairwise(torch.linspace(0, 1, 41).square()):
            half = state + (s - t) / 2 * model(state, t)
            state = state + (s - t) * model(half, (t + s) / 2)
        return state.flatten()

    for one, found in zip(x, model.log_prob(x, steps=40), strict=True):
        jacobian = torch.autograd.functional.jacobian(to_noise, one.flatten())
        end = to_noise(one.flatten())
        expected = -0.5 * end.square().sum() - 8 * math.log(2 * math.pi)
        expected = expected + torch.linalg.slogdet(jacobian).logabsdet
        # The divergence is integrated by the midpoint rule; the determinant is of the discrete map.
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


def test_probes_are_unbiased_for_the_log_density(float64):
    model, x = curved(channels=3, n_blocks=1).double(), torch.randn(2, *SHAPE)
    exact_one = model.log_prob(x, steps=5)
    many = model.log_prob(x.repeat(300, 1, 1, 1), steps=5, n_probes=2).view(300, 2)
    error = many.std(0) / math.sqrt(300)
    assert (error > 1e-4).all()
    assert ((many.mean(0) - exact_one).abs() < 4 * error).all()


def test_probes_stay_the_same_within_a_solve(float64):
    """So the estimate converges with the steps, and to the order of the method."""
    model, x = curved(channels=3, n_blocks=1).double(), torch.randn(3, *SHAPE)

    def found(steps):
        return model.log_prob(
            x, steps=steps, n_probes=1, generator=torch.Generator().manual_seed(0)
        )

    reference = found(320)
    coarse, fine = ((found(n) - reference).abs().max() for n in (20, 40))
    assert fine < 2e-2
    assert (coarse / fine).item() == pytest.approx(4, rel=0.4)


def test_the_bound_of_grey_levels_is_a_mean_over_their_intervals(float64):
    """One entry, three levels: by quadrature over u, and below the log-probability of the level."""
    model = curved((1,), 3, hidden=(8, 8)).double()
    levels = torch.arange(3)[:, None]
    u = (torch.arange(200) + 0.5) / 200
    y = 2 * (levels + u) / 3 - 1
    log_density = model.log_prob(y.view(-1, 1), steps=20, method="rk4").view(3, 200)
    bound = log_density.mean(1) + math.log(2 / 3)
    probability = log_density.exp().mean(1) * 2 / 3
    draws = model.elbo(levels.repeat(400, 1), steps=20, method="rk4").view(400, 3)
    error = draws.std(0) / math.sqrt(400)
    assert ((draws.mean(0) - bound).abs() < 4 * error).all()
    assert (bound < probability.log()).all()


# --- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["midpoint", "heun", "rk4"])
def test_samples_of_the_exact_velocity_are_the_mixtures(method, float64):
    mixture = plane()
    drawn = exact(mixture).sample(5000, steps=40, method=method)
    assert (drawn.mean(0) - mixture.mean).abs().max() < 0.08
    assert (drawn.T.cov() - mixture.covariance).abs().max() < 0.12


def test_one_euler_step_from_noise_returns_the_mean_of_the_data(float64):
    mixture = plane()
    drawn = exact(mixture).sample(7, steps=1, method="euler")
    torch.testing.assert_close(drawn, mixture.mean.expand(7, 2))


def test_noise_to_data_and_back(float64):
    model, noise = curved(channels=3, n_blocks=1).double(), torch.randn(3, *SHAPE)
    x = model.from_noise(noise, steps=100, method="rk4")
    back = model.to_noise(x, steps=100, method="rk4")
    torch.testing.assert_close(back, noise, atol=1e-7, rtol=0)
    assert (x - noise).abs().max() > 0.1


def test_samples_follow_the_generator_and_keep_the_contracts():
    for levels in (None, 5):
        model = curved(levels=levels)
        first, second = (
            model.sample(4, steps=3, generator=torch.Generator().manual_seed(2)) for _ in "ab"
        )
        assert first.shape == (4, *SHAPE)
        assert torch.equal(first, second)
        assert isinstance(model, Sampler)
        assert isinstance(model, Density)
        assert first.is_floating_point() == (levels is None)
    assert first.min() >= 0
    assert first.max() <= 4


def test_sampling_keeps_the_mode_and_drops_nothing():
    model = curved(hidden=(8, 8), dropout=0.5).train()
    noise = torch.randn(3, *SHAPE)
    first, second = (model.from_noise(noise, steps=2) for _ in "ab")
    assert torch.equal(first, second)
    assert model.training


def test_classes_change_the_flow():
    model = curved(n_classes=3, hidden=(8,))
    noise, labels = torch.randn(3, *SHAPE), torch.tensor([0, 1, 2])
    made = model.from_noise(noise, labels, steps=2)
    other = model.from_noise(noise, labels.roll(1), steps=2)
    without = model.from_noise(noise, steps=2)
    assert (made - other).abs().max() > 1e-3
    assert (made - without).abs().max() > 1e-3
    x = torch.randn(3, *SHAPE)
    assert (model.log_prob(x, labels, steps=2) - model.log_prob(x, steps=2)).abs().max() > 1e-3


# --- training -------------------------------------------------------------------------------------


def test_training_beats_the_gaussian_floor():
    """No Gaussian gets below Σ √c π/2 of its own data; a network that learned something does.

    A perceptron whose units have died at too large a learning rate stays at the Gaussian's loss.
    """
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(2, (2000, 2), generator=generator) * 4.0 - 2
    data = data + 0.2 * torch.randn(2000, 2, generator=generator)
    model = VelocityFlow((2,), hidden=(32, 32))
    model.initialize(data)
    floor = gaussian_loss_floor(data.var(0)).item()
    history = fit(
        model,
        FlowMatching(power=1.0),
        data,
        validation=data[:500],
        steps=300,
        batch_size=128,
        learning_rate=5e-3,
        progress=False,
    )
    assert floor == pytest.approx(history.validation[0]["loss"], rel=0.2)
    assert history.validation[-1]["loss"] < 0.8 * floor
    # Two points that are nearly sharp, in each dimension.
    made = model.sample(500, steps=20)
    assert ((made.abs() - 2).abs() < 0.7).float().mean() > 0.9


def test_the_loss_at_the_truth_is_least(float64):
    mixture = plane()
    model, x = exact(mixture), mixture.sample(4000)
    model.eval()

    def loss():
        torch.manual_seed(1)  # the same times and noise for all
        return FlowMatching(evaluations=1)(model, x, torch.ones(()))

    least, right = loss(), model.forward
    for wrong in (
        lambda x, t, labels=None: 1.3 * right(x, t),
        lambda x, t, labels=None: right(x, 1 - t),
        lambda x, t, labels=None: right(x, t) + 0.3,
    ):
        model.forward = wrong
        assert loss() > least + 0.05
    # And it is far from 0: the ends of a path are not known from its middle.
    assert least > 1


def test_the_network_sees_the_noised_example_at_its_own_time():
    """Fed the end points, it could do no better than it would from one of them."""
    model = VelocityFlow((1,), hidden=(4,), schedule=LinearPath())
    seen = []
    model.forward = lambda x, t, labels=None: seen.append((x, t)) or torch.zeros_like(x)
    x = torch.full((500, 1), 5.0)
    FlowMatching().errors(model, x)
    z, t = seen[0]
    noise = (z - (1 - t[:, None]) * 5) / t[:, None]
    late = t > 0.05
    assert noise[late].mean().abs() < 0.2
    assert noise[late].std().item() == pytest.approx(1, abs=0.1)
    assert t.min() < 0.01
    assert t.max() > 0.9


def test_a_weight_of_zero_at_all_late_times_leaves_the_early_ones():
    model, x = curved((2,), hidden=(4,)), torch.randn(64, 2)
    loss = FlowMatching(weight=lambda t: (t < 0.5).float())
    errors = loss.errors(model, x)
    assert 10 < (errors == 0).sum() < 60


def test_dropped_classes_are_dropped_in_training_alone():
    model = curved(n_classes=3, hidden=(4,)).train()
    x, labels = torch.randn(300, *SHAPE), torch.arange(300) % 3
    loss = FlowMatching(unlabelled=0.4)
    kept = loss.ends(model, (x, labels))[2]
    share = (kept == 3).float().mean()
    assert 0.3 < share < 0.5
    assert torch.equal(kept[kept < 3], labels[kept < 3])
    assert torch.equal(loss.ends(model.eval(), (x, labels))[2], labels)


# --- guidance -------------------------------------------------------------------------------------


def of_one_class():
    """The exact velocities of a class N(1, 0.3), and of all data, N(0, 1)."""
    one, every = (
        GaussianMixture(torch.ones(1), torch.full((1, 1), mean), torch.full((1, 1, 1), variance))
        for mean, variance in ((1.0, 0.3), (0.0, 1.0))
    )
    flow = VelocityFlow((1,), hidden=(4,), n_classes=1).double()
    flow.forward = lambda x, t, labels=None: (every if labels is None else one).velocity(
        x, t, flow.schedule
    )
    return flow, one, every


def test_a_guided_velocity_is_that_of_the_tilted_score(float64):
    flow, one, every = of_one_class()
    z, t, w = torch.linspace(-2, 3, 7)[:, None].requires_grad_(), torch.tensor(0.45), 1.7
    alpha, sigma = flow.schedule.alpha(t), flow.schedule.sigma(t)
    class_given = one.log_prob(z, alpha, sigma) - every.log_prob(z, alpha, sigma)
    tilted = every.log_prob(z, alpha, sigma) + (1 + w) * class_given
    (score,) = torch.autograd.grad(tilted.sum(), z)
    labels = torch.zeros(7, dtype=torch.int64)
    found = flow.velocity(labels, guidance=w)(z.detach(), t)
    torch.testing.assert_close(found, velocity_from_score(flow.schedule, score, z.detach(), t))


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0])
def test_guided_samples_have_the_density_that_log_prob_says(w, float64):
    """The guided ODE ends with the variance 0.3^{1+w}, not with that of the tilted density."""
    flow, *_ = of_one_class()
    options = {"labels": torch.zeros(5, dtype=torch.int64), "guidance": w, "steps": 300}
    noise = torch.linspace(-2, 2, 5)[:, None]
    x = flow.from_noise(noise, method="rk4", **options)
    deviation = 0.3 ** ((1 + w) / 2)
    torch.testing.assert_close(x - x[2], deviation * noise, atol=1e-6, rtol=0)
    torch.testing.assert_close(flow.to_noise(x, method="rk4", **options), noise, atol=1e-6, rtol=0)
    expected = -0.5 * noise**2 - math.log(deviation) - 0.5 * math.log(2 * math.pi)
    found = flow.log_prob(x, method="rk4", **options)
    torch.testing.assert_close(found, expected.squeeze(1), atol=1e-5, rtol=0)
    with_error = flow.log_prob_with_error(x, method="rk4", **options)
    torch.testing.assert_close(with_error.log_prob, found)
    drawn = flow.sample(
        4000, **options | {"labels": torch.zeros(4000, dtype=torch.int64)}, method="rk4"
    )
    assert drawn.std().item() == pytest.approx(deviation, rel=0.05)


def test_the_bound_of_a_guided_flow_of_grey_levels_is_another_one():
    model = curved((2,), levels=4, n_classes=2, hidden=(8,), scale=0.5)
    x, labels = torch.tensor([[0, 3], [2, 1]]), torch.tensor([0, 1])
    plain, same, other = (
        model.elbo(
            x, labels=labels, guidance=w, steps=4, generator=torch.Generator().manual_seed(0)
        )
        for w in (0, 0.0, 1.5)
    )
    assert torch.equal(plain, same)
    assert (plain - other).abs().min() > 1e-3


def test_a_resumed_run_is_the_same_run(tmp_path):
    data = digits().train[:64]

    def train(steps, **options):
        torch.manual_seed(0)
        model = VelocityFlow((1, 8, 8), 17, hidden=(8,), dropout=0.1)
        model.initialize(data)
        fit(
            model,
            FlowMatching(),
            data,
            validation=data[:8],
            batch_size=16,
            steps=steps,
            ema=0.9,
            evaluate_every=3,
            progress=False,
            **options,
        )
        return model.state_dict()

    whole = train(12)
    file = tmp_path / "run.pt"
    train(6, checkpoint=file, checkpoint_every=3)
    resumed = train(12, checkpoint=file, checkpoint_every=3, extend=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_copy_has_the_gaussian_part_of_the_original():
    model = curved()
    other = VelocityFlow(SHAPE, channels=3, n_blocks=1)
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, *SHAPE)
    assert torch.equal(other.eval()(x, 0.4), model(x, 0.4))
    with pytest.raises(ValueError, match="levels is None there and 5 here"):
        VelocityFlow(SHAPE, 5, channels=3, n_blocks=1).load_state_dict(model.state_dict())


def test_half_precision_and_autocast_round_the_network_alone():
    model, x = curved(), torch.randn(3, *SHAPE)
    rounded = copy.deepcopy(model).bfloat16()
    assert rounded(x, 0.3).dtype == torch.float32
    assert rounded.log_prob(x, steps=2).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x, 0.3).dtype == torch.float32
        assert (model(x, 0.3) - model(x, 0.3)).abs().max() == 0


@pytest.mark.parametrize("prediction", ["velocity", "levels"])
def test_a_model_is_built_and_tells_its_shapes_without_values(prediction):
    with torch.device("meta"):
        model = VelocityFlow(SHAPE, 5, hidden=(4,), prediction=prediction)
        assert model(torch.zeros(2, *SHAPE), torch.zeros(2)).shape == (2, *SHAPE)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-true"])
@pytest.mark.parametrize("given", [False, True])
def test_continuous_data_are_trained_on_in_half_precision(precision, given):
    data = torch.randn(16, 2) + 3
    options = {"steps": 2, "batch_size": 8, "progress": False, "precision": precision}
    torch.manual_seed(0)
    loss, batch = FlowMatching(given_noise=given), (data, data - 3) if given else data
    model = VelocityFlow((2,), hidden=(8,))
    fit(model, loss, batch, **options)
    assert any(parameter.abs().max() > 0 for parameter in model.network.last.parameters())


# --- bad input ------------------------------------------------------------------------------------


PAIR = (torch.ones(6, 2), torch.zeros(6, 2))


def told(batch):
    """What a loss is called with."""
    return VelocityFlow((2,), hidden=(4,)), batch, torch.ones(())


def weighted(weight):
    return FlowMatching(weight=weight)(*told(PAIR[0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.randn(2, *SHAPE), 1.5), r"t is 1\.5; a time"),
        (lambda m: m(torch.randn(2, *SHAPE), torch.tensor([0.1, -0.2])), r"times in \[0, 1\]"),
        (lambda m: m(torch.randn(2, *SHAPE), torch.tensor([0.1, 0.2, 0.3])), "t has shape"),
        (lambda m: m(torch.randn(2, 1, 4, 3), 0.5), r"x has shape \(2, 1, 4, 3\)"),
        (lambda m: m(torch.full((2, *SHAPE), torch.nan), 0.5), "x holds NaN"),
        (lambda m: m.log_prob(torch.randn(2, *SHAPE), steps=0), "steps is 0"),
        (lambda m: m.log_prob(torch.randn(2, *SHAPE), n_probes=0), "n_probes is 0"),
        (lambda m: m.log_prob(torch.randn(2, *SHAPE), method="rk5"), "method is 'rk5'"),
        (lambda m: m.log_prob_with_error(torch.randn(2, *SHAPE), steps=7), "steps is 7; an even"),
        (lambda m: m.log_prob_with_error(torch.randn(2, *SHAPE), steps=1), "steps is 1"),
        (lambda m: m.sample(0), "n is 0"),
        (lambda m: m.sample(2, steps=0), "steps is 0"),
        (lambda m: m.sample(2, labels=torch.tensor([0, 1])), "without classes"),
        (lambda m: m.from_noise(torch.randn(2, 3)), r"noise has shape \(2, 3\)"),
        (lambda m: m.elbo(torch.full((2, *SHAPE), 5)), r"levels 5 … 5; 0 … 4 are expected"),
        (lambda m: m.elbo(torch.zeros(2, *SHAPE).long(), 0), "n_samples is 0"),
        (lambda m: m.initialize(torch.zeros(2, 1, 4, 3).long()), "x has shape"),
        (lambda m: VelocityFlow(SHAPE, 1), "levels is 1"),
        (
            lambda m: VelocityFlow((2,)).fill(torch.zeros(2, 2).long()),
            "model is of continuous data",
        ),
        (
            lambda m: VelocityFlow((2,)).initialize(torch.ones(4, 2)),
            "the same in all examples",
        ),
        (
            lambda m: VelocityFlow((2,), schedule=LinearLogSNR(9.0, -9.0, learned=True)),
            "would train until nothing moves",
        ),
        (lambda m: VelocityFlow((2,), schedule=DDPMSchedule(linear_betas(5))), "no derivatives"),
        (lambda m: weighted(lambda t: 1 / (t[:, None] + 0.1)), r"weight\(t\) has shape \(6, 1\)"),
        (lambda m: weighted(lambda t: -t), "trains away"),
        (lambda m: FlowMatching(given_noise=True)(*told(PAIR[0])), "holds 1 tensors"),
        (lambda m: FlowMatching()(*told(PAIR)), "pass given_noise=True"),
        (
            lambda m: VelocityFlow((2,), hidden=(4,), n_classes=3).log_prob(
                torch.ones(2, 2), torch.tensor([0, 3])
            ),
            "labels has levels 0 … 3",
        ),
        (
            lambda m: VelocityFlow((2,), hidden=(4,)).half().initialize(1e3 * torch.eye(2)),
            "is no number of torch.float16",
        ),
        (lambda m: weighted(lambda t: t * math.nan), "least value of nan"),
        (
            lambda m: curved(n_classes=3, hidden=(4,)).sample(1, labels=torch.tensor([3])),
            "labels has levels 3 … 3",
        ),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(curved(levels=5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.zeros(2, *SHAPE).long(), 0.5), "floating-point"),
        (lambda m: m(torch.randn(2, *SHAPE), torch.tensor(0.5).half()), "float16"),
        (lambda m: m.elbo(torch.rand(2, *SHAPE)), "integer grey levels"),
        (lambda m: m.sample(2, generator=3), "generator is a int"),
        (lambda m: VelocityFlow((2,), schedule=0.5), "schedule is 0.5"),
        (lambda m: FlowMatching(quantiles=1.7), "quantiles is 1.7"),
        (
            lambda m: FlowMatching()(MeanFlow((2,), hidden=(4,)), PAIR[0], torch.ones(())),
            "an object of the class VelocityFlow",
        ),
        (lambda m: MeanFlowLoss()(*told(PAIR[0])), "an object of the class MeanFlow"),
        (lambda m: NegativeBound()(*told(PAIR[0])), "an object of the class Diffusion"),
        (
            lambda m: MeanFlowLoss()(MeanFlow((2,), hidden=(4,)), PAIR, torch.ones(())),
            "the batch is a tuple",
        ),
    ],
)
def test_bad_types_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call(curved(levels=5))

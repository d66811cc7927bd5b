"""The diffusion model: its bound where the truth is known, its samplers, and what it refuses."""

import math

import pytest
import torch
from torch import nn

from course_lib import diffusion
from course_lib.diffusion import (
    DDPMSchedule,
    Diffusion,
    Level,
    LinearGaussianDiffusion,
    Memorizer,
    NegativeBound,
    ancestral,
    clip_clean,
    ddim,
    flow_velocity,
    from_clean,
    heun,
    inpaint,
    langevin,
    linear_betas,
    noising_marginal,
    posterior,
    reverse_variances,
    step_kl,
    step_variance,
    to_clean,
)
from course_lib.mixtures import GaussianMixture
from course_lib.schedules import LinearLogSNR, LinearPath, VariancePreserving, require_times
from course_lib.solvers import integrate, time_grid
from course_lib.training import cosine_decay, fit
from tests.diffusion.exact import legendre, plane

SHAPE = (1, 4, 4)


def small(**options):
    return Diffusion(SHAPE, 5, hidden=(8,), **options)


def mean_and_error(draws):
    return draws.mean(), draws.std() / math.sqrt(len(draws))


def independent(log_p, **options):
    """A model of one entry whose network knows the probabilities of the levels: it is perfect."""
    model = Diffusion((1,), len(log_p), hidden=(4,), **options).double()
    with torch.no_grad():
        model.network.last.bias.copy_(log_p)
    return model


# --- the bound ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("high", "low"), [(5.0, -21.0), (2.0, -23.0)])
def test_the_bound_of_a_perfect_model_is_its_log_probability(float64, high, low):
    """By quadrature over time and noise: no draws, so it holds to rounding, for every level."""
    p = torch.tensor([0.1, 0.4, 0.2, 0.3])
    model = independent(p.log(), schedule=LinearLogSNR(high, low))
    scaled = model.places(p)[:, None]
    noise, step = torch.linspace(-9, 9, 361), 18 / 360
    chance = (-0.5 * noise**2).exp() * step / math.sqrt(2 * math.pi)

    @torch.no_grad()
    def over_noise(value, log_snr):
        """E of value(z, x) over z, for each level."""
        alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
        z = (alpha * scaled + sigma * noise).reshape(-1, 1)
        return value(z, log_snr.expand(len(z))).view(len(p), -1) @ chance

    def error(z, log_snr):
        logits = model.level_logits(z, log_snr, model(z, log_snr))
        predicted = (logits.softmax(-1) @ model.places(z)).view(len(p), -1)
        return (scaled - predicted).square()

    def surprise(z, log_snr):
        logits = model.level_logits(z, log_snr, model(z, log_snr)).log_softmax(-1)
        return -logits.view(len(p), -1, len(p)).gather(
            2, torch.arange(len(p)).view(-1, 1, 1).expand(-1, len(noise), 1)
        )

    t, weight = legendre(0.0, 1.0, 200)
    log_snr = model.schedule.log_snr(t)
    errors = torch.stack([over_noise(error, value) for value in log_snr])
    diffusion_term = 0.5 * (weight * (high - low) * log_snr.exp()) @ errors
    bound = model.prior_term(scaled) + diffusion_term + over_noise(surprise, torch.tensor(high))
    # The noisiest latent is not quite a normal one: that leaves a difference of the order e^{λ_min}.
    torch.testing.assert_close(bound, -p.log(), atol=1e-8, rtol=0)
    # And the estimator is unbiased for it, term by term.
    draws = [model.bound_terms(torch.arange(4)[:, None].repeat(500, 1)) for _ in range(40)]
    for name, expected in (("diffusion", diffusion_term), ("prior", model.prior_term(scaled))):
        values = torch.stack([getattr(d, name).detach().view(500, 4).mean(0) for d in draws])
        error_of_mean = values.std(0) / math.sqrt(len(draws))
        assert (values.mean(0) - expected).abs().max() < 4 * error_of_mean.max() + 1e-12


def test_the_bound_in_steps_falls_short_and_tends_to_the_limit(float64):
    p = torch.tensor([0.15, 0.35, 0.5])
    model = independent(p.log(), schedule=LinearLogSNR(4.0, -8.0))
    x = torch.multinomial(p, 4000, replacement=True, generator=torch.Generator().manual_seed(0))
    values = {}
    for steps in (2, 8, None):
        values[steps] = mean_and_error(-model.elbo(x[:, None], 20, steps=steps).detach())
    entropy = -p[x].log().mean()
    for two, one in ((2, 8), (8, None)):
        assert values[two][0] > values[one][0] + 2 * values[one][1]
    assert (values[None][0] - entropy).abs() < 4 * values[None][1] + 0.01


def test_the_uniform_reconstruction_is_an_integral(float64):
    model = Diffusion((1,), 17, hidden=(4,), prediction="noise", schedule=LinearLogSNR(5.0, -5.0))
    table = model.reconstruction_table(torch.zeros(1))
    # By many draws, with their error.
    noise = torch.randn(200_000)
    alpha, sigma = (model.schedule.alpha(0.0), model.schedule.sigma(0.0))
    places = model.places(noise)
    for level in (0, 3, 8):
        z = alpha * places[level] + sigma * noise
        log_p = (-0.5 * ((z[:, None] - alpha * places) / sigma) ** 2).log_softmax(-1)
        mean, error = mean_and_error(-log_p[:, level])
        assert (table[level] - mean).abs() < 4 * error
    torch.testing.assert_close(table, model.reconstruction_table(table, 201), atol=1e-10, rtol=0)
    # All 17 levels count: the ends have one neighbour, so they are told apart more easily.
    assert table[0] < table[8]
    assert table[16] < table[8]
    torch.testing.assert_close(table, table.flip(0))


@pytest.mark.parametrize("prediction", ["levels", "clean", "noise", "velocity"])
def test_every_prediction_has_a_finite_bound_whose_terms_are_not_negative(prediction):
    model = small(prediction=prediction)
    terms = model.bound_terms(torch.randint(5, (6, *SHAPE)))
    for term in terms:
        assert term.shape == (6,)
        assert (term >= 0).all()
    model.elbo(torch.randint(5, (6, *SHAPE))).sum().backward()
    assert model.schedule.last.grad.isfinite()
    assert model.schedule.log_width.grad.isfinite()


def test_the_terms_are_sums_over_entries():
    """Twice as many independent entries, twice the terms."""
    levels = torch.randint(5, (400, 4))
    few = Diffusion((4,), 5, hidden=(4,), schedule=LinearLogSNR(3.0, -3.0))
    many = Diffusion((8,), 5, hidden=(4,), schedule=LinearLogSNR(3.0, -3.0))
    for one, two in zip(
        few.bound_terms(levels), many.bound_terms(levels.repeat(1, 2)), strict=True
    ):
        assert abs(two.mean() / one.mean() - 2) < 0.15


def test_low_discrepancy_times_cut_the_variance_of_the_bound():
    """Of the batch mean, against uniform times; measured, with what it has to be at least."""
    model = small(schedule=LinearLogSNR(6.0, -6.0))
    x = torch.randint(5, (64, *SHAPE))
    scaled, generator = model.scaled(x), torch.Generator().manual_seed(0)
    even, uniform = [], []
    with torch.no_grad():
        for _ in range(200):
            even.append(model.bound_terms(x, generator=generator).diffusion.mean())
            t = torch.rand(64, generator=generator)
            noise = torch.randn(scaled.shape, generator=generator)
            z = model.schedule.noised(scaled, noise, t)
            error = (scaled - model.denoise(z, t)).square().flatten(1).sum(1)
            uniform.append((6.0 * model.schedule.snr(t) * error).mean())
    even, uniform = torch.stack(even), torch.stack(uniform)
    assert abs(even.mean() - uniform.mean()) < 4 * uniform.std() / math.sqrt(200)
    assert even.var() < uniform.var() / 2


def test_training_improves_the_bound_and_records_its_terms():
    model = small()
    # Two images, over and over: far fewer nats than 16 log 5 = 25.7.
    data = torch.randint(5, (2, *SHAPE)).repeat(32, 1, 1, 1)
    history = fit(
        model,
        NegativeBound(),
        data,
        validation=data[:8],
        steps=150,
        batch_size=16,
        learning_rate=1e-2,
        progress=False,
    )
    first, last = history.validation[0], history.validation[-1]
    assert last["loss"] < 15 < first["loss"]
    total = last["prior"] + last["diffusion"] + last["reconstruction"]
    assert last["loss"] == pytest.approx(total, rel=1e-5)


def test_a_part_of_the_batch_tells_the_reconstruction_without_bias():
    model = small(schedule=LinearLogSNR(2.0, -6.0))
    x = torch.randint(5, (8, *SHAPE))
    with torch.no_grad():
        order = [torch.randperm(8) for _ in range(400)]
        part = torch.stack([model.bound_terms(x[i], share=4).reconstruction.mean() for i in order])
        whole = torch.stack([model.bound_terms(x).reconstruction.mean() for _ in range(400)])
    error = (part.var() / 400 + whole.var() / 400).sqrt()
    assert (part.mean() - whole.mean()).abs() < 4 * error


# --- ground truth ---------------------------------------------------------------------------------


def test_the_bound_of_the_memorizer_is_log_n(float64):
    """½ ∫ mmse dSNR on three points of the plane, by a sum over points, time and noise."""
    data = torch.tensor([[0.6, 0.2], [-0.9, 0.5], [0.1, -0.8]])
    memorizer, schedule = Memorizer(data), LinearLogSNR(6.5, -20.0)
    side = torch.linspace(-7, 7, 57)
    noise, area = torch.cartesian_prod(side, side), (side[1] - side[0]) ** 2
    chance = (-0.5 * noise.square().sum(1)).exp() * area / (2 * math.pi)
    t, weight = legendre(0.0, 1.0, 160)
    total = torch.zeros(())
    for time, share in zip(t, weight, strict=True):
        alpha, sigma = schedule.alpha(time), schedule.sigma(time)
        rate = -schedule.log_snr_rate(time) * schedule.snr(time)
        for x in data:
            found = memorizer.denoise(alpha * x + sigma * noise, alpha, sigma)
            total += 0.5 * share * rate * (chance @ (x - found).square().sum(1)) / 3
    torch.testing.assert_close(total, torch.tensor(memorizer.bound), atol=1e-6, rtol=0)


def test_the_memorizer_tells_examples_apart_where_noise_is_small():
    data = 2 * torch.rand(20, 400) - 1
    schedule = LinearLogSNR(20.0, -20.0)
    alpha, sigma = (f(torch.tensor(0.0)) for f in (schedule.alpha, schedule.sigma))
    z = (data[:1] + data[1:2]) / 2
    single, double = (
        Memorizer(data.to(dtype)).log_weights(*(v.to(dtype) for v in (z, alpha, sigma)))[0]
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-2)


def test_the_memorizer_generates_copies():
    data = torch.randn(20, 1, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    schedule = LinearLogSNR(12.0, -12.0)
    z = torch.randn(50, 1, 3, 3, dtype=torch.float64)
    made = ddim(Memorizer(data).denoiser(schedule), schedule, z, time_grid(60))
    nearest = torch.cdist(made.flatten(1), data.flatten(1)).min(1).values
    assert nearest.max() < 0.02


def test_ddim_on_a_gaussian_tends_to_its_standard_deviation(float64):
    c = torch.tensor(0.3)
    mixture = GaussianMixture(torch.ones(1), torch.zeros(1, 1), c.view(1, 1, 1))
    path, errors = LinearPath(), []
    for steps in (50, 100, 200):
        end = ddim(mixture.denoiser(path), path, torch.ones(1, 1), time_grid(steps))
        # Each step is a factor.
        factor = torch.tensor(1.0)
        for t, s in zip(time_grid(steps)[:-1], time_grid(steps)[1:], strict=True):
            gain = (1 - t) * c / ((1 - t) ** 2 * c + t**2)
            factor = factor * ((1 - s) * gain + s * (1 - (1 - t) * gain) / t)
        torch.testing.assert_close(end[0, 0], factor, atol=1e-12, rtol=0)
        errors.append((factor - c.sqrt()).abs().item())
    assert errors[2] < 5e-3
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)


def test_sixteen_steps_with_the_smaller_variance_lose_variance(float64):
    """On N(0, 1) data β is exact, and β̃ is too small; the composed kernels say by how much."""
    betas = linear_betas(16, 1e-2, 0.5)
    schedule, times = DDPMSchedule(betas), None
    times = schedule.grid(16)[:-1]  # z_0 is the first noisy level
    kwargs = {"reverse": "posterior"}
    small_one = LinearGaussianDiffusion(torch.ones(2), schedule, times, **kwargs)
    exact = LinearGaussianDiffusion(torch.ones(2), schedule, times, reverse="step")
    torch.testing.assert_close(exact.model_variance(), torch.ones(2), atol=1e-12, rtol=0)
    assert (small_one.model_variance() < 0.9).all()
    # The samplers say the same as the composition.
    drawn = small_one.sample(100_000)
    assert (drawn.var(0) / small_one.model_variance() - 1).abs().max() < 0.02
    x = torch.tensor([[0.3, -1.2]])
    assert (small_one.bound_terms(x).total() > -small_one.log_prob(x)).all()
    torch.testing.assert_close(exact.bound_terms(x).total(), -exact.log_prob(x), atol=0.05, rtol=0)


def test_ancestral_sampling_is_ddim_with_full_noise(float64):
    schedule, mixture = LinearLogSNR(8.0, -8.0), plane()
    z, times = torch.randn(6, 2), time_grid(7)
    first = ancestral(
        mixture.denoiser(schedule), schedule, z, times, generator=torch.Generator().manual_seed(1)
    )
    second = ddim(
        mixture.denoiser(schedule),
        schedule,
        z,
        times,
        eta=1.0,
        generator=torch.Generator().manual_seed(1),
    )
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("variance", ["posterior", "step"])
def test_the_last_step_to_no_noise_adds_none(variance):
    schedule = DDPMSchedule(linear_betas(20, 1e-3, 0.3))
    x = torch.tensor([[0.4, -0.7]], dtype=torch.float64)
    made = ancestral(
        lambda z, t: x.expand_as(z),
        schedule,
        torch.randn(30, 2, dtype=torch.float64),
        schedule.grid(5),
        variance=variance,
    )
    torch.testing.assert_close(made, x.expand(30, 2), atol=1e-9, rtol=0)


def test_every_sampler_draws_the_mixture(float64):
    schedule, mixture = LinearLogSNR(9.0, -9.0), plane()
    denoise = mixture.denoiser(schedule)
    z, times = torch.randn(5000, 2), time_grid(100)
    drawn = {
        "ancestral": ancestral(denoise, schedule, z, times),
        "ddim": ddim(denoise, schedule, z, times),
        "half": ddim(denoise, schedule, z, times, eta=0.5),
        "heun": heun(denoise, schedule, z, time_grid(40)),
        "midpoint": integrate(flow_velocity(denoise, schedule), z, time_grid(40), "midpoint"),
    }
    for name, x in drawn.items():
        assert (x.mean(0) - mixture.mean).abs().max() < 0.08, name
        assert (x.T.cov() - mixture.covariance).abs().max() < 0.12, name


def test_heun_is_of_second_order(float64):
    schedule, mixture = LinearLogSNR(5.0, -5.0), plane()
    denoise, z = mixture.denoiser(schedule), torch.randn(40, 2)
    truth = integrate(flow_velocity(denoise, schedule), z, time_grid(300), "rk4")
    errors = [(heun(denoise, schedule, z, time_grid(n)) - truth).norm().item() for n in (80, 160)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


def test_the_guided_ode_does_not_sample_the_tilted_density(float64):
    """N(1, 0.3) guided away from N(0, 1) with w = 2: the map is affine, so two points tell it."""
    schedule, w = LinearPath(), 2.0
    one = GaussianMixture(torch.ones(1), torch.ones(1, 1), torch.full((1, 1, 1), 0.3))
    all_ = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.ones(1, 1, 1))

    def velocity(z, t):
        return diffusion.guided(one.velocity(z, t, schedule), all_.velocity(z, t, schedule), w)

    ends = integrate(velocity, torch.tensor([[0.0], [1.0]]), time_grid(150), "rk4")[:, 0]
    mean, variance = ends[0], (ends[1] - ends[0]) ** 2
    assert mean == pytest.approx(1.60, abs=0.005)
    assert variance == pytest.approx(0.3 ** (1 + w), abs=1e-8)
    precision = (1 + w) / 0.3 - w  # of p(x) p(c|x)^{1+w}
    assert 1 / precision == pytest.approx(0.125)
    assert (1 + w) / 0.3 / precision == pytest.approx(1.25)


def test_langevin_has_the_variance_that_its_step_gives(float64):
    x = langevin(lambda x: -x, torch.randn(100_000, 1), 0.3, 60)
    assert x.var() == pytest.approx(diffusion.langevin_variance(0.3), rel=0.02)


def test_completion_by_replacement_samples_what_its_formula_says(float64):
    """Exact for independent entries; for others the mean is too small and the variance too large."""
    schedule, times = LinearLogSNR(9.0, -9.0), time_grid(150)
    known, x, n = torch.tensor([True, False]), torch.tensor([[1.5, 0.0]]), 2000
    for correlation, repeats in ((0.0, 1), (0.8, 1), (0.8, 6)):
        cov = torch.tensor([[1.0, correlation], [correlation, 1.0]])
        mixture = GaussianMixture(torch.ones(1), torch.zeros(1, 2), cov[None])
        made = inpaint(
            mixture.denoiser(schedule),
            schedule,
            torch.randn(n, 2),
            times,
            x.expand(n, 2),
            known,
            repeats=repeats,
        )
        assert (made[:, 0] - 1.5).abs().max() < 0.1
        factor, variance = diffusion.replacement_moments(torch.tensor(correlation), repeats)
        mean, error = mean_and_error(made[:, 1])
        assert abs(mean - 1.5 * factor) < 4 * error + 0.01
        assert made[:, 1].var() == pytest.approx(variance.item(), rel=4 * math.sqrt(2 / n) + 0.05)


def test_the_error_of_replacement_falls_with_every_repeat(float64):
    rho = torch.tensor([-0.95, -0.3, 0.1, 0.6, 0.99])
    moments = [diffusion.replacement_moments(rho, repeats) for repeats in (1, 2, 5, 20, 2000)]
    means = torch.stack([mean / rho for mean, _ in moments])
    variances = torch.stack([variance / (1 - rho**2) for _, variance in moments])
    assert (means < 1).all()
    assert (means.diff(dim=0) > 0).all()
    assert (variances > 1).all()
    assert (variances.diff(dim=0) < 0).all()
    torch.testing.assert_close(means[-1], torch.ones(5), atol=1e-3, rtol=0)
    torch.testing.assert_close(variances[-1], torch.ones(5), atol=1e-2, rtol=0)
    # A weak correlation is taken over by r/(r + 1): in one pass by half.
    weak = torch.tensor(1e-4)
    for repeats in (1, 4):
        mean, _ = diffusion.replacement_moments(weak, repeats)
        assert mean / weak == pytest.approx(repeats / (repeats + 1), rel=1e-6)


# --- the model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["levels", "velocity"])
@pytest.mark.parametrize(("method", "eta"), [("ddim", 0.0), ("ddim", 1.0), ("heun", 1.0)])
def test_samples_are_grey_levels_and_follow_the_generator(prediction, method, eta):
    model = small(prediction=prediction)
    options = {"steps": 4, "method": method, "eta": eta}
    first, second = (
        model.sample(5, generator=torch.Generator().manual_seed(3), **options) for _ in range(2)
    )
    assert first.shape == (5, *SHAPE)
    assert first.dtype == torch.int64
    assert first.min() >= 0
    assert first.max() <= 4
    assert torch.equal(first, second)


def test_samples_of_a_perfect_model_have_its_probabilities(float64):
    p = torch.tensor([0.1, 0.4, 0.2, 0.3])
    model = independent(p.log(), schedule=LinearLogSNR(4.0, -9.0))
    for eta in (0.0, 1.0):
        drawn = model.sample(10_000, steps=50, eta=eta)
        share = torch.bincount(drawn.flatten(), minlength=4) / 10_000
        assert (share - p).abs().max() < 0.02


def test_what_is_measured_and_drawn_is_that_of_the_whole_network():
    torch.manual_seed(0)
    model = small(dropout=0.9).train()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.normal_()
    x, z = torch.randint(5, (3, *SHAPE)), torch.randn(3, *SHAPE)
    calls = (
        lambda: model.elbo(x, generator=torch.Generator().manual_seed(1)),
        lambda: model.to_levels(z, generator=torch.Generator().manual_seed(1)),
    )
    in_training = [call() for call in calls]
    assert model.training
    model.eval()
    for call, found in zip(calls, in_training, strict=True):
        assert torch.equal(found, call())
    # Training itself does drop units.
    model.train()
    terms = [
        model.bound_terms(x, generator=torch.Generator().manual_seed(1)).total() for _ in range(2)
    ]
    assert not torch.equal(*terms)


def test_a_model_is_built_and_tells_its_shapes_without_values():
    with torch.device("meta"):
        model = small(n_classes=3)
        z, t = torch.zeros(2, *SHAPE), torch.zeros(2)
        labels = torch.zeros(2).long()
    assert model(z, t, labels).shape == (2, *SHAPE, 5)
    assert model.denoise(z, t, labels).shape == z.shape
    assert model.elbo(z.long(), labels=labels).shape == (2,)
    other = small(n_classes=3)
    model.load_state_dict(other.state_dict(), assign=True)
    z, t, labels = torch.ones(2, *SHAPE), torch.full((2,), 0.3), torch.tensor([0, 2])
    assert torch.equal(model(z, t, labels), other(z, t, labels))


def test_a_discrete_schedule_finds_its_levels_among_many_steps():
    schedule = DDPMSchedule(linear_betas(100_000, 1e-6, 1e-4))
    index = torch.arange(100_001)
    assert torch.equal(schedule.index(index / 100_000), index)
    with pytest.raises(ValueError, match="no noise level between"):
        schedule.index(torch.tensor(0.4999950))


def test_a_network_may_round_and_the_bound_does_not():
    """Under autocast the mean of the levels is that of their logits in float32."""
    model, logits = small(), torch.randn(3, *SHAPE, 5)
    expected = model.mean_level(logits)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.mean_level(logits), expected)
        assert model.elbo(torch.randint(5, (3, *SHAPE))).dtype == torch.float32


def test_completion_keeps_what_is_known():
    model = small()
    x, known = torch.randint(5, (3, *SHAPE)), torch.zeros(SHAPE, dtype=torch.bool)
    known[:, :2] = True
    made = model.complete(x, known, steps=3, repeats=2)
    assert torch.equal(made[:, :, :2], x[:, :, :2])
    assert made.max() <= 4


def test_classes_and_guidance():
    model = small(n_classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    z, labels = torch.randn(4, *SHAPE), torch.tensor([0, 2, 1, 0])
    conditional, unconditional = model.denoise(z, 0.5, labels), model.denoise(z, 0.5)
    assert (conditional - unconditional).abs().max() > 1e-4
    expected = 3 * conditional - 2 * unconditional
    torch.testing.assert_close(model.denoise(z, 0.5, labels, guidance=2.0), expected)
    x = torch.randint(5, (4, *SHAPE))
    loss = NegativeBound()(model, (x, labels), torch.zeros(()))["loss"]
    loss.backward()
    assert model.network.conditioning.label.weight.grad.abs().sum() > 0
    assert model.sample(4, steps=2, labels=labels, guidance=1.0).shape == (4, *SHAPE)


class OfClasses(nn.Module):
    """A network that knows the probabilities of the levels of one entry in each class: it is perfect.

    Its last row holds those without a class.
    """

    def __init__(self, p):
        super().__init__()
        self.log_p = nn.Parameter(torch.cat([p, p.mean(0, keepdim=True)]).log())

    def forward(self, z, log_snr, labels=None):
        labels = torch.full((len(z),), len(self.log_p) - 1) if labels is None else labels
        return self.log_p[labels].unsqueeze(1)


P = torch.tensor([[0.7, 0.2, 0.05, 0.05], [0.1, 0.1, 0.5, 0.3]], dtype=torch.float64)


def of_classes(**options):
    model = Diffusion((1,), 4, hidden=(4,), n_classes=2, **options).double()
    model.network = OfClasses(P)
    return model


def test_the_bound_given_a_class_is_its_log_probability(float64):
    model = of_classes(schedule=LinearLogSNR(4.0, -9.0))
    x = torch.arange(4).repeat(1500)[:, None]
    for label, p in ((0, P[0]), (1, P[1]), (None, P.mean(0))):
        labels = None if label is None else torch.full((len(x),), label)
        bound = model.elbo(x, 20, labels=labels).detach().view(-1, 4)
        error = bound.std(0) / math.sqrt(len(bound))
        assert ((bound.mean(0) - p.log()).abs() < 4 * error + 2e-3).all()


def test_guided_denoising_is_the_gradient_of_the_tilted_density(float64):
    """x̂ = (z + σ² ∇ log p(z) p(c|z)^{1+w})/α with the noised density of four points, by autograd."""
    model, w, t = of_classes(schedule=LinearLogSNR(4.0, -4.0)), 1.7, torch.tensor(0.45)
    alpha, sigma = model.schedule.alpha(t), model.schedule.sigma(t)
    z, labels = torch.tensor([[0.3], [-0.8], [1.1]]), torch.tensor([0, 1, 1])

    def log_density(z, p):
        return (p.log() - 0.5 * ((z - alpha * model.places(z)) / sigma) ** 2).logsumexp(-1)

    points = z.clone().requires_grad_()
    every = log_density(points, P.mean(0))
    of_class = log_density(points, P[labels]) + math.log(0.5) - every  # log p(c|z)
    tilted = every + (1 + w) * of_class
    (score,) = torch.autograd.grad(tilted.sum(), points)
    found = model.denoise(z, t, labels, guidance=w)
    torch.testing.assert_close(found, (z + sigma**2 * score) / alpha)


def test_samples_of_a_class_have_its_probabilities(float64):
    model = of_classes(schedule=LinearLogSNR(4.0, -9.0))
    labels = torch.arange(2).repeat(8000)
    for method in ("ddim", "heun"):
        drawn = model.sample(16_000, steps=80, labels=labels, method=method, eta=0.0)
        for label in (0, 1):
            share = torch.bincount(drawn[labels == label].flatten(), minlength=4) / 8000
            assert (share - P[label]).abs().max() < 0.025
    guided = model.sample(16_000, steps=40, labels=labels, guidance=3.0)
    # With guidance the level that tells most of the class is drawn more often, others less.
    share = torch.bincount(guided[labels == 0].flatten(), minlength=4) / 8000
    assert share[0] > 0.9
    assert (share[2:] < 0.01).all()


def test_training_with_dropped_labels_learns_both_densities(float64):
    """One network comes to the probabilities of each class, and to the mixture without a class."""
    model = Diffusion((1,), 4, hidden=(16,), n_classes=2, schedule=LinearLogSNR(3.0, -9.0))
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat(3000)
    x = torch.multinomial(P[labels], 1, replacement=True, generator=generator)
    fit(
        model,
        NegativeBound(unlabelled=0.3),
        (x, labels),
        steps=400,
        batch_size=256,
        learning_rate=1e-2,
        schedule=cosine_decay,
        progress=False,
    )
    z, log_snr = torch.randn(200, 1), torch.full((200,), -9.0)  # where z tells nothing
    shares = torch.stack([torch.bincount(x[labels == c, 0], minlength=4) / 3000 for c in (0, 1)])
    for label, expected in ((0, shares[0]), (1, shares[1]), (None, shares.mean(0))):
        given = None if label is None else torch.full((200,), label)
        with torch.no_grad():
            p = model.level_logits(z, log_snr, model(z, log_snr, given)).softmax(-1).mean((0, 1))
        assert (p - expected).abs().max() < 0.05


def test_as_many_labels_are_left_out_as_stated():
    model = small(n_classes=3)
    seen = []
    model.network.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    x, labels = torch.zeros(4000, *SHAPE, dtype=torch.int64), torch.arange(4000) % 3
    for unlabelled in (0.0, 0.2, 1.0):
        model.bound_terms(x, labels, share=1000, unlabelled=unlabelled)
        given = seen.pop()[:4000]
        left_out = given == 3
        assert abs(left_out.double().mean() - unlabelled) < 0.03
        assert torch.equal(given[~left_out], labels[~left_out])


def test_a_convolutional_network_takes_the_sides_of_mnist():
    model = Diffusion((1, 28, 28), 256, channels=4, n_blocks=1, prediction="velocity")
    x = torch.randint(256, (2, 1, 28, 28))
    assert model.elbo(x).shape == (2,)
    assert model.sample(1, steps=1).shape == (1, 1, 28, 28)


# --- bad input ------------------------------------------------------------------------------------


class Rising(VariancePreserving):
    """A schedule whose time runs the wrong way, as one taken from another source may."""

    def log_snr(self, t):
        return 8 * require_times(t) - 4

    def log_snr_rate(self, t):
        return torch.full_like(require_times(t), 8)

    def time(self, log_snr):
        return (log_snr + 4) / 8


ZEROS, KNOWN = torch.zeros(2, *SHAPE, dtype=torch.int64), torch.ones(SHAPE, dtype=torch.bool)
PAIR, CLEAN = torch.ones(2, 2), (torch.tensor(1.0), torch.tensor(0.0))
LESS_NOISY, NOISIER = (Level(torch.tensor(a), torch.tensor(s)) for a, s in ((0.8, 0.6), (0.6, 0.8)))


def completed(clean):
    known = torch.tensor([True, False])
    return inpaint(lambda z, t: z, LinearPath(), PAIR, time_grid(2), clean, known)


def test_unknown_entries_may_be_anything():
    assert completed(torch.tensor([[1.0, math.nan]] * 2)).isfinite().all()


@pytest.mark.parametrize("call", ["ancestral", "ddim", "heun", "inpaint"])
def test_no_sampler_takes_a_schedule_that_rises(call):
    sampler = {
        "ancestral": ancestral,
        "ddim": ddim,
        "heun": heun,
        "inpaint": lambda *a: inpaint(*a, PAIR, torch.tensor([True, False])),
    }[call]
    with pytest.raises(ValueError, match="Rising does not fall"):
        sampler(lambda z, t: z, Rising(), PAIR, time_grid(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.denoise(torch.randn(2, *SHAPE), 1.2), r"t is 1\.2; a time"),
        (
            lambda m: m.denoise(torch.randn(2, *SHAPE), torch.tensor([0.1, -0.1])),
            r"times in \[0, 1\]",
        ),
        (lambda m: m.sample(2, steps=0), "steps is 0"),
        (lambda m: m.sample(2, eta=1.5), "eta is 1.5"),
        (lambda m: m.sample(2, method="euler"), "method is 'euler'"),
        (lambda m: m.sample(2, labels=torch.tensor([0, 1])), "without classes"),
        (lambda m: m.elbo(torch.full((2, *SHAPE), 5)), r"levels 5 … 5; 0 … 4 are expected"),
        (lambda m: m.elbo(torch.zeros(2, 1, 4, 3).long()), "shape"),
        (lambda m: m.elbo(torch.zeros(2, *SHAPE).long(), steps=0), "steps is 0"),
        (lambda m: m.denoise(torch.randn(2, *SHAPE), 0.5, guidance=-1.0), "guidance is -1"),
        (lambda m: m.denoise(torch.randn(2, *SHAPE), 0.5, guidance=1.0), "has no classes; one"),
        (lambda m: m.sample(2, guidance=1.0), "has no classes; one"),
        (lambda m: small(n_classes=3).sample(2, guidance=1.0), "no labels were given"),
        (lambda m: small(n_classes=3).sample(2, guidance=-1.0), "guidance is -1"),
        (lambda m: small(n_classes=0), "n_classes is 0"),
        (lambda m: m.complete(ZEROS, KNOWN, guidance=-1.0), "guidance is -1"),
        (lambda m: m.complete(ZEROS, KNOWN, steps=0), "steps is 0"),
        (lambda m: m.complete(ZEROS, KNOWN, repeats=0), "repeats is 0"),
        (lambda m: m.complete(ZEROS + 5, KNOWN), "levels 5 … 5"),
        (lambda m: m.elbo(ZEROS, labels=torch.tensor([0, 1])), "without classes"),
        (lambda m: m.elbo(ZEROS, steps=10**7), "steps is 10000000; at most 838860"),
        (lambda m: m.bound_terms(ZEROS, unlabelled=1.5), "unlabelled is 1.5"),
        (lambda m: m.reconstruction_table(torch.zeros(1), 1), "n_points is 1"),
        (lambda m: m.to_levels(torch.full((2, *SHAPE), math.nan)), "z holds NaN"),
        (lambda m: m.sample(2, method="heun", eta=2.0), "eta is 2"),
        (lambda m: small(schedule=Rising()), "Rising does not fall from time 0 to"),
        (lambda m: small(prediction="x"), "prediction, is 'x'"),
        (lambda m: Diffusion(SHAPE, 1), "levels is 1"),
        (lambda m: linear_betas(0), "steps is 0"),
        (lambda m: noising_marginal(torch.tensor([0.1, 1.0])), r"variances in \(0, 1\)"),
        (
            lambda m: DDPMSchedule(linear_betas(10)).grid(11),
            "steps is 11, and the discrete model has 10",
        ),
        (
            lambda m: DDPMSchedule(linear_betas(10)).alpha(torch.tensor(0.55)),
            "no noise level between",
        ),
        (lambda m: DDPMSchedule(linear_betas(10)).alpha_rate(torch.tensor(0.5)), "no derivatives"),
        (lambda m: langevin(lambda x: -x, torch.randn(2, 1), 0.0, 1), "step is 0"),
        (lambda m: diffusion.langevin_variance(2.0), "step is 2"),
        (lambda m: NegativeBound(unlabelled=2.0), "unlabelled is 2"),
        (
            lambda m: ddim(lambda z, t: z, LinearPath(), torch.randn(2, 1), time_grid(3).flip(0)),
            "times rise",
        ),
        (
            lambda m: ancestral(
                lambda z, t: z, LinearPath(), torch.randn(2, 1), time_grid(3), variance="β"
            ),
            "variance is 'β'",
        ),
        (
            lambda m: ddim(
                lambda z, t: z, DDPMSchedule(linear_betas(10)), torch.randn(2, 1), time_grid(20)
            ),
            "between two of the 10 steps",
        ),
        (
            lambda m: heun(lambda z, t: z, LinearPath(), torch.randn(2, 1), time_grid(3)),
            "no signal",
        ),
        (
            lambda m: ddim(
                lambda z, t: z, LinearPath(), torch.full((2, 1), math.nan), time_grid(3)
            ),
            "z has dtype torch.float32 and 2 values that are NaN",
        ),
        (
            lambda m: completed(torch.full((2, 2), math.nan)),
            "clean has dtype torch.float32 and 2 values that are NaN",
        ),
        (
            lambda m: LinearGaussianDiffusion(torch.ones(2), Rising(), time_grid(3)),
            "Rising does not",
        ),
        (lambda m: posterior(PAIR, PAIR, NOISIER, LESS_NOISY), "s has more noise than t"),
        (lambda m: step_kl(PAIR, PAIR, NOISIER, LESS_NOISY), "s has more noise than t"),
        (lambda m: step_variance(NOISIER, LESS_NOISY), "s has more noise than t"),
        (lambda m: reverse_variances(NOISIER, LESS_NOISY), "s has more noise than t"),
        (lambda m: Level(torch.ones(2), torch.ones(())), r"alpha has shape \(2,\) and sigma \(\)"),
        (lambda m: from_clean("noise", PAIR, PAIR, *CLEAN), "least value of 0; a standard"),
        (lambda m: clip_clean(PAIR, PAIR, *CLEAN), "least value of 0; a standard"),
        (lambda m: to_clean("score", PAIR, PAIR, *CLEAN[::-1]), "alpha has a least value of 0"),
        (lambda m: Memorizer(PAIR).denoise(PAIR, 1.0, 0.0), "a standard deviation above 0"),
        (
            lambda m: Memorizer(PAIR).log_weights(PAIR[:1], torch.ones(3), torch.ones(3)),
            r"alpha has shape \(3,\) for examples",
        ),
        (
            lambda m: DDPMSchedule(linear_betas(10)).time(torch.tensor(math.nan)),
            "log_snr holds NaN",
        ),
        (lambda m: langevin(lambda x: x[:, None], torch.ones(4), 0.1, 3), "score has shape"),
        (
            lambda m: diffusion.guided(torch.ones(3, 1), torch.ones(3), 1.0),
            r"conditional has shape \(3, 1\) and unconditional \(3,\)",
        ),
        (
            lambda m: diffusion.replacement_moments(torch.tensor(1.0)),
            "largest size of 1; numbers in",
        ),
        (lambda m: diffusion.replacement_moments(torch.tensor(0.5), 0), "repeats is 0"),
        (lambda m: diffusion.replacement_moments(torch.tensor(0.5), 10**9), "at most 2000"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(small())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.elbo(torch.rand(2, *SHAPE)), "integer grey levels"),
        (lambda m: m.denoise(torch.randn(2, *SHAPE), torch.tensor(0.5).half()), "float16"),
        (
            lambda m: m.complete(torch.zeros(2, *SHAPE).long(), torch.ones(SHAPE)),
            "mask of type bool",
        ),
        (lambda m: small(schedule=LinearPath()), "VariancePreserving is expected"),
        (lambda m: Memorizer(torch.randn(3, 2).half()), "float16"),
        (lambda m: Memorizer(PAIR).denoise(PAIR.half(), 0.8, 0.6), "float16, and what is known"),
        (lambda m: Memorizer(PAIR).denoise(PAIR.double(), 0.8, 0.6), "float64, and what is known"),
        (lambda m: Level(0.8, 0.6), "alpha is a float"),
        (lambda m: Level(torch.tensor(0.8).half(), torch.tensor(0.6).half()), "float16"),
        (lambda m: ancestral(lambda z, t: z, LinearPath(), PAIR.half(), time_grid(2)), "float16"),
        (lambda m: posterior(PAIR.half(), PAIR.half(), LESS_NOISY, NOISIER), "float16"),
        (lambda m: langevin(lambda x: -x, PAIR.half(), 0.1, 1), "float16"),
        (lambda m: noising_marginal(torch.tensor([0.1]).half()), "float16"),
        (lambda m: m.sample(1, steps=2.5), "steps is 2.5"),
        (lambda m: small(n_classes=3).sample(1, labels=torch.tensor([1.0])), "dtype torch.float32"),
        (lambda m: small(n_classes=3).elbo(ZEROS, labels=[0, 1]), "labels is a list"),
    ],
)
def test_bad_types_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call(small())


@pytest.mark.parametrize(
    "call",
    [
        lambda m, labels: m.sample(2, steps=1, labels=labels),
        lambda m, labels: m.elbo(ZEROS, labels=labels),
        lambda m, labels: m.bound_terms(ZEROS, labels),
        lambda m, labels: m.denoise(torch.zeros(2, *SHAPE), 0.5, labels),
        lambda m, labels: m.complete(ZEROS, KNOWN, labels=labels),
        lambda m, labels: m.to_levels(torch.zeros(2, *SHAPE), labels),
        lambda m, labels: NegativeBound()(m, (ZEROS, labels), torch.zeros(())),
    ],
)
def test_labels_out_of_range_are_named(call):
    """Also 3, the network's own word for no class: classes counted from 1 must not pass for it."""
    model = small(n_classes=3)
    for labels, message in (
        ([0, 3], "labels has levels 0 … 3; 0 … 2 are"),
        ([-1, 0], "levels -1 …"),
        ([1], "labels has 1 entries for 2 examples"),
    ):
        with pytest.raises(ValueError, match=message):
            call(model, torch.tensor(labels))

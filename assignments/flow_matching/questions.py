"""The flow-matching assignment: references, probes, known mistakes and other right forms.

Not given to students: what they get is in ``student/``.
"""

import math
from functools import partial
from itertools import pairwise, permutations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from course_lib.grading import Measure, Mistake, Question, Written
from course_lib.grading.draws import integer, normal, signed, uniform

TITLE = "Flow matching"
LOG_2PI = math.log(2 * math.pi)


# 1. What a step of training regresses. ----------------------------------------------------------


def per_image(value):
    return value[:, None, None, None]


def training_pair(x, noise, t):
    return (1 - per_image(t)) * x + per_image(t) * noise, noise - x


def training_pair_by_lerp(x, noise, t):
    return torch.lerp(x, noise, t.reshape(-1, 1, 1, 1)), -(x - noise)


def draw_pairs(g: torch.Generator, n: int, *shape: int) -> tuple[Tensor, ...]:
    t = torch.cat([uniform(g, 0.1, 0.4, 1), uniform(g, 0.1, 0.9, n - 2), uniform(g, 0.6, 0.9, 1)])
    return signed(g, 0.3, 1.5, n, *shape), signed(g, 0.3, 2, n, *shape), t


TRAINING_PAIR = Question(
    name="training_pair",
    points=1,
    reference=training_pair,
    draw=(
        lambda g: draw_pairs(g, integer(g, 3, 5), 1, 3, 2),
        lambda g: draw_pairs(g, integer(g, 5, 7), 2, 2, 3),
    ),
    mistakes=(
        Mistake(
            "time reversed",
            "z is that of time 1 − t: here time 0 is the data, as in z = (1 − t)x + tε",
            lambda x, e, t: training_pair(x, e, 1 - t),
        ),
        Mistake(
            "time and velocity reversed",
            "Both are those of a path from noise to data; here time 0 is the data and 1 the noise",
            lambda x, e, t: training_pair(e, x, t),
        ),
        Mistake(
            "sign of the velocity",
            "z is right; the velocity is x − ε, which leads from noise to data. Time rises towards noise",
            lambda x, e, t: (training_pair(x, e, t)[0], x - e),
        ),
        Mistake(
            "velocity from z",
            "z is right; the target is ε − z, which is not the velocity of the path: that is ε − x "
            "at every time",
            lambda x, e, t: (training_pair(x, e, t)[0], e - training_pair(x, e, t)[0]),
        ),
        Mistake(
            "noise as target",
            "z is right; the target is the noise, as in diffusion. The velocity is ε − x",
            lambda x, e, t: (training_pair(x, e, t)[0], e),
        ),
        Mistake(
            "variance preserved",
            "The signal is shrunk by the root of 1 − t², as if the variance were preserved; the "
            "linear path has 1 − t",
            lambda x, e, t: (
                (1 - per_image(t) ** 2).sqrt() * x + per_image(t) * e,
                training_pair(x, e, t)[1],
            ),
        ),
        Mistake(
            "one time for the batch",
            "All images get the first image's time; every example has its own",
            lambda x, e, t: training_pair(x, e, t[:1].expand_as(t)),
        ),
    ),
    equivalents=(training_pair_by_lerp,),
)


# 2. The velocity that the regression finds. -----------------------------------------------------


def mixture_parts(z, weights, means, variances, t):
    """Log-densities with weights, (N, K), the slopes of the components' velocities, and z − (1−t)m."""
    t = t[:, None]
    spread = (1 - t) ** 2 * variances + t**2  # (N, K)
    apart = z[:, None] - (1 - t)[..., None] * means  # (N, K, D)
    log_joint = weights.log() - 0.5 * (apart.square().sum(2) / spread + z.shape[1] * spread.log())
    return log_joint, (t - (1 - t) * variances) / spread, apart


def combined(shares, slope, apart, means):
    each = slope[..., None] * apart - means
    return (shares[..., None] * each).sum(1)


def mixture_velocity(z, weights, means, variances, t):
    log_joint, slope, apart = mixture_parts(z, weights, means, variances, t)
    return combined(log_joint.softmax(1), slope, apart, means)


def mixture_velocity_by_score(z, weights, means, variances, t):
    """v = −(z + t s)/(1 − t), with the score by automatic differentiation."""
    z = z.clone().requires_grad_()
    log_density = mixture_parts(z, weights, means, variances, t)[0].logsumexp(1)
    score = torch.autograd.grad(log_density.sum(), z)[0]
    return -(z.detach() + t[:, None] * score) / (1 - t)[:, None]


def mixture_velocity_by_denoiser(z, weights, means, variances, t):
    log_joint, _, apart = mixture_parts(z, weights, means, variances, t)
    spread = (1 - t[:, None]) ** 2 * variances + t[:, None] ** 2
    clean = means + ((1 - t[:, None]) * variances / spread)[..., None] * apart
    return (z - (log_joint.softmax(1)[..., None] * clean).sum(1)) / t[:, None]


def velocity_with(shares):
    """A mistake of `mixture_velocity` that concerns the responsibilities."""

    def answer(*mixture):
        _, slope, apart = mixture_parts(*mixture)
        return combined(shares(*mixture), slope, apart, mixture[2])

    return answer


def responsibilities(*mixture):
    return mixture_parts(*mixture)[0].softmax(1)


def unnoised(z, weights, means, variances, t):
    return responsibilities(z, weights, means, variances, 0 * t)


def without_weights(z, weights, *others):
    return responsibilities(z, torch.ones_like(weights), *others)


def without_constants(z, weights, means, variances, t):
    spread = (1 - t[:, None]) ** 2 * variances + t[:, None] ** 2
    log_joint = mixture_parts(z, weights, means, variances, t)[0]
    return (log_joint + 0.5 * z.shape[1] * spread.log()).softmax(1)


def draw_mixture(g: torch.Generator, n: int, k: int, d: int) -> tuple[Tensor, ...]:
    while True:
        weights = uniform(g, 0.3, 2, k)
        t = torch.cat([uniform(g, 0.25, 0.4, 1), uniform(g, 0.25, 0.8, n - 2)])
        t = torch.cat([t, uniform(g, 0.6, 0.8, 1)])
        variances = torch.cat([uniform(g, 0.1, 0.3, 1), uniform(g, 0.5, 1.5, k - 1)])
        mixture = weights / weights.sum(), 1.2 * normal(g, k, d), variances
        z = 0.9 * normal(g, n, d)
        inputs = z, *mixture, t
        r = responsibilities(*inputs)
        others = unnoised(*inputs), without_weights(*inputs), without_constants(*inputs)
        differ = min((r - other).abs().max().item() for other in others)
        if r.amax(1).median() < 0.9 and differ > 0.1:
            return inputs


MIXTURE_VELOCITY = Question(
    name="mixture_velocity",
    points=2,
    reference=mixture_velocity,
    draw=(
        lambda g: draw_mixture(g, integer(g, 4, 6), 3, 2),
        lambda g: draw_mixture(g, integer(g, 6, 8), 4, 3),
    ),
    mistakes=(
        Mistake(
            "direction of time",
            "The sign is flipped: this velocity leads from noise to data, and time rises towards noise",
            lambda *x: -mixture_velocity(*x),
        ),
        Mistake(
            "time reversed",
            "This is the velocity at time 1 − t: time 0 is the data",
            lambda z, w, m, c, t: mixture_velocity(z, w, m, c, 1 - t),
        ),
        Mistake(
            "responsibilities without noise",
            "The responsibilities are those of the data; z is on its way, so they belong to the "
            "components at time t",
            velocity_with(unnoised),
        ),
        Mistake(
            "weights for responsibilities",
            "The components' velocities are averaged with the mixture's weights; what counts is "
            "the probability of "
            "a component given z",
            velocity_with(lambda z, w, m, c, t: w.expand(len(z), -1)),
        ),
        Mistake(
            "weights dropped",
            "The weights of the mixture are missing in the responsibilities",
            velocity_with(without_weights),
        ),
        Mistake(
            "constants dropped",
            "The components' densities have different constants, which depend on their variances "
            "at time t and are "
            "missing in the responsibilities",
            velocity_with(without_constants),
        ),
        Mistake(
            "mean not shrunk",
            "The distances are taken from the means m; at time t a component's mean is (1 − t)m",
            lambda z, w, m, c, t: combined(
                mixture_parts(z, w, m, c, t)[0].softmax(1),
                mixture_parts(z, w, m, c, t)[1],
                z[:, None] - m,
                m,
            ),
        ),
        Mistake(
            "denoiser",
            "This is the mean of x given z; the velocity is the mean of ε − x",
            lambda z, w, m, c, t: z - t[:, None] * mixture_velocity(z, w, m, c, t),
        ),
        Mistake(
            "noise",
            "This is the mean of ε given z; the velocity is the mean of ε − x",
            lambda z, w, m, c, t: z + (1 - t)[:, None] * mixture_velocity(z, w, m, c, t),
        ),
        Mistake(
            "mean of x not given z",
            "The mean of x is taken by itself; both means, of ε and of x, are those given z",
            lambda z, w, m, c, t: z + (1 - t)[:, None] * mixture_velocity(z, w, m, c, t) - w @ m,
        ),
    ),
    equivalents=(mixture_velocity_by_score, mixture_velocity_by_denoiser),
)


# 3. From a score to a velocity, on any path. ----------------------------------------------------


def velocity_from_score(z, score, alpha, sigma, alpha_rate, sigma_rate):
    factor = alpha_rate * sigma**2 / alpha - sigma * sigma_rate
    return (alpha_rate / alpha)[:, None] * z + factor[:, None] * score


def velocity_by_ends(z, score, alpha, sigma, alpha_rate, sigma_rate):
    alpha, sigma, alpha_rate, sigma_rate = (
        v[:, None] for v in (alpha, sigma, alpha_rate, sigma_rate)
    )
    noise = -sigma * score
    return alpha_rate * (z - sigma * noise) / alpha + sigma_rate * noise


def scored(factor, of_z=lambda a, s, da, ds: da / a):
    def answer(z, score, *path):
        return of_z(*path)[:, None] * z + factor(*path)[:, None] * score

    return answer


def draw_scores(g: torch.Generator, n: int, d: int) -> tuple[Tensor, ...]:
    alpha, sigma = uniform(g, 0.3, 0.8, n), uniform(g, 0.4, 0.8, n)
    rates = -uniform(g, 0.4, 0.9, n), uniform(g, 1.2, 2, n)
    return signed(g, 0.3, 1.5, n, d), signed(g, 0.5, 2, n, d), alpha, sigma, *rates


VELOCITY_FROM_SCORE = Question(
    name="velocity_from_score",
    points=1.5,
    reference=velocity_from_score,
    draw=(
        lambda g: draw_scores(g, integer(g, 4, 6), 3),
        lambda g: draw_scores(g, integer(g, 2, 4), 5),
    ),
    mistakes=(
        Mistake(
            "sign of the score's factor",
            "The factor of the score has the wrong sign: E[ε|z] is −σ times the score",
            scored(lambda a, s, da, ds: s * ds - da * s**2 / a),
        ),
        Mistake(
            "sign of σσ̇",
            "σσ̇ is added in the score's factor; it is subtracted",
            scored(lambda a, s, da, ds: da * s**2 / a + s * ds),
        ),
        Mistake(
            "σ for σ²",
            "In the first part of the score's factor σ stands for σ²: by Tweedie's formula it is σ²",
            scored(lambda a, s, da, ds: da * s / a - s * ds),
        ),
        Mistake(
            "σ dropped",
            "The second part of the score's factor is σ̇ alone; the noise is −σ times the score",
            scored(lambda a, s, da, ds: da * s**2 / a - ds),
        ),
        Mistake(
            "noise at rest",
            "The part of the noise, −σσ̇ times the score, is missing",
            scored(lambda a, s, da, ds: da * s**2 / a),
        ),
        Mistake(
            "example at rest",
            "In the example's part Tweedie's formula is not used: E[x|z] is taken for z/α",
            scored(lambda a, s, da, ds: -s * ds),
        ),
        Mistake(
            "drift of the reverse SDE",
            "The factor of the score is twice the right one: that is the drift of the reverse "
            "process with noise",
            scored(lambda a, s, da, ds: 2 * (da * s**2 / a - s * ds)),
        ),
        Mistake(
            "variance preserved",
            "σσ̇ is replaced by −αα̇, which holds only where the variance is preserved",
            scored(lambda a, s, da, ds: da * s**2 / a + a * da),
        ),
        Mistake(
            "linear path",
            "This is the velocity of the linear path; the rates that are given are not used",
            scored(lambda a, s, da, ds: -(s**2) / a - s, lambda a, s, da, ds: -1 / a),
        ),
        Mistake(
            "α dropped",
            "The division by α is missing: E[x|z] = (z + σ² times the score)/α",
            scored(lambda a, s, da, ds: da * s**2 - s * ds, lambda a, s, da, ds: da),
        ),
    ),
    equivalents=(velocity_by_ends,),
)


# 4. The average velocity of a Gaussian, as an expression. ---------------------------------------


def draw_times(g: torch.Generator) -> tuple[Tensor, ...]:
    # Data narrower than the noise and wider, points on both sides of 0.
    c = torch.cat([uniform(g, 0.1, 0.5, 3), uniform(g, 2, 4, 3)])
    r = uniform(g, 0.05, 0.3, 6)
    side = torch.tensor([1.0, -1, 1, -1, 1, -1]).double()
    return side * uniform(g, 0.6, 2, 6), r, r + uniform(g, 0.3, 0.6, 6), c


S_R, S_T = "((1 - r)**2*c + r**2)", "((1 - t)**2*c + t**2)"
AT_T, AT_R = f"(t - (1 - t)*c)/{S_T}*z", f"(r - (1 - r)*c)/{S_R}*z"
AVERAGE_VELOCITY = Question(
    name="average_velocity",
    points=2,
    kind="expression",
    symbols=("z", "r", "t", "c"),
    reference=f"(1 - sqrt({S_R}/{S_T}))*z/(t - r)",
    draw=draw_times,
    mistakes=(
        Mistake(
            "velocity at t",
            "This is the velocity at time t itself; the average over the interval is asked for",
            AT_T,
        ),
        Mistake(
            "velocity at r",
            "This is the velocity at time r, and at z, where the trajectory is only at time t",
            AT_R,
        ),
        Mistake(
            "mean of the ends",
            "This is the mean of the velocities at r and at t, both at z; the trajectory moves in between",
            f"({AT_T} + {AT_R})/2",
        ),
        Mistake(
            "variance for standard deviation",
            "The flow scales z by the ratio of the variances; it is that of the standard "
            "deviations, its root",
            f"(1 - {S_R}/{S_T})*z/(t - r)",
        ),
        Mistake(
            "ratio inverted",
            "The ratio is inverted: z is the point at time t, and the flow takes it to time r",
            f"(1 - sqrt({S_T}/{S_R}))*z/(t - r)",
        ),
        Mistake(
            "not divided",
            "This is the displacement; the average velocity is the displacement divided by t − r",
            f"(1 - sqrt({S_R}/{S_T}))*z",
        ),
        Mistake(
            "sign",
            "The sign is flipped: (z_t − z_r)/(t − r), and z is z_t",
            f"(sqrt({S_R}/{S_T}) - 1)*z/(t - r)",
        ),
        Mistake(
            "point at r",
            "This is the point at time r, to which the flow takes z",
            f"sqrt({S_R}/{S_T})*z",
        ),
    ),
    equivalents=(
        f"z/(t - r) - z*sqrt({S_R})/(sqrt({S_T})*(t - r))",
        f"((t + r) - (2 - t - r)*c)*z/({S_T} + sqrt({S_T}*{S_R}))",
    ),
)


# 5. A Gaussian, by hand. ------------------------------------------------------------------------


def gaussian_table(
    *, floor: float = math.pi / 2, std: float = 0.6, sign: int = -1, shrunk: bool = True
) -> dict[str, float]:
    """Data N(1.234, 0.36), the linear path, and the noise 1.6."""
    m, c, noise = 1.234, 0.36, 1.6

    def velocity(z: float, t: float) -> float:
        slope = (t - (1 - t) * c) / ((1 - t) ** 2 * c + t**2)
        return slope * (z - (1 - t if shrunk else 1) * m) - m

    first = noise - m  # at time 1, where z is the noise and tells nothing of x
    half = noise + sign * 0.5 * first
    return {
        "floor": floor * 0.6,
        "one_step": noise + sign * first,
        "two_steps": half + sign * 0.5 * velocity(half, 0.5),
        "exact": m + std * noise,
    }


GAUSSIAN = gaussian_table()
BY_HAND = Question(
    name="gaussian_by_hand",
    points=1.5,
    kind="value",
    reference=GAUSSIAN,
    mistakes=(
        Mistake(
            "floor of 0",
            "floor is 0: but given z the velocity ε − x is still random, and no function of z predicts it",
            gaussian_table(floor=0),
        ),
        Mistake(
            "variance in the floor",
            "floor has c where the integral of c/S over time gives the standard deviation, its root",
            gaussian_table(floor=math.pi / 2 * 0.6),
        ),
        Mistake(
            "floor doubled",
            "floor is twice the right one: the integral from time 0 to 1 of c/S is √c·π/2",
            gaussian_table(floor=math.pi),
        ),
        Mistake(
            "variance of ε − x",
            "floor is the variance of ε − x, 1 + c, by itself; what remains is its variance given z",
            gaussian_table() | {"floor": 1.36},
        ),
        Mistake(
            "one step taken for exact",
            "one_step is the point to which the exact flow leads; but trajectories bend although "
            "the paths are "
            "straight, and one step of Euler's method leads to the data's mean",
            GAUSSIAN | {"one_step": GAUSSIAN["exact"]},
        ),
        Mistake(
            "direction of time",
            "The steps go on towards noise: from time 1 to time 0 the velocity is subtracted",
            gaussian_table(sign=1),
        ),
        Mistake(
            "variance in the exact map",
            "exact has c where the map needs the standard deviation: m + √c·ε",
            gaussian_table(std=0.36),
        ),
        Mistake(
            "mean not shrunk",
            "In two_steps the velocity at time ½ measures the distance from m; the mean there is m/2",
            gaussian_table(shrunk=False),
        ),
        Mistake(
            "second step as the first",
            "two_steps takes both steps with the velocity at time 1; it has to be evaluated anew at time ½",
            GAUSSIAN | {"two_steps": GAUSSIAN["one_step"]},
        ),
    ),
    equivalents=(
        {name: torch.tensor(value) for name, value in GAUSSIAN.items()},
        {name: round(value, 5) for name, value in GAUSSIAN.items()},
        {name: float(f"{value:.5g}") for name, value in GAUSSIAN.items()},
    ),
)


# 6. A likelihood by Euler's method. -------------------------------------------------------------


def euler_terms(x, weight, bias):
    """The end point and the divergences at the beginnings of the steps, (n, N)."""
    divergences = []
    for row in bias:
        v = torch.tanh(x @ weight + row)
        divergences.append((1 - v**2) @ weight.diagonal())
        x = x + v / len(bias)
    return x, torch.stack(divergences)


def log_normal(x):
    return -0.5 * (x**2 + LOG_2PI).sum(1)


def ode_log_density(x, weight, bias):
    end, divergences = euler_terms(x, weight, bias)
    return log_normal(end) + divergences.mean(0)


def ode_log_density_by_autograd(x, weight, bias):
    log_det = torch.zeros(len(x), dtype=x.dtype)
    for row in bias:
        for n, point in enumerate(x):
            jacobian = torch.autograd.functional.jacobian(
                lambda y, row=row: torch.tanh(y @ weight + row), point
            )
            log_det[n] += jacobian.trace() / len(bias)
        x = x + torch.tanh(x @ weight + row) / len(bias)
    normal_at = torch.distributions.Normal(0.0, 1.0)
    return normal_at.log_prob(x).sum(-1) + log_det


def density_of(change):
    """A mistake of `ode_log_density`; `change` gets start, end and divergences."""
    return lambda x, weight, bias: change(x, *euler_terms(x, weight, bias))


def without_slope(x, weight, bias):
    return log_normal(euler_terms(x, weight, bias)[0]) + weight.trace()


def with_all_entries(x, weight, bias):
    total = 0
    for row in bias:
        v = torch.tanh(x @ weight + row)
        total = total + ((1 - v**2) * weight.sum(0)).sum(1) / len(bias)
        x = x + v / len(bias)
    return log_normal(x) + total


def backward_in_time(x, weight, bias):
    """From time 1 downwards."""
    total = 0
    for row in bias.flip(0):
        v = torch.tanh(x @ weight + row)
        total = total + ((1 - v**2) @ weight.diagonal()) / len(bias)
        x = x - v / len(bias)
    return log_normal(x) + total


def draw_ode(g: torch.Generator, n: int, d: int, steps: int) -> tuple[Tensor, ...]:
    # Divergences of one sign mostly, so that a sign or a last one matters.
    weight = 0.5 * normal(g, d, d)
    weight = weight - torch.diag(weight.diagonal()) + torch.diag(uniform(g, 0.5, 1.2, d))
    return normal(g, n, d), weight, 0.7 * normal(g, steps, d)


ODE_LOG_DENSITY = Question(
    name="ode_log_density",
    points=2,
    reference=ode_log_density,
    draw=(
        lambda g: draw_ode(g, integer(g, 4, 6), 3, 4),
        lambda g: draw_ode(g, integer(g, 2, 4), 4, 7),
    ),
    mistakes=(
        Mistake(
            "sign of the divergence",
            "The divergence is subtracted; from data to noise it is added, since it counts how the "
            "volume grows",
            density_of(lambda x, end, div: log_normal(end) - div.mean(0)),
        ),
        Mistake(
            "last divergence alone",
            "Only the last step's divergence is counted; it is to be integrated along the whole path",
            density_of(lambda x, end, div: log_normal(end) + div[-1]),
        ),
        Mistake(
            "last term alone",
            "Only the last step's term is counted: the terms before it were overwritten",
            density_of(lambda x, end, div: log_normal(end) + div[-1] / len(div)),
        ),
        Mistake(
            "h missing",
            "The divergences are summed without the length 1/n of the steps",
            density_of(lambda x, end, div: log_normal(end) + div.sum(0)),
        ),
        Mistake(
            "no divergence",
            "The divergence is not used: this is the density of the end point",
            density_of(lambda x, end, div: log_normal(end)),
        ),
        Mistake(
            "normal density at the data",
            "The normal density is taken at x; it is that of noise, at the end point of the path",
            density_of(lambda x, end, div: log_normal(x) + div.mean(0)),
        ),
        Mistake(
            "mean over dimensions",
            "The divergence is averaged over the dimensions; it is the sum of the diagonal",
            density_of(lambda x, end, div: log_normal(end) + div.mean(0) / x.shape[1]),
        ),
        Mistake(
            "slope of tanh dropped",
            "The derivative of tanh is missing in the divergence",
            without_slope,
        ),
        Mistake(
            "all entries of the Jacobian",
            "All entries of the Jacobian are summed, as a backward pass of the summed velocity "
            "does; the divergence "
            "is the sum of its diagonal",
            with_all_entries,
        ),
        Mistake(
            "from noise to data",
            "The path runs backwards, from time 1 to time 0; a density of data needs the way from "
            "data to noise",
            backward_in_time,
        ),
        Mistake(
            "constant dropped",
            "The ½ log 2π of every dimension is missing",
            density_of(
                lambda x, end, div: log_normal(end) + div.mean(0) + x.shape[1] / 2 * LOG_2PI
            ),
        ),
        Mistake(
            "batch reduced",
            "The batch is summed up: the result must keep one value per example, shape (N,)",
            lambda *x: ode_log_density(*x).sum(),
        ),
    ),
    equivalents=(ode_log_density_by_autograd,),
)


# 7. Probes of a trace. --------------------------------------------------------------------------


def hutchinson(a, probes):
    estimate = ((probes @ a) * probes).sum(1).mean()
    off = a - torch.diag(a.diagonal())
    return estimate, 2 * (off**2).sum() / len(probes)


def hutchinson_by_loop(a, probes):
    values = [probe @ a @ probe for probe in probes]
    pairs = sum(4 * a[i, j] ** 2 for i in range(len(a)) for j in range(i))
    return sum(values) / len(values), pairs / len(probes)


def draw_probes(g: torch.Generator, p: tuple[int, int], d: int) -> tuple[Tensor, Tensor]:
    while True:
        a = normal(g, d, d)
        a = (a + a.T) / 2 + torch.diag(signed(g, 0.5, 2, d))
        probes = signed(g, 1, 1, integer(g, *p), d)
        estimate, variance = hutchinson(a, probes)
        away = (estimate - a.trace()).abs(), estimate.abs(), variance, (variance - 1).abs()
        away += (((probes @ a).sum(1).mean() - estimate).abs(),)
        if min(away) > 0.3:
            return a, probes


def trace_with(estimate=None, variance=None):
    def answer(a, probes):
        right = hutchinson(a, probes)
        return (
            right[0] if estimate is None else estimate(a, probes, right[0]),
            right[1] if variance is None else variance(a, probes, right[1]),
        )

    return answer


HUTCHINSON = Question(
    name="hutchinson",
    points=1.5,
    reference=hutchinson,
    draw=(partial(draw_probes, p=(3, 5), d=4), partial(draw_probes, p=(5, 8), d=3)),
    mistakes=(
        Mistake(
            "sum over probes",
            "The probes are summed; the trace is estimated by their mean",
            trace_with(lambda a, z, e: e * len(z)),
        ),
        Mistake(
            "trace itself",
            "The first result is the trace itself; what is asked is the estimate from these probes",
            trace_with(lambda a, z, e: a.trace()),
        ),
        Mistake(
            "mean over dimensions",
            "The products are averaged over the dimensions; ζᵀAζ is their sum",
            trace_with(lambda a, z, e: e / len(a)),
        ),
        Mistake(
            "squared length",
            "This is the mean of ‖Aζ‖²; the trace is estimated by ζᵀAζ",
            trace_with(lambda a, z, e: ((z @ a) ** 2).sum(1).mean()),
        ),
        Mistake(
            "sum of the product",
            "The entries of Aζ are summed without the second ζ: the estimate is ζᵀAζ",
            trace_with(lambda a, z, e: (z @ a).sum(1).mean()),
        ),
        Mistake(
            "variance for Gaussian probes",
            "The variance is that for Gaussian probes; squares of signs are constant, so the "
            "diagonal adds none",
            trace_with(variance=lambda a, z, v: 2 * (a**2).sum() / len(z)),
        ),
        Mistake(
            "variance of one probe",
            "The variance is that of one probe; the mean of P independent ones has a P-th of it",
            trace_with(variance=lambda a, z, v: v * len(z)),
        ),
        Mistake(
            "pairs counted once",
            "The factor 2 is missing in the variance: a_ij and a_ji meet in one product of signs",
            trace_with(variance=lambda a, z, v: v / 2),
        ),
        Mistake(
            "standard deviation",
            "The second result is the standard deviation; the variance is asked for",
            trace_with(variance=lambda a, z, v: v.sqrt()),
        ),
        Mistake(
            "sample variance",
            "The second result is estimated from the values of these probes; its exact value is asked for",
            trace_with(variance=lambda a, z, v: ((z @ a) * z).sum(1).var() / len(z)),
        ),
    ),
    equivalents=(hutchinson_by_loop,),
)


# 8. Heun's method from noise to data. -----------------------------------------------------------


def heun_sample(z, weight, bias):
    return heun_with(z, weight, bias)


def heun_with(
    z,
    weight,
    bias,
    *,
    sign=-1,
    share=0.5,
    second=lambda k: k - 1,
    moved=True,
    corrected=True,
    first=1.0,
    steps=None,
):
    n = len(bias) - 1
    h = 1 / (n if steps is None else steps)
    for k in range(n, 0, -1):
        v = torch.tanh(z @ weight + bias[k])
        if not corrected:
            z = z + sign * h * v
            continue
        there = z + sign * h * v if moved else z
        w = torch.tanh(there @ weight + bias[second(k)])
        z = z + sign * h * share * (first * v + w)
    return z


def heun_mistake(**change):
    return lambda *inputs: heun_with(*inputs, **change)


def heun_by_reversed_time(z, weight, bias):
    """As an ODE in s = 1 − t, whose velocity has the minus sign."""
    rows = bias.flip(0)
    for now, then in pairwise(rows):
        step = -torch.tanh(torch.addmm(now, z, weight)) / (len(rows) - 1)
        other = -torch.tanh(torch.addmm(then, z + step, weight)) / (len(rows) - 1)
        z = z + (step + other) / 2
    return z


def draw_heun(g: torch.Generator, n: int, d: int, steps: int) -> tuple[Tensor, ...]:
    while True:
        z, weight, bias = normal(g, n, d), normal(g, d, d), 0.8 * normal(g, steps + 1, d)
        right = heun_sample(z, weight, bias)
        others = (
            heun_with(z, weight, bias, second=lambda k: k),
            heun_with(z, weight, bias, moved=False),
            heun_with(z, weight, bias, corrected=False),
            heun_with(z, weight, bias.flip(0)),
        )
        if min((right - other).abs().max() for other in others) > 0.03:
            return z, weight, bias


HEUN_SAMPLE = Question(
    name="heun_sample",
    points=1.5,
    reference=heun_sample,
    draw=(
        lambda g: draw_heun(g, integer(g, 4, 6), 3, 3),
        lambda g: draw_heun(g, integer(g, 2, 4), 4, 5),
    ),
    mistakes=(
        Mistake(
            "Euler",
            "This is Euler's method: the velocity at the end of the step is not used",
            heun_mistake(corrected=False),
        ),
        Mistake(
            "direction of time",
            "The velocity is added, although the steps lead from time 1 to time 0",
            heun_mistake(sign=1),
        ),
        Mistake(
            "times upwards",
            "The times are visited from 0 to 1; noise stands at time 1, where the steps begin",
            lambda z, w, b: heun_with(z, w, b.flip(0)),
        ),
        Mistake(
            "from data to noise",
            "This follows the velocity from time 0 to time 1, from data to noise",
            lambda z, w, b: heun_with(z, w, b.flip(0), sign=1),
        ),
        Mistake(
            "second time",
            "The second velocity is taken at the time of the first; the step ends at the next time",
            heun_mistake(second=lambda k: k),
        ),
        Mistake(
            "second point",
            "The second velocity is taken at the point of the first; it belongs to where the first "
            "step of Euler's "
            "method leads",
            heun_mistake(moved=False),
        ),
        Mistake(
            "not halved",
            "The two velocities are added; their mean is taken",
            heun_mistake(share=1),
        ),
        Mistake(
            "second velocity alone",
            "Only the second velocity moves the point; the step takes the mean of both",
            heun_mistake(share=1, first=0),
        ),
        Mistake(
            "number of times for steps",
            "The steps have the length 1/(n + 1): n + 1 times make n steps",
            lambda z, w, b: heun_with(z, w, b, steps=len(b)),
        ),
    ),
    equivalents=(heun_by_reversed_time,),
)


# 9. Pairs within classes. -----------------------------------------------------------------------


def cost(x, noise):
    return torch.cdist(x.detach().double(), noise.detach().double()) ** 2


def best(x, noise, sign=1):
    return torch.as_tensor(linear_sum_assignment((sign * cost(x, noise)).numpy())[1])


def pair_within(find):
    """Noise in the order that `find` gives within each class."""

    def answer(x, noise, labels):
        result = noise.clone()
        for label in labels.unique():
            own = (labels == label).nonzero()[:, 0]
            result[own] = noise[own[find(x[own], noise[own])]]
        return result

    return answer


pair_noise = pair_within(best)


def by_enumeration(x, noise):
    orders = [torch.tensor(order) for order in permutations(range(len(x)))]
    return min(orders, key=lambda order: ((x - noise[order]) ** 2).sum().item())


def greedy(x, noise):
    distance, order = cost(x, noise), []
    for row in distance:
        free = [k for k in range(len(noise)) if k not in order]
        order.append(min(free, key=lambda k: row[k].item()))
    return torch.tensor(order)


def by_length(x, noise):
    """Distances, not their squares."""
    return torch.as_tensor(linear_sum_assignment(cost(x, noise).sqrt().numpy())[1])


PAIRINGS = {
    "classes ignored": lambda x, e, y: e[best(x, e)],
    "not paired": lambda x, e, y: e.clone(),
    "farthest": pair_within(lambda x, e: best(x, e, -1)),
    "nearest": pair_within(lambda x, e: cost(x, e).argmin(1)),
    "greedy": pair_within(greedy),
    "inverse": pair_within(lambda x, e: best(x, e).argsort()),
    "distances": pair_within(by_length),
}


def draw_labelled(g: torch.Generator, sizes: tuple[int, ...], d: int) -> tuple[Tensor, ...]:
    """Classes that lie apart; every wrong pairing gives other noise to some example."""
    labels = torch.cat([torch.full((size,), k) for k, size in enumerate(sizes)])
    while True:
        y = labels[torch.randperm(len(labels), generator=g)]
        x = normal(g, len(y), d) + normal(g, len(sizes), d)[y]
        noise = normal(g, len(y), d)
        results = [pair_noise(x, noise, y), *(p(x, noise, y) for p in PAIRINGS.values())]
        apart = [(a - b).abs().max() > 0.05 for k, a in enumerate(results) for b in results[:k]]
        if all(apart):
            return x, noise, y


PAIR_NOISE = Question(
    name="pair_noise",
    points=1.5,
    reference=pair_noise,
    draw=(
        lambda g: draw_labelled(g, (4, 5), 2),
        lambda g: draw_labelled(g, (4, 3, 5), 3),
    ),
    mistakes=(
        Mistake(
            "classes ignored",
            "The pairing does not look at the classes: then the noise of a class is not normal, "
            "and sampling from "
            "normal noise does not fit",
            PAIRINGS["classes ignored"],
        ),
        Mistake(
            "not paired",
            "The noise is in the order in which it came",
            PAIRINGS["not paired"],
        ),
        Mistake(
            "farthest",
            "The sum of squared distances is the largest one; the least is asked for",
            PAIRINGS["farthest"],
        ),
        Mistake(
            "nearest",
            "Every example takes its nearest noise, some of it several times; a pairing uses each "
            "once, which keeps "
            "the noise normal",
            PAIRINGS["nearest"],
        ),
        Mistake(
            "greedy",
            "One example after the other takes the nearest noise that is left; the sum of all is "
            "to be the least",
            PAIRINGS["greedy"],
        ),
        Mistake(
            "inverse permutation",
            "The inverse of the best permutation is used: this is which example belongs to each noise",
            PAIRINGS["inverse"],
        ),
        Mistake(
            "distances without squares",
            "The sum of the distances is the least here; the cost is that of their squares",
            PAIRINGS["distances"],
        ),
    ),
    equivalents=(pair_within(by_enumeration),),
)


# 10. The target of MeanFlow. --------------------------------------------------------------------


def mean_flow_parts(z, r, t, weight, of_r, of_t):
    """u and the slopes of its tanh."""
    u = torch.tanh(z @ weight + r[:, None] * of_r + t[:, None] * of_t)
    return u, 1 - u**2


def mean_flow_target(z, r, t, v, weight, of_r, of_t):
    _, slope = mean_flow_parts(z, r, t, weight, of_r, of_t)
    return v - (t - r)[:, None] * slope * (v @ weight + of_t)


def mean_flow_by_jvp(z, r, t, v, weight, of_r, of_t):
    def u(z, r, t):
        return torch.tanh(z @ weight + r[:, None] * of_r + t[:, None] * of_t)

    _, total = torch.func.jvp(u, (z, r, t), (v, torch.zeros_like(r), torch.ones_like(t)))
    return v - (t - r)[:, None] * total


def target_with(rate, front=lambda u, v: v, length=lambda r, t: (t - r)[:, None]):
    """A mistake of `mean_flow_target`; `rate` gets u, slope, v, W and the factors of r and t."""

    def answer(z, r, t, v, weight, of_r, of_t):
        u, slope = mean_flow_parts(z, r, t, weight, of_r, of_t)
        return front(u, v) - length(r, t) * rate(u, slope, v, weight, of_r, of_t)

    return answer


def draw_mean_flow(g: torch.Generator, n: int, d: int) -> tuple[Tensor, ...]:
    r = uniform(g, 0.05, 0.35, n)
    t = r + uniform(g, 0.2, 0.6, n)
    return (
        0.5 * normal(g, n, d), r, t, signed(g, 0.5, 1.5, n, d),
        0.7 * normal(g, d, d), signed(g, 0.3, 0.9, d), signed(g, 0.3, 0.9, d),
    )  # fmt: skip


MEAN_FLOW_TARGET = Question(
    name="mean_flow_target",
    points=1.5,
    reference=mean_flow_target,
    draw=(
        lambda g: draw_mean_flow(g, integer(g, 4, 6), 3),
        lambda g: draw_mean_flow(g, integer(g, 2, 4), 4),
    ),
    mistakes=(
        Mistake(
            "sign",
            "The derivative along the trajectory is added; u = v − (t − r) du/dt",
            target_with(lambda u, s, v, w, a, b: -s * (v @ w + b)),
        ),
        Mistake(
            "transport term dropped",
            "The term v·∇u is missing: along a trajectory z changes with time as well",
            target_with(lambda u, s, v, w, a, b: s * b),
        ),
        Mistake(
            "time derivative dropped",
            "The term ∂u/∂t is missing: u depends on t directly as well",
            target_with(lambda u, s, v, w, a, b: s * (v @ w)),
        ),
        Mistake(
            "derivative by r",
            "The derivative is taken by r; r is held fixed while t changes",
            target_with(lambda u, s, v, w, a, b: s * (v @ w + a)),
        ),
        Mistake(
            "both times moved",
            "r moves with t in the derivative; it is held fixed",
            target_with(lambda u, s, v, w, a, b: s * (v @ w + a + b)),
        ),
        Mistake(
            "u along its own direction",
            "The derivative is taken along u; the trajectory moves with the velocity v",
            target_with(lambda u, s, v, w, a, b: s * (u @ w + b)),
        ),
        Mistake(
            "u for v in front",
            "The target begins with u; it begins with the velocity v",
            target_with(lambda u, s, v, w, a, b: s * (v @ w + b), front=lambda u, v: u),
        ),
        Mistake(
            "length of the interval dropped",
            "The factor t − r is missing",
            target_with(lambda u, s, v, w, a, b: s * (v @ w + b), length=lambda r, t: 1),
        ),
        Mistake(
            "vᵀ times the Jacobian",
            "This is v times the Jacobian from the left, as a backward pass gives it; the "
            "derivative along v is the "
            "Jacobian times v",
            target_with(lambda u, s, v, w, a, b: (s * v) @ w.T + s * b),
        ),
        Mistake(
            "velocity alone",
            "This is v: it is the target only where r = t",
            target_with(lambda u, s, v, w, a, b: 0 * u),
        ),
    ),
    equivalents=(mean_flow_by_jvp,),
)

QUESTIONS = (
    TRAINING_PAIR,
    MIXTURE_VELOCITY,
    VELOCITY_FROM_SCORE,
    BY_HAND,
    HEUN_SAMPLE,
    ODE_LOG_DENSITY,
    HUTCHINSON,
    PAIR_NOISE,
    AVERAGE_VELOCITY,
    MEAN_FLOW_TARGET,
    Measure(
        name="trained_velocity",
        points=4,
        measure="velocity_bits",
        functions=("velocity",),
        limit=2.2,
    ),
    Written(
        name="straight_paths",
        points=3,
        rubric=(
            "1 point: reports the experiment: with one step all samples are nearly one image, the "
            "mean of the "
            "training images, and the differences between samples grow with the number of steps "
            "towards those "
            "between digits. "
            "1 point: says why: the network learns the mean of ε − x given z. At time 1 z is the "
            "noise and tells "
            "nothing of x, so the velocity is ε − E[x], and one step leads to E[x]. The paths of "
            "single pairs are "
            "straight and cross; the velocity at a crossing is an average, so trajectories bend. "
            "1 point: says that the loss stops at a floor for the same reason, the variance of ε − "
            "x given z, "
            "so that neither its value nor straight paths tell how many steps are enough; and that "
            "steps are "
            "saved by another coupling of the pairs (reflow) or by average velocities."
        ),
    ),
)

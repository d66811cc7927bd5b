"""The equations on transport, couplings and one-step models, by independent routes."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.special import ndtri

from course_lib.schedules import LinearPath
from course_lib.solvers import integrate, time_grid
from tests.diffusion.exact import axis, legendre, line, normal

pytestmark = pytest.mark.usefixtures("float64")

CLOSE = {"atol": 1e-8, "rtol": 1e-8}
PATH = LinearPath()


def root_of(matrix):
    values, axes = torch.linalg.eigh(matrix)
    return axes @ values.sqrt().diag() @ axes.mT


# --- Gaussians ------------------------------------------------------------------------------------

SOURCE = torch.tensor([[1.0, 0.3], [0.3, 0.4]], dtype=torch.float64)
DATA = torch.tensor([[0.5, -0.2], [-0.2, 1.6]], dtype=torch.float64)


def flow_matrix(source, data):
    """Γ^{1/2} (Γ^{-1/2} C Γ^{-1/2})^{1/2} Γ^{-1/2}."""
    half = root_of(source)
    other = torch.linalg.inv(half)
    return half @ root_of(other @ data @ other) @ other


def optimal_matrix(source, data):
    half = root_of(source)
    other = torch.linalg.inv(half)
    return other @ root_of(half @ data @ half) @ other


def cholesky_matrix(source, data):
    first, second = (torch.linalg.cholesky(c) for c in (source, data))
    return second @ torch.linalg.inv(first)


@pytest.mark.equation(
    "eq-gaussian-transport",
    formula=flow_matrix,
    wrong={
        "rectified = optimal transport": optimal_matrix,
        "any map with the right covariance": cholesky_matrix,
        "roots of both": lambda source, data: root_of(data) @ torch.linalg.inv(root_of(source)),
        "covariance for its root": lambda source, data: data @ torch.linalg.inv(source),
    },
    implemented_by="course_lib.flow_matching.gaussian_pair_velocity",
)
def test_gaussian_transport(formula):
    """The ODE of the conditional expectation E[ε − x | z_t], of two Gaussian vectors."""
    eye = torch.eye(2)
    for source, data in ((SOURCE, DATA), (eye, DATA), (SOURCE, 2 * SOURCE @ SOURCE)):

        def field(z, t, source=source, data=data):
            mixed = t**2 * source + (1 - t) ** 2 * data
            return z @ torch.linalg.solve(mixed, t * source - (1 - t) * data)

        found = formula(source, data)
        ends = integrate(field, eye, time_grid(100), "rk4").mT
        torch.testing.assert_close(found, ends, atol=1e-6, rtol=1e-6)
        # The cost of the map against the least one, by its closed form.
        half = root_of(source)
        least = (source + data).trace() - 2 * root_of(half @ data @ half).trace()
        apart = eye - found
        excess = ((apart @ source @ apart.mT).trace() - least).item()
        if torch.allclose(source @ data, data @ source):
            assert abs(excess) < 1e-9
            torch.testing.assert_close(found, found.mT, **CLOSE)
        else:
            assert excess > 1e-3


# --- couplings of batches -------------------------------------------------------------------------

XS, PX = (-1.2, 0.3, 1.7), (0.5, 0.3, 0.2)
ES, PE = (-0.9, 0.1, 1.4), (0.25, 0.35, 0.4)


def best_pairing(x, e):
    """The permutation of x with the least squared distance to e."""
    return min(
        itertools.permutations(range(len(x))),
        key=lambda order: sum((x[i] - b) ** 2 for i, b in zip(order, e, strict=True)),
    )


def nearest_pairing(x, e):
    """For each noise the nearest example: one example may be taken twice."""
    return tuple(min(range(len(x)), key=lambda i: (x[i] - b) ** 2) for b in e)


def worst_pairing(x, e):
    return max(
        itertools.permutations(range(len(x))),
        key=lambda order: sum((x[i] - b) ** 2 for i, b in zip(order, e, strict=True)),
    )


def joint_of_batches(pairing, n):
    """The distribution of one pair of a batch of n, by enumeration of all batches."""
    joint = torch.zeros(len(XS), len(ES))
    for xs in itertools.product(range(len(XS)), repeat=n):
        for es in itertools.product(range(len(ES)), repeat=n):
            chance = math.prod(PX[i] for i in xs) * math.prod(PE[j] for j in es)
            order = pairing([XS[i] for i in xs], [ES[j] for j in es])
            for place, j in zip(order, es, strict=True):
                joint[xs[place], j] += chance / n
    return joint


@pytest.mark.equation(
    "eq-coupling",
    formula=best_pairing,
    wrong={
        "nearest example, taken more than once": nearest_pairing,
        "dearest pairing": worst_pairing,
        "no pairing": lambda x, e: tuple(range(len(x))),
        "one example for the batch": lambda x, e: (0,) * len(x),
    },
    implemented_by="course_lib.flow_matching.optimal_pairing",
)
def test_coupling(formula):
    """Marginals stay, and the cost falls with the batch, down to that of the linear programme."""
    cost = torch.tensor([[(a - b) ** 2 for b in ES] for a in XS])
    rows = np.kron(np.eye(3), np.ones((1, 3)))
    columns = np.kron(np.ones((1, 3)), np.eye(3))
    least = linprog(
        cost.flatten().numpy(), A_eq=np.vstack([rows, columns]), b_eq=np.array(PX + PE)
    ).fun
    costs = []
    for n in (1, 2, 3):
        joint = joint_of_batches(formula, n)
        torch.testing.assert_close(joint.sum(1), torch.tensor(PX), **CLOSE)
        torch.testing.assert_close(joint.sum(0), torch.tensor(PE), **CLOSE)
        costs.append((joint * cost).sum().item())
    independent = (torch.tensor(PX)[:, None] * torch.tensor(PE) * cost).sum().item()
    assert costs[0] == pytest.approx(independent)
    assert costs[0] > costs[1] + 1e-3
    assert costs[1] > costs[2] + 1e-3
    assert costs[2] > least


def class_noise(share):
    """Mean of the noise that the upper class gets, if the pairing does not know the classes."""
    return normal(torch.tensor(ndtri(1 - share)), 0.0, torch.tensor(1.0)) / share


@pytest.mark.equation(
    "eq-class-coupling",
    formula=class_noise,
    wrong={
        "the noise of a class is standard normal": lambda share: torch.tensor(0.0),
        "not divided by the share": lambda share: share * class_noise(share),
        "the other class": lambda share: -class_noise(1 - share),
        "quantile for the mean": lambda share: torch.tensor(ndtri(1 - share)),
    },
    implemented_by="course_lib.flow_matching.paired",
)
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_class_coupling(formula, share):
    """Sorted examples and sorted noise, in the limit of a large batch: quantile to quantile."""
    n = 400_000
    levels = (np.arange(n) + 0.5) / n
    noise = torch.from_numpy(ndtri(levels))
    examples = torch.where(torch.from_numpy(levels) < 1 - share, -2.0, 3.0)
    examples = examples[torch.randperm(n, generator=torch.Generator().manual_seed(0))].sort().values
    mean = noise[examples > 0].mean()
    torch.testing.assert_close(formula(share).double(), mean, atol=1e-4, rtol=0)


# --- reflow ---------------------------------------------------------------------------------------


@functools.cache
def floor_and_bend(n=2001):
    """∫ E Var(ε − x | z_t) dt, and how far the trajectories are from straight lines."""
    mixture = line()
    noise, step = axis(7.0, n)
    chance = normal(noise, 0.0, torch.tensor(1.0)) * step
    times = time_grid(60)
    start, states = noise[:, None], [noise[:, None]]
    for pair in times.unfold(0, 2, 1):
        middle = torch.stack([pair[0], pair.mean(), pair[1]])
        start = integrate(lambda z, t: mixture.velocity(z, t, PATH), start, middle, "rk4")
        states.append(start)
    straight = noise - states[-1][:, 0]
    floor, bend = [], []
    for t, z in zip(times, states, strict=True):
        v = mixture.velocity(z, t, PATH)[:, 0]
        # Along the ODE z_t has the density p_t, so a mean over the noise is a mean over p_t. With
        # z = (1 − t)x + tε the variance of ε − x given z is that of x over t², or of ε over (1 − t)².
        bend.append((chance * (v - straight) ** 2).sum())
        if t > 0:
            spread = mixture.posterior_variance(z, 1 - t, t) / t**2
            floor.append((chance * spread).sum())
        else:
            # At time 0 x is z itself, and ε is independent of it.
            floor.append(torch.tensor(1.0))
    weights = simpson(len(times))
    return weights @ torch.stack(floor), weights @ torch.stack(bend), states[-1][:, 0]


def simpson(points):
    weights = torch.ones(points)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    return weights / (3 * (points - 1))


@pytest.mark.equation(
    "eq-reflow",
    formula=lambda floor, bend: floor + bend,
    wrong={
        "new noise for each pair": lambda floor, bend: torch.tensor(0.0),
        "floor only": lambda floor, bend: floor,
        "bending only": lambda floor, bend: bend,
        "the cost rises": lambda floor, bend: -floor - bend,
    },
    implemented_by="course_lib.flow_matching.reflow_pairs",
)
def test_reflow(formula):
    """Both costs: that of independent pairs, and by quantiles that of the pairs of the flow."""
    mixture = line()
    floor, bend, ends = floor_and_bend()
    second = mixture.covariance.squeeze() + mixture.mean.squeeze() ** 2
    independent = second + 1
    # On the line the flow keeps the order: quantile to quantile.
    x, step = axis(9.0, 60001)
    share = (mixture.log_prob(x[:, None]).exp() * step).cumsum(0) - 0.5 * mixture.log_prob(
        x[:, None]
    ).exp() * step
    noise, de = axis(7.0, 2001)
    levels = 0.5 * (1 + torch.erf(noise / 2**0.5))
    places = torch.from_numpy(np.interp(levels.numpy(), share.numpy(), x.numpy()))
    chance = normal(noise, 0.0, torch.tensor(1.0)) * de
    after = (chance * (places - noise) ** 2).sum()
    inner = noise.abs() < 4
    torch.testing.assert_close(ends[inner], places[inner], atol=1e-4, rtol=0)
    torch.testing.assert_close(formula(floor, bend), independent - after, atol=1e-4, rtol=0)


# --- average velocities and consistency -----------------------------------------------------------

C = 0.6


def spread(t):
    return (1 - t) ** 2 * C + t**2


def average(z, r, t):
    """The mean velocity between two times along the trajectory of N(0, C): a chord."""
    return (1 - (spread(r) / spread(t)).sqrt()) * z / (t - r)


def instantaneous(z, t):
    return (t - (1 - t) * C) / spread(t) * z


def identity(u, v, along, dt, span):
    """v − (t − r) d/dt u, the derivative along the trajectory."""
    return v - span * (along + dt)


@pytest.mark.equation(
    "eq-mean-flow",
    formula=identity,
    wrong={
        "sign": lambda u, v, along, dt, span: v + span * (along + dt),
        "transport term dropped": lambda u, v, along, dt, span: v - span * dt,
        "derivative in time dropped": lambda u, v, along, dt, span: v - span * along,
        "span dropped": lambda u, v, along, dt, span: v - (along + dt),
    },
    implemented_by="course_lib.flow_matching.mean_flow_target",
)
@pytest.mark.parametrize(("r", "t"), [(0.2, 0.7), (0.0, 0.9)])
def test_mean_flow(formula, r, t):
    """u by its definition, an integral of velocities along the trajectory; derivatives by jvp."""
    z, r, t = torch.tensor([0.8, -1.3]), torch.tensor(r), torch.tensor(t)

    def by_definition(z, t):
        times, weights = legendre(0.0, 1.0, 40)
        times = r + (t - r) * times
        places = z[:, None] * (spread(times) / spread(t)).sqrt()
        return (weights * instantaneous(places, times)).sum(1)

    v = instantaneous(z, t)
    u, along = torch.func.jvp(lambda z: by_definition(z, t), (z,), (v,))
    _, dt = torch.func.jvp(lambda t: by_definition(z, t), (t,), (torch.ones(()),))
    torch.testing.assert_close(u, average(z, r, t), **CLOSE)
    torch.testing.assert_close(formula(u, v, along, dt, t - r), u, **CLOSE)


def consistency(z, t):
    return (C / spread(t)).sqrt() * z


@pytest.mark.equation(
    "eq-consistency",
    formula=consistency,
    wrong={
        "the posterior mean": lambda z, t: (1 - t) * C / spread(t) * z,
        "no scale": lambda z, t: z,
        "variance for its root": lambda z, t: C / spread(t) * z,
        "the boundary only": lambda z, t: (1 - t + t * 0.3) * z,
    },
    implemented_by="course_lib.flow_matching.consistency_function",
)
def test_consistency(formula):
    """Constant along trajectories, the identity at time 0, and what the solver arrives at."""
    z = torch.tensor([0.8, -1.3])
    torch.testing.assert_close(formula(z, torch.tensor(0.0)), z, **CLOSE)
    for t in (torch.tensor(0.35), torch.tensor(0.9)):
        v = instantaneous(z, t)
        _, change = torch.func.jvp(formula, (z, t), (v, torch.ones(())))
        torch.testing.assert_close(change, torch.zeros(2), **CLOSE)
        end = integrate(instantaneous, z[:, None], time_grid(80, t.item(), 0.0), "rk4")
        torch.testing.assert_close(formula(z, t), end[:, 0], atol=1e-7, rtol=0)
        torch.testing.assert_close(formula(z, t), z - t * average(z, torch.zeros(()), t), **CLOSE)


def skip_weights(t, first, deviation=0.5):
    """Factors of the latent and of the network."""
    return (
        deviation**2 / ((t - first) ** 2 + deviation**2),
        deviation * (t - first) / (deviation**2 + t**2) ** 0.5,
    )


@pytest.mark.equation(
    "eq-consistency-boundary",
    formula=skip_weights,
    wrong={
        "skip weight that ignores the first time": lambda t, first: (
            skip_weights(t, 0.0)[0],
            skip_weights(t, first)[1],
        ),
        "output weight that ignores the first time": lambda t, first: (
            skip_weights(t, first)[0],
            skip_weights(t, 0.0)[1],
        ),
        "both of the denoiser": lambda t, first: skip_weights(t, 0.0),
        "exchanged": lambda t, first: skip_weights(t, first)[::-1],
    },
    implemented_by="course_lib.flow_matching.consistency_weights",
)
def test_consistency_boundary(formula):
    """Whatever the network says, the first time is left as it is; later times are not."""
    z, first = torch.tensor([0.8, -1.3]), 0.05
    for network in (z.sin(), 40 * z, torch.tensor([-7.0, 3.0])):
        skip, out = formula(torch.tensor(first), first)
        torch.testing.assert_close(skip * z + out * network, z, **CLOSE)
        skip, out = formula(torch.tensor(0.9), first)
        assert out > 0.1
        assert not torch.allclose(skip * z + out * network, z)


def test_a_straight_coupling_need_not_be_the_cheapest():
    """Reflow leaves the pairs of two Gaussians as they are, though another map costs less."""
    matrix = flow_matrix(SOURCE, DATA)
    for t in (0.0, 0.3, 0.7, 1.0):
        # z_t = ((1 − t) A + t I) ε is invertible: ε − x is a function of z_t, and nothing is averaged.
        mixed = (1 - t) * matrix + t * torch.eye(2)
        assert torch.linalg.eigvals(mixed).real.min() > 0.1

"""The answers and slips of the questions once more, by the library, on grids or with exact fields."""

import torch
from torch import tensor

from course_lib.flow_matching import (
    conditional_velocity,
    gaussian_average_velocity,
    gaussian_flow_map,
    gaussian_loss_floor,
    noise_loss_weight,
    velocity_from_score,
)
from course_lib.mixtures import GaussianMixture
from course_lib.schedules import LinearPath
from course_lib.solvers import exact_divergence, integrate, time_grid

PATH = LinearPath()


def layers_become_a_trace(a, b):
    field = torch.diag(tensor([a, b]))
    _, trace = exact_divergence(lambda z, t: z @ field, torch.ones(1, 2), tensor(0.0))
    one_block = torch.linalg.slogdet(torch.eye(2) + field).logabsdet
    determinant = torch.linalg.matrix_exp(field).det()
    return trace, [one_block, determinant, field.det(), trace - (field @ field).trace() / 2]


def mean_velocity_of_two_pairs(t, z, r):
    def conditional(x):
        noise = (z - (1 - t) * x) / t
        args = (tensor([[float(v)]]) for v in (x, noise))
        return conditional_velocity(PATH, *args, tensor(t)).item()

    mean = r * conditional(1) + (1 - r) * conditional(-1)
    unweighted = (conditional(1) + conditional(-1)) / 2
    return mean, [conditional(1), unweighted, -mean, mean * t / (1 - t)]


def floor_of_the_loss_of_a_gaussian(a, b):
    answer = gaussian_loss_floor(tensor([a, b]))
    squared = gaussian_loss_floor(tensor([a**2, b**2]))
    return answer, [0, squared, answer / 2, gaussian_loss_floor(tensor([a + b]))]


def velocity_of_the_score(t, z, s):
    def velocity(score):
        return velocity_from_score(PATH, tensor([[score]]), tensor([[z]]), tensor(t))

    answer = velocity(s)
    return answer, [-answer, velocity(t * s), velocity(-s), -t * s]


def two_losses_two_weights(u, v):
    def weight(level):
        # The time at which the linear path has this log signal-to-noise ratio.
        t = torch.sigmoid(tensor(-level / 2))
        assert torch.isclose(PATH.log_snr(t), tensor(float(level)))
        return noise_loss_weight(PATH, t).item()

    ratio = weight(u) / weight(v)
    return ratio, [1 / ratio, ratio**2, 1]


def one_euler_step(p, e):
    data = GaussianMixture(
        tensor([p, 1 - p]), tensor([[-1.0], [3.0]]), torch.full((2, 1, 1), 1e-12)
    )
    start = tensor([[e]])

    def field(z, t):
        return data.velocity(z, t, PATH)

    end = integrate(field, start, time_grid(1, 1, 0), "euler")
    return end, [3, field(start, tensor(1.0)), e, (-1 + 3) / 2]


def richardson_by_hand(a, b):
    def extrapolated(order):
        # The limit and the constant of an error C h^p, from the two runs.
        steps = tensor([[1.0, 1.0], [1.0, 0.5**order]])
        return torch.linalg.solve(steps, tensor([a, b]))[0]

    answer = extrapolated(2)
    return answer, [extrapolated(1), 2 * b - answer, b + 0.75 * (answer - b), (a + b) / 2]


def gaussian_flow_and_transport(m, c):
    # Expectations over the noise, on a grid of normal quantiles by Gauss and Hermite.
    nodes, weights = (tensor(v) for v in _hermite())
    ends = gaussian_flow_map(
        PATH, nodes[:, None], tensor(1.0), tensor(0.0), tensor([m]), tensor([c])
    )
    cost = (weights * (ends[:, 0] - nodes) ** 2).sum()
    wide = (weights * (m + c * nodes - nodes) ** 2).sum()
    x = ends[:, 0]
    independent = (weights[:, None] * weights * (x[:, None] - nodes) ** 2).sum()
    return cost, [wide, independent, m**2, cost.sqrt()]


def _hermite():
    from numpy.polynomial.hermite_e import hermegauss

    nodes, weights = hermegauss(20)
    return nodes.tolist(), (weights / weights.sum()).tolist()


def average_velocity_of_a_gaussian(c, e):
    def average(variance):
        args = (tensor([[e]]), tensor(0.0), tensor(1.0), tensor([0.0]))
        return gaussian_average_velocity(*args, tensor([variance]))

    answer = average(c)
    end = gaussian_flow_map(
        PATH, tensor([[e]]), tensor(1.0), tensor(0.0), tensor([0.0]), tensor([c])
    )
    return answer, [e, end, -answer, average(c**2)]


def flattery_of_euler(h, a, b):
    field = torch.diag(tensor([a, b]))
    exact = torch.linalg.slogdet(torch.eye(2) + h * field).logabsdet
    _, trace = exact_divergence(lambda z, t: z @ field, torch.ones(1, 2), tensor(0.0))
    return h * trace - exact, [exact - h * trace, 0, h * trace]


ROUTES = {
    "layers-become-a-trace": layers_become_a_trace,
    "mean-velocity-of-two-pairs": mean_velocity_of_two_pairs,
    "floor-of-the-loss-of-a-gaussian": floor_of_the_loss_of_a_gaussian,
    "velocity-from-the-score": velocity_of_the_score,
    "two-losses-two-weights": two_losses_two_weights,
    "one-euler-step": one_euler_step,
    "richardson-by-hand": richardson_by_hand,
    "gaussian-flow-and-transport": gaussian_flow_and_transport,
    "average-velocity-of-a-gaussian": average_velocity_of_a_gaussian,
    "flattery-of-euler": flattery_of_euler,
}

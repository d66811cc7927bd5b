"""The answers and slips of the chapter's questions once more, by the library, autograd or counting."""

import itertools
import math

import torch
from torch import tensor
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
)

from course_lib.attention import attention_weights, causal_mask
from course_lib.autoregressive.diagonal_bilstm import skew
from course_lib.autoregressive.fvsbn import FVSBN
from course_lib.autoregressive.masks import pixelcnn_mask
from course_lib.autoregressive.wavenet import receptive_field
from course_lib.distributions import discretized_logistic_log_mass
from course_lib.divergences import kl_discrete
from course_lib.evaluation import bits_per_dim


def a_small_difference(D, a, b):
    first, second = torch.full((round(D),), -a), torch.full((round(D),), -b)
    difference = first.sum() - second.sum()
    return difference, [
        first.mean() - second.mean(),
        -bits_per_dim(difference, (1,)),
        (second / first).log().sum(),
    ]


def numbers_of_an_fvsbn(D):
    model = FVSBN((1, 1, round(D)), 2)
    below, biases = model.mask.count_nonzero(), len(model.bias)
    diagonal, entries = len(model.mask), model.mask.numel()
    images = 2**biases
    return below + biases, [below, below + diagonal + biases, entries + biases, images - 1]


def steps(kind, kernel_size=3):
    """What one layer reads: rows and columns from its own place."""
    mask = pixelcnn_mask(kind, kernel_size)[0, 0]
    return [(r - kernel_size // 2, c - kernel_size // 2) for r, c in mask.nonzero().tolist()]


def seen(height, width, at):
    """The pixels on which the pixel `at` depends in a network of any depth."""
    found, new = set(), {(at[0] + r, at[1] + c) for r, c in steps("A")}
    while new := {(r, c) for r, c in new if 0 <= r < height and 0 <= c < width} - found:
        found |= new
        new = {(r + up, c + right) for r, c in new for up, right in steps("B")}
    return found


def pixels_in_the_blind_spot(W, r, c):
    W, r, c = round(W), round(r), round(c)
    past = {(i, j) for i in range(r + 1) for j in range(W) if (i, j) < (r, c)}
    unseen = past - seen(r + 1, W, (r, c))
    right = {(i, j) for i, j in past if j > c}
    # With the places on the diagonal upwards and to the right; with those of a whole rectangle.
    wedge = {(i, j) for i, j in right if j - c >= r - i}
    widest = len({j for i, j in unseen})
    tallest = len({i for i, j in unseen})
    return len(unseen), [len(wedge), len(right), 0, (widest + 1) * tallest]


def pixels_of_one_step(H, W, t):
    H, W, t = round(H), round(W), round(t)
    columns = skew(torch.ones(H, W, 1)).sum((0, 2))
    wide = skew(torch.ones(t + 1, W + t, 1)).sum((0, 2))
    return columns[t], [wide[t], columns.max(), columns[t - 1]]


def mass_of_the_darkest_level(m, s):
    def log_mass(level, levels):
        mean, log_scale = tensor(m), tensor(s).log()
        return discretized_logistic_log_mass(tensor(level), mean, log_scale, levels)

    logistic = TransformedDistribution(
        Uniform(0.0, 1.0), [SigmoidTransform().inv, AffineTransform(m, s)]
    )
    answer = log_mass(0, 3).exp()
    others = log_mass(1, 3).exp() + log_mass(2, 3).exp()
    return answer, [
        answer - logistic.cdf(tensor(-1.5)),
        logistic.cdf(tensor(-1.0)),
        logistic.cdf(tensor(-1 / 3)),
        others,
    ]


def a_triangular_map(c, x):
    def uniform(point):
        first = Uniform(0.0, 1.0).cdf(point[0])
        return torch.stack([first, point[1] / (c * point[0])])

    point = tensor([x, 0.3 * c * x])
    jacobian = torch.autograd.functional.jacobian(uniform, point)
    log_det = torch.linalg.slogdet(jacobian).logabsdet
    inverse = torch.linalg.slogdet(jacobian.inverse()).logabsdet
    base = Uniform(torch.zeros(2), torch.ones(2)).log_prob(uniform(point)).sum()
    at_one = tensor([1.0, 0.3 * c])
    last = torch.linalg.slogdet(torch.autograd.functional.jacobian(uniform, at_one)).logabsdet
    return log_det, [inverse, base, last, log_det.exp()]


def dilations_in_cycles(m, c):
    m, c = round(m), round(c)
    cycle = [2**layer for layer in range(m)]
    answer = receptive_field(cycle * c)
    doubling = [2**layer for layer in range(m * c)]
    return answer, [
        c * receptive_field(cycle),
        answer - receptive_field([]),
        receptive_field(doubling),
        receptive_field([1] * m * c),
    ]


def kl_of_a_copying_chain(D, a, b):
    # Over all sequences.
    def chain(copies):
        p = []
        for x in itertools.product((0, 1), repeat=round(D)):
            same = [copies if x[i] == x[i - 1] else 1 - copies for i in range(1, len(x))]
            p.append(0.5 * math.prod(same))
        return tensor(p)

    answer = kl_discrete(chain(a), chain(b))
    one = torch.distributions.kl_divergence(Bernoulli(tensor(a)), Bernoulli(tensor(b)))
    total_variation = (tensor([a, 1 - a]) - tensor([b, 1 - b])).abs().sum() / 2
    return answer, [
        answer + one,
        kl_discrete(chain(b), chain(a)),
        one,
        (D - 1) * total_variation,
    ]


def passes_that_suffice(H, W):
    H, W = round(H), round(W)

    def longest(moves, height=H, width=W):
        """Values on the longest chain of dependences; a pixel's own place is no dependence."""
        right = torch.zeros(height, width, dtype=torch.long)
        for r, c in itertools.product(range(height), range(width)):
            read = [(r + up, c + side) for up, side in moves]
            before = [right[i, j] for i, j in read if 0 <= i < height and 0 <= j < width]
            right[r, c] = 1 + max(before, default=0)
        return right

    moves = steps("A")
    passes = longest(moves)[-1, -1]
    raster = [(-1, side) for side in range(-W, W)] + [(0, -side) for side in range(1, W)]
    return passes, [
        longest(raster)[-1, -1],
        longest([(-1, 0), (0, -1)])[-1, -1],
        longest(moves, W, H)[-1, -1],
        longest(moves, H + 1, W)[-1, -1],
    ]


def weight_of_the_second_place(d, b, e):
    def weight(scale=1.0, causal=True, own=True):
        # Keys whose products with the query are 0, b, 0 and e; the query is the first unit vector.
        keys = torch.zeros(1, 4, round(d))
        keys[0, :, 0] = tensor([0.0, b, 0.0, e]) * scale
        queries = torch.zeros(1, 4, round(d))
        queries[..., 0] = 1
        if not own:
            keys[0, 2, 0] = -1e9
        return attention_weights(queries, keys, causal=causal)[0, 2, 1]

    root = math.sqrt(d)
    slips = [weight(root), weight(1 / root), weight(causal=False), weight(own=False)]
    return weight(), slips


def scores_of_a_cached_sampler(D):
    steps = range(1, round(D) + 1)
    read = sum(int(causal_mask(step)[-1].sum()) for step in steps)
    again = sum(step**2 for step in steps)
    return read, [len(steps), len(steps) ** 2, again, read - len(steps)]


def estimate_from_one_mask(D, m, a):
    # The place in the order is uniform, and each of the masked pixels is next with equal probability.
    next_pixel = torch.full((round(m),), a).mean()
    bound = sum(next_pixel for _ in range(round(D)))
    masked = torch.full((round(m),), a).sum()
    return bound, [masked, next_pixel, masked * m / D, bound / m]


ROUTES = {
    "weight-of-the-second-place": weight_of_the_second_place,
    "scores-of-a-cached-sampler": scores_of_a_cached_sampler,
    "estimate-from-one-mask": estimate_from_one_mask,
    "a-small-difference": a_small_difference,
    "numbers-of-an-fvsbn": numbers_of_an_fvsbn,
    "pixels-in-the-blind-spot": pixels_in_the_blind_spot,
    "pixels-of-one-step": pixels_of_one_step,
    "mass-of-the-darkest-level": mass_of_the_darkest_level,
    "a-triangular-map": a_triangular_map,
    "dilations-in-cycles": dilations_in_cycles,
    "kl-of-a-copying-chain": kl_of_a_copying_chain,
    "passes-that-suffice": passes_that_suffice,
}

"""The flow assignment: references, probes, known mistakes and other right forms.

Not given to students: what they get is in ``student/``.
"""

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from course_lib.grading import Measure, Mistake, Question, Written
from course_lib.grading.draws import integer, normal, number, signed, uniform

TITLE = "Normalizing flows"
LOG_2PI = math.log(2 * math.pi)


# 1. The density of a transformed variable, as an expression. ------------------------------------


def draw_points(g: torch.Generator) -> tuple[Tensor, ...]:
    # Points on both sides of m and on both sides of 0, scales below 1 and above it.
    scale = torch.cat([uniform(g, 1.4, 2.5, 3), uniform(g, 0.4, 0.7, 3)])
    side, sign = torch.tensor([[1.0, -1, -1, 1, -1, 1], [1, 1, -1, -1, -1, 1]]).double()
    m = sign * uniform(g, 0.3, 0.9, 6)
    return m + side * scale * uniform(g, 0.4, 1.5, 6), m, scale


LOG_DENSITY = Question(
    name="log_density",
    points=2,
    kind="expression",
    symbols=("x", "m", "s"),
    reference="-log(2*pi)/2 - asinh((x - m)/s)**2/2 - log(s**2 + (x - m)**2)/2",
    draw=draw_points,
    mistakes=(
        Mistake(
            "sign of the log-determinant",
            "The log-derivative is added with the wrong sign: where f stretches, x is dense",
            "-log(2*pi)/2 - asinh((x - m)/s)**2/2 + log(s**2 + (x - m)**2)/2",
        ),
        Mistake(
            "no Jacobian",
            "This is log p_Z(f(x)) alone: the derivative of f is missing, so it does not integrate to 1",
            "-log(2*pi)/2 - asinh((x - m)/s)**2/2",
        ),
        Mistake(
            "map in the wrong direction",
            "p_Z is evaluated at m + s·sinh(x), which is the sampling map; it needs z = f(x)",
            "-log(2*pi)/2 - (m + s*sinh(x))**2/2 - log(s**2 + (x - m)**2)/2",
        ),
        Mistake(
            "Jacobian of the inverse at x",
            "The derivative of the sampling map is taken at x, where z = f(x) belongs",
            "-log(2*pi)/2 - asinh((x - m)/s)**2/2 - log(s*cosh(x))",
        ),
        Mistake(
            "scale dropped from the derivative",
            "The derivative of (x − m)/s is missing: the inner 1/s of the chain rule",
            "-log(2*pi)/2 - asinh((x - m)/s)**2/2 - log(s**2 + (x - m)**2)/2 + log(s)",
        ),
        Mistake(
            "constant dropped",
            "The −½ log 2π of the normal density is missing",
            "-asinh((x - m)/s)**2/2 - log(s**2 + (x - m)**2)/2",
        ),
        Mistake(
            "half dropped",
            "The derivative holds a square root; its ½ is missing in front of the logarithm",
            "-log(2*pi)/2 - asinh((x - m)/s)**2/2 - log(s**2 + (x - m)**2)",
        ),
    ),
    equivalents=(
        "-log(2*pi)/2 - asinh((x - m)/s)**2/2 - log(s*cosh(asinh((x - m)/s)))",
        "log(exp(-asinh((x - m)/s)**2/2) / sqrt(2*pi) / (s*sqrt(1 + ((x - m)/s)**2)))",
        "-(log(2*pi) + log((x-m)/s + sqrt(1 + (x-m)**2/s**2))**2 + log(s**2 + x**2 - 2*m*x + m**2))/2",
    ),
)


# 2. Bits per dimension of one image, by hand. ---------------------------------------------------


def bits_table(
    *,
    levels: int = 5,
    offset: float = math.log2(5),
    jacobian: bool = True,
    slope: bool = True,
    noise: bool = True,
    sign: int = 1,
    unit: float = math.log(2),
) -> dict[str, float]:
    """x = (1, 4, 2) of five levels, u = (¼, ½, ¾), margin 0.15, a standard normal on the logits."""
    alpha, u = 0.15, torch.tensor([0.25, 0.5, 0.75]).double()
    y = (torch.tensor([1.0, 4.0, 2.0]).double() + (u if noise else 0)) / levels
    s = alpha + (1 - 2 * alpha) * y
    log_det = -(s.log() + (1 - s).log()).sum().item()
    log_det += 3 * math.log(1 - 2 * alpha) if slope else 0
    log_det *= sign
    log_density = -0.5 * (LOG_2PI + s.logit() ** 2).sum().item() + (log_det if jacobian else 0)
    return {
        "logit_log_det": log_det,
        "log_density": log_density,
        "bits_per_dim": offset - log_density / (3 * unit),
    }


BITS = Question(
    name="bits",
    points=2,
    kind="value",
    reference=bits_table(),
    mistakes=(
        Mistake(
            "K − 1 for K",
            "y is divided by K − 1: a level owns an interval of width 1/K, and K = 5 here",
            bits_table(levels=4, offset=2),
        ),
        Mistake(
            "logit's Jacobian dropped",
            "log_density lacks the log-determinant of the logit: it is the density of ℓ, not that of y",
            bits_table(jacobian=False),
        ),
        Mistake(
            "log(1 − 2α) dropped",
            "The squeeze by 1 − 2α has a derivative too, once for each dimension",
            bits_table(slope=False),
        ),
        Mistake(
            "sign of the logit's Jacobian",
            "logit_log_det is that of the inverse map: the logit stretches, so its log-determinant grows at "
            "the ends",
            bits_table(sign=-1),
        ),
        Mistake(
            "offset dropped",
            "The division by K has a Jacobian: bits/dim lacks the offset of log₂ K",
            bits_table(offset=0),
        ),
        Mistake(
            "offset in nats",
            "The offset is log K in nats and is added to bits",
            bits_table(offset=math.log(5)),
        ),
        Mistake(
            "nats/dim",
            "bits_per_dim is in nats per dimension: divide by log 2",
            bits_table(offset=math.log(5), unit=1),
        ),
        Mistake(
            "bits per image",
            "bits_per_dim is in bits for the whole image: divide by the number of dimensions",
            bits_table() | {"bits_per_dim": 3 * bits_table()["bits_per_dim"]},
        ),
        Mistake(
            "no noise",
            "The noise u is not added: y = (x + u)/K, a point of the level's interval",
            bits_table(noise=False),
        ),
        Mistake(
            "sign of the bits",
            "The sign of the log-density is flipped in bits_per_dim: a likelier image needs fewer bits",
            bits_table() | {"bits_per_dim": 2 * math.log2(5) - bits_table()["bits_per_dim"]},
        ),
    ),
    equivalents=(
        {name: torch.tensor(value) for name, value in bits_table().items()},
        {name: round(value, 5) for name, value in bits_table().items()},
        {name: float(f"{value:.5g}") for name, value in bits_table().items()},
    ),
)


# 3. An element-wise layer that skews and stretches tails. ---------------------------------------


def sinh_arcsinh(x, log_tail, skew):
    inner = log_tail.exp() * torch.asinh(x) + skew
    log_slope = torch.log(torch.cosh(inner)) + log_tail - 0.5 * torch.log(1 + x**2)
    return torch.sinh(inner), log_slope.sum(1)


def sinh_arcsinh_by_autograd(x, log_tail, skew):
    x = x.clone().requires_grad_()
    z = torch.sinh(log_tail.exp() * torch.log(x + torch.sqrt(x**2 + 1)) + skew)
    (slope,) = torch.autograd.grad(z.sum(), x)
    return z.detach(), slope.log().sum(-1)


def sinh_arcsinh_by_loop(x, log_tail, skew):
    z, log_det = torch.zeros_like(x), torch.zeros(len(x), dtype=x.dtype)
    for n in range(x.shape[0]):
        for d in range(x.shape[1]):
            inner = math.exp(log_tail[d]) * math.asinh(x[n, d]) + skew[d].item()
            z[n, d] = math.sinh(inner)
            # cosh² = 1 + sinh²
            log_det[n] += 0.5 * math.log((1 + z[n, d] ** 2) / (1 + x[n, d] ** 2))
            log_det[n] += log_tail[d]
    return z, log_det


def with_log_det(change):
    """A mistake of `sinh_arcsinh` that concerns the log-determinant alone."""

    def answer(x, log_tail, skew):
        z, log_det = sinh_arcsinh(x, log_tail, skew)
        return z, change(x, log_tail, skew, log_det)

    return answer


def log_slope(x, log_tail, skew):
    inner = log_tail.exp() * torch.asinh(x) + skew
    return torch.log(torch.cosh(inner)) + log_tail - 0.5 * torch.log(1 + x**2)


def tail_slope(x, factor, skew, log_factor):
    """log_det for a given factor of arcsinh, whose logarithm is taken for `log_factor`."""
    inner = factor * torch.asinh(x) + skew
    return (torch.log(torch.cosh(inner)) + log_factor - 0.5 * torch.log(1 + x**2)).sum(1)


def draw_skewed(g: torch.Generator, n: tuple[int, int], d: int) -> tuple[Tensor, ...]:
    # Tails that are made heavier and one that is made lighter, so that the factors do not cancel.
    log_tail = torch.cat([uniform(g, 0.3, 0.6, d - 1), -uniform(g, 0.1, 0.2, 1)])
    log_tail = log_tail[torch.randperm(d, generator=g)]
    return signed(g, 0.3, 1.5, integer(g, *n), d), log_tail, signed(g, 0.2, 0.8, d)


SINH_ARCSINH = Question(
    name="sinh_arcsinh",
    points=1.5,
    reference=sinh_arcsinh,
    draw=(partial(draw_skewed, n=(2, 4), d=5), partial(draw_skewed, n=(4, 7), d=3)),
    mistakes=(
        Mistake(
            "batch reduced",
            "log_det is summed over the batch as well: it must keep one value per example, shape (N,)",
            with_log_det(lambda x, a, b, log_det: log_det.sum()),
        ),
        Mistake(
            "dimensions not summed",
            "log_det has one value per entry: the determinant of a diagonal matrix is their product",
            with_log_det(lambda x, a, b, log_det: log_slope(x, a, b)),
        ),
        Mistake(
            "mean over dimensions",
            "The log-slopes are averaged over the dimensions; the log-determinant is their sum",
            with_log_det(lambda x, a, b, log_det: log_det / x.shape[1]),
        ),
        Mistake(
            "sign",
            "This is the log-determinant of the inverse: its sign is flipped",
            with_log_det(lambda x, a, b, log_det: -log_det),
        ),
        Mistake(
            "inner factor dropped",
            "The chain rule's factor exp(log_tail) is missing in the slope",
            with_log_det(lambda x, a, b, log_det: log_det - a.sum()),
        ),
        Mistake(
            "derivative of arcsinh dropped",
            "The derivative of arcsinh, taken at x, is missing in the slope",
            with_log_det(lambda x, a, b, log_det: log_det + 0.5 * torch.log(1 + x**2).sum(1)),
        ),
        Mistake(
            "slope without logarithm",
            "The slopes themselves are summed; the log-determinant sums their logarithms",
            with_log_det(lambda x, a, b, log_det: log_slope(x, a, b).exp().sum(1)),
        ),
        Mistake(
            "log_tail as factor",
            "log_tail itself multiplies arcsinh; the factor is its exponential",
            lambda x, a, b: (
                torch.sinh(a * torch.asinh(x) + b),
                tail_slope(x, a, b, a.abs().log()),
            ),
        ),
        Mistake(
            "log_tail as factor of z",
            "log_tail itself multiplies arcsinh, although its slope counts as exp(log_tail); the factor is "
            "its exponential",
            lambda x, a, b: (torch.sinh(a * torch.asinh(x) + b), tail_slope(x, a, b, a)),
        ),
    ),
    equivalents=(sinh_arcsinh_by_autograd, sinh_arcsinh_by_loop),
)


# 4. The inverse of a coupling behind a permutation. ---------------------------------------------


def coupling_inverse(z, kept, permutation, to_scale, to_shift):
    y = z[:, permutation.argsort()]
    read = y * kept
    s, t = torch.tanh(read @ to_scale), read @ to_shift
    x = torch.where(kept, y, (y - t) * (-s).exp())
    return x, -(s * ~kept).sum(1)


def coupling_inverse_by_parts(z, kept, permutation, to_scale, to_shift):
    y = torch.empty_like(z)
    y[:, permutation] = z
    a, b = kept.nonzero()[:, 0], (~kept).nonzero()[:, 0]
    s = torch.tanh(y[:, a] @ to_scale[a][:, b])
    x = y.clone()
    x[:, b] = (y[:, b] - y[:, a] @ to_shift[a][:, b]) / s.exp()
    return x, -s.sum(1)


def coupling_inverse_wrong(
    *, undo="inverse", read_kept=True, order="subtract first", sign=-1, counted="transformed"
):
    """`coupling_inverse` with one thing wrong."""

    def answer(z, kept, permutation, to_scale, to_shift):
        y = {
            "inverse": lambda: z[:, permutation.argsort()],
            "again": lambda: z[:, permutation],
            "not": lambda: z,
        }[undo]()
        read = y * kept if read_kept else y
        s, t = torch.tanh(read @ to_scale), read @ to_shift
        changed = {
            "subtract first": lambda: (y - t) * (-s).exp(),
            "divide first": lambda: y * (-s).exp() - t,
            "forward": lambda: y * s.exp() + t,
        }[order]()
        log_det = sign * (s * ~kept if counted == "transformed" else s).sum(1)
        return torch.where(kept, y, changed), log_det

    return answer


def draw_coupling(
    g: torch.Generator, n: tuple[int, int], d: int, n_kept: int
) -> tuple[Tensor, ...]:
    # One cycle: it differs from its own inverse, and moves every entry.
    permutation = torch.randperm(d, generator=g)
    cycle = torch.empty(d, dtype=torch.int64)
    cycle[permutation] = permutation.roll(-1)
    # The kept entries are not side by side at either end.
    while True:
        kept = (torch.arange(d) < n_kept)[torch.randperm(d, generator=g)]
        if kept.int().diff().count_nonzero() > 1:
            break
    return 1 + normal(g, integer(g, *n), d), kept, cycle, 0.6 * normal(g, d, d), normal(g, d, d)


COUPLING = Question(
    name="coupling_inverse",
    points=2,
    reference=coupling_inverse,
    # Fewer entries are kept than changed, and more.
    draw=(
        partial(draw_coupling, n=(2, 4), d=5, n_kept=2),
        partial(draw_coupling, n=(3, 5), d=6, n_kept=4),
    ),
    mistakes=(
        Mistake(
            "shift after the scale",
            "The scale is undone before the shift, y·e^{−s} − t: the last step of the layer is undone first",
            coupling_inverse_wrong(order="divide first"),
        ),
        Mistake(
            "forward map",
            "The transformed entries are mapped forward, with y·e^{s} + t",
            coupling_inverse_wrong(order="forward"),
        ),
        Mistake(
            "sign of the log-determinant",
            "x is right, and log_det is that of the forward direction; the inverse has the opposite sign",
            coupling_inverse_wrong(sign=1),
        ),
        Mistake(
            "log-determinant over all entries",
            "log_det counts the log-scales of the kept entries too, which pass unchanged",
            coupling_inverse_wrong(counted="all"),
        ),
        Mistake(
            "permuted again",
            "The permutation is applied a second time; its inverse undoes it (argsort)",
            coupling_inverse_wrong(undo="again"),
        ),
        Mistake(
            "permutation left",
            "The permutation is not undone",
            coupling_inverse_wrong(undo="not"),
        ),
        Mistake(
            "networks read everything",
            "s and t read all entries; with the kept ones alone the inverse knows their inputs",
            coupling_inverse_wrong(read_kept=False),
        ),
    ),
    equivalents=(coupling_inverse_by_parts,),
)


# 5. The determinant of a low-rank update. -------------------------------------------------------


def sylvester_log_det(x, u, w, b):
    slope = 1 - torch.tanh(x @ w + b) ** 2  # (N, k)
    small = torch.eye(u.shape[1], dtype=x.dtype) + slope[:, :, None] * (w.T @ u)
    return torch.linalg.slogdet(small).logabsdet


def sylvester_by_jacobian(x, u, w, b):
    def layer(point):
        return point + u @ torch.tanh(w.T @ point + b)

    jacobians = [torch.autograd.functional.jacobian(layer, point) for point in x]
    return torch.stack([torch.linalg.det(j).abs().log() for j in jacobians])


def sylvester_by_large_matrix(x, u, w, b):
    slope = 1 / torch.cosh(x @ w + b) ** 2
    return torch.linalg.slogdet(torch.eye(len(u)).to(x) + (u * slope[:, None]) @ w.T)[1]


def draw_sylvester(g: torch.Generator, n: int, d: int, k: int) -> tuple[Tensor, ...]:
    # Columns of u and w that point alike, and one pair opposite ways. There are negative determinants and
    # positive ones, moduli below 1 and above it; none is near 0 or 1.
    stretch = torch.tensor([-3.0, 1, 1], dtype=torch.float64)[:k]
    while True:
        base = normal(g, d, k)
        base = base / base.norm(dim=0)
        u = (base + 0.25 * normal(g, d, k)) * stretch
        w = 1.2 * base + 0.25 * normal(g, d, k)
        x, b = 0.8 * normal(g, n, d), signed(g, 0.2, 0.6, k)
        slope = 1 - torch.tanh(x @ w + b) ** 2
        det = torch.linalg.det(torch.eye(k).to(x) + slope[:, :, None] * (w.T @ u))
        size = det.abs().log()
        signs = (det < 0).any() and (det > 0).any() and (size < 0).any() and (size > 0).any()
        if signs and size.abs().min() > 0.05 and size.min() > -1.6 and size.sum().abs() > 0.1:
            return x, u, w, b


SYLVESTER = Question(
    name="sylvester_log_det",
    points=2,
    reference=sylvester_log_det,
    draw=(
        lambda g: draw_sylvester(g, integer(g, 5, 7), 5, 3),
        lambda g: draw_sylvester(g, integer(g, 3, 5), 4, 2),
    ),
    mistakes=(
        Mistake(
            "rank one, k times",
            "The lemma for vectors is used for each column apart, but the columns interact",
            lambda x, u, w, b: (
                (1 + (1 - torch.tanh(x @ w + b) ** 2) * (u * w).sum(0)).abs().log().sum(1)
            ),
        ),
        Mistake(
            "slope of tanh dropped",
            "The derivative of tanh is missing: this is the determinant of a linear layer",
            lambda x, u, w, b: sylvester_log_det(0 * x, u, w, 0 * b),
        ),
        Mistake(
            "tanh for its slope",
            "The Jacobian holds the derivative of tanh, and tanh itself is used",
            lambda x, u, w, b: torch.linalg.slogdet(
                torch.eye(u.shape[1]).to(x) + torch.tanh(x @ w + b)[:, :, None] * (w.T @ u)
            )[1],
        ),
        Mistake(
            "bias dropped",
            "The slope is taken at wᵀx; it belongs at wᵀx + b",
            lambda x, u, w, b: sylvester_log_det(x, u, w, 0 * b),
        ),
        Mistake(
            "identity dropped",
            "The identity is missing: x itself is part of the layer",
            lambda x, u, w, b: torch.linalg.slogdet(
                (1 - torch.tanh(x @ w + b) ** 2)[:, :, None] * (w.T @ u)
            )[1],
        ),
        Mistake(
            "no logarithm",
            "This is the determinant; its logarithm is asked for",
            lambda *x: sylvester_log_det(*x).exp(),
        ),
        Mistake(
            "sign",
            "This is the log-determinant of the inverse: its sign is flipped",
            lambda *x: -sylvester_log_det(*x),
        ),
        Mistake(
            "batch reduced",
            "The batch is summed up: the result must keep one value per example, shape (N,)",
            lambda *x: sylvester_log_det(*x).sum(),
        ),
    ),
    equivalents=(sylvester_by_jacobian, sylvester_by_large_matrix),
)


# 6. Activation normalization, set by a batch. ---------------------------------------------------


def actnorm(x, *, axes=(0, 2, 3), unbiased=False, factor=None, sign=1):
    mean = x.mean(axes, keepdim=True)
    std = x.std(axes, correction=int(unbiased), keepdim=True)
    pixels = x.shape[2] * x.shape[3] if factor is None else factor
    log_det = -sign * pixels * std.log().sum()
    return (x - mean) / std, log_det.expand(len(x))


def actnorm_by_loop(x):
    z, log_det = torch.zeros_like(x), torch.zeros(len(x), dtype=x.dtype)
    for c in range(x.shape[1]):
        values = x[:, c]
        std = ((values - values.mean()) ** 2).mean() ** 0.5
        z[:, c] = (values - values.mean()) / std
        log_det -= values[0].numel() * std.log()
    return z, log_det


def actnorm_by_slopes(x):
    n, c = x.shape[:2]
    flat = x.transpose(0, 1).reshape(c, -1)
    scale = flat.var(1, unbiased=False).rsqrt()
    slopes = scale[None, :, None, None].expand_as(x)
    z = slopes * (x - flat.mean(1)[None, :, None, None])
    return z, slopes.log().reshape(n, -1).sum(1)


def draw_activations(g: torch.Generator, n: int, *shape: int) -> tuple[Tensor]:
    # One channel that has to be stretched and others that are squeezed more, with means of both signs.
    channels = shape[0]
    values = normal(g, n, *shape)
    mean, std = values.mean((0, 2, 3), keepdim=True), values.std((0, 2, 3), keepdim=True)
    scale = torch.cat([uniform(g, 0.4, 0.7, 1), uniform(g, 3, 4, channels - 1)])
    scale = scale[torch.randperm(channels, generator=g)].view(-1, 1, 1)
    return (signed(g, 0.5, 2, channels, 1, 1) + scale * (values - mean) / std,)


ACTNORM = Question(
    name="actnorm",
    points=1,
    reference=actnorm,
    draw=(
        lambda g: draw_activations(g, integer(g, 3, 5), 2, 4, 3),
        lambda g: draw_activations(g, integer(g, 5, 7), 3, 2, 3),
    ),
    mistakes=(
        Mistake(
            "pixels not counted",
            "z is right; in log_det each channel's scale counts once, and it acts on all of its H·W pixels",
            lambda x: actnorm(x, factor=1),
        ),
        Mistake(
            "batch counted",
            "log_det counts the scales of all N examples together; it belongs to one example",
            lambda x: actnorm(x, factor=x.shape[0] * x.shape[2] * x.shape[3]),
        ),
        Mistake(
            "sign",
            "The sign of log_det is flipped: it is that of the inverse",
            lambda x: actnorm(x, sign=-1),
        ),
        Mistake(
            "n − 1",
            "The standard deviation divides by n − 1, which is PyTorch's default; correction=0 divides by n",
            lambda x: actnorm(x, unbiased=True),
        ),
        Mistake(
            "one scale per pixel",
            "Every pixel has a mean and a scale of its own; they are shared by the pixels of a channel",
            lambda x: (
                (x - x.mean(0)) / x.std(0, correction=0),
                -x.std(0, correction=0).log().sum().expand(len(x)),
            ),
        ),
        Mistake(
            "statistics per example",
            "Mean and scale differ from example to example; each channel has one of each",
            lambda x: (
                actnorm(x, axes=(2, 3))[0],
                -x.shape[2] * x.shape[3] * x.std((2, 3), correction=0).log().sum(1),
            ),
        ),
        Mistake(
            "one number for the batch",
            "log_det is a single number: it must have shape (N,), although it is the same for every example",
            lambda x: (actnorm(x)[0], actnorm(x)[1][0]),
        ),
        Mistake(
            "divided by the variance",
            "x − mean is divided by the variance, and not by its square root",
            lambda x: (
                actnorm(x)[0] / x.std((0, 2, 3), correction=0, keepdim=True),
                2 * actnorm(x)[1],
            ),
        ),
    ),
    equivalents=(actnorm_by_loop, actnorm_by_slopes),
)


# 7. Likelihood of a multi-scale flow from its parts. --------------------------------------------


def multiscale_log_prob(early, late, log_dets):
    z = torch.cat([early.flatten(1), late.flatten(1)], 1)
    return -0.5 * (z**2 + LOG_2PI).sum(1) + log_dets.sum(0)


def multiscale_by_distribution(early, late, log_dets):
    distribution = torch.distributions.Normal(0.0, 1.0)
    log_prob = distribution.log_prob(early).sum((1, 2, 3)) + distribution.log_prob(late).sum(
        (1, 2, 3)
    )
    for log_det in log_dets:
        log_prob = log_prob + log_det
    return log_prob


def n_dims(early, late):
    return early[0].numel() + late[0].numel()


def multiscale_by_norm(early, late, log_dets):
    squares = early.square().flatten(1).sum(1) + late.square().flatten(1).sum(1)
    return log_dets.T.sum(1) - (n_dims(early, late) * LOG_2PI + squares) / 2


def draw_scales(
    g: torch.Generator, n: int, layers: int, early: tuple[int, ...], late: tuple[int, ...]
) -> tuple[Tensor, ...]:
    log_dets = torch.cat([uniform(g, 1, 3, layers - 2, n), -uniform(g, 0.1, 0.4, 2, n)])
    log_dets = log_dets[torch.randperm(layers, generator=g)]
    return 1 + normal(g, n, *early), normal(g, n, *late) - 1, log_dets


MULTISCALE = Question(
    name="multiscale_log_prob",
    points=1.5,
    reference=multiscale_log_prob,
    draw=(
        lambda g: draw_scales(g, integer(g, 3, 5), 5, (2, 3, 4), (3, 2, 1)),
        lambda g: draw_scales(g, integer(g, 5, 7), 4, (1, 4, 3), (2, 1, 3)),
    ),
    mistakes=(
        Mistake(
            "early latents forgotten",
            "The latents that left early are not scored: they are part of z, whose dimension is that of x",
            lambda e, z, d: multiscale_log_prob(e, z, d) + 0.5 * (e**2 + LOG_2PI).sum((1, 2, 3)),
        ),
        Mistake(
            "overwritten layer by layer",
            "Only the last layer's log-determinant is counted: those before it are overwritten; they add",
            lambda e, z, d: multiscale_log_prob(e, z, d[-1:]),
        ),
        Mistake(
            "sign of the log-determinants",
            "The log-determinants of f are subtracted; for z = f(x) they are added",
            lambda e, z, d: multiscale_log_prob(e, z, -d),
        ),
        Mistake(
            "no log-determinants",
            "The log-determinants are not used: this is the density of z",
            lambda e, z, d: multiscale_log_prob(e, z, 0 * d),
        ),
        Mistake(
            "summed over the batch",
            "The log-determinants are summed over the batch as well: every example has its own",
            lambda e, z, d: multiscale_log_prob(e, z, 0 * d) + d.sum(),
        ),
        Mistake(
            "averaged over layers",
            "The log-determinants are averaged over the layers; they add",
            lambda e, z, d: multiscale_log_prob(e, z, d / len(d)),
        ),
        Mistake(
            "constant dropped",
            "The ½ log 2π of every dimension is missing",
            lambda e, z, d: multiscale_log_prob(e, z, d) + n_dims(e, z) / 2 * LOG_2PI,
        ),
        Mistake(
            "mean over dimensions",
            "The latents' log-densities are averaged over dimensions; independent ones add",
            lambda e, z, d: multiscale_log_prob(e, z, 0 * d) / n_dims(e, z) + d.sum(0),
        ),
    ),
    equivalents=(multiscale_by_distribution, multiscale_by_norm),
)


# 8. Several draws of noise: bits per dimension of the importance bound. -------------------------


def dequantized_bits(log_p, log_q, levels, dimensions):
    k = log_p.shape[0]
    bound = torch.logsumexp(log_p - log_q, 0) - math.log(k) - dimensions * math.log(levels)
    return -bound / (dimensions * math.log(2))


def dequantized_bits_in_bits(log_p, log_q, levels, dimensions):
    log_w = log_p - log_q
    largest = log_w.max(0).values
    mean = largest + (log_w - largest).exp().mean(0).log()
    return math.log2(levels) - mean / math.log(2) / dimensions


def draw_noise(
    g: torch.Generator, k: tuple[int, int], n: int, levels: tuple[int, int], log_q: float
) -> tuple[Tensor, Tensor, int, int]:
    k, levels, dimensions = integer(g, *k), integer(g, *levels), integer(g, 8, 20)
    # So far below the box's volume K^D that P(x) < 1, as it must be.
    log_p = log_q + 0.3 * dimensions * math.log(levels) + 2 * normal(g, k, n)
    return log_p, log_q + normal(g, k, n), levels, dimensions


DEQUANTIZED = Question(
    name="dequantized_bits",
    points=1.5,
    reference=dequantized_bits,
    # Noise narrower than the box, of a positive log-density, and a noise that is spread wider.
    draw=(
        partial(draw_noise, k=(5, 9), n=4, levels=(4, 10), log_q=3),
        partial(draw_noise, k=(3, 5), n=6, levels=(20, 33), log_q=-3),
    ),
    mistakes=(
        Mistake(
            "mean of logs",
            "This is the bound of one draw, averaged: the weights are to be averaged before the logarithm",
            lambda p, q, k, d: math.log2(k) - (p - q).mean(0) / (d * math.log(2)),
        ),
        Mistake(
            "−log k missing",
            "The weights are summed, not averaged: the bound would exceed log P(x)",
            lambda p, q, k, d: dequantized_bits(p, q, k, d) - math.log2(len(p)) / d,
        ),
        Mistake(
            "noise's density ignored",
            "The noise is treated as uniform: the weights are to be divided by q(u|x)",
            lambda p, q, k, d: dequantized_bits(p, 0 * q, k, d),
        ),
        Mistake(
            "noise's density multiplied",
            "log q(u|x) is added; the weights are p divided by q",
            lambda p, q, k, d: dequantized_bits(p, -q, k, d),
        ),
        Mistake(
            "offset dropped",
            "The offset log₂ K is missing: the volume K^{−D} of an image's box",
            lambda p, q, k, d: dequantized_bits(p, q, 1, d),
        ),
        Mistake(
            "K − 1 for K",
            "The offset is log₂(K − 1): K levels own K intervals of width 1/K",
            lambda p, q, k, d: dequantized_bits(p, q, k - 1, d),
        ),
        Mistake(
            "offset once",
            "log K is subtracted once for the image; each of the D dimensions is divided by K",
            lambda p, q, k, d: dequantized_bits(p, q, k, d) - math.log2(k) + math.log2(k) / d,
        ),
        Mistake(
            "nats/dim",
            "This is in nats per dimension: divide by log 2",
            lambda p, q, k, d: math.log(2) * dequantized_bits(p, q, k, d),
        ),
        Mistake(
            "sign",
            "This is the bound on log P(x), per dimension; bits count −log₂ P(x)",
            lambda *x: -dequantized_bits(*x),
        ),
    ),
    equivalents=(
        dequantized_bits_in_bits,
        lambda p, q, k, d: (
            -torch.logsumexp((p - q - d * math.log(k) - math.log(len(p))), dim=0)
            / (d * math.log(2.0))
        ),
    ),
)


# 9. Back from the logit. ------------------------------------------------------------------------


def logit_inverse(logits, alpha):
    y = (torch.sigmoid(logits) - alpha) / (1 - 2 * alpha)
    log_slope = logsigmoid(logits) + logsigmoid(-logits) - math.log(1 - 2 * alpha)
    return y, log_slope.sum(1)


def logit_inverse_by_autograd(logits, alpha):
    logits = logits.clone().requires_grad_()
    y = (1 / (1 + torch.exp(-logits)) - alpha) / (1 - 2 * alpha)
    return y.detach(), torch.autograd.grad(y.sum(), logits)[0].log().sum(1)


def logit_inverse_by_forward(logits, alpha):
    s = logits.sigmoid()
    forward = math.log(1 - 2 * alpha) - s.log() - (1 - s).log()
    return (s - alpha) / (1 - 2 * alpha), -forward.sum(-1)


def draw_logits(
    g: torch.Generator, n: tuple[int, int], d: int, alpha: tuple[float, float]
) -> tuple[Tensor, float]:
    logits = signed(g, 0.4, 2, integer(g, *n), d)
    # Two values beyond black and white, as a flow draws them: nothing is to be clamped.
    logits[:2, 0] = torch.tensor([4.5, -4.5], dtype=logits.dtype)
    return logits, number(g, *alpha)


LOGIT_INVERSE = Question(
    name="logit_inverse",
    points=1,
    reference=logit_inverse,
    draw=(
        partial(draw_logits, n=(3, 5), d=2, alpha=(0.03, 0.12)),
        partial(draw_logits, n=(5, 8), d=4, alpha=(0.25, 0.4)),
    ),
    mistakes=(
        Mistake(
            "margin not undone",
            "The sigmoid is taken, but the margin α is not undone: samples never reach black or white",
            lambda z, a: (
                z.sigmoid(),
                logit_inverse(z, a)[1] + z.shape[1] * math.log(1 - 2 * a),
            ),
        ),
        Mistake(
            "margin not undone in y",
            "log_det is right, but the margin α is not undone in y",
            lambda z, a: (z.sigmoid(), logit_inverse(z, a)[1]),
        ),
        Mistake(
            "margin in the wrong order",
            "The division by 1 − 2α comes before the subtraction of α; what was added last is undone first",
            lambda z, a: (z.sigmoid() / (1 - 2 * a) - a, logit_inverse(z, a)[1]),
        ),
        Mistake(
            "clamped",
            "y is clamped to [0, 1]: logits beyond the margin lie outside, and clamping has no inverse",
            lambda z, a: (logit_inverse(z, a)[0].clamp(0, 1), logit_inverse(z, a)[1]),
        ),
        Mistake(
            "squeezed again",
            "The squeeze is applied a second time and not undone",
            lambda z, a: (
                a + (1 - 2 * a) * z.sigmoid(),
                logit_inverse(z, a)[1] + 2 * z.shape[1] * math.log(1 - 2 * a),
            ),
        ),
        Mistake(
            "sign",
            "log_det is that of the logit; the inverse has the opposite sign",
            lambda z, a: (logit_inverse(z, a)[0], -logit_inverse(z, a)[1]),
        ),
        Mistake(
            "slope of the squeeze dropped",
            "y is right; in log_det the slope of undoing the margin is missing",
            lambda z, a: (
                logit_inverse(z, a)[0],
                logit_inverse(z, a)[1] + z.shape[1] * math.log(1 - 2 * a),
            ),
        ),
        Mistake(
            "batch reduced",
            "log_det is summed over the batch as well: it must keep one value per example, shape (N,)",
            lambda z, a: (logit_inverse(z, a)[0], logit_inverse(z, a)[1].sum()),
        ),
    ),
    equivalents=(
        logit_inverse_by_autograd,
        logit_inverse_by_forward,
        lambda z, a: (
            (torch.tanh(z / 2) / 2 + 0.5 - a) / (1 - 2 * a),
            -(softplus(z) + softplus(-z) + math.log(1 - 2 * a)).sum(1),
        ),
    ),
)


# 10. Sampling an autoregressive flow. -----------------------------------------------------------


def autoregressive_inverse(z, to_mean, to_log_scale):
    x = torch.zeros_like(z)
    log_det = torch.zeros(len(z), dtype=z.dtype)
    for i in range(z.shape[1]):
        mean = x[:, :i] @ to_mean[i, :i]
        log_scale = torch.tanh(x[:, :i] @ to_log_scale[i, :i])
        x[:, i] = mean + log_scale.exp() * z[:, i]
        log_det = log_det + log_scale
    return x, log_det


def autoregressive_inverse_by_iteration(z, to_mean, to_log_scale):
    to_mean, to_log_scale = to_mean.tril(-1), to_log_scale.tril(-1)
    x = torch.zeros_like(z)
    for _ in range(z.shape[1]):  # entry i is right after i + 1 passes
        x = x @ to_mean.T + (x @ to_log_scale.T).tanh().exp() * z
    return x, (x @ to_log_scale.T).tanh().sum(1)


def autoregressive_wrong(*, reads="x", short=False, sign=1, subtract=False, backward=False):
    """`autoregressive_inverse` with one thing wrong."""

    def answer(z, to_mean, to_log_scale):
        if backward:
            to_mean, to_log_scale = to_mean.triu(1), to_log_scale.triu(1)
        else:
            to_mean, to_log_scale = to_mean.tril(-1), to_log_scale.tril(-1)
        x = z if reads == "z" else torch.zeros_like(z)
        for _ in range(1 if reads == "z" else z.shape[1] - short):
            read, mean = x, x @ to_mean.T
            scale = (sign * (x @ to_log_scale.T).tanh()).exp()
            x = (z - mean) * scale if subtract else mean + scale * z
        log_scale = ((read if reads == "z" or short else x) @ to_log_scale.T).tanh()
        return x, sign * log_scale.sum(1)

    return answer


def draw_autoregressive(g: torch.Generator, n: int, d: int) -> tuple[Tensor, ...]:
    return 1 + normal(g, n, d), 0.7 * normal(g, d, d), 0.4 * normal(g, d, d)


AUTOREGRESSIVE = Question(
    name="autoregressive_inverse",
    points=1.5,
    reference=autoregressive_inverse,
    draw=(
        lambda g: draw_autoregressive(g, integer(g, 4, 7), 3),
        lambda g: draw_autoregressive(g, integer(g, 2, 4), 5),
    ),
    mistakes=(
        Mistake(
            "networks read z",
            "Mean and scale read the latents z_{<i}: that is the direction of an IAF. They read x_{<i} here",
            autoregressive_wrong(reads="z"),
        ),
        Mistake(
            "too few passes",
            "There is one pass too few over the entries: the last one still reads values that are not final",
            autoregressive_wrong(short=True),
        ),
        Mistake(
            "forward map",
            "This applies (z − μ)·e^{−α}, the map from x to z; its inverse is asked for",
            autoregressive_wrong(subtract=True, sign=-1),
        ),
        Mistake(
            "shift before scale",
            "The mean is subtracted before the scale is applied: solve z = (x − μ)·e^{−α} for x",
            autoregressive_wrong(subtract=True),
        ),
        Mistake(
            "scale divided",
            "z is divided by the scale; solve z = (x − μ)·e^{−α} for x",
            autoregressive_wrong(sign=-1),
        ),
        Mistake(
            "sign of the log-determinant",
            "x is right, and log_det is that of x → z; the map z → x has the opposite sign",
            lambda z, a, b: (
                autoregressive_inverse(z, a, b)[0],
                -autoregressive_inverse(z, a, b)[1],
            ),
        ),
        Mistake(
            "order reversed",
            "The entries after i are read: the part above the diagonal of the matrices is used",
            autoregressive_wrong(backward=True),
        ),
    ),
    equivalents=(autoregressive_inverse_by_iteration,),
)

QUESTIONS = (
    LOG_DENSITY,
    BITS,
    SINH_ARCSINH,
    COUPLING,
    SYLVESTER,
    ACTNORM,
    MULTISCALE,
    DEQUANTIZED,
    LOGIT_INVERSE,
    AUTOREGRESSIVE,
    Measure(
        name="trained_flow",
        points=4,
        measure="flow_bits",
        functions=("forward", "inverse"),
        limit=2.18,
    ),
    Written(
        name="without_noise",
        points=3,
        rubric=(
            "1 point: reports both numbers for both flows, and says that without noise the number at "
            "the levels' centres falls below that of the flow trained with noise, and keeps falling "
            "with training, while the one with noise gets worse. "
            "1 point: says why: a density may put spikes of any height on the values that data take, "
            "and held-out images take the same values, so that a validation set does not show it. "
            "1 point: says what may be reported: only the number with noise is a bound on "
            "−log₂ P(x); for the flow without noise that bound is bad, since the noise misses the spikes."
        ),
    ),
)

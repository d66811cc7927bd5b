"""The displayed equations of the chapter on flows, by routes that do not use them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Beta, LogNormal, MultivariateNormal, Normal

from course_lib.distributions import standard_normal_log_prob
from course_lib.flow import (
    NICE,
    AttentionAutoregressive,
    Composition,
    Logit,
    MaskedAutoregressive,
    Planar,
    density_bits_per_dim,
)
from course_lib.flow.checks import TRANSFORMS, build, integral_2d
from course_lib.flow.spline import spline

pytestmark = pytest.mark.usefixtures("float64")
assert_close = torch.testing.assert_close


def autograd_log_det(function, x):
    """log|det| of the Jacobian matrix at each row of x."""
    jacobians = [torch.autograd.functional.jacobian(function, p) for p in x]
    return torch.stack([torch.linalg.slogdet(j.reshape(len(j), -1)).logabsdet for j in jacobians])


@pytest.mark.equation(
    "eq-change-of-variables-1d",
    formula=lambda p_z, slope: p_z * slope.abs(),
    wrong={
        "the other map's derivative": lambda p_z, slope: p_z / slope.abs(),
        "no derivative": lambda p_z, slope: p_z,
        "absolute value dropped": lambda p_z, slope: p_z * slope,
    },
)
def test_change_of_variables_on_the_line(formula):
    # x = exp(−z/2), decreasing: log x is normal, so that x has a distribution that torch knows.
    x = torch.tensor([0.2, 0.7, 1.0, 2.5])
    z, slope = -2 * x.log(), -2 / x
    density = formula(Normal(0.0, 1.0).log_prob(z).exp(), slope)
    assert_close(density, LogNormal(0.0, 0.5).log_prob(x).exp())


@pytest.mark.equation(
    "eq-change-of-variables",
    formula=lambda log_p_z, jacobian: log_p_z + torch.linalg.slogdet(jacobian).logabsdet,
    wrong={
        "sign flipped": lambda log_p_z, jacobian: (
            log_p_z - torch.linalg.slogdet(jacobian).logabsdet
        ),
        "no determinant": lambda log_p_z, jacobian: log_p_z,
        "counted twice": lambda log_p_z, jacobian: (
            log_p_z + 2 * torch.linalg.slogdet(jacobian).logabsdet
        ),
        "trace for determinant": lambda log_p_z, jacobian: (
            log_p_z + jacobian.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
        ),
    },
    implemented_by="course_lib.flow.flow.Flow.log_prob",
)
def test_change_of_variables(formula):
    # A linear map makes a Gaussian with a covariance that torch knows.
    matrix = torch.tensor([[0.5, 1.2, 0.0], [-0.3, 0.4, 0.9], [1.1, 0.2, -0.7]])  # z = A x
    x = torch.randn(6, 3)
    inverse = torch.linalg.inv(matrix)
    distribution = MultivariateNormal(torch.zeros(3), inverse @ inverse.T)
    assert_close(formula(standard_normal_log_prob(x @ matrix.T), matrix), distribution.log_prob(x))
    # A curved map: x = sinh(A z), whose density comes from the Gaussian A z entry by entry.
    v = torch.asinh(x)
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda p: matrix @ torch.asinh(p), p) for p in x]
    )
    slopes = (1 / (1 + x.square()).sqrt()).log().sum(1)  # of asinh
    assert_close(
        formula(standard_normal_log_prob(v @ matrix.T), jacobian), distribution.log_prob(v) + slopes
    )


@pytest.mark.equation(
    "eq-flow-composition",
    formula=lambda transforms, x: Composition(transforms)(x)[1],
    wrong={
        "last layer only": lambda transforms, x: transforms[-1](Composition(transforms[:-1])(x)[0])[
            1
        ],
        "every layer at x": lambda transforms, x: sum(t(x)[1] for t in transforms),
        "sign of one layer": lambda transforms, x: (
            Composition(transforms)(x)[1] - 2 * transforms[0](x)[1]
        ),
    },
    implemented_by="course_lib.flow.transform.Composition",
)
def test_composition(formula):
    names = ("Planar", "AffineCoupling", "MaskedAutoregressive")
    transforms = [build(TRANSFORMS[name], seed=i) for i, name in enumerate(names)]
    x = torch.randn(5, 5)

    def through(point):
        for transform in transforms:
            point = transform(point[None])[0][0]
        return point

    assert_close(formula(transforms, x), autograd_log_det(through, x))


@pytest.mark.equation(
    "eq-determinant-lemma",
    formula=lambda u, v: 1 + v @ u,
    wrong={
        "identity dropped": lambda u, v: v @ u,
        "sign flipped": lambda u, v: 1 - v @ u,
        "product of norms": lambda u, v: 1 + u.norm() * v.norm(),
    },
)
def test_determinant_lemma(formula):
    u, v = torch.randn(2, 5)
    assert_close(formula(u, v), torch.det(torch.eye(5) + torch.outer(u, v)))


@pytest.mark.equation(
    "eq-planar",
    formula=lambda u, w, b, x: (1 + (u @ w) * (1 - torch.tanh(x @ w + b) ** 2)).abs().log(),
    wrong={
        "tanh for its derivative": lambda u, w, b, x: (
            (1 + (u @ w) * torch.tanh(x @ w + b)).abs().log()
        ),
        "identity dropped": lambda u, w, b, x: (
            ((u @ w) * (1 - torch.tanh(x @ w + b) ** 2)).abs().log()
        ),
        "shift dropped": lambda u, w, b, x: (
            (1 + (u @ w) * (1 - torch.tanh(x @ w) ** 2)).abs().log()
        ),
        "sign flipped": lambda u, w, b, x: (
            -(1 + (u @ w) * (1 - torch.tanh(x @ w + b) ** 2)).abs().log()
        ),
    },
    implemented_by="course_lib.flow.planar.Planar",
)
def test_planar(formula):
    u, w, b = torch.randn(4), torch.randn(4), torch.tensor(0.7)
    x = torch.randn(6, 4)
    expected = autograd_log_det(lambda p: p + u * torch.tanh(w @ p + b), x)
    assert_close(formula(u, w, b, x), expected)


def direction(v, w):
    inner = w @ v
    return v + (F.softplus(inner) - 1 - inner) * w / (w @ w)


@pytest.mark.equation(
    "eq-planar-direction",
    formula=direction,
    wrong={
        "length, not its square": lambda v, w: v + (F.softplus(w @ v) - 1 - w @ v) * w / w.norm(),
        "the old product kept": lambda v, w: v + (F.softplus(w @ v) - 1) * w / (w @ w),
        "unconstrained": lambda v, w: v,
    },
    implemented_by="course_lib.flow.planar.Planar.direction",
)
def test_planar_direction(formula):
    w = torch.randn(4)
    for scale in (-9.0, -1.0, 0.5, 6.0):  # wᵀv far below −1, and above
        v = scale * w / (w @ w) + 0.3 * (torch.randn(4) - 0.1)
        u = formula(v, w)
        assert w @ u > -1
        assert_close(w @ u, (1 + (w @ v).exp()).log() - 1)
        across = torch.randn(4)
        across -= (across @ w) / (w @ w) * w
        assert_close(u @ across, v @ across)  # moved along w only
        planar = Planar((4,))
        planar.weight.data, planar.free_direction.data = w, v
        assert_close(planar.direction(), u)


@pytest.mark.equation(
    "eq-affine-coupling",
    formula=lambda z_b, s, t: (z_b - t) * torch.exp(-s),
    wrong={
        "divided before subtracting": lambda z_b, s, t: z_b * torch.exp(-s) - t,
        "sign of the scale": lambda z_b, s, t: (z_b - t) * torch.exp(s),
        "sign of the shift": lambda z_b, s, t: (z_b + t) * torch.exp(-s),
    },
    implemented_by="course_lib.flow.coupling.AffineCoupling",
)
def test_affine_coupling(formula):
    coupling = build(TRANSFORMS["AffineCoupling"], spread=0.4)
    x = torch.randn(6, 5)
    z = coupling(x)[0]
    kept, changed = coupling.kept, coupling.transformed
    shift, raw = coupling.conditioner(x[:, kept]).unbind(1)
    s = coupling.bound * torch.tanh(raw / coupling.bound)
    assert_close(z[:, kept], x[:, kept])
    assert_close(formula(z[:, changed], s, shift), x[:, changed])
    assert_close(coupling.inverse(z)[0], x)


@pytest.mark.equation(
    "eq-affine-coupling-logdet",
    formula=lambda s: s.sum(1),
    wrong={
        "mean over entries": lambda s: s.mean(1),
        "sign flipped": lambda s: -s.sum(1),
        "summed over the batch": lambda s: s.sum().expand(len(s)),
        "scales, not their logarithms": lambda s: s.exp().sum(1),
    },
    implemented_by="course_lib.flow.coupling.AffineCoupling",
)
def test_affine_coupling_log_determinant(formula):
    network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6))

    def couple(point):
        s, t = network(point[:2]).split(3)
        return torch.cat([point[:2], point[2:] * s.exp() + t])

    x = torch.randn(6, 5)
    s = network(x[:, :2])[:, :3]
    assert_close(formula(s), autograd_log_det(couple, x))


def rational_quadratic(xi, width, height, left, right):
    secant, both = height / width, xi * (1 - xi)
    return height * (secant * xi**2 + left * both) / (secant + (left + right - 2 * secant) * both)


@pytest.mark.equation(
    "eq-rational-quadratic",
    formula=rational_quadratic,
    wrong={
        "slopes exchanged": lambda xi, width, height, left, right: rational_quadratic(
            xi, width, height, right, left
        ),
        "one secant in the denominator": lambda xi, width, height, left, right: (
            height
            * (height / width * xi**2 + left * xi * (1 - xi))
            / (height / width + (left + right - height / width) * xi * (1 - xi))
        ),
        "width and height exchanged": lambda xi, width, height, left, right: rational_quadratic(
            xi, height, width, left, right
        ),
    },
    implemented_by="course_lib.flow.spline.spline",
)
def test_rational_quadratic(formula):
    width, height, left, right = torch.tensor([0.8, 1.3, 0.4, 2.1])
    xi = torch.linspace(0, 1, 101).requires_grad_()
    y = formula(xi, width, height, left, right)
    slope = torch.autograd.grad(y.sum(), xi)[0] / width
    ends = [y[0], y[-1], slope[0], slope[-1]]
    assert_close(torch.stack(ends), torch.stack([0 * height, height, left, right]))
    assert (slope > 0).all()
    # The library's spline, bin by bin, through its own knots.
    free = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 3)
    for row in range(3):
        widths, heights, slopes = (f[row] for f in free)
        edges = 2 * (0.01 + 0.96 * widths.softmax(0)).cumsum(0) - 1
        tops = 2 * (0.01 + 0.96 * heights.softmax(0)).cumsum(0) - 1
        edges, tops = (torch.cat([-torch.ones(1), e]) for e in (edges, tops))
        knots = torch.cat([torch.ones(1), (3 * torch.tanh(slopes / 3)).exp(), torch.ones(1)])
        for k in range(4):
            x = edges[k] + xi.detach() * (edges[k + 1] - edges[k])
            shape = (x.numel(), -1)
            given = spline(x, *(f.expand(*shape) for f in (widths, heights, slopes)), 1.0)[0]
            w, h = edges[k + 1] - edges[k], tops[k + 1] - tops[k]
            assert_close(given, tops[k] + formula(xi.detach(), w, h, knots[k], knots[k + 1]))


@pytest.mark.equation(
    "eq-glow-logdet",
    formula=lambda weight, height, width: height * width * torch.linalg.slogdet(weight).logabsdet,
    wrong={
        "one pixel only": lambda weight, height, width: torch.linalg.slogdet(weight).logabsdet,
        "height only": lambda weight, height, width: (
            height * torch.linalg.slogdet(weight).logabsdet
        ),
        "determinant without logarithm": lambda weight, height, width: (
            height * width * torch.det(weight).abs()
        ),
    },
    implemented_by="course_lib.flow.image.Invertible1x1Convolution",
)
def test_glow_log_determinant(formula):
    layer = build(TRANSFORMS["Invertible1x1Convolution"])
    weight = layer.weight().detach()
    x = torch.randn(2, 3, 2, 5)
    expected = autograd_log_det(
        lambda p: F.conv2d(p.reshape(1, 3, 2, 5), weight[:, :, None, None]).flatten(), x.flatten(1)
    )
    assert_close(formula(weight, 2, 5).expand(2), expected)
    assert_close(layer.log_diagonal.sum(), torch.linalg.slogdet(weight).logabsdet)


@pytest.mark.equation(
    "eq-maf",
    formula=lambda x, mean, alpha: (
        standard_normal_log_prob((x - mean) * torch.exp(-alpha)) - alpha.sum(1)
    ),
    wrong={
        "sign of the log-determinant": lambda x, mean, alpha: (
            standard_normal_log_prob((x - mean) * torch.exp(-alpha)) + alpha.sum(1)
        ),
        "log-variance for log-scale": lambda x, mean, alpha: (
            standard_normal_log_prob((x - mean) * torch.exp(-alpha / 2)) - alpha.sum(1) / 2
        ),
        "scaled before centred": lambda x, mean, alpha: (
            standard_normal_log_prob(x * torch.exp(-alpha) - mean) - alpha.sum(1)
        ),
    },
    implemented_by="course_lib.flow.autoregressive.MaskedAutoregressive",
)
def test_maf(formula):
    layer = build(lambda: MaskedAutoregressive((6,), (16, 16)))
    x = torch.randn(5, 6)
    mean, alpha = layer.conditionals(x)
    # One factor after another, each from a network that is shown the entries before it only.
    total = torch.zeros(5)
    for i in range(6):
        shown = torch.cat([x[:, :i], torch.full((5, 6 - i), 1e3)], 1)
        mean_i, alpha_i = (v[:, i] for v in layer.conditionals(shown))
        total += Normal(mean_i, alpha_i.exp()).log_prob(x[:, i])
    assert_close(formula(x, mean, alpha), total)
    z, log_det = layer(x)
    assert_close(standard_normal_log_prob(z) + log_det, total)


@pytest.mark.equation(
    "eq-tarflow",
    formula=lambda x, mean, alpha: ((x - mean) * torch.exp(-alpha), -alpha.sum(1)),
    wrong={
        "sign of the log-determinant": lambda x, mean, alpha: (
            (x - mean) * torch.exp(-alpha),
            alpha.sum(1),
        ),
        "one log-scale for each patch": lambda x, mean, alpha: (
            (x - mean) * torch.exp(-alpha),
            -alpha[:, ::3].sum(1),
        ),
        "scaled before centred": lambda x, mean, alpha: (
            x * torch.exp(-alpha) - mean,
            -alpha.sum(1),
        ),
        "the conditionals of the next patch": lambda x, mean, alpha: (
            (x - mean.roll(-3, 1)) * torch.exp(-alpha.roll(-3, 1)),
            -alpha.sum(1),
        ),
    },
    implemented_by="course_lib.flow.tarflow.AttentionAutoregressive",
)
def test_tarflow(formula):
    layer = build(lambda: AttentionAutoregressive((9,), patch=3, width=8, heads=2))
    x = torch.randn(4, 9)
    # The conditionals of a patch, from a network that is shown only the patches before it.
    means, alphas = [], []
    for start in range(0, 9, 3):
        shown = torch.cat([x[:, :start], torch.full((4, 9 - start), 1e3)], 1)
        mean, alpha = (v[:, start : start + 3] for v in layer.conditionals(shown))
        means.append(mean)
        alphas.append(alpha)
    z, log_det = formula(x, torch.cat(means, 1), torch.cat(alphas, 1))
    assert_close(layer(x)[0], z)
    for point, given in zip(x, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda p: layer(p.unsqueeze(0))[0].flatten(), point
        )
        assert_close(torch.linalg.slogdet(jacobian).logabsdet, given)


@pytest.mark.equation(
    "eq-temperature",
    formula=lambda log_p, z, t: (
        log_p + 0.5 * (1 - 1 / t**2) * z.square().sum(1) - z.shape[1] * math.log(t)
    ),
    wrong={
        "volume of the latent dropped": lambda log_p, z, t: (
            log_p + 0.5 * (1 - 1 / t**2) * z.square().sum(1)
        ),
        "temperature inverted": lambda log_p, z, t: (
            log_p + 0.5 * (1 - t**2) * z.square().sum(1) + z.shape[1] * math.log(t)
        ),
        "power of the density": lambda log_p, z, t: log_p / t**2,
    },
)
def test_temperature(formula):
    from course_lib.flow.checks import PLANE_MODELS

    model, t = build(PLANE_MODELS["RealNVP"]), 0.6

    def log_prob(x):
        return formula(model.log_prob(x), model(x)[0], t)

    with torch.no_grad():
        assert abs(integral_2d(log_prob, limit=8, n_points=401) - 1) < 1e-4
        # And it is the density of the samples: their mean log density is minus its entropy.
        x = model.sample(40_000, generator=torch.Generator().manual_seed(0), temperature=t)
        side = torch.linspace(-8, 8, 401)
        values = log_prob(torch.cartesian_prod(side, side))
    entropy = -(values.exp() * values).sum() * (16 / 400) ** 2
    score = log_prob(x).detach()
    assert abs(score.mean() + entropy) < 4 * score.std() / 200


@pytest.mark.equation(
    "eq-density-diverges",
    formula=lambda n, d, sigma: -math.log(n) - d / 2 * math.log(2 * math.pi * sigma**2),
    wrong={
        "weight of the mixture dropped": lambda n, d, sigma: (
            -d / 2 * math.log(2 * math.pi * sigma**2)
        ),
        "one dimension only": lambda n, d, sigma: (
            -math.log(n) - 0.5 * math.log(2 * math.pi * sigma**2)
        ),
        "sign flipped": lambda n, d, sigma: math.log(n) + d / 2 * math.log(2 * math.pi * sigma**2),
    },
)
def test_density_diverges(formula):
    images = torch.randint(0, 17, (30, 4)).double()
    last = -math.inf
    for sigma in (0.3, 0.03, 0.003):
        spikes = Normal(images, sigma).log_prob(images[:, None]).sum(2)  # (example, spike)
        values = spikes.logsumexp(1) - math.log(len(images))
        bound = formula(len(images), 4, sigma)
        assert (values >= bound - 1e-9).all()
        assert values.min() < bound + 0.1  # tight where no other spike helps
        assert bound > last
        last = bound


@pytest.fixture(scope="module", name="box")
def _box():
    """A density of two pixels with K levels each, its value at midpoints of a fine grid, and P."""
    levels, fine = 3, 200
    distribution = MultivariateNormal(
        torch.tensor([0.5, 0.4]).double(), torch.tensor([[0.09, 0.04], [0.04, 0.06]]).double()
    )
    side = (torch.arange(levels * fine).double() + 0.5) / (levels * fine)
    log_p = distribution.log_prob(torch.cartesian_prod(side, side)).reshape(
        levels, fine, levels, fine
    )
    log_p = log_p.permute(0, 2, 1, 3).reshape(levels**2, fine**2)  # (image, u)
    mass = log_p.exp().sum(1) / (levels * fine) ** 2  # the integral over each image's box
    u = (torch.arange(fine).double() + 0.5) / fine
    return levels, log_p, mass.log(), u


@pytest.mark.equation(
    "eq-dequantization-bound",
    formula=lambda log_p, d, levels: log_p.mean(1) - d * math.log(levels),
    wrong={
        "Jacobian of the division dropped": lambda log_p, d, levels: log_p.mean(1),
        "K − 1 for K": lambda log_p, d, levels: log_p.mean(1) - d * math.log(levels - 1),
        "logarithm outside: the equality": lambda log_p, d, levels: (
            log_p.logsumexp(1) - math.log(log_p.shape[1]) - d * math.log(levels)
        ),
        "counted for one pixel": lambda log_p, d, levels: log_p.mean(1) - math.log(levels),
    },
    implemented_by="course_lib.flow.dequantization.discrete_log_prob",
)
def test_dequantization_bound(formula, box):
    levels, log_p, log_mass, _ = box
    gap = log_mass - formula(log_p, 2, levels)
    # The gap is KL(uniform ‖ p(u|x)), strictly positive where p is curved.
    posterior = log_p - log_p.logsumexp(1, keepdim=True)  # masses of the fine cells
    uniform = -math.log(log_p.shape[1])
    assert (gap > 1e-3).all()
    assert_close(gap, (uniform - posterior).mean(1))


@pytest.mark.equation(
    "eq-variational-dequantization",
    formula=lambda log_p, q, log_q, d, levels: (q * (log_p - log_q)).sum(1) - d * math.log(levels),
    wrong={
        "entropy of the noise dropped": lambda log_p, q, log_q, d, levels: (
            (q * log_p).sum(1) - d * math.log(levels)
        ),
        "sign of log q": lambda log_p, q, log_q, d, levels: (
            (q * (log_p + log_q)).sum(1) - d * math.log(levels)
        ),
        "averaged over uniform noise": lambda log_p, q, log_q, d, levels: (
            (log_p - log_q).mean(1) - d * math.log(levels)
        ),
    },
    implemented_by="course_lib.flow.dequantization.DequantizedFlow.elbo",
)
def test_variational_dequantization(formula, box):
    levels, log_p, log_mass, u = box
    densities = [Beta(a, b).log_prob(u) for a, b in ((1.5, 1.2), (1.1, 2.0))]
    log_q = (densities[0][:, None] + densities[1][None, :]).flatten()  # log q(u|x) on the cells
    q = log_q.exp() / log_q.exp().sum()
    log_q = q.log() + math.log(len(q))
    bound = formula(log_p, q, log_q, 2, levels)
    posterior = (log_p - log_p.logsumexp(1, keepdim=True)).exp()
    kl = torch.stack([(q * (q / p).log()).sum() for p in posterior])
    assert (bound < log_mass).all()
    assert_close(log_mass - bound, kl)


@pytest.mark.equation(
    "eq-dequantization-importance",
    formula=lambda log_w: log_w.logsumexp(0) - math.log(len(log_w)),
    wrong={
        "mean of logarithms": lambda log_w: log_w.mean(0),
        "log k dropped": lambda log_w: log_w.logsumexp(0),
        "largest weight": lambda log_w: log_w.max(0).values,
    },
    implemented_by="course_lib.flow.dequantization.DequantizedFlow.importance_bound",
)
def test_dequantization_importance(formula):
    # Four equally likely values of the noise: expectations over k draws are finite sums.
    log_w = torch.tensor([-1.0, -0.2, -3.0, -1.4])
    log_mass = log_w.exp().mean().log()
    expectations = []
    for k in (1, 2, 3, 4, 5):
        draws = torch.cartesian_prod(*[log_w] * k).reshape(-1, k).T  # (k, 4ᵏ), all outcomes
        expectations.append(formula(draws).mean())
    bounds = torch.stack(expectations)
    assert (bounds.diff() > 1e-3).all()
    assert (bounds < log_mass).all()
    assert_close(bounds[0], log_w.mean())


@pytest.mark.equation(
    "eq-logit-logdet",
    formula=lambda y, alpha: (
        math.log(1 - 2 * alpha)
        - (alpha + (1 - 2 * alpha) * y).log()
        - (1 - alpha - (1 - 2 * alpha) * y).log()
    ).sum(1),
    wrong={
        "slope of the margin dropped": lambda y, alpha: (
            -(alpha + (1 - 2 * alpha) * y).log() - (1 - alpha - (1 - 2 * alpha) * y).log()
        ).sum(1),
        "sign flipped": lambda y, alpha: -Logit((3,), alpha)(y)[1],
        "logit without margin": lambda y, alpha: (-y.log() - (1 - y).log()).sum(1),
        "half of it": lambda y, alpha: (
            math.log(1 - 2 * alpha) - (alpha + (1 - 2 * alpha) * y).log()
        ).sum(1),
    },
    implemented_by="course_lib.flow.elementwise.Logit",
)
def test_logit(formula):
    alpha, y = 0.05, torch.rand(6, 3)
    expected = autograd_log_det(lambda p: torch.logit(alpha + (1 - 2 * alpha) * p), y)
    assert_close(formula(y, alpha), expected)
    assert_close(Logit((3,), alpha)(y)[1], expected)


@pytest.mark.equation(
    "eq-bits-per-dim",
    formula=density_bits_per_dim,
    wrong={
        "255 for 256": lambda log_p, shape, levels: density_bits_per_dim(log_p, shape, levels - 1),
        "offset dropped": lambda log_p, shape, levels: -log_p / (math.prod(shape) * math.log(2)),
        "nats for bits": lambda log_p, shape, levels: math.log2(levels) - log_p / math.prod(shape),
        "offset once per image": lambda log_p, shape, levels: (
            (math.log2(levels) - log_p / math.log(2)) / math.prod(shape)
        ),
        "sign of the density": lambda log_p, shape, levels: (
            math.log2(levels) + log_p / (math.prod(shape) * math.log(2))
        ),
    },
    implemented_by="course_lib.flow.dequantization.density_bits_per_dim",
)
def test_bits_per_dim(formula):
    # A density that is constant on every box is a discrete distribution: its code length is known.
    levels, shape = 256, (1, 2, 3)
    probabilities = torch.rand(4, 6, levels) + 0.01
    probabilities /= probabilities.sum(2, keepdim=True)
    image = torch.randint(0, levels, (4, 6))
    p = probabilities.gather(2, image[..., None]).squeeze(2)  # of each pixel's level
    code_length = -p.log2().sum(1)  # bits per image
    log_density = (p * levels).log().sum(1)  # the mass spread over a width of 1/K
    assert_close(formula(log_density, shape, levels), code_length / 6)
    assert_close(formula(torch.zeros(1), shape, levels), torch.full((1,), 8.0))


def test_nice_has_one_log_determinant_for_all_points():
    # The chapter's remark below the coupling's log-determinant.
    model = build(lambda: NICE((4,), hidden=(8,)))
    log_det = model(torch.randn(5, 4))[1]
    assert_close(log_det, log_det[:1].expand(5))
    assert log_det[0].abs() > 0.05

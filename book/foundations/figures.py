"""Figures of the chapter on foundations. Each function draws one, and takes nothing."""

import math
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
import torch
from course_lib.divergences import js_discrete
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from scipy.optimize import linprog, minimize
from scipy.stats import chi, multivariate_normal, norm

SOLID, DASHED, DOTTED, DASH_DOT = "-", "--", ":", "-."


def joint_and_classifier() -> Figure:
    """Joint densities of two classes over one number, and the classifier made of them."""
    x = np.linspace(-6, 6, 400)
    first = 0.6 * norm.pdf(x, -1.2, 0.9)
    second = 0.4 * norm.pdf(x, 1.2, 1.5)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 2.9))
    left.plot(x, first, SOLID, label="$p(x, y=0)$")
    left.plot(x, second, DASHED, label="$p(x, y=1)$")
    left.plot(x, first + second, DOTTED, color="0.3", lw=2, label="$p(x)$")
    left.set(xlabel="$x$", ylabel="density", ylim=(0, 0.4), yticks=[0, 0.1, 0.2, 0.3])
    left.legend(fontsize=10, loc="upper right")
    right.plot(x, second / (first + second), color="C2")
    right.axhline(0.5, color="0.5", ls=DASHED, lw=1)
    right.set(xlabel="$x$", ylabel=r"$p(y=1 \mid x)$", ylim=(-0.02, 1.05))
    return figure


def _bent_log_density(points: np.ndarray) -> np.ndarray:
    """Two curved ridges over the first coordinate; points of shape (..., 2)."""
    x, y = points[..., 0], points[..., 1]
    ridges = (norm.pdf(y, 1.0 + 0.35 * x**2, 0.3), norm.pdf(y, -0.6 - 0.2 * x**2, 0.3))
    return np.log(norm.pdf(x, 0, 1) * (0.45 * ridges[0] + 0.55 * ridges[1]))


def uses_of_a_model() -> Figure:
    """Draws from a density, the scores of two points, and a completion."""
    random = np.random.default_rng(0)
    axis = np.linspace(-3, 3, 200)
    heights = np.linspace(-3.2, 4.2, 240)
    grid = np.stack(np.meshgrid(axis, heights), -1)
    density = np.exp(_bent_log_density(grid))
    figure, axes = plt.subplots(1, 3, figsize=(7.4, 3.0), sharey=True)
    for ax in axes:
        ax.contour(axis, heights, density, 6, colors="0.75", linewidths=0.8)
        ax.set(xlabel="$x_1$", xlim=(-3, 3), ylim=(-3.2, 4.2))
    axes[0].set_ylabel("$x_2$")

    x = random.normal(0, 1, 120)
    upper = random.random(120) < 0.45
    y = np.where(upper, 1.0 + 0.35 * x**2, -0.6 - 0.2 * x**2) + 0.3 * random.normal(
        size=120
    )
    axes[0].plot(x, y, ".", ms=4, color="C0")
    axes[0].set_title("sample")

    for point, marker in (((0.4, -0.7), "o"), ((1.6, 0.2), "s")):
        score = _bent_log_density(np.array(point))
        axes[1].plot(*point, marker, color="C1", ms=6)
        axes[1].annotate(
            f"{score:.1f} nats".replace("-", "−"),
            point,
            xytext=(0, -8),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes[1].set_title("score")

    known = 0.9
    conditional = np.exp(
        _bent_log_density(np.stack([np.full_like(heights, known), heights], -1))
    )
    conditional /= conditional.sum() * (heights[1] - heights[0])
    axes[2].axvline(known, color="0.3", ls=DASHED, lw=1.2)
    axes[2].fill_betweenx(
        heights, known, known + 1.6 * conditional, color="C2", alpha=0.6
    )
    axes[2].text(known - 0.1, -2.9, "known", ha="right", fontsize=9.5)
    axes[2].set_title("complete")
    return figure


def where_draws_lie() -> Figure:
    """Density of the distance of standard normal draws from the origin, in several dimensions."""
    distance = np.linspace(0, 19, 700)
    figure, ax = plt.subplots(figsize=(6.4, 2.9))
    styles = (SOLID, DASHED, DASH_DOT, DOTTED, SOLID)
    for index, (n_dims, style) in enumerate(
        zip((1, 4, 16, 64, 256), styles, strict=True)
    ):
        density = chi.pdf(distance, n_dims)
        ax.plot(distance, density, style, color=f"C{index}", lw=2)
        top = max(0, math.sqrt(n_dims - 1)) if n_dims > 1 else 0.35
        ax.text(top, density.max() + 0.02, f"D = {n_dims}", ha="center", fontsize=10)
    ax.set(
        xlabel="distance from the origin",
        ylabel="density of the distance",
        ylim=(0, 0.95),
    )
    return figure


def _curve(z: np.ndarray) -> np.ndarray:
    """A curve in the plane, for z in [0, 1]."""
    return np.stack(
        [z + 0.12 * np.sin(4 * np.pi * z), 0.45 * np.sin(3 * np.pi * z)], -1
    )


def thin_image() -> Figure:
    """A curve in the plane under three covers of squares, and the areas of the covers."""
    z = np.linspace(0, 1, 2001)
    curve = _curve(z)
    lipschitz = np.abs(np.diff(curve, axis=0)).max() / (z[1] - z[0])
    figure, axes = plt.subplots(1, 3, figsize=(7.4, 2.7), sharey=True)
    for ax, n in zip(axes, (12, 24, 96), strict=True):
        side = lipschitz / n
        for x, y in _curve((np.arange(n) + 0.5) / n):
            ax.add_patch(
                plt.Rectangle(
                    (x - side / 2, y - side / 2),
                    side,
                    side,
                    facecolor="C0",
                    alpha=0.25,
                    edgecolor="C0",
                    lw=0.6,
                )
            )
        ax.plot(*curve.T, color="k", lw=1.4)
        ax.set_title(f"{n} squares: area {lipschitz**2 / n:.2f}", fontsize=11)
        ax.set(xlim=(-0.3, 1.3), ylim=(-0.8, 0.8), aspect="equal", xticks=[], yticks=[])
    return figure


def tree_of_models() -> Figure:
    """The families of models by what can be computed of their log-density."""
    question = "What can be computed of\n" + r"$\log p_\theta(x)$ ?"
    answers = {
        "its exact value": (1.65, r"$\log p_\theta(x)$"),
        "a lower bound": (5.95, r"$\mathrm{ELBO} \leq \log p_\theta(x)$"),
        "nothing": (9.2, "only samples"),
    }
    leaves = (
        (0.6, 1.65, "autoregressive\nmodels", 2, "slow sampling"),
        (2.7, 1.65, "normalizing\nflows", 5, "equal dimensions"),
        (4.9, 5.95, "variational\nautoencoders", 3, "a bound with a gap"),
        (7.0, 5.95, "diffusion\nmodels", 6, "many steps"),
        (9.2, 9.2, "adversarial\nnetworks", 4, "no likelihood"),
    )
    root = (5.3, 3.0)
    figure, ax = plt.subplots(figsize=(7.4, 4.3))
    box = {"boxstyle": "round,pad=0.45", "edgecolor": "0.3", "facecolor": "white"}
    middle = {"ha": "center", "va": "center", "fontsize": 10}
    for text, (x, formula) in answers.items():
        ax.plot([root[0], x], [root[1], 1.75], color="0.6", zorder=0)
        ax.text(x, 1.75, f"{text}\n{formula}", bbox=box, **middle)
    for x, parent, name, chapter, price in leaves:
        ax.plot([parent, x], [1.75, 0.3], color="0.6", zorder=0)
        text = f"{name}\n(chapter {chapter})\n$\\it{{{price.replace(' ', chr(92) + ' ')}}}$"
        ax.text(x, 0.3, text, bbox=box | {"facecolor": "#d7e6f4"}, **middle)
    ax.text(*root, question, bbox=box, **middle)
    ax.set(xlim=(-0.4, 10.1), ylim=(-0.3, 3.4))
    ax.set_axis_off()
    return figure


def likelihood_of_samples() -> Figure:
    """Average log-likelihoods of samples of three sizes, and their expectation."""
    random = np.random.default_rng(1)
    sigma = np.linspace(0.45, 2.2, 300)

    def average(second_moment: float) -> np.ndarray:
        return -0.5 * np.log(2 * np.pi * sigma**2) - second_moment / (2 * sigma**2)

    figure, axes = plt.subplots(1, 3, figsize=(7.4, 2.8), sharey=True)
    for ax, size in zip(axes, (10, 100, 1000), strict=True):
        for _ in range(8):
            values = average((random.normal(size=size) ** 2).mean())
            ax.plot(sigma, values, color="C0", lw=0.8)
            ax.plot(sigma[values.argmax()], values.max(), ".", color="C0", ms=7)
        expected = average(1.0)
        ax.plot(sigma, expected, "k", lw=2)
        ax.plot(sigma[expected.argmax()], expected.max(), "ko", ms=6)
        ax.set_title(f"N = {size}", fontsize=12)
        ax.set(xlabel="standard deviation", ylim=(-2.6, -0.5))
    axes[0].set_ylabel("nats per example")
    return figure


def kl_is_no_distance() -> Figure:
    """KL between two coins in both directions; KL between shifted Gaussians."""
    bias = np.linspace(0, 1, 801)[1:-1]
    to_biased = -0.5 * np.log(4 * bias * (1 - bias))
    from_biased = bias * np.log(2 * bias) + (1 - bias) * np.log(2 * (1 - bias))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.0))
    left.plot(bias, to_biased, SOLID, label="KL(fair ‖ biased)")
    left.plot(bias, from_biased, DASHED, label="KL(biased ‖ fair)")
    left.set(xlabel="bias of the other coin", ylabel="nats", ylim=(0, 1.6), xlim=(0, 1))
    left.legend(fontsize=9.5, loc="upper center")
    shift = np.linspace(0, 2.2, 100)
    right.plot(shift, shift**2 / 2, color="C2")
    for s in (1, 2):
        right.plot([s, s], [0, s**2 / 2], color="0.5", ls=DOTTED)
        right.plot(s, s**2 / 2, "o", color="C2")
    right.text(0.95, 0.6, "one step of 1:\n0.5 nats", ha="right", fontsize=9.5)
    right.text(1.92, 2.02, "one step of 2:\n2 nats", ha="right", fontsize=9.5)
    right.set(
        xlabel="distance of the means", ylabel="KL, nats", xlim=(0, 2.3), ylim=(0, 2.6)
    )
    return figure


def moment_matching() -> Figure:
    """The log-partition function of the Bernoulli family; Gaussians fitted to a bent cloud."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
    eta = np.linspace(-4, 4, 200)
    left.plot(eta, np.logaddexp(0, eta), color="k", lw=2)
    for index, at in enumerate((-2.0, 0.0, 2.0)):
        mean = 1 / (1 + math.exp(-at))
        span = np.array([at - 1.3, at + 1.3])
        value = np.logaddexp(0, at)
        left.plot(span, value + mean * (span - at), color=f"C{index}", ls=DASHED, lw=2)
        left.plot(at, value, "o", color=f"C{index}")
        place = (at - 0.2, value + 0.35)
        left.text(*place, f"mean {mean:.2f}", ha="right", fontsize=10)
    left.set(xlabel=r"natural parameter $\eta$", ylabel=r"$A(\eta) = \log(1 + e^\eta)$")
    left.set(ylim=(-0.4, 4.1))

    random = np.random.default_rng(2)
    x = random.normal(size=250)
    cloud = np.stack([x, 0.8 * x + 0.5 * x**2 + 0.35 * random.normal(size=250)], 1)
    mean, covariance = cloud.mean(0), np.cov(cloud.T, bias=True)
    right.plot(*cloud.T, ".", color="0.6", ms=4)
    _ellipse(right, mean, covariance, "C0", SOLID, "mean and covariance")
    _ellipse(
        right, mean, np.diag(np.diag(covariance)), "C1", DASHED, "mean and variances"
    )
    right.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(-3.4, 3.4), ylim=(-2.6, 6.2))
    right.legend(fontsize=9.5, loc="upper left")
    return figure


def _ellipse(
    ax: Axes,
    mean: np.ndarray,
    covariance: np.ndarray,
    colour: str,
    style: str,
    label: str | None,
) -> None:
    """Draw the points at Mahalanobis distance 2 of a Gaussian."""
    variances, directions = np.linalg.eigh(covariance)
    width, height = 2 * 2 * np.sqrt(variances)
    angle = math.degrees(math.atan2(directions[1, 0], directions[0, 0]))
    ax.add_patch(
        Ellipse(
            mean,
            width,
            height,
            angle=angle,
            fill=False,
            ec=colour,
            ls=style,
            lw=2,
            label=label,
        )
    )


def forward_and_reverse() -> Figure:
    """Best Gaussians under both directions of KL: for two modes, and for a correlated Gaussian."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.5))
    axis = np.linspace(-4.5, 4.5, 121)
    grid = np.stack(np.meshgrid(axis, axis), -1)
    weights = (0.6, 0.4)
    means = np.array([[-1.7, -1.0], [1.8, 1.2]])
    covariances = np.array([[[0.5, 0.2], [0.2, 0.4]], [[0.6, -0.25], [-0.25, 0.5]]])
    density = sum(
        w * multivariate_normal(m, c).pdf(grid)
        for w, m, c in zip(weights, means, covariances, strict=True)
    )
    left.contourf(axis, axis, density, 7, cmap="Greys", alpha=0.7)
    mean = np.average(means, axis=0, weights=weights)
    spread = covariances + (means - mean)[:, :, None] * (means - mean)[:, None, :]
    _ellipse(
        left,
        mean,
        np.average(spread, axis=0, weights=weights),
        "C0",
        SOLID,
        "forward KL",
    )
    reverse = minimize(
        _reverse_kl, [*means[0], -0.4, 0.1, -0.5], args=(axis, density)
    ).x
    factor = _factor(reverse)
    _ellipse(left, reverse[:2], factor @ factor.T, "C1", DASHED, "reverse KL")

    covariance = np.array([[1.5, 1.25], [1.25, 1.5]])
    right.contourf(
        axis,
        axis,
        multivariate_normal([0, 0], covariance).pdf(grid),
        7,
        cmap="Greys",
        alpha=0.7,
    )
    _ellipse(
        right, np.zeros(2), np.diag(np.diag(covariance)), "C0", SOLID, "forward KL"
    )
    narrow = np.diag(1 / np.diag(np.linalg.inv(covariance)))
    _ellipse(right, np.zeros(2), narrow, "C1", DASHED, "reverse KL")
    for ax in (left, right):
        ax.set(
            xlim=(-4.5, 4.5),
            ylim=(-4.5, 4.5),
            aspect="equal",
            xlabel="$x_1$",
            ylabel="$x_2$",
        )
    left.legend(fontsize=9.5, loc="upper left")
    left.set_title("two modes", fontsize=12)
    right.set_title("independent coordinates", fontsize=12)
    return figure


def _factor(parameters: np.ndarray) -> np.ndarray:
    """Cholesky factor of a covariance, from the last three of five parameters."""
    return np.array(
        [[math.exp(parameters[2]), 0], [parameters[3], math.exp(parameters[4])]]
    )


def _reverse_kl(parameters: np.ndarray, axis: np.ndarray, density: np.ndarray) -> float:
    """KL(q‖p) of a Gaussian q from a density on a grid, by a sum over the grid."""
    factor = _factor(parameters)
    grid = np.stack(np.meshgrid(axis, axis), -1)
    log_q = multivariate_normal(parameters[:2], factor @ factor.T).logpdf(grid)
    cell = (axis[1] - axis[0]) ** 2
    return float((np.exp(log_q) * (log_q - np.log(density))).sum() * cell)


def jsd_as_a_game() -> Figure:
    """Two densities, the judge's probability, and the judge's uncertainty."""
    x = np.linspace(-4, 5, 500)
    p, q = norm.pdf(x, -0.6, 0.8), norm.pdf(x, 1.6, 0.9)
    u = p / (p + q)
    uncertainty = -u * np.log(u) - (1 - u) * np.log(1 - u)
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.4, 4.0), sharex=True)
    above.plot(x, p, SOLID, label="$p$")
    above.plot(x, q, DASHED, label="$q$")
    above.set(ylabel="density", ylim=(0, 0.62))
    above.legend(loc="upper right")
    below.plot(x, u, SOLID, color="C2", label="judge's probability of $p$")
    below.plot(x, uncertainty, DASHED, color="C3", label="uncertainty, nats")
    below.axhline(math.log(2), color="0.4", ls=DOTTED, lw=1.2)
    below.text(-3.95, math.log(2) - 0.03, "log 2", fontsize=10, va="top")
    below.set(xlabel="$x$", ylim=(-0.03, 1.08))
    below.legend(fontsize=10, loc="center right")
    return figure


def jsd_minimizer() -> Figure:
    """JSD of a covering and of a picking Gaussian from two modes, over the gap."""
    grid = torch.linspace(-60, 60, 6001, dtype=torch.float64)
    weight, widths = 0.6, (0.6, 0.9)

    def masses(mean: float, std: float) -> torch.Tensor:
        return torch.distributions.Normal(mean, std).log_prob(grid).softmax(0)

    gaps = np.linspace(0.5, 30, 90)
    cover, pick = [], []
    for gap in gaps:
        first = masses(-gap / 2, widths[0])
        p = weight * first + (1 - weight) * masses(gap / 2, widths[1])
        mean = gap / 2 * (1 - 2 * weight)
        variance = (
            weight * widths[0] ** 2
            + (1 - weight) * widths[1] ** 2
            + weight * (1 - weight) * gap**2
        )
        cover.append(js_discrete(p, masses(mean, math.sqrt(variance))).item())
        pick.append(js_discrete(p, first).item())
    figure, ax = plt.subplots(figsize=(6.4, 3.3))
    ax.plot(gaps, cover, SOLID, label="covering both modes")
    ax.plot(gaps, pick, DASHED, label="picking the heavier mode")
    limit = math.log(2) + 0.5 * (weight * math.log(weight) - 1.6 * math.log(1.6))
    for value, text in ((math.log(2), "log 2"), (limit, "price of picking")):
        ax.axhline(value, color="0.4", ls=DOTTED, lw=1.2)
        ax.text(30, value + 0.012, text, ha="right", fontsize=10)
    ax.set(xlabel="gap between the modes", ylabel="JSD, nats", ylim=(0, 0.78))
    ax.legend(fontsize=10, loc="lower right")
    return figure


def f_generators() -> Figure:
    """Generators of four f-divergences, each shifted so that it touches zero at 1."""
    t = np.linspace(1e-3, 4, 800)
    generators = (
        ("KL(p ‖ q)", t * np.log(t) - (t - 1), SOLID),
        ("KL(q ‖ p)", -np.log(t) + (t - 1), DASHED),
        ("JSD", 0.5 * (t * np.log(2 * t / (1 + t)) + np.log(2 / (1 + t))), DASH_DOT),
        ("total variation", 0.5 * np.abs(t - 1), DOTTED),
    )
    figure, ax = plt.subplots(figsize=(6.4, 3.4))
    for name, values, style in generators:
        ax.plot(t, values, style, lw=2.2, label=name)
    ax.set(
        xlabel="ratio $t = p(x)/q(x)$", ylabel="$f(t)$", ylim=(-0.05, 2.6), xlim=(0, 4)
    )
    ax.legend(fontsize=10, loc="upper center")
    return figure


def transport() -> Figure:
    """An optimal transport plan between two histograms, and the dual potential."""
    places = np.arange(14.0)
    p = norm.pdf(places, 2.5, 1.2) + 0.7 * norm.pdf(places, 10.5, 1.0)
    q = norm.pdf(places, 5.5, 1.1) + 0.25 * norm.pdf(places, 8.5, 0.9)
    p, q = p / p.sum(), q / q.sum()
    distances = np.abs(places[:, None] - places)
    n = len(places)
    rows = np.kron(np.eye(n), np.ones(n))
    columns = np.kron(np.ones(n), np.eye(n))
    # The smallest preference for short ways makes the cheapest plan unique.
    costs = distances + 1e-6 * distances**2
    primal = linprog(
        costs.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([p, q])
    )
    # The dual: a function whose neighbouring values differ by at most 1.
    steps = np.diff(np.eye(n), axis=0)
    dual = linprog(
        q - p,
        A_ub=np.vstack([steps, -steps]),
        b_ub=np.ones(2 * n - 2),
        bounds=[(0, 0)] + [(None, None)] * (n - 1),
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.3))
    plan = primal.x.reshape(n, n)
    left.imshow(plan, cmap="Greys", origin="lower", vmin=0, vmax=0.8 * plan.max())
    left.plot([0, n - 1], [0, n - 1], color="C0", ls=DOTTED, lw=1)
    left.set(
        xlabel="to ($q$)", ylabel="from ($p$)", xticks=[0, 5, 10], yticks=[0, 5, 10]
    )
    left.set_title(f"cost of the plan: {(plan * distances).sum():.3f}", fontsize=12)
    right.bar(places - 0.2, p, 0.4, color="C0", label="$p$")
    right.bar(places + 0.2, q, 0.4, color="C1", hatch="//", label="$q$")
    right.set(xlabel="place", ylabel="mass", ylim=(0, 0.62), xticks=[0, 5, 10])
    right.legend(fontsize=10, loc="upper center")
    potential = right.twinx()
    potential.spines["right"].set_visible(True)
    potential.plot(places, dual.x, "k.-", lw=1.5)
    potential.set(ylabel="potential", ylim=(dual.x.min() - 10, dual.x.max() + 3))
    potential.set_yticks([dual.x.min(), dual.x.max()])
    right.set_title(f"difference of averages: {-dual.fun:.3f}", fontsize=12)
    return figure


def two_units() -> Figure:
    """One distribution of lengths, as a density in metres and in centimetres."""
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.9))
    low, high = 1.6, 1.8
    for ax, factor, unit in zip(axes, (1, 100), ("m", "cm"), strict=True):
        x = np.linspace(1.3, 2.0, 300) * factor
        distribution = norm(1.68 * factor, 0.09 * factor)
        inside = (x >= low * factor) & (x <= high * factor)
        area = distribution.cdf(high * factor) - distribution.cdf(low * factor)
        ax.fill_between(x[inside], distribution.pdf(x[inside]), color="C0", alpha=0.4)
        ax.plot(x, distribution.pdf(x), color="C0")
        ax.text(1.69 * factor, 1.6 / factor, f"{area:.2f}", ha="center", fontsize=12)
        ax.set(
            xlabel=f"length in {unit}",
            ylabel=f"density per {unit}",
            ylim=(0, 5 / factor),
        )
    return figure


def arithmetic_coding() -> Figure:
    """The nested intervals of a sequence of three symbols, and the interval of its code word."""
    symbols, message = "abc", "bac"
    table = {
        "": (Fraction(3, 10), Fraction(5, 10), Fraction(2, 10)),
        "b": (Fraction(4, 10), Fraction(2, 10), Fraction(4, 10)),
        "ba": (Fraction(2, 10), Fraction(3, 10), Fraction(5, 10)),
    }
    figure, ax = plt.subplots(figsize=(7.4, 4.0))
    low, length, height = Fraction(0), Fraction(1), 0.42
    for level, symbol in enumerate(message):
        top = 3 - level
        start = Fraction(0)
        for name, probability in zip(symbols, table[message[:level]], strict=True):
            chosen = name == symbol
            ax.add_patch(
                plt.Rectangle(
                    (float(start), top),
                    float(probability),
                    height,
                    facecolor="#cfe0f1" if chosen else "white",
                    edgecolor="0.2",
                )
            )
            label = f"{name}: {float(probability):g}"
            ax.text(
                float(start + probability / 2),
                top + height / 2,
                label,
                ha="center",
                va="center",
            )
            if chosen:
                inner = (start, probability)
            start += probability
        for end, to in ((inner[0], 0.0), (inner[0] + inner[1], 1.0)):
            ax.plot(
                [float(end), to],
                [top, top - 1 + height],
                color="0.6",
                lw=0.9,
                ls=DOTTED,
            )
        ends = f"[{float(low):.4g}, {float(low + length):.4g})"
        ax.text(1.02, top + height / 2, ends, va="center", fontsize=10)
        low, length = low + length * inner[0], length * inner[1]
    digits = math.ceil(-math.log2(length)) + 1
    cell = math.ceil(low * 2**digits)
    start = float((Fraction(cell, 2**digits) - low) / length)
    width = float(Fraction(1, 2**digits) / length)
    ax.add_patch(plt.Rectangle((0, 0), 1, height, facecolor="#cfe0f1", edgecolor="0.2"))
    ax.add_patch(
        plt.Rectangle((start, 0), width, height, facecolor="C0", edgecolor="0.2")
    )
    ax.text(
        1.02,
        height / 2,
        f"[{float(low):.4g}, {float(low + length):.4g})",
        va="center",
        fontsize=10,
    )
    word = f"{cell:0{digits}b}"
    text = (
        f"probability {float(length):g} = 2$^{{-{-math.log2(length):.2f}}}$,  "
        f"word of {digits} digits: {word}"
    )
    ax.text(0.5, -0.28, text, ha="center", va="center")
    ax.set(xlim=(-0.01, 1.26), ylim=(-0.5, 3.5))
    ax.set_axis_off()
    return figure


def bits_back() -> Figure:
    """Average code lengths of one x under a mixture of two, over the approximate posterior."""
    joint = np.array([0.5 * 0.12, 0.5 * 0.05])  # p(x, z) for the x to be sent
    q = np.linspace(0.01, 0.99, 200)
    share = np.stack([q, 1 - q])
    spent = -(share * np.log2(joint)[:, None]).sum(0)
    back = -(share * np.log2(share)).sum(0)
    figure, ax = plt.subplots(figsize=(6.4, 3.3))
    ax.plot(q, spent, DASH_DOT, label="a drawn $z$, no bits back")
    ax.axhline(
        -math.log2(joint.max()), color="C1", ls=DASHED, label="the most probable $z$"
    )
    ax.plot(
        q, spent - back, SOLID, color="C2", lw=2.2, label="bits back: −ELBO in bits"
    )
    ax.axhline(-math.log2(joint.sum()), color="0.3", ls=DOTTED, label=r"$-\log_2 p(x)$")
    posterior = joint[0] / joint.sum()
    ax.plot(posterior, -math.log2(joint.sum()), "ko", ms=5)
    ax.set(xlabel="$q(z=1 \\mid x)$", ylabel="bits", ylim=(3.1, 6.6), xlim=(0, 1))
    ax.legend(fontsize=9.5, loc="upper right", ncols=2)
    return figure

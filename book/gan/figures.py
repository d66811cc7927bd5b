"""Figures of the chapter on generative adversarial networks."""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from course_lib.gan import dirac, game_value, jensen_shannon, optimal_discriminator
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy.optimize import linprog
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import logsigmoid, softplus

DOUBLE = {"dtype": torch.float64}
WIDE = (7.4, 3.1)
LINES = ("-", "--", "-.", ":")


def _normal(mean: float, std: float) -> Normal:
    return Normal(torch.tensor(mean, **DOUBLE), torch.tensor(std, **DOUBLE))


def _line(low: float, high: float, n: int = 801) -> Tensor:
    return torch.linspace(low, high, n, **DOUBLE)


def _density(ax: Axes, x: Tensor, y: Tensor, color: str, label: str) -> None:
    ax.fill_between(x, y, color=color, alpha=0.25, lw=0)
    ax.plot(x, y, color=color, label=label, lw=1.5)


def push_forward() -> Figure:
    """Noise through a curve becomes two modes; one dimension of noise becomes a curve in the plane."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.4))
    generator = torch.Generator().manual_seed(0)
    z = _line(-3.2, 3.2)

    def curve(z: Tensor) -> Tensor:
        return 2 * torch.tanh(2.5 * z) + 0.35 * z

    left.plot(z, curve(z), "k", lw=1.5)
    left.annotate("$x = G(z)$", (0.2, 0.9), (0.9, 0.3))
    left.fill_between(
        z, -5 + 3 * _normal(0, 1).log_prob(z).exp(), -5, color="C0", alpha=0.4, lw=0
    )
    left.text(-1.6, -3.6, "$p(z)$", color="C0", ha="right")
    drawn = curve(torch.randn(400_000, generator=generator, **DOUBLE))
    heights, edges = np.histogram(drawn, bins=120, range=(-4, 4), density=True)
    left.stairs(
        -4.6 + 1.6 * heights, edges, baseline=-4.6, orientation="horizontal", fill=True,
        color="C1", alpha=0.6,
    )  # fmt: skip
    left.text(-4.4, 0, "$p_g$", color="C1", va="center")
    for start in (-1.4, 1.1):
        end = curve(torch.tensor(start)).item()
        left.plot([start, start, -3.2], [-5, end, end], color="0.5", lw=1, ls=":")
    left.set(xlabel="noise $z$", ylabel="example $x$", xlim=(-4.7, 3.3), ylim=(-5, 4))
    t = torch.randn(350, generator=generator).clamp(-2.6, 2.6)

    def path(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(1.4 * t) * 1.6, 0.8 * t - 0.8 * torch.cos(2.2 * t)

    right.plot(*path(torch.linspace(-2.6, 2.6, 400)), color="0.7", lw=1)
    right.scatter(*path(t), s=7, color="C1", zorder=2)
    right.set(
        xlabel="$x_1$", ylabel="$x_2$", title="noise of one dimension in the plane"
    )
    left.set_title("noise of one dimension on a line")
    return figure


def scaled_logits() -> Figure:
    """V for discriminators whose logit is a multiple of the best one, for three distances."""
    figure, ax = plt.subplots(figsize=(6.4, 3.3))
    x, scales = _line(-10, 13, 601), torch.linspace(0, 3, 46).tolist()
    p = _normal(0, 1)
    for m, style in zip((0.7, 1.5, 3.0), LINES, strict=False):
        q = _normal(m, 1)

        def logit(x: Tensor, s: float = 1.0, q: Normal = q) -> Tensor:
            return s * (p.log_prob(x) - q.log_prob(x))

        values = [
            game_value(
                lambda x, s=s, f=logit: f(x, s), p.log_prob, q.log_prob, x
            ).item()
            for s in scales
        ]
        (line,) = ax.plot(scales, values, style, label=f"$m = {m:g}$")
        ax.plot(1, values[15], "o", color=line.get_color())
    ax.axhline(-math.log(4), color="0.5", lw=1)
    ax.text(-0.12, -math.log(4) - 0.03, r"$-\log 4$", va="top", color="0.35")
    ax.axvline(1, color="0.5", lw=1, ls=":")
    ax.set(
        xlabel="factor $s$ on the best logit",
        ylabel="value $V$ (nats)",
        ylim=(-1.9, -0.15),
    )
    ax.legend(loc="lower center", ncols=3)
    return figure


def best_discriminator() -> Figure:
    """D* between two densities that overlap, and between two that hardly do."""
    figure, axes = plt.subplots(1, 2, figsize=WIDE, sharey=True)
    x = _line(-5, 6)
    for ax, (p, q), title in zip(
        axes,
        (
            (_normal(-0.8, 1.0), _normal(1.4, 0.7)),
            (_normal(-1.6, 0.45), _normal(2.0, 0.45)),
        ),
        ("overlapping", "far apart"),
        strict=True,
    ):
        _density(ax, x, p.log_prob(x).exp(), "C0", "$p$ (data)")
        _density(ax, x, q.log_prob(x).exp(), "C1", "$p_g$ (generated)")
        ax.plot(
            x, optimal_discriminator(p.log_prob(x), q.log_prob(x)), "k--", label="$D^*$"
        )
        ax.axhline(0.5, color="0.6", lw=0.8, ls=":")
        ax.set(title=title, xlabel="$x$", ylim=(0, 1.25))
    axes[0].set_ylabel("density, and $D^*$")
    axes[0].legend(
        ncols=3, loc="upper left", fontsize=10, columnspacing=1, handlelength=1.5
    )
    return figure


def value_at_the_optimum() -> Figure:
    """C(G) = −log 4 + 2 JSD against the shift of one Gaussian, for three widths."""
    figure, ax = plt.subplots(figsize=(6.4, 3.2))
    shifts = torch.linspace(-6, 6, 81).tolist()
    for sigma, style in zip((0.4, 1.0, 2.0), LINES, strict=False):
        x = _line(-6 - 7 * sigma, 6 + 7 * sigma, 801)
        p = _normal(0, sigma)
        values = [
            -math.log(4)
            + 2 * jensen_shannon(p.log_prob, _normal(m, sigma).log_prob, x).item()
            for m in shifts
        ]
        ax.plot(shifts, values, style, label=rf"$s = {sigma:g}$")
    for height, text in ((-math.log(4), r"$-\log 4$"), (0, "disjoint: 0")):
        ax.axhline(height, color="0.5", lw=0.8, ls=":")
        ax.text(
            0,
            height - 0.04 + 0.22 * (height == 0),
            text,
            va="top",
            ha="center",
            color="0.35",
        )
    ax.set(xlabel="shift $m$", ylabel="$C(G)$ (nats)", ylim=(-1.65, 0.25))
    ax.legend(loc="lower right")
    return figure


def saddle() -> Figure:
    """Contours of V in a game with two numbers, and the directions of simultaneous steps."""
    figure, ax = plt.subplots(figsize=(5.6, 4.2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    z, w = (
        torch.as_tensor(a, **DOUBLE) for a in (nodes, weights / math.sqrt(2 * math.pi))
    )
    theta, psi = torch.meshgrid(_line(-2, 2, 81), _line(-2, 2, 81), indexing="xy")
    grid = [v.clone().requires_grad_() for v in (theta, psi)]
    t, s = (v.unsqueeze(-1) for v in grid)
    value = (w * (logsigmoid(s * z) + logsigmoid(-s * (t + z)))).sum(-1)
    to_theta, to_psi = torch.autograd.grad(value.sum(), grid)
    levels = np.linspace(-3.6, 0.3, 14)
    drawn = ax.contourf(
        theta, psi, value.detach(), levels, cmap="viridis", extend="both"
    )
    ax.contour(theta, psi, value.detach(), [-math.log(4)], colors="w", linewidths=1.5)
    step = 10
    every = (slice(5, None, step), slice(5, None, step))
    u, v = (
        -to_theta[every],
        to_psi[every],
    )  # the generator descends, the discriminator ascends
    norm = (u**2 + v**2).sqrt() + 0.15
    ax.quiver(
        theta[every], psi[every], u / norm, v / norm, color="w", scale=14, width=0.006
    )
    ax.plot(0, 0, "x", color="red", ms=9, mew=2.5)
    ax.set(xlabel=r"generated mean $\theta$", ylabel=r"slope $\psi$ of the logit")
    figure.colorbar(drawn, ax=ax, label="value $V$ (nats)")
    return figure


def envelope() -> Figure:
    """C(G) over the generated mean, and V at discriminators that are held fixed."""
    figure, ax = plt.subplots(figsize=(6.4, 3.3))
    x, means = _line(-10, 10, 401), torch.linspace(-3.5, 3.5, 51).tolist()
    p = _normal(0, 1)
    best = [
        -math.log(4) + 2 * jensen_shannon(p.log_prob, _normal(m, 1).log_prob, x).item()
        for m in means
    ]
    ax.plot(means, best, "k", lw=3, label=r"$C = \max_D V$")
    for k, (at, style) in enumerate(zip((-2.0, 0.8, 3.0), LINES[1:], strict=True)):

        def logit(x: Tensor, at: float = at) -> Tensor:
            return at**2 / 2 - at * x

        fixed = [
            game_value(logit, p.log_prob, _normal(m, 1).log_prob, x).item()
            for m in means
        ]
        ax.plot(means, fixed, style, color=f"C{k}", label=f"$D^*$ of $m = {at:g}$")
        jsd = jensen_shannon(p.log_prob, _normal(at, 1).log_prob, x).item()
        ax.plot(at, -math.log(4) + 2 * jsd, "o", color=f"C{k}", zorder=3)
    ax.set(xlabel="generated mean $m$", ylabel="value (nats)", ylim=(-4, 0.2))
    ax.legend(loc="lower center", ncols=2, fontsize=10)
    return figure


def generator_losses() -> Figure:
    """Both losses of a generated example against D, and their derivatives by the logit."""
    figure, (left, right) = plt.subplots(1, 2, figsize=WIDE)
    d = _line(0.002, 0.998)
    left.plot(d, (1 - d).log(), label=r"minimax, $\log(1-D)$")
    left.plot(d, -d.log(), "--", label=r"non-saturating, $-\log D$")
    left.set(xlabel="$D(G(z))$", ylabel="loss (nats)", ylim=(-4, 4))
    left.legend(fontsize=10, loc="lower left")
    a = _line(-7, 7)
    for values, style in ((-torch.sigmoid(a), "-"), (-torch.sigmoid(-a), "--")):
        right.plot(a, values, style)
    right.axvline(0, color="0.6", lw=0.8, ls=":")
    right.text(-6.9, -0.08, "saturates", color="C0", va="top")
    right.text(-6.9, -1.03, "keeps its gradient", color="C1", va="top")
    right.set_ylim(-1.2, 0.08)
    right.set(
        xlabel=r"logit $a$ of a sample ($D=\frac{1}{2}$ at 0)", ylabel="derivative"
    )
    return figure


def _prices(p: Tensor, q: Tensor) -> list[Tensor]:
    """Forward KL, reverse KL, 2 JSD and the softened reverse KL; distributions in rows."""
    m = (p + q) / 2

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return torch.special.xlogy(a, a / b).sum(-1)

    return [kl(p, q), kl(q, p), kl(p, m) + kl(q, m), 2 * kl(m, p)]


def prices() -> Figure:
    """What four divergences charge for an uneven mode, and for mass where there are no data."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.4))
    names = ("forward KL", "reverse KL", "2 JSD", "softened reverse KL")
    w = _line(0.0005, 0.9995, 999)
    p = torch.tensor([0.5, 0.5], **DOUBLE).expand(999, 2)
    for values, name, style in zip(
        _prices(p, torch.stack([w, 1 - w], 1)), names, LINES, strict=True
    ):
        left.plot(w, values, style, label=name)
    left.set(
        xlabel="weight $w$ of the first mode", ylabel="divergence (nats)", ylim=(0, 1.6)
    )
    share, rest = _line(0.0, 0.5, 201), 1e-6
    p = torch.tensor([1 - rest, rest], **DOUBLE).expand(201, 2)
    q = torch.stack([1 - share, share], 1)
    for values, style in zip(_prices(p, q), LINES, strict=True):
        right.plot(share, values, style)
    right.set(xlabel=r"share $\epsilon$ outside the data", ylim=(0, 4.5))
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=4,
        fontsize=10,
    )
    return figure


def label_smoothing() -> Figure:
    """The optimal discriminator with hard labels, one smoothed label, and two."""
    figure, ax = plt.subplots(figsize=(6.4, 3.2))
    x = _line(-5, 6)
    p, q = _normal(-0.8, 0.9), _normal(1.3, 0.9)
    d = optimal_discriminator(p.log_prob(x), q.log_prob(x))
    _density(ax, x, p.log_prob(x).exp(), "C0", "$p$")
    _density(ax, x, q.log_prob(x).exp(), "C1", "$p_g$")
    for value, style, name in (
        (d, "-", "hard labels"),
        (0.9 * d, "--", "real label 0.9"),
        (0.9 * d + 0.1 * (1 - d), ":", "both, 0.9 and 0.1"),
    ):
        ax.plot(x, value, style, color="k", label=name)
    ax.set(xlabel="$x$", ylabel="density, and $D^*$", ylim=(0, 1.05))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def conjugates() -> Figure:
    """A generator and lines below it; conjugates; losses of one sample against the logit."""
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.3))
    t = _line(0.001, 4)
    f = (t * (2 * t / (1 + t)).log() + (2 / (1 + t)).log()) / 2
    axes[0].plot(t, f, "k", label="$f$ of the JSD")
    for at, style, color in ((0.3, "--", "C0"), (2.4, "-.", "C1")):
        u = 0.5 * math.log(2 * at / (1 + at))
        intercept = 0.5 * math.log(2 - math.exp(2 * u))
        axes[0].plot(t, u * t + intercept, style, color=color)
        axes[0].plot(at, u * at + intercept, "o", color=color)
        axes[0].plot(0, intercept, "s", color=color, ms=5, clip_on=False)
    axes[0].set(
        title=r"lines $tu - f^*(u)$ under $f$", xlabel=r"ratio $t = p/p_g$", ylim=(-0.4, 0.6),
        xlim=(0, 4),
    )  # fmt: skip
    names = ("forward KL", "reverse KL", "JSD", "total variation")
    for (low, high, conjugate), name, style, color in zip(
        (
            (-2, 1.6, lambda u: (u - 1).exp()),
            (-2, -0.05, lambda u: -1 - (-u).log()),
            (-2, 0.5 * math.log(2) - 1e-4, lambda u: -(2 - (2 * u).exp()).log() / 2),
            (-2, 0.5, lambda u: u.clamp(min=-0.5)),
        ),
        names,
        LINES,
        ("C0", "C1", "C2", "C3"),
        strict=True,
    ):
        u = _line(low, high)
        axes[1].plot(u, conjugate(u), style, color=color, label=name)
    axes[1].set(title="conjugates $f^*$", xlabel="$u$", ylim=(-2, 2))
    a = _line(-4, 4)
    for values, style, color, name in (
        (-a.exp(), "-", "C0", None),
        (-a, "--", "C1", None),
        (-softplus(a), "-.", "C2", None),
        (softplus(-a), (0, (3, 1, 1, 1, 1, 1)), "C4", "softened reverse KL"),
    ):
        axes[2].plot(a, values, linestyle=style, color=color, label=name)
    axes[2].set(title="loss of a sample", xlabel="logit $a$", ylim=(-4, 4))
    found = [ax.get_legend_handles_labels() for ax in axes[1:]]
    handles, labels = (found[0][k] + found[1][k] for k in (0, 1))
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=5,
        fontsize=9.5,
        columnspacing=1,
    )
    return figure


def hinge() -> Figure:
    """Losses of one example against its score; the best hinge critic of two densities."""
    figure, (left, right) = plt.subplots(1, 2, figsize=WIDE)
    y = _line(-3, 3)
    for sign, color, name in ((1, "C0", "real"), (-1, "C1", "generated")):
        left.plot(y, (1 - sign * y).clamp(min=0), color=color, label=f"hinge, {name}")
        left.plot(y, softplus(-sign * y), "--", color=color, label=f"logistic, {name}")
    left.set(xlabel="score", ylabel="loss of one example", ylim=(0, 5.6))
    left.legend(
        fontsize=9.5, loc="upper center", ncols=2, columnspacing=1, handlelength=1.5
    )
    x = _line(-4, 5)
    p, q = (_normal(*v).log_prob(x).exp() for v in ((-0.7, 1.0), (1.3, 0.7)))
    right.plot(x, 2 * p, color="C0", label="$2p$")
    right.plot(x, 2 * q, color="C1", ls="-.", label="$2p_g$")
    right.fill_between(x, 2 * torch.minimum(p, q), color="0.7", lw=0, label="overlap")
    right.plot(x, (p - q).sign(), "k--", label="$f^*$")
    right.set(xlabel="$x$", ylim=(-1.15, 1.75))
    right.legend(fontsize=9.5, ncols=2, loc="upper left", columnspacing=1)
    return figure


def conditional() -> Figure:
    """Real and generated densities of two classes, and the best logits of pairs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.3))
    x = _line(-5, 5)
    real = [_normal(*v).log_prob(x) for v in ((-2.0, 0.7), (2.0, 0.7))]
    made = [_normal(*v).log_prob(x) for v in ((-1.2, 1.1), (1.2, 1.1))]
    for k, (p, q) in enumerate(zip(real, made, strict=True)):
        _density(left, x, p.exp(), f"C{k}", f"real, $y={k}$")
        left.plot(x, q.exp(), "--", color=f"C{k}", label=f"generated, $y={k}$")
        right.plot(x, p - q, "-", color=f"C{k}", label=f"$a^*(x, {k})$")
    both = torch.logsumexp(torch.stack(real), 0) - torch.logsumexp(torch.stack(made), 0)
    right.plot(x, both, "k:", lw=2, label="common part")
    right.axhline(0, color="0.7", lw=0.8)
    left.set(xlabel="$x$", ylabel="density", ylim=(0, 0.95))
    left.legend(
        fontsize=9.5, ncols=2, loc="upper center", columnspacing=1, handlelength=1.5
    )
    right.set(xlabel="$x$", ylabel="best logit", ylim=(-10, 6.5))
    right.legend(fontsize=9.5, loc="upper center", ncols=2, columnspacing=1)
    return figure


def disjoint_supports() -> Figure:
    """Divergences of two points against their distance, with and without noise."""
    figure, ax = plt.subplots(figsize=(6.4, 3.4))
    theta = _line(-3, 3)
    ax.plot(theta, theta.abs(), "C2-.", label="$W_1$")
    for side in (theta < 0, theta > 0):
        label = "JSD" if side[0] else None
        ax.plot(
            theta[side],
            torch.full_like(theta[side], math.log(2)),
            "C0",
            lw=2.5,
            label=label,
        )
    ax.plot(0, 0, "o", color="C0")
    shifts = torch.linspace(-3, 3, 61).tolist()
    for sigma, dash in ((0.25, (0, (4, 1.5))), (1.0, (0, (1.5, 1.5)))):
        x = _line(-3 - 7 * sigma, 3 + 7 * sigma, 601)
        values = [
            jensen_shannon(
                _normal(0, sigma).log_prob, _normal(m, sigma).log_prob, x
            ).item()
            for m in shifts
        ]
        ax.plot(
            shifts,
            values,
            color="C1",
            linestyle=dash,
            label=f"JSD, noise of std {sigma:g}",
        )
    ax.set(xlabel=r"generated point $\theta$", ylabel="distance", ylim=(-0.03, 1.3))
    figure.legend(loc="outside upper center", ncols=4, fontsize=10, columnspacing=1)
    return figure


def best_reply() -> Figure:
    """The optimal discriminator of a collapsed generator, and the place that it rates highest."""
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.9), sharey=True)
    x = _line(-4, 4)
    # Both modes in different widths, so that the best place is one and only one.
    modes = torch.stack(
        [_normal(-1.8, 0.5).log_prob(x), _normal(1.8, 0.45).log_prob(x)]
    )
    log_p = torch.logsumexp(modes, 0) - math.log(2)
    at = -1.8
    for k, ax in enumerate(axes):
        # A little mass everywhere on the data: the discriminator is never entirely sure.
        log_q = torch.logaddexp(
            _normal(at, 0.35).log_prob(x) + math.log(0.97),
            _normal(0, 2).log_prob(x) + math.log(0.03),
        )
        d = optimal_discriminator(log_p, log_q)
        ax.fill_between(x, log_p.exp(), color="0.75", lw=0, label="data")
        ax.fill_between(x, log_q.exp(), color="C1", alpha=0.5, lw=0, label="generated")
        ax.plot(x, d, "k", label="$D^*$")
        best = x[d.argmax()].item()
        ax.annotate(
            "", (best, 1.18), (at, 1.18),
            arrowprops={"arrowstyle": "-|>", "color": "C3", "lw": 2},
        )  # fmt: skip
        ax.plot(best, d.max(), "v", color="C3", ms=8)
        ax.set(title=f"turn {k + 1}", xlabel="$x$", ylim=(0, 1.3))
        at = best
    axes[0].set_ylabel("density, and $D^*$")
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        fontsize=10,
    )
    return figure


def quantile_area() -> Figure:
    """Two distribution functions and the area between them."""
    figure, ax = plt.subplots(figsize=(6.4, 3.3))
    x = _line(-4, 5)
    p, q = _normal(-0.6, 0.8), _normal(1.2, 1.3)
    ax.plot(x, p.cdf(x), "C0", label="$F_p$")
    ax.plot(x, q.cdf(x), "C1--", label="$F_q$")
    ax.fill_between(x, p.cdf(x), q.cdf(x), color="0.85", lw=0)
    for u in (0.15, 0.35, 0.75, 0.9):
        level = torch.tensor(u, **DOUBLE)
        ax.annotate(
            "", (q.icdf(level).item(), u), (p.icdf(level).item(), u),
            arrowprops={"arrowstyle": "->", "color": "C2", "lw": 1.5},
        )  # fmt: skip
    at = torch.tensor(0.3, **DOUBLE)
    ax.plot([0.3, 0.3], [p.cdf(at), q.cdf(at)], color="C3", lw=2)
    ax.text(2.0, 0.4, "$|F_p(t) - F_q(t)|$", color="C3", va="center")
    ax.plot([0.3, 1.95], [0.4, 0.4], color="C3", lw=0.8, ls=":")
    ax.text(2.55, 0.77, r"$F_q^{-1}(u) - F_p^{-1}(u)$", color="C2", va="center")
    ax.set(xlabel="$t$", ylabel="share $u$ of the mass")
    ax.legend(loc="upper left")
    return figure


def _transport_example() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    points = np.arange(11.0)
    p = np.array([1, 3, 5, 4, 2, 1, 0, 0, 1, 2, 2], dtype=float)
    q = np.array([0, 0, 1, 2, 3, 4, 4, 3, 2, 1, 0], dtype=float)
    return points, p / p.sum(), q / q.sum()


def transport() -> Figure:
    """The cheapest plan between two discrete distributions, and a best critic."""
    points, p, q = _transport_example()
    n = len(points)
    cost = np.abs(points[:, None] - points[None])
    # A tiny convex price picks the plan that keeps the order among the equally cheap ones.
    marginals = np.vstack(
        [np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))]
    )
    plan = linprog(
        (cost + 1e-4 * cost**2).ravel(),
        A_eq=marginals,
        b_eq=np.concatenate([p, q]),
        method="highs",
    ).x.reshape(n, n)
    # The dual on the line: the slope is the sign of F_q − F_p between neighbours.
    critic = np.concatenate([[0.0], np.cumsum(np.sign(np.cumsum(q - p)[:-1]))])
    critic = critic - critic.mean()
    value = (critic * (p - q)).sum()
    assert abs(value - (plan * cost).sum()) < 1e-6, "the two optima agree"
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.5))
    i, j = np.nonzero(plan > 1e-9)
    left.scatter(points[j], points[i], s=1500 * plan[i, j], color="C2")
    left.plot([0, 10], [0, 10], color="0.6", lw=0.8, ls=":")
    left.set(
        title="cheapest plan", xlabel="to $y$", ylabel="from $x$", xlim=(-0.7, 10.7),
        ylim=(-0.7, 10.7), aspect="equal",
    )  # fmt: skip
    right.bar(points - 0.2, 8 * p, 0.4, color="C0", label="$p$ (8 times)")
    right.bar(
        points + 0.2,
        8 * q,
        0.4,
        color="C1",
        hatch="//",
        edgecolor="w",
        label="$q$ (8 times)",
    )
    right.plot(points, critic, "k.-", label="best critic $f$")
    right.set(title=f"both optima: {value:.2f}", xlabel="$x$", ylim=(-3.2, 7.2))
    right.legend(fontsize=10, loc="upper right")
    return figure


def penalty_points() -> Figure:
    """Where three penalties take the critic's gradient."""
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.0), sharex=True, sharey=True)
    generator = torch.Generator().manual_seed(3)
    angle = 3.1 * torch.rand(14, generator=generator)
    real = torch.stack([2 * angle.cos(), 1.6 * angle.sin()], 1)
    fake = torch.tensor([-0.2, -0.9]) + 0.35 * torch.randn(14, 2, generator=generator)
    mix = torch.rand(14, 1, generator=generator)
    between = mix * real + (1 - mix) * fake
    for ax, name, points in zip(
        axes,
        ("$R_1$: real points", "$R_2$: generated points", "WGAN-GP: between pairs"),
        (real, fake, between),
        strict=True,
    ):
        if points is between:
            for a, b in zip(real, fake, strict=True):
                ax.plot(*torch.stack([a, b]).T, color="0.75", lw=0.8)
        ax.scatter(*real.T, color="C0", s=28, label="real")
        ax.scatter(*fake.T, color="C1", s=28, marker="s", label="generated")
        ax.scatter(
            *points.T, color="k", marker="x", s=45, lw=1.5, label="gradient taken"
        )
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.set_title(name, fontsize=11)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        fontsize=10,
    )
    return figure


def two_wells() -> Figure:
    """The loss of a linear critic against its slope under four penalties."""
    figure, ax = plt.subplots(figsize=(6.4, 3.4))
    slopes, m = _line(-2.4, 3.6, 1201), 2.0
    for k, (weight, one_sided) in enumerate(
        ((10, False), (2, False), (0.5, False), (10, True))
    ):
        excess = slopes.abs() - 1
        excess = excess.clamp(min=0) if one_sided else excess
        loss = -m * slopes + weight * excess**2
        loss = loss - loss.min()
        label = rf"$\lambda = {weight:g}$, {'one' if one_sided else 'two'}-sided"
        ax.plot(slopes, loss, LINES[k], color=f"C{k}", label=label)
        ax.plot(slopes[loss.argmin()], 0, "o", color=f"C{k}")
        if not one_sided and m < 2 * weight:
            wrong = -1 + m / (2 * weight)
            height = loss[(slopes - wrong).abs().argmin()]
            ax.plot(wrong, height, "o", color=f"C{k}", mfc="w", ms=8, mew=1.5)
    ax.axvline(0, color="0.7", lw=0.8, ls=":")
    ax.set(xlabel="slope $s$", ylabel="loss above its minimum", ylim=(-0.5, 15))
    ax.legend(loc="upper right", fontsize=10)
    return figure


def dirac_fields() -> Figure:
    """The vector field of eight methods on the Dirac-GAN, with an orbit of each."""
    figure, axes = plt.subplots(2, 4, figsize=(7.5, 4.3), sharex=True, sharey=True)
    limit = 3.4
    theta, psi = torch.meshgrid(_line(-3, 3, 13), _line(-3, 3, 13), indexing="xy")
    states = torch.stack([theta, psi], -1)
    names = {
        "minimax": dirac.minimax(),
        "non-saturating": dirac.non_saturating(),
        "Wasserstein": dirac.wasserstein(),
        "clipped at 1": dirac.wasserstein(clip=1.0),
        r"WGAN-GP, $\lambda = 0.4$": dirac.wasserstein_gp(0.4),
        r"WGAN-GP, $\lambda = 1.2$": dirac.wasserstein_gp(1.2),
        r"$R_1$, $\gamma = 0.3$": dirac.minimax(0.3),
        r"$R_1$, $\gamma = 1$": dirac.minimax(1.0),
    }
    for ax, (name, method) in zip(axes.flat, names.items(), strict=True):
        u, v = method.field(states).unbind(-1)
        length = (u**2 + v**2).sqrt() + 0.3
        ax.quiver(
            theta, psi, u / length, v / length, color="0.6", scale=17, width=0.007
        )
        path = dirac.trajectory(method, (1.6, 0.9), 400, 0.1)
        ax.plot(*path.T, color="C0", lw=1.3)
        ax.plot(*path[0], "o", color="C0", ms=5)
        ax.plot(*path[-1], "s", color="C3", ms=5)
        ax.plot(0, 0, "x", color="k", ms=7, mew=2)
        if "GP" in name:
            rest = 2 * float(name.split("= ")[1].rstrip("$"))
            ax.plot([-rest, rest], [0, 0], "s", mfc="none", color="C1", ms=9, mew=1.5)
        ax.set(
            xlim=(-limit, limit),
            ylim=(-limit, limit),
            xticks=[-2, 0, 2],
            yticks=[-2, 0, 2],
        )
        ax.set_title(name, fontsize=10)
        ax.tick_params(labelsize=9.5)
    figure.supxlabel(r"generator $\theta$", fontsize=11)
    figure.supylabel(r"discriminator $\psi$", fontsize=11)
    return figure


def dirac_eigenvalues() -> Figure:
    """Real and imaginary parts of the eigenvalues of the field against the penalty."""
    figure, ax = plt.subplots(figsize=(6.4, 3.1))
    gamma = torch.linspace(0, 2.5, 501, dtype=torch.complex128)
    root = (gamma**2 / 4 - 0.25).sqrt()
    for k, sign in enumerate((1, -1)):
        value = -gamma / 2 + sign * root
        names = ("real parts", "imaginary parts") if k == 0 else (None, None)
        ax.plot(gamma.real, value.real, "C0", label=names[0])
        ax.plot(gamma.real, value.imag, "C1--", label=names[1])
    ax.axhline(0, color="0.5", lw=0.8)
    ax.axvline(1, color="0.5", lw=0.8, ls=":")
    ax.text(0.97, -1.55, "turning", ha="right", color="0.35")
    ax.text(1.03, -1.55, "not turning", color="0.35")
    ax.set(
        xlabel=r"weight $\gamma$ of the penalty",
        ylabel=r"eigenvalues $\nu$",
        ylim=(-1.8, 0.8),
    )
    ax.legend(loc="lower right", bbox_to_anchor=(1, 0.42))
    return figure


def instance_noise() -> Figure:
    """Two narrow distributions and their optimal discriminator, before and after noise."""
    figure, axes = plt.subplots(1, 2, figsize=WIDE, sharey=True)
    x = _line(-5, 5)
    for ax, sigma, title in zip(
        axes, (0.0, 1.2), ("as they are", "with noise"), strict=True
    ):
        width = math.sqrt(0.35**2 + sigma**2)
        p, q = _normal(-1.5, width), _normal(1.5, width)
        _density(ax, x, p.log_prob(x).exp(), "C0", "$p$")
        _density(ax, x, q.log_prob(x).exp(), "C1", "$p_g$")
        ax.plot(
            x, optimal_discriminator(p.log_prob(x), q.log_prob(x)), "k--", label="$D^*$"
        )
        ax.set(title=title, xlabel="$x$", ylim=(0, 1.25))
    axes[0].set_ylabel("density, and $D^*$")
    axes[1].legend(loc="upper right", ncols=3, fontsize=10)
    return figure


def relativistic() -> Figure:
    """Losses of a pair against the difference of its logits; the divergences of examples and pairs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=WIDE)
    c = _line(-5, 5)
    left.plot(c, softplus(-c), label="discriminator")
    left.plot(c, softplus(c), "--", label="generator")
    left.plot(0, math.log(2), "ko")
    left.text(0, 0.12, r"$\log 2$", color="0.25", ha="center")
    left.set(xlabel="$a(x) - a(G(z))$", ylabel="loss of a pair (nats)", ylim=(0, 5.8))
    left.legend(loc="upper center", ncols=2, fontsize=10, columnspacing=1)
    shifts, x = torch.linspace(0, 5, 51).tolist(), _line(-10, 17, 1001)
    # For Gaussians of one width only x − y tells the two orders of a pair apart: N(∓m, 2).
    examples, pairs = (
        [
            jensen_shannon(
                _normal(a * m, s).log_prob, _normal(b * m, s).log_prob, x
            ).item()
            for m in shifts
        ]
        for a, b, s in ((0, 1, 1.0), (-1, 1, math.sqrt(2)))
    )
    right.plot(shifts, examples, label="of single examples")
    right.plot(shifts, pairs, "--", label="of pairs")
    right.axhline(math.log(2), color="0.5", lw=0.8, ls=":")
    right.set(xlabel="distance $m$", ylabel="JSD (nats)", ylim=(0, 0.78))
    right.legend(loc="lower right", fontsize=10)
    return figure


def balls() -> Figure:
    """Recall without coverage, and coverage without recall, by balls up to the nearest neighbour."""
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.6))
    real = torch.tensor(
        [
            [-1.0, 0.6],
            [-0.2, 1.0],
            [0.7, 0.8],
            [1.1, 0.0],
            [0.3, -0.7],
            [-0.6, -0.5],
            [-1.2, -0.2],
        ]
    )
    scattered = torch.tensor([[-3.2, 2.6], [3.3, 2.3], [3.0, -2.7], [-3.1, -2.5]])
    near = real + torch.tensor([0.32, 0.18])
    tight = torch.cat([near, near + torch.tensor([0.05, 0.03])])
    for ax, fake, title in (
        (axes[0], scattered, "recall 1, coverage 0"),
        (axes[1], tight, "recall 0, coverage 1"),
    ):
        radius, radius_fake = (
            torch.cdist(v, v).fill_diagonal_(math.inf).amin(1) for v in (real, fake)
        )
        between = torch.cdist(real, fake)
        covered = (between <= radius[:, None]).any(1).float().mean()
        recalled = (between <= radius_fake[None]).any(1).float().mean()
        assert title == f"recall {recalled:.0f}, coverage {covered:.0f}"
        for centre, r in zip(real, radius, strict=True):
            ax.add_patch(Circle(centre.tolist(), r.item(), fc="none", ec="C0", lw=0.8))
        for centre, r in zip(fake, radius_fake, strict=True):
            ax.add_patch(
                Circle(centre.tolist(), r.item(), fc="none", ec="C1", lw=1.2, ls="--")
            )
        ax.scatter(*real.T, color="C0", s=26, label="real", zorder=3)
        ax.scatter(*fake.T, color="C1", marker="x", s=32, label="generated", zorder=3)
        limit = 4.2 if fake is scattered else 2.3
        ax.set(
            title=title, xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal",
            xticks=[], yticks=[],
        )  # fmt: skip
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2
    )
    return figure

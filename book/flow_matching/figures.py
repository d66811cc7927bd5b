"""Figures of the chapter on flow matching: fields and densities are exact, nothing is trained."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from course_lib.experiments import read_study
from course_lib.mixtures import GaussianMixture, three_modes, two_modes
from course_lib.schedules import LinearPath
from course_lib.solvers import (
    flow_log_prob,
    integrate,
    time_grid,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from torch import Tensor

PATH = LinearPath()
RESULTS = Path(__file__).parents[2] / "results"


def _field(mixture: GaussianMixture) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda z, t: mixture.velocity(z, t, PATH)


def _trajectory(mixture: GaussianMixture, start: Tensor, times: Tensor) -> Tensor:
    """Places at all times, shape ``(T, N, D)``."""
    rows = [start]
    for step in times.unfold(0, 2, 1):
        rows.append(integrate(_field(mixture), rows[-1], step, "rk4"))
    return torch.stack(rows)


def _density(axes: Axes, limit: float = 2.8, cmap: str = "Greys") -> None:
    """The density of the line's mixture over time, as a map."""
    times = torch.linspace(0, 1, 120).double()
    places = torch.linspace(-limit, limit, 200).double()
    rows = [two_modes().log_prob(places[:, None], 1 - t, t).exp() for t in times]
    axes.pcolormesh(
        times,
        places,
        torch.stack(rows, 1).sqrt(),
        cmap=cmap,
        shading="auto",
        vmax=1.6,
        rasterized=True,
    )
    axes.set_ylim(-limit, limit)


def layers_limit() -> Figure:
    """Residual blocks along a trajectory, and their log-determinants against their number."""
    mixture = three_modes()
    x = torch.tensor([[0.55, -0.1]]).double()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    curve = _trajectory(mixture, x, time_grid(60, 0.0, 1.0))[:, 0]
    left.plot(*curve.T, color="black", lw=1.5, label="trajectory")
    for n, style, colour in ((3, "s:", "C0"), (6, "^--", "C1"), (24, "o-", "C2")):
        z, places = x, [x[0]]
        for k in range(n):
            z = z + _field(mixture)(z, torch.tensor(k / n).double()) / n
            places.append(z[0])
        left.plot(
            *torch.stack(places).T, style, color=colour, lw=1, ms=4, label=f"{n} blocks"
        )
    left.plot(*x[0], "o", color="black", ms=6)
    left.annotate("example", x[0].tolist(), (8, -4), textcoords="offset points")
    left.set_aspect("equal", adjustable="datalim")
    left.legend(loc="best")
    left.set_xlabel("$z_1$")
    left.set_ylabel("$z_2$")
    counts = (4, 8, 16, 32, 64, 128)
    sums = torch.tensor([_sums(mixture, x, n) for n in counts])
    end = curve[-1:].clone()
    exact = (mixture.log_prob(x) - mixture.log_prob(end, 0.0, 1.0)).item()
    right.plot(counts, sums[:, 0], "s--", label="traces")
    right.plot(counts, sums[:, 1], "o-", label="log-determinants")
    right.axhline(exact, color="black", lw=1, ls=":", label="integral")
    right.set_xscale("log", base=2)
    right.set_xticks(counts, [str(n) for n in counts])
    right.minorticks_off()
    right.set_xlabel("number of blocks $n$")
    right.set_ylabel("sum over the blocks (nats)")
    right.legend()
    return figure


def _sums(mixture: GaussianMixture, x: Tensor, n: int) -> tuple[float, float]:
    """Sums of traces and of log-determinants of n Euler steps from data to noise."""
    traces = volumes = 0.0
    for k in range(n):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            v = mixture.velocity(leaf, torch.tensor(k / n).double(), PATH)
            rows = [
                torch.autograd.grad(e.sum(), leaf, retain_graph=True)[0] for e in v.T
            ]
        jacobian = torch.stack(rows, 1)[0] / n
        traces += jacobian.trace().item()
        eye = torch.eye(len(jacobian)).double()
        volumes += (eye + jacobian).det().abs().log().item()
        x = x + v.detach() / n
    return traces, volumes


def mean_velocity() -> Figure:
    """Pairs through one point of the plane with their mean velocity, and the field of such means."""
    mixture, t = three_modes(), 0.55
    here = torch.tensor([[1.0, 0.75]]).double()
    generator = torch.Generator().manual_seed(4)
    x = mixture.sample(4000, generator=generator)
    weight = (-0.5 * ((here - (1 - t) * x) / t).square().sum(1)).softmax(0)
    chosen = x[torch.multinomial(weight, 12, generator=generator)]
    noise = (here - (1 - t) * chosen) / t
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2))
    side = torch.linspace(-2.4, 2.4, 90).double()
    points = torch.cartesian_prod(side, side)
    clean = mixture.log_prob(points).exp().view(90, 90).mT
    left.contourf(side, side, clean, levels=8, cmap="Blues", alpha=0.6)
    for example, end in zip(chosen, noise, strict=True):
        left.plot(*torch.stack([example, end]).T, color="0.35", lw=0.9)
    left.plot(*chosen.T, "o", color="C0", ms=5, label="examples $x$")
    left.plot(*noise.T, "x", color="C7", ms=6, label=r"noise $\varepsilon$")
    v = mixture.velocity(here, torch.tensor(t).double(), PATH)
    # The direction of sampling, from noise to data, is −v.
    left.quiver(
        *here[0],
        *v[0],
        color="C1",
        angles="xy",
        scale_units="xy",
        scale=0.9,
        width=0.014,
        zorder=5,
    )
    left.plot(*here[0], "D", color="C1", ms=7, zorder=6, label="$z$, and $v(z, t)$")
    left.set_title("pairs through one point")
    left.legend(loc="upper left")
    density = mixture.log_prob(points, 1 - t, t).exp().view(90, 90).mT
    right.contourf(side, side, density, levels=8, cmap="Greys", alpha=0.7)
    coarse = torch.linspace(-2.1, 2.1, 11).double()
    arrows = torch.cartesian_prod(coarse, coarse)
    field = mixture.velocity(arrows, torch.tensor(t).double(), PATH)
    right.quiver(*arrows.T, *field.T, color="C1", angles="xy", scale=45, width=0.006)
    right.set_title("mean velocity, $t = 0.55$")
    for axes in (left, right):
        axes.set_xlim(-2.4, 2.4)
        axes.set_ylim(-2.4, 2.4)
        axes.set_aspect("equal")
        axes.set_xlabel("$z_1$")
    left.set_ylabel("$z_2$")
    return figure


def loss_floor() -> Figure:
    """The least loss at each time for a Gaussian, for two modes, and for two points."""
    times = torch.linspace(0.004, 1, 120).double()
    figure, axes = plt.subplots(figsize=(7, 3.6))
    axes.plot(
        times,
        1 / ((1 - times) ** 2 + times**2),
        label=r"Gaussian: area $\pi/2$",
    )
    z = torch.linspace(-7, 7, 3001).double()[:, None]
    for variance, style, name in ((0.1, "--", "two modes"), (0.0, ":", "two points")):
        place = math.sqrt(1 - variance)
        mixture = GaussianMixture(
            torch.tensor([0.5, 0.5]).double(),
            torch.tensor([[-place], [place]]).double(),
            torch.full((2, 1, 1), variance).double(),
        )
        values = []
        for t in times:
            chance = mixture.log_prob(z, 1 - t, t).exp()
            spread = mixture.posterior_variance(z, 1 - t, t) / t**2
            values.append((chance * spread).sum() / chance.sum())
        values = torch.stack(values)
        area = torch.trapezoid(values, times).item()
        axes.plot(times, values, style, label=f"{name}: area {area:.2f}", lw=2)
    axes.set_ylim(0, 2.1)
    axes.set_xlabel("time $t$: data at 0, noise at 1")
    axes.set_ylabel(r"least loss at time $t$")
    axes.legend(loc="lower center")
    return figure


def weights() -> Figure:
    """Weights of four losses over log SNR, and one flow on two paths."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    level = np.linspace(-9, 9, 300)
    logit = -level / 2  # of the time, on the linear path
    t = 1 / (1 + np.exp(-logit))
    # A normal density of the logit, as a density of the time.
    normal = np.exp(-0.5 * logit**2) / (t * (1 - t)) / 4
    for values, style, name in (
        (np.ones_like(level), "-", "likelihood bound"),
        (np.exp(-level / 2), "--", "velocity, uniform $t$"),
        (np.exp(-level / 2) * normal, "-.", "velocity, logit-normal $t$"),
        (1 / np.cosh(level / 2), ":", "noise, cosine schedule"),
    ):
        left.plot(level, values, style, label=name, lw=2)
    left.set_yscale("log")
    left.set_ylim(2e-6, 300)
    left.set_xlabel(r"log signal-to-noise ratio $\lambda$")
    left.set_ylabel("relative weight of the noise's error")
    left.legend(loc="lower left")
    times = np.linspace(0, 1, 100)
    for k, start in enumerate((-2.0, -1.0, 0.5, 1.5)):
        label = ("linear path", "variance preserving") if k == 0 else (None, None)
        right.plot(
            times,
            start * np.sqrt(times**2 + (1 - times) ** 2),
            color="C1",
            label=label[0],
        )
        right.plot(times, np.full_like(times, start), "--", color="C0", label=label[1])
    right.set_xlabel("time $t$")
    right.set_ylabel("$z_t$")
    right.set_ylim(-2.4, 2.6)
    right.legend(loc="upper center", ncols=2)
    right.invert_xaxis()
    return figure


def bending() -> Figure:
    """Straight conditional paths that cross, and the trajectories of their mean velocity."""
    mixture = two_modes()
    generator = torch.Generator().manual_seed(6)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7), sharey=True)
    for axes in (left, right):
        _density(axes)
        axes.set_xlabel("time $t$: noise at 1, data at 0")
    x = mixture.sample(14, generator=generator)
    noise = torch.randn(14, 1, generator=generator).double()
    left.plot([1, 0], torch.cat([noise, x], 1).mT, color="C0", lw=1.1)
    left.set_title("conditional paths")
    left.set_ylabel("$z_t$")
    start = torch.tensor([-1.9, -1.2, -0.7, -0.35, 0.0, 0.4, 0.9, 1.6]).double()
    times = time_grid(80)
    curves = _trajectory(mixture, start[:, None], times)[:, :, 0]
    right.plot(times, curves, color="C1", lw=1.4)
    mean = mixture.mean.item()
    for z in (-1.2, 1.6):
        right.plot([1, 0], [z, mean], "--", color="black", lw=1.1)
    right.plot(0, mean, "X", color="black", ms=9, clip_on=False, zorder=5)
    right.annotate("dashed: one Euler step each", (0.5, 2.25), ha="center")
    right.set_title("trajectories")
    left.set_xlim(1, 0)
    right.set_xlim(1, 0)
    return figure


def solver_order() -> Figure:
    """Error at the end of four solvers against evaluations of the exact field of the plane."""
    mixture = three_modes()
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(64, 2, dtype=torch.float64, generator=generator)
    truth = integrate(_field(mixture), z, time_grid(160), "rk4")
    figure, axes = plt.subplots(figsize=(7, 3.8))
    for name, label, each, style in (
        ("euler", "Euler", 1, "o-"),
        ("midpoint", "midpoint", 2, "s--"),
        ("heun", "Heun", 2, "^-."),
        ("rk4", "Runge–Kutta, order 4", 4, "D:"),
    ):
        counts = [n for n in (4, 8, 16, 32, 64, 128) if n >= each]
        errors = [
            (integrate(_field(mixture), z, time_grid(n // each), name) - truth).norm()
            / 8
            for n in counts
        ]
        axes.plot(counts, errors, style, label=label)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks((4, 8, 16, 32, 64, 128), [str(n) for n in (4, 8, 16, 32, 64, 128)])
    axes.minorticks_off()
    axes.set_xlabel("evaluations of the velocity")
    axes.set_ylabel("distance from the exact end")
    axes.legend(loc="lower left")
    return figure


def _root(matrix: Tensor) -> Tensor:
    values, axes = torch.linalg.eigh(matrix)
    return axes @ values.sqrt().diag() @ axes.mT


def gaussian_transport() -> Figure:
    """The flow and the optimal map between two Gaussians whose covariances do not commute."""
    source = torch.tensor([[1.9, 0.0], [0.0, 0.12]]).double()
    data = torch.tensor([[0.8, 0.66], [0.66, 0.8]]).double()
    shift = torch.tensor([0.0, 3.1]).double()
    half = _root(source)
    other = torch.linalg.inv(half)
    flow = half @ _root(other @ data @ other) @ other
    best = other @ _root(half @ data @ half) @ other
    angle = torch.linspace(0, 2 * math.pi, 120).double()
    circle = torch.stack([angle.cos(), angle.sin()])
    spokes = circle[:, torch.arange(0, 120, 10)] * 0.999
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
    for axes, matrix, name in (
        (panels[0], flow, "flow of independent pairs"),
        (panels[1], best, "optimal transport"),
    ):
        apart = torch.eye(2).double() - matrix
        cost = (apart @ source @ apart.mT).trace() + shift.square().sum()
        axes.plot(*(1.5 * half @ circle), color="C7", lw=2)
        axes.plot(
            *(1.5 * matrix @ half @ circle + shift[:, None]), "--", color="C0", lw=2
        )
        begin = 1.5 * half @ spokes
        end = matrix @ begin + shift[:, None]
        axes.plot(*begin, "o", color="C7", ms=4)
        axes.quiver(
            *begin,
            *(end - begin),
            color="C1",
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.005,
        )
        axes.set_title(f"{name}: cost {cost:.2f}")
        axes.set_aspect("equal")
        axes.set_xlim(-2.9, 2.9)
        axes.annotate("source", (0, -1.15), ha="center", color="0.3")
        axes.annotate("data", (2.0, 3.9), ha="center", color="C0")
    panels[0].set_ylim(-1.4, 5.2)
    return figure


def _half_circles(n: int, generator: torch.Generator) -> Tensor:
    """Points of two interlocking half circles, centred."""
    angle = math.pi * torch.rand(n, generator=generator)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    which = (torch.arange(n) % 2 == 0)[:, None]
    points = torch.where(which, upper, lower) - torch.tensor([0.5, 0.25])
    return 1.5 * points + 0.05 * torch.randn(n, 2, generator=generator)


def _paired(x: Tensor, noise: Tensor, size: int) -> Tensor:
    """Examples in the order in which they belong to the noises, batch by batch."""
    parts = []
    for a, b in zip(x.split(size), noise.split(size), strict=True):
        _, order = linear_sum_assignment(torch.cdist(b, a).square().numpy())
        parts.append(a[torch.from_numpy(order)])
    return torch.cat(parts)


def couplings() -> Figure:
    """Pairs of noise and data: independent, optimal within batches, and the cost by batch size."""
    generator = torch.Generator().manual_seed(1)
    x = _half_circles(4096, generator)[torch.randperm(4096, generator=generator)]
    noise = torch.randn(4096, 2, generator=generator)
    figure, panels = plt.subplots(1, 4, figsize=(9, 2.7))
    for axes, size, name in (
        (panels[0], 1, "independent"),
        (panels[1], 8, "batches of 8"),
        (panels[2], 128, "batches of 128"),
    ):
        pairs = _paired(x[:128], noise[:128], size)
        for a, b in zip(pairs, noise[:128], strict=True):
            axes.plot(*torch.stack([a, b]).T, color="0.5", lw=0.6)
        axes.plot(*noise[:128].T, "x", color="C7", ms=4)
        axes.plot(*pairs.T, "o", color="C0", ms=3)
        axes.set_title(name)
        axes.set_aspect("equal")
        axes.set_xlim(-3.2, 3.2)
        axes.set_ylim(-3.2, 3.2)
        axes.set_xticks([])
        axes.set_yticks([])
    sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    costs = [(_paired(x, noise, n) - noise).square().sum(1).mean() for n in sizes]
    panels[3].plot(sizes, costs, "o-", color="C1")
    panels[3].set_xscale("log", base=2)
    panels[3].set_xticks((1, 4, 16, 64, 256), ["1", "4", "16", "64", "256"])
    panels[3].minorticks_off()
    panels[3].set_ylim(bottom=0)
    panels[3].set_xlabel("size of a batch")
    panels[3].set_title("cost of a pair")
    return figure


def reflow() -> Figure:
    """Independent pairs, their flow, and the pairs that the flow makes, with their costs."""
    mixture = two_modes()
    generator = torch.Generator().manual_seed(2)
    noise = torch.linspace(0.04, 0.96, 16).double()
    noise = torch.special.ndtri(noise)[:, None]
    x = mixture.sample(16, generator=generator)
    times = time_grid(60)
    curves = _trajectory(mixture, noise, times)[:, :, 0]
    independent = (mixture.covariance + mixture.mean**2).item() + 1
    many = torch.special.ndtri((torch.arange(2000).double() + 0.5) / 2000)[:, None]
    ends = integrate(_field(mixture), many, time_grid(40), "rk4")
    after = (many - ends).square().mean().item()
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.3), sharey=True)
    for axes in panels:
        _density(axes)
        axes.set_xlim(1, 0)
        axes.set_xlabel("time $t$")
    panels[0].plot([1, 0], torch.cat([noise, x], 1).mT, color="C0", lw=1.1)
    panels[0].set_title(f"independent: cost {independent:.2f}")
    panels[1].plot(times, curves, color="C1", lw=1.2)
    panels[1].set_title("their flow")
    panels[2].plot(
        [1, 0], torch.stack([curves[0], curves[-1]]), color="C2", lw=1.2, ls="--"
    )
    panels[2].set_title(f"pairs of the flow: cost {after:.2f}")
    panels[0].set_ylabel("$z_t$")
    return figure


def average_velocity() -> Figure:
    """A trajectory with a tangent and a chord, and three functions along it."""
    mixture = two_modes()
    times = time_grid(120)
    curve = _trajectory(mixture, torch.tensor([[-0.7]]).double(), times)[:, 0, 0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    left.plot(times, curve, color="black", lw=1.6, label="trajectory")
    late, early = 18, 102  # t = 0.85 and r = 0.15
    t, r = times[late].item(), times[early].item()
    v = mixture.velocity(curve[late].view(1, 1), times[late], PATH).item()
    z = curve[late].item()
    left.plot([t, r], [z, z - (t - r) * v], "--", color="C0", label=r"tangent: $v$")
    left.plot([t, r], [z, curve[early].item()], "-.", color="C1", label="chord: $u$")
    left.plot([t, r], [z, curve[early].item()], "o", color="C1", ms=6)
    left.annotate("$t$", (t, z), (0, 9), textcoords="offset points", ha="center")
    left.annotate(
        "$r$",
        (r, curve[early].item()),
        (0, -15),
        textcoords="offset points",
        ha="center",
    )
    left.set_xlim(1, 0)
    left.set_xlabel("time: noise at 1, data at 0")
    left.set_ylabel("$z_t$")
    left.legend(loc="lower left")
    velocity = torch.cat(
        [
            mixture.velocity(z.view(1, 1), s, PATH)
            for z, s in zip(curve, times, strict=True)
        ]
    )[:, 0]
    average = (curve[:-1] - curve[-1]) / times[:-1]
    right.plot(times, velocity, "--", color="C0", label="velocity $v(z_t, t)$")
    right.plot(times[:-1], average, "-.", color="C1", label="average $u(z_t, 0, t)$")
    right.plot(
        times,
        torch.full_like(times, curve[-1].item()),
        color="C2",
        label="end $f(z_t, t)$",
    )
    right.set_xlim(1, 0)
    right.set_xlabel("time")
    right.set_ylim(-1.9, 3.4)
    right.legend(loc="upper right")
    return figure


def _standard(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def few_steps_flatter() -> Figure:
    """The mass of what few steps report as a density, and the mean error on data."""
    mixture = two_modes()
    z = torch.linspace(-6, 6, 2401).double()[:, None]
    step = 12 / 2400
    truth = mixture.log_prob(z)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for name, label, each, style in (
        ("euler", "Euler", 1, "o-"),
        ("midpoint", "midpoint", 2, "s--"),
    ):
        counts, masses, errors = (4, 8, 16, 32, 64), [], []
        for n in counts:
            found = flow_log_prob(
                _field(mixture), z, time_grid(n // each, 0.0, 1.0), _standard, name
            )
            masses.append((found.exp().sum() * step).item())
            errors.append((truth.exp() * (found - truth)).sum().item() * step)
        left.plot(counts, masses, style, label=label)
        right.plot(counts, errors, style, label=label)
    left.axhline(1, color="black", lw=1, ls=":")
    left.set_ylim(bottom=0)
    left.set_ylabel("integral of what is reported")
    right.axhline(0, color="black", lw=1, ls=":")
    right.set_ylabel("mean error on data (nats)")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(n) for n in counts])
        axes.set_xlabel("evaluations of the velocity")
        axes.legend()
    return figure


def extrapolated() -> Figure:
    """A log-density by two methods, and what doubling the steps makes of it."""
    mixture = three_modes()
    x = torch.tensor([[0.9, -0.3]]).double()
    truth = mixture.log_prob(x).item()
    figure, axes = plt.subplots(figsize=(7, 3.6))
    counts = (8, 16, 32, 64, 128)
    for name, label, order, each, style in (
        ("euler", "Euler", 1, 1, "o-"),
        ("midpoint", "midpoint", 2, 2, "s--"),
    ):
        values = [
            flow_log_prob(
                _field(mixture), x, time_grid(n // each, 0.0, 1.0), _standard, name
            ).item()
            for n in counts
        ]
        better = [b + (b - a) / (2**order - 1) for a, b in pairwise(values)]
        (drawn,) = axes.plot(counts, values, style, label=label)
        axes.plot(
            counts[1:],
            better,
            style[0],
            color=drawn.get_color(),
            mfc="white",
            ms=8,
            label=f"{label}, extrapolated",
        )
    axes.axhline(truth, color="black", lw=1, ls=":", label="exact")
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set_xlabel("evaluations of the velocity")
    axes.set_ylabel(r"$\log p(x)$ (nats)")
    axes.legend()
    return figure


def recorded_flow_samples() -> Figure:
    """Recorded Fréchet distance of samples against evaluations, by training and solver."""
    record = read_study(RESULTS, "flow_samples")
    figure, axes = plt.subplots(figsize=(7, 4))
    kinds = dict.fromkeys((row["method"], row["solver"]) for row in record.rows)
    styles = ("o-", "s--", "^-", "v--", "D-.", "P:", "X:")
    for (method, solver), style in zip(kinds, styles, strict=True):
        rows = [
            r for r in record.rows if (r["method"], r["solver"]) == (method, solver)
        ]
        values = torch.tensor([r["frechet"] for r in rows], dtype=torch.float64)
        several = solver == "midpoint" or (method, "midpoint") in kinds
        axes.errorbar(
            [r["evaluations"] for r in rows],
            values.mean(1),
            yerr=values.std(1),
            fmt=style,
            capsize=2,
            label=f"{method}, {solver}" if several else method,
        )
    real = record.noise_floor["digits"]
    middle, spread = real["frechet"], real["frechet_spread"]
    axes.axhspan(
        middle - spread, middle + spread, color="0.8", lw=0, label="training images"
    )
    axes.set(xscale="log", yscale="log", ylabel="Fréchet distance")
    axes.set_xticks((1, 2, 4, 8, 16, 32), ("1", "2", "4", "8", "16", "32"))
    axes.minorticks_off()
    axes.set_xlabel("evaluations of the network")
    axes.legend(fontsize=9)
    return figure

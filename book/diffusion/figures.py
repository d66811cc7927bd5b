"""Figures of the chapter on diffusion: every curve is computed, most of them exactly."""

import math
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from course_lib.data import digits, intensities
from course_lib.diffusion import (
    LinearGaussianDiffusion,
    Memorizer,
    ddim,
    guided,
    heun,
    posterior,
    replacement_moments,
)
from course_lib.diffusion.samplers import level
from course_lib.experiments import read_study
from course_lib.mixtures import GaussianMixture, three_modes, two_modes
from course_lib.schedules import Cosine, LinearLogSNR, LinearPath
from course_lib.solvers import integrate, time_grid
from matplotlib.figure import Figure
from torch import Tensor

RESULTS = Path(__file__).parents[2] / "results"


def _map(schedule: Cosine, limit: float = 2.8) -> tuple[Tensor, Tensor, Tensor]:
    """Times, places and the density of the line's mixture there, for a map."""
    times = torch.linspace(0, 1, 160).double()
    places = torch.linspace(-limit, limit, 240).double()
    rows = [
        two_modes()
        .log_prob(places[:, None], schedule.alpha(t), schedule.sigma(t))
        .exp()
        for t in times
    ]
    return times, places, torch.stack(rows, 1)


def noising() -> Figure:
    """The density of a mixture under noise as a map over time, and signal and noise below it."""
    schedule = Cosine(8.0, -8.0)
    times, places, density = _map(schedule)
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(7, 4.6), sharex=True, height_ratios=(2.2, 1)
    )
    above.pcolormesh(
        times, places, density.sqrt(), cmap="Blues", shading="auto", rasterized=True
    )
    above.set_ylabel("$z_t$")
    below.plot(times, schedule.alpha(times), label=r"signal $\alpha_t$")
    below.plot(times, schedule.sigma(times), "--", label=r"noise $\sigma_t$")
    below.set_xlabel("time $t$: data at 0, noise at 1")
    below.legend(loc="center right")
    return figure


def _error_of_points(points: Tensor, log_snr: Tensor) -> Tensor:
    """Least squared error for one of some points on the line, at each log SNR."""
    values = []
    noise = torch.linspace(-6, 6, 61).double()
    chance = (-0.5 * noise**2).exp()
    chance = chance / chance.sum()
    for ratio in (0.5 * log_snr).exp():
        z = (ratio * points[:, None] + noise).flatten()
        r = (-0.5 * (z[:, None] - ratio * points) ** 2).softmax(1)
        error = (points[:, None] - (r @ points).view(len(points), -1)) ** 2
        values.append((error @ chance).mean())
    return torch.stack(values)


def information() -> Figure:
    """Half the squared error times the SNR, against log SNR: the area is in nats."""
    log_snr = torch.linspace(-7, 9, 97).double()
    figure, axes = plt.subplots(figsize=(7, 3.6))
    gaussian = 0.5 / (1 + log_snr.exp()) * log_snr.exp()
    axes.plot(
        log_snr,
        gaussian,
        ":",
        color="C7",
        label=r"$\mathcal{N}(0, 1)$: area without limit",
    )
    for n, style, colour in ((2, "-", "C0"), (16, "--", "C1")):
        points = torch.linspace(-1, 1, n).double()
        points = points / points.std(unbiased=False)
        value = 0.5 * log_snr.exp() * _error_of_points(points, log_snr)
        axes.plot(
            log_snr, value, style, color=colour, label=rf"{n} points: area $\log {n}$"
        )
        axes.fill_between(log_snr, value, alpha=0.15, color=colour)
    axes.set_xlabel(r"log signal-to-noise ratio $\lambda$")
    axes.set_ylabel(r"$\frac{1}{2}\,\mathrm{SNR}\cdot$ squared error")
    axes.set_ylim(0, 0.62)
    axes.legend(loc="upper left")
    return figure


def scores() -> Figure:
    """The score of a mixture of the plane at three noise levels, over its density."""
    mixture = three_modes()
    side = torch.linspace(-2.4, 2.4, 90).double()
    points = torch.cartesian_prod(side, side)
    coarse = torch.linspace(-2.1, 2.1, 11).double()
    arrows = torch.cartesian_prod(coarse, coarse)
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.3), sharey=True)
    for axes, sigma in zip(panels, (0.25, 0.6, 0.95), strict=True):
        alpha = math.sqrt(1 - sigma**2)
        density = mixture.log_prob(points, alpha, sigma).exp().view(90, 90).mT
        axes.contourf(side, side, density, levels=9, cmap="Blues")
        score = mixture.score(arrows, alpha, sigma)
        # Their directions, with lengths that saturate: they differ by more than a factor of ten.
        length = score.norm(dim=1, keepdim=True)
        score = score / length * torch.tanh(length / 3)
        axes.quiver(*arrows.T, *score.T, color="C1", angles="xy", scale=16, width=0.006)
        axes.set_title(rf"$\sigma = {sigma}$")
        axes.set_aspect("equal")
        axes.set_xlabel("$z_1$")
    panels[0].set_ylabel("$z_2$")
    return figure


def memorizer() -> Figure:
    """The loss of the exact denoiser of 200 digits, on these and on other digits."""
    data = digits()
    own, other = (
        2 * intensities(x[:200], data.levels, dtype=torch.float64) - 1
        for x in (data.train, data.test)
    )
    exact, generator = Memorizer(own), torch.Generator().manual_seed(0)
    log_snr = torch.linspace(-9, 4, 53).double()
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for x, style, label in (
        (own, "-", "its own images"),
        (other, "--", "other images"),
    ):
        values = []
        for value in log_snr:
            alpha, sigma = value.sigmoid().sqrt(), (-value).sigmoid().sqrt()
            noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
            found = exact.denoise(alpha * x + sigma * noise, alpha, sigma)
            error = (x - found).square().flatten(1).sum(1).mean()
            values.append(0.5 * value.exp() * error)
        axes.plot(log_snr, torch.stack(values), style, label=label)
    axes.set_yscale("log")
    axes.set_ylim(1e-3, 300)
    axes.set_xlabel(r"log signal-to-noise ratio $\lambda$")
    axes.set_ylabel(r"$\frac{1}{2}\,\mathrm{SNR}\cdot$ squared error")
    axes.legend()
    return figure


def paths() -> Figure:
    """Trajectories of the probability-flow ODE and of a process with noise, over the same density."""
    schedule, mixture = Cosine(8.0, -8.0), two_modes()
    times, places, density = _map(schedule)
    grid = time_grid(100)
    generator = torch.Generator().manual_seed(3)
    start = torch.linspace(-1.7, 1.7, 9).double()[:, None]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axes, eta, title in (
        (panels[0], 0.0, "$g = 0$: the ODE"),
        (panels[1], 1.0, "$g > 0$: with noise"),
    ):
        axes.pcolormesh(
            times,
            places,
            density.sqrt(),
            cmap="Greys",
            shading="auto",
            vmax=1.6,
            rasterized=True,
        )
        z, rows = start, [start]
        for step in grid.unfold(0, 2, 1):
            z = ddim(
                mixture.denoiser(schedule),
                schedule,
                z,
                step,
                eta=eta,
                generator=generator,
            )
            rows.append(z)
        axes.plot(grid, torch.stack(rows)[:, :, 0], color="C0", lw=1.2)
        axes.set_title(title)
        axes.set_xlabel("time $t$")
        axes.invert_xaxis()
    panels[0].set_ylabel("$z_t$")
    return figure


def samplers() -> Figure:
    """Error of DDIM and Heun's method, and of ancestral sampling's variance, against evaluations."""
    schedule, mixture = LinearLogSNR(7.0, -7.0), three_modes()
    denoise = mixture.denoiser(schedule)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(64, 2, dtype=torch.float64, generator=generator)
    truth = heun(denoise, schedule, z, time_grid(400))
    counts = (8, 16, 32, 64, 128)
    errors = {
        "DDIM": [
            (ddim(denoise, schedule, z, time_grid(n)) - truth).norm() / 8
            for n in counts
        ],
        "Heun": [
            (heun(denoise, schedule, z, time_grid(n // 2)) - truth).norm() / 8
            for n in counts
        ],
    }
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for (name, values), style in zip(errors.items(), ("o-", "s--"), strict=True):
        axes.plot(
            counts, values, style, label=f"{name}: distance from the exact ODE's end"
        )
    # One Gaussian of the line, on which ancestral sampling is a chain of known variances.
    values = [abs(_ancestral_variance(n) - 0.3) for n in counts]
    axes.plot(
        counts,
        values,
        "^:",
        color="C2",
        label="ancestral: error of a Gaussian's variance",
    )
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.minorticks_off()
    axes.set_xlabel("evaluations of the denoiser")
    axes.set_ylabel("error")
    axes.legend()
    return figure


def recorded_samplers() -> Figure:
    """Recorded Fréchet distance and coverage of samples against evaluations of the network."""
    record = read_study(RESULTS, "diffusion_samplers")
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.2), layout="constrained")
    styles = {"ancestral": "o-", "DDIM": "s--", "Heun": "^-."}
    for ax, measure in zip(axes, ("frechet", "coverage"), strict=True):
        for name, style in styles.items():
            rows = [row for row in record.rows if row["method"] == name]
            values = torch.tensor([row[measure] for row in rows], dtype=torch.float64)
            counts = [row["evaluations"] for row in rows]
            bars = {"yerr": values.std(1), "capsize": 2, "markersize": 5}
            ax.errorbar(counts, values.mean(1), fmt=style, label=name, **bars)
        real = record.noise_floor["digits"]
        middle, spread = real[measure], real[f"{measure}_spread"]
        ax.axhspan(
            middle - spread, middle + spread, color="0.8", lw=0, label="real images"
        )
        ax.set_xscale("log")
        ax.set_xticks((4, 10, 20, 50, 100), ("4", "10", "20", "50", "100"))
        ax.minorticks_off()
        ax.set_xlabel("evaluations of the network")
    axes[0].set(yscale="log", ylabel="Fréchet distance")
    axes[0].set_yticks((0.5, 1, 2, 5, 10), ("0.5", "1", "2", "5", "10"))
    axes[0].minorticks_off()
    axes[1].set(ylabel="coverage", ylim=(0, 1.03))
    axes[1].legend(fontsize=10, loc="lower right")
    return figure


def _ancestral_variance(steps: int, c: float = 0.3) -> float:
    """Variance of what ancestral sampling makes of N(0, c): its kernels, composed."""
    model = LinearGaussianDiffusion(
        torch.tensor([c]).double(), LinearLogSNR(7.0, -7.0), time_grid(steps)
    )
    return model.model_variance().item()


def guidance() -> Figure:
    """Densities that the guided ODE samples, and the tilted ones, of one Gaussian class."""
    path = LinearPath()

    def gaussian(mean: float, variance: float) -> GaussianMixture:
        shape = torch.tensor([[mean]]).double(), torch.tensor([[[variance]]]).double()
        return GaussianMixture(torch.ones(1).double(), *shape)

    own, every = gaussian(1.0, 0.3), gaussian(0.0, 1.0)
    x = np.linspace(-0.9, 3.0, 500)
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for colour, w in enumerate((0.0, 1.0, 2.0)):

        def velocity(z: Tensor, t: Tensor, w: float = w) -> Tensor:
            return guided(own.velocity(z, t, path), every.velocity(z, t, path), w)

        # The map is affine: two points tell it.
        ends = integrate(
            velocity, torch.tensor([[0.0], [1.0]]).double(), time_grid(100), "rk4"
        )
        mean, deviation = ends[0].item(), abs(ends[1] - ends[0]).item()
        precision = (1 + w) / 0.3 - w
        tilted = (1 + w) / 0.3 / precision, precision**-0.5
        axes.plot(
            x,
            _normal(x, mean, deviation),
            color=f"C{colour}",
            label=f"$w = {w:.0f}$: sampled",
        )
        axes.plot(
            x,
            _normal(x, *tilted),
            "--",
            color=f"C{colour}",
            label=f"$w = {w:.0f}$: tilted",
        )
    axes.set_xlabel("$x$")
    axes.set_ylabel("density")
    axes.legend(loc="upper left")
    return figure


def completion() -> Figure:
    """Mean of an entry completed by replacement: against the correlation, and its error against repeats."""
    rho = torch.linspace(0, 0.999, 200).double()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7))
    left.plot(rho, rho, "--", color="black", label="conditional mean")
    styles = ((1, "-"), (2, "-."), (5, ":"))
    for colour, (repeats, style) in enumerate(styles):
        mean, _ = replacement_moments(rho, repeats)
        left.plot(
            rho, mean, style, color=f"C{colour}", label=f"replacement, $r = {repeats}$"
        )
    left.set_xlabel(r"correlation $\rho$")
    left.set_ylabel("mean, if the known entry is 1")
    left.legend()
    counts = (1, 2, 4, 8, 16, 32)
    chosen = torch.tensor(0.8).double()
    for steps, style in ((10, "s--"), (50, "^-.")):
        errors = [0.8 - _replaced_mean(0.8, repeats, steps) for repeats in counts]
        right.plot(counts, errors, style, label=f"{steps} steps")
    limit = [0.8 - replacement_moments(chosen, repeats)[0].item() for repeats in counts]
    right.plot(
        counts, limit, "o-", color="black", label="limit of infinitely many steps"
    )
    right.set(xscale="log", yscale="log")
    right.set_xticks(counts, [str(count) for count in counts])
    right.set_yticks((0.01, 0.1), ("0.01", "0.1"))
    right.minorticks_off()
    right.set_xlabel("repeats $r$ of each step")
    right.set_ylabel(r"error of the mean, $\rho = 0.8$")
    right.legend()
    return figure


def _replaced_mean(correlation: float, repeats: int, steps: int) -> float:
    """Mean of the completed entry after a chain of steps, for a known entry of 1: every step is affine."""
    schedule, mean = LinearLogSNR(9.0, -9.0), 0.0
    cov = torch.tensor([[1.0, correlation], [correlation, 1.0]]).double()
    mixture = GaussianMixture(
        torch.ones(1).double(), torch.zeros(1, 2).double(), cov[None]
    )
    unit = torch.eye(2).double()  # the unknown entry alone, and the known one
    for t, s in pairwise(level(schedule, t) for t in time_grid(steps)):
        clean = mixture.posterior_mean(unit, t.alpha, t.sigma)
        of_unknown, of_known = posterior(unit, clean, s, t)[0][:, 0].tolist()
        back = (t.alpha / s.alpha).item()
        for repeat in range(repeats):
            mean = of_unknown * (back * mean if repeat else mean)
            mean += of_known * t.alpha.item()
    return mean


def _normal(x: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - mean) / deviation) ** 2) / (
        deviation * math.sqrt(2 * math.pi)
    )

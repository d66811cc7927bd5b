"""Figures of the comparison. Each function draws one, and takes nothing."""

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from course_lib.data import binarize, digits, intensities
from course_lib.experiments import Metric, read_records
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = Path(__file__).parents[2] / "results"
SOLID, DASHED, DOTTED = "-", "--", ":"


def families() -> Figure:
    """What is computed from what in each family: the direction of the maps."""
    figure, grid = plt.subplots(2, 3, figsize=(7.4, 5.9), layout="constrained")
    names = ("autoregressive", "VAE", "GAN", "flow", "diffusion", "flow matching")
    axes = grid.flat
    for ax, name in zip(axes, names, strict=True):
        ax.set(xlim=(0, 4), ylim=(-0.6, 3.4))
        ax.set_title(name, fontsize=13)
        ax.set_axis_off()

    for i in range(4):
        _node(axes[0], (0.5 + i, 0.6), f"$x_{i + 1}$")
        for j in range(i):
            height = 0.32 * (i - j)
            _arrow(axes[0], (0.5 + j, 0.95), (0.5 + i, 0.95), f"arc3,rad=-{height:.2f}")
    axes[0].text(2, -0.35, "one after another", ha="center", fontsize=11)

    for ax in axes[1:4]:
        _node(ax, (2, 2.7), "$z$")
        _node(ax, (2, 0.6), "$x$")
    _arrow(axes[1], (2.2, 2.35), (2.2, 0.95), "arc3,rad=-0.3")
    _arrow(axes[1], (1.8, 0.95), (1.8, 2.35), "arc3,rad=-0.3", DASHED)
    axes[1].text(3.1, 1.65, "$p(x|z)$", fontsize=11, va="center", ha="center")
    axes[1].text(0.8, 1.65, "$q(z|x)$", fontsize=11, va="center", ha="center")
    axes[1].text(2, -0.35, "noise both ways", ha="center", fontsize=11)
    _arrow(axes[2], (2, 2.35), (2, 0.95))
    axes[2].text(2.25, 1.65, "$x = G(z)$", fontsize=11, va="center")
    axes[2].text(2, -0.35, "no way back", ha="center", fontsize=11)
    _arrow(axes[3], (1.9, 0.95), (1.9, 2.35))
    _arrow(axes[3], (2.1, 2.35), (2.1, 0.95))
    axes[3].text(2.35, 1.65, "$z = f(x)$", fontsize=11, va="center")
    axes[3].text(2, -0.35, "the same map back", ha="center", fontsize=11)

    places, marks = (3.0, 2.2, 1.4, 0.6), ("$z_T$", "$z_t$", "$z_s$", "$x$")
    for y, mark in zip(places, marks, strict=True):
        _node(axes[4], (2, y), mark, size=18)
    for above, below in pairwise(places):
        _arrow(axes[4], (2.2, above - 0.2), (2.2, below + 0.2), "arc3,rad=-0.4")
        _arrow(axes[4], (1.8, below + 0.2), (1.8, above - 0.2), "arc3,rad=-0.4", DOTTED)
    axes[4].text(2.6, 1.8, "$p(z_s|z_t)$", fontsize=11, va="center")
    axes[4].text(1.4, 1.8, "noise", fontsize=11, va="center", ha="right")
    axes[4].text(2, -0.35, "step by step", ha="center", fontsize=11)

    # A trajectory, which a solver follows both ways, and its velocity at one place.
    places = ((1.6, 2.7), (2.3, 1.65), (1.6, 0.6))
    for place, mark in zip(places, ("$z_1$", "$z_t$", "$x$"), strict=True):
        _node(axes[5], place, mark)
    for start, end in (((1.85, 2.55), (2.3, 2.0)), ((2.3, 1.3), (1.85, 0.75))):
        _arrow(axes[5], start, end, "arc3,rad=-0.2", head="<->")
    velocity = {"arrowstyle": "->", "color": "C1", "lw": 2.0}
    axes[5].annotate("", (2.62, 2.85), (2.62, 1.75), arrowprops=velocity)
    axes[5].text(2.75, 2.3, "$v(z_t,t)$", fontsize=11, va="center")
    axes[5].text(2, -0.35, "the same path back", ha="center", fontsize=11)
    return figure


def _node(ax: Axes, place: tuple[float, float], text: str, size: float = 23) -> None:
    ax.plot(*place, "o", ms=size, mfc="#d7e6f4", mec="0.3")
    ax.text(*place, text, ha="center", va="center", fontsize=12)


def _arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    bend: str = "arc3",
    style: str = SOLID,
    head: str = "->",
) -> None:
    arrow = {
        "arrowstyle": head,
        "color": "0.2",
        "lw": 1.3,
        "connectionstyle": bend,
        "ls": style,
    }
    ax.annotate("", end, start, arrowprops=arrow)


def protocols() -> Figure:
    """A grey digit, and what two protocols of binarization show of it in four epochs."""
    generator = torch.Generator().manual_seed(3)
    data = digits()
    grey = intensities(data.train, data.levels)[7:8]
    fixed = binarize(grey, generator=generator)
    figure, axes = plt.subplots(2, 5, figsize=(7.0, 3.1))
    for row, name in enumerate(("fixed", "dynamic")):
        axes[row, 0].imshow(grey[0, 0], vmin=0, vmax=1, cmap="gray")
        axes[row, 0].set_ylabel(name)
        for epoch in range(1, 5):
            shown = fixed if row == 0 else binarize(grey, generator=generator)
            axes[row, epoch].imshow(shown[0, 0], vmin=0, vmax=1, cmap="gray")
            if row == 0:
                axes[row, epoch].set_title(f"epoch {epoch}", fontsize=11)
    axes[0, 0].set_title("grey levels", fontsize=11)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure


def likelihood_against_samples() -> Figure:
    """What 99 % noise costs in bits per dimension; what leaving images out costs in two divergences."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.1))
    noise = np.linspace(0, 0.9999, 600)
    for (n_dims, name), style in zip(
        ((64, "8 × 8"), (784, "28 × 28"), (65536, "256 × 256")),
        (SOLID, DASHED, DOTTED),
        strict=True,
    ):
        left.plot(noise, -np.log2(1 - noise) / n_dims, style, lw=2, label=name)
    left.set(xlabel="share of noise in the samples", ylabel="largest loss, bits/dim")
    left.set(ylim=(-0.005, 0.16), xlim=(0, 1.01))
    left.legend(fontsize=10, title="pixels", loc="upper left")
    missing = np.linspace(0, 0.5, 200)
    right.plot(missing, missing, SOLID, label="total variation")
    right.plot(missing, -np.log(1 - missing), DASHED, label=r"KL($p_A$ ‖ $p$), nats")
    right.annotate(
        "KL($p$ ‖ $p_A$) = ∞\nas soon as anything is missing",
        (0.004, 0.76),
        xytext=(0.06, 0.76),
        fontsize=10,
        va="center",
        arrowprops={"arrowstyle": "->", "color": "0.2", "lw": 1},
    )
    right.axvline(0.002, color="C2", ls=DOTTED, lw=2)
    right.set(xlabel="share of the images left out, $1 - P(A)$", ylim=(-0.01, 0.88))
    right.legend(fontsize=10, loc="lower right")
    return figure


def images_seen() -> Figure:
    """Recorded test likelihoods on binarized MNIST over the images seen in training."""
    figure, ax = plt.subplots(figsize=(6.8, 3.6))
    below = {"DiagonalBiLSTM", "NADE"}
    for record in read_records(RESULTS, data="mnist"):
        name, metric = min(record.metrics.items(), key=lambda item: item[1].value)
        if metric.unit != "nats":
            continue
        seen = record.steps * record.settings["batch_size"]
        exact = name == "negative_log_likelihood"
        ax.errorbar(
            seen,
            metric.value,
            2 * metric.standard_error,
            fmt="o" if exact else "s",
            color="C0" if exact else "C1",
            capsize=3,
        )
        label = record.model + (" (IWAE, k = 50)" if "iwae" in record.budget else "")
        down = label in below
        ax.annotate(
            label,
            (seen, metric.value + (-2 if down else 2) * metric.standard_error),
            xytext=(0, -4 if down else 4),
            textcoords="offset points",
            ha="center",
            va="top" if down else "bottom",
            fontsize=9.5,
        )
    ax.plot([], [], "o", color="C0", label="likelihood")
    ax.plot([], [], "s", color="C1", label="importance-weighted bound")
    ax.set(xscale="log", xlabel="training images seen", ylabel="nats per test image")
    ax.set(xlim=(3.5e4, 3e7), ylim=(81.5, 89.8))
    ax.legend(fontsize=10, loc="lower right")
    return figure


def digits_ranking() -> Figure:
    """Recorded bits per dimension on the digits: both bounds of flows, with standard errors."""
    groups = defaultdict(list)
    for record in read_records(RESULTS, data="digits", budget="60s"):
        groups[record.model].append(record)

    def mean(records: list, which: Callable) -> float:
        return sum(which(r.metrics) for r in records) / len(records)

    def value_of(metric: Metric) -> float:
        return metric.value

    def tight(metrics: dict) -> float:
        return min(metrics.values(), key=value_of).value

    def loose(metrics: dict) -> float:
        # The other number of flow matching is not looser: it holds the solver's error.
        return metrics.get(
            "dequantization_bound", min(metrics.values(), key=value_of)
        ).value

    order = sorted(groups, key=lambda model: -mean(groups[model], tight))
    figure, ax = plt.subplots(figsize=(6.8, 4.0))
    for height, model in enumerate(order):
        records = groups[model]
        value, bound = mean(records, tight), mean(records, loose)
        error = mean(
            records, lambda metrics: max(m.standard_error for m in metrics.values())
        )
        ax.errorbar(value, height, xerr=2 * error, fmt="o", color="C0", capsize=3)
        if bound > value:
            ax.plot([value, bound], [height, height], color="C1", ls=DOTTED, lw=1.5)
            ax.plot(bound, height, "D", mfc="white", mec="C1")
    ax.set_yticks(range(len(order)), order)
    ax.plot([], [], "o", color="C0", label="likelihood, or tightest bound")
    ax.plot([], [], "D", mfc="white", mec="C1", label="dequantization bound")
    ax.set(xlabel="bits per dimension on test images")
    ax.legend(fontsize=10, loc="upper right")
    return figure


def one_step_in_four_processes() -> Figure:
    """How four processes share a step: equal parts of the batch, averaged gradients."""
    figure, ax = plt.subplots(figsize=(7.2, 2.9))
    box = {"boxstyle": "round,pad=0.4", "edgecolor": "0.3", "facecolor": "white"}
    style = {"ha": "center", "va": "center", "fontsize": 10.5}
    for i in range(4):
        y = 3 - i
        ax.add_patch(
            plt.Rectangle((0, y - 0.32), 1.5, 0.64, fc=f"C{i}", alpha=0.35, ec="0.3")
        )
        ax.text(0.75, y, f"images {16 * i + 1}–{16 * i + 16}", **style)
        ax.text(3.4, y, f"process {i}: weights", bbox=box, **style)
        ax.text(5.7, y, f"gradient {i}", bbox=box, **style)
        _arrow(ax, (1.55, y), (2.45, y))
        _arrow(ax, (4.35, y), (5.05, y))
        _arrow(ax, (6.35, y), (7.25, 1.5))
    ax.text(
        8.1, 1.5, "mean of\nall gradients", bbox=box | {"facecolor": "#d7e6f4"}, **style
    )
    ax.text(0.75, -0.75, "one batch", **style)
    ax.text(8.1, 0.35, "the same step\nin every process", **style)
    ax.set(xlim=(-0.1, 9.1), ylim=(-1.0, 3.5))
    ax.set_axis_off()
    return figure

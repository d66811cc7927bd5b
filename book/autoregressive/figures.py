"""Figures of the chapter on autoregressive models."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from course_lib.attention import attention_weights, causal_mask
from course_lib.autoregressive import DiagonalBiLSTM, GatedPixelCNN, receptive_field_map
from course_lib.distributions import DiscretizedLogisticMixture
from course_lib.masked import made_masks
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle

SMALL = 9.5
GREY = "0.6"
PALE = {"C0": "#cfe3f1", "C1": "#fbe3bd", "C2": "#cdebe0", "C7": "#e4e4e4"}


def chain_rule_graph() -> Figure:
    """Four values and an arrow into each from all values before it, with the factor that it is."""
    figure, ax = _canvas((7.5, 2.7), (-0.7, 6.7), (-1.15, 1.75))
    styles = ["-", "-", "--", ":"]
    for i in range(4):
        for j in range(i):
            _arrow(
                ax,
                (2 * j, 0),
                (2 * i, 0),
                color=f"C{i - 1}",
                linestyle=styles[i],
                bend=-0.28 - 0.06 * (i - j),
                gap=17,
            )
        given = ", ".join(f"x_{j + 1}" for j in range(i))
        factor = f"$p(x_{i + 1}\\mid {given})$" if i else "$p(x_1)$"
        _node(ax, (2 * i, 0), f"$x_{i + 1}$", colour="k" if i == 0 else f"C{i - 1}")
        ax.text(2 * i, -0.85, factor, ha="center", fontsize=11)
        if i:
            ax.text(2 * i - 1, -0.85, r"$\times$", ha="center", fontsize=11)
    return figure


def teacher_forcing() -> Figure:
    """The same network twice: fed with the data in training, with its own draws in sampling."""
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.5))
    for ax, title in zip(axes, ("training", "sampling"), strict=True):
        _blank(ax, (-1.0, 8.3), (-1.75, 2.9))
        ax.set_title(title, fontsize=12)
        for i in range(4):
            x = 2 * i
            _box(ax, (x, 1), 1.75, 0.9, f"$p(x_{i + 1}|\\cdot)$", PALE["C0"], SMALL)
            for j in range(i):
                _arrow(ax, (2 * j, -0.35), (x, 0.5), color=GREY, gap=3, width=0.8)
            is_data = title == "training"
            colour = PALE["C2"] if is_data else PALE["C1"]
            _box(ax, (x, -0.75), 0.9, 0.75, f"$x_{i + 1}$", colour)
            if is_data:
                _arrow(ax, (x, 2.35), (x, 1.5), color="C2", gap=2, heads="<->")
                ax.text(
                    x, 2.5, f"loss {i + 1}", ha="center", fontsize=SMALL, color="C2"
                )
            else:
                ax.text(
                    x, 2.5, f"draw {i + 1}", ha="center", fontsize=SMALL, color="C3"
                )
                _arrow(ax, (x, 2.4), (x, 1.5), color="C3", gap=2, heads="<-")
                _arrow(
                    ax,
                    (x + 0.75, 2.5),
                    (x + 0.5, -0.75),
                    color="C3",
                    linestyle="--",
                    bend=-0.45,
                    gap=2,
                )
    axes[0].text(3, -1.6, "the data, all known", ha="center", fontsize=SMALL)
    axes[1].text(
        3, -1.6, "the model's own draws, one after another", ha="center", fontsize=SMALL
    )
    return figure


def made_graph() -> Figure:
    """A MADE of four inputs as a graph with degrees, and the number of paths from input to output."""
    D, hidden = 4, [torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 1, 2, 2])]
    degrees = torch.arange(D)
    masks = made_masks(degrees, hidden)
    layers = [degrees, *hidden, degrees]
    figure, (ax, table) = plt.subplots(1, 2, figsize=(7.5, 4), width_ratios=[1.9, 1])
    _blank(ax, (-3.6, 3.1), (-0.6, 6.6))
    places = [
        [(x - (len(layer) - 1) / 2, 2 * level) for x in range(len(layer))]
        for level, layer in enumerate(layers)
    ]
    # Units from which a path leads to the output of degree 2.
    leads = [None] * len(layers)
    leads[-1] = degrees == 2
    for level in reversed(range(len(masks))):
        leads[level] = (masks[level] & leads[level + 1][:, None]).any(0)
    for level, mask in enumerate(masks):
        for to, start in mask.nonzero().tolist():
            chosen = bool(leads[level + 1][to])
            ax.plot(
                *zip(places[level][start], places[level + 1][to], strict=True),
                color="C1" if chosen else "0.75",
                linewidth=1.8 if chosen else 0.9,
                linestyle="-" if chosen else ":",
                zorder=2 if chosen else 1,
            )
    for level, (layer, row) in enumerate(zip(layers, places, strict=True)):
        for unit, (degree, place) in enumerate(zip(layer.tolist(), row, strict=True)):
            chosen = bool(leads[level][unit])
            _node(ax, place, str(degree), colour="C1" if chosen else "k", bold=chosen)
        name = ["inputs", "hidden", "hidden", "outputs"][level]
        ax.text(-3.6, 2 * level, name, va="center", fontsize=SMALL)
    ax.set_title("degrees, and the weights that are kept", fontsize=11)
    paths = torch.linalg.multi_dot([mask.double() for mask in reversed(masks)])
    table.imshow(paths > 0, cmap="Blues", vmin=0, vmax=2.5)
    for i, j in itertools.product(range(D), repeat=2):
        table.text(j, i, f"{int(paths[i, j])}", ha="center", va="center", fontsize=11)
    table.add_patch(
        Rectangle((-0.47, 1.53), 3.94, 0.94, fill=False, edgecolor="C1", linewidth=2)
    )
    table.set(xticks=range(D), yticks=range(D), xlabel="input", ylabel="output")
    table.set_title("number of paths", fontsize=11)
    return figure


def blind_spot_steps() -> Figure:
    """The steps that one masked layer takes, the pixels that they reach, and the wedge they miss."""
    steps = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.4), width_ratios=[1, 2])
    _pixels(left, 3, 3)
    for r, c in itertools.product(range(3), repeat=2):
        if (r - 1, c - 1) in steps:
            _fill(left, r, c, PALE["C0"])
    for step in steps[:-1]:
        _arrow(left, (1, 1), (1 + step[1], 1 + step[0]), color="C0", gap=3, width=2)
    _mark(left, 1, 1)
    left.set_title("steps of one layer", fontsize=11)
    height, width, at = 7, 13, (6, 5)
    first = {at}
    distance = {at: 0}
    for layer in range(1, 13):
        first = {(r + dr, c + dc) for r, c in first for dr, dc in steps}
        first = {(r, c) for r, c in first if 0 <= r < height and 0 <= c < width}
        for pixel in first:
            distance.setdefault(pixel, layer)
    _pixels(right, height, width)
    for r, c in itertools.product(range(height), range(width)):
        if (r, c) == at:
            continue
        if (r, c) in distance:
            _fill(right, r, c, PALE["C0"])
            right.text(
                c, r, str(distance[r, c]), ha="center", va="center", fontsize=SMALL
            )
        elif r < at[0]:
            right.add_patch(
                Rectangle(
                    (c - 0.5, r - 0.5),
                    1,
                    1,
                    facecolor="w",
                    edgecolor="C3",
                    hatch="xxx",
                    lw=0,
                )
            )
    _pixels(right, height, width)
    _mark(right, *at)
    right.set_title("layers until a pixel is seen; hatched: never", fontsize=11)
    return figure


def two_stacks() -> Figure:
    """The pixels that each stack's kernel reads, and what three layers see together."""
    figure, axes = plt.subplots(1, 5, figsize=(7.5, 2.35))
    at, height, size = (3, 3), 5, 7

    def block(ax, rows, columns, colour, hatch=""):
        for r, c in itertools.product(rows, columns):
            ax.add_patch(
                Rectangle(
                    (c - 0.5, r - 0.5),
                    1,
                    1,
                    facecolor=PALE[colour],
                    edgecolor=colour,
                    hatch=hatch,
                    lw=0,
                )
            )

    titles = [
        "vertical,\nlayer 1",
        "vertical,\nlater layers",
        "horizontal,\nlayer 1",
        "horizontal,\nlater layers",
        "seen after\nthree layers",
    ]
    reads = [
        (range(2, 3), range(2, 5), "C0", ""),
        (range(2, 4), range(2, 5), "C0", ""),
        (range(3, 4), range(2, 3), "C1", "///"),
        (range(3, 4), range(2, 4), "C1", "///"),
    ]
    for ax, title, read in zip(axes, titles, [*reads, None], strict=True):
        if read:
            block(ax, *read)
        ax.set_title(title, fontsize=SMALL)
    model = GatedPixelCNN((1, size, size), 2, channels=8, n_layers=3, kernel_size=3)
    for r, c in receptive_field_map(model, (0, *at))[0].nonzero().tolist():
        block(
            axes[-1],
            [r],
            [c],
            "C1" if r == at[0] else "C0",
            "///" if r == at[0] else "",
        )
    for ax in axes:
        _pixels(ax, height, size)
        ax.plot(at[1], at[0], "o", color="C3", ms=5, zorder=5)
    return figure


def gated_layer() -> Figure:
    """One layer of the gated PixelCNN: what flows from the vertical stack to the horizontal one."""
    figure, ax = _canvas((7.5, 3.7), (-0.9, 13.4), (-1.0, 5.9))
    blue, orange, white = PALE["C0"], PALE["C1"], "w"
    ax.axhspan(-0.95, 1.1, color="C0", alpha=0.06, lw=0)
    ax.axhspan(1.9, 4.3, color="C1", alpha=0.07, lw=0)
    ax.text(-0.8, -0.85, "vertical stack", fontsize=SMALL, color="C0")
    ax.text(-0.8, 4.02, "horizontal stack", fontsize=SMALL, color="C3")
    _box(ax, (0, 0.2), 1.2, 0.9, r"$v^{l-1}$", blue)
    _box(ax, (2.9, 0.2), 2.5, 0.9, "rows above, and\nown if $l > 1$", blue, SMALL)
    _box(ax, (5.7, 0.2), 1.0, 0.9, r"$a_v^l$", white)
    _box(ax, (8.0, 0.2), 1.4, 0.9, "gate", blue)
    _box(ax, (12.6, 0.2), 1.1, 0.9, r"$v^l$", blue)
    _box(ax, (0, 3), 1.2, 0.9, r"$h^{l-1}$", orange)
    _box(ax, (2.9, 3), 2.5, 0.9, "own row,\nto the left", orange, SMALL)
    _node(ax, (4.7, 3), "+", size=14)
    _box(ax, (5.9, 3), 1.0, 0.9, r"$a_h^l$", white)
    _box(ax, (8.0, 3), 1.4, 0.9, "gate", orange)
    _box(ax, (9.9, 3), 1.0, 0.9, r"$E^l$", orange)
    _node(ax, (11.2, 3), "+", size=14)
    _box(ax, (12.6, 3), 1.1, 0.9, r"$h^l$", orange)
    _box(ax, (4.7, 1.5), 1.0, 0.7, r"$C^l$", white)
    _box(ax, (9.9, 5.1), 1.0, 0.8, r"$S^l$", orange)
    ax.text(12.6, 5.1, "to the head", fontsize=SMALL, ha="center", va="center")
    lines = [
        ((0.6, 0.2), (1.65, 0.2)),
        ((4.15, 0.2), (5.2, 0.2)),
        ((6.2, 0.2), (7.3, 0.2)),
        ((8.7, 0.2), (12.05, 0.2)),
        ((0.6, 3), (1.65, 3)),
        ((4.15, 3), (4.45, 3)),
        ((4.97, 3), (5.4, 3)),
        ((6.4, 3), (7.3, 3)),
        ((8.7, 3), (9.4, 3)),
        ((10.4, 3), (10.9, 3)),
        ((11.5, 3), (12.05, 3)),
        ((4.7, 1.85), (4.7, 2.66)),
        ((10.4, 5.1), (11.6, 5.1)),
    ]
    for start, end in lines:
        _arrow(ax, start, end, gap=0)
    ax.plot([5.7, 5.7, 4.7], [0.65, 0.92, 0.92], color="k", lw=1.2)
    _arrow(ax, (4.7, 0.92), (4.7, 1.15), gap=0)
    ax.plot([9.05, 9.05], [3, 5.1], color="k", lw=1.2)
    _arrow(ax, (9.05, 5.1), (9.4, 5.1), gap=0)
    ax.plot([1.2, 1.2, 11.2], [3, 3.72, 3.72], color="k", lw=1.2, ls="--")
    _arrow(ax, (11.2, 3.72), (11.2, 3.34), gap=0)
    ax.text(6.2, 3.78, "not in layer 1", fontsize=SMALL, ha="center", va="bottom")
    return figure


def skewed_diagonals() -> Figure:
    """Steps of the Diagonal BiLSTM in the image and in the skewed image, with one pixel's neighbours."""
    height, width = 4, 5
    figure, axes = plt.subplots(
        1, 2, figsize=(7.5, 2.9), width_ratios=[width, height + width - 1]
    )
    for ax, shift in zip(axes, (0, 1), strict=True):
        _pixels(
            ax, height, width + shift * (height - 1), colour="0.85" if shift else "0.4"
        )
        for r, c in itertools.product(range(height), range(width)):
            place = c + shift * r
            shade = plt.colormaps["Blues"](0.08 + 0.06 * (r + c))
            ax.add_patch(
                Rectangle(
                    (place - 0.5, r - 0.5),
                    1,
                    1,
                    facecolor=shade,
                    edgecolor="0.4",
                    lw=0.8,
                )
            )
            ax.text(place, r, str(r + c + 1), ha="center", va="center", fontsize=SMALL)
        r, c = 2, 2 + shift * 2
        ax.add_patch(
            Rectangle(
                (c - 0.5, r - 0.5), 1, 1, fill=False, edgecolor="C1", lw=3, zorder=4
            )
        )
        above = (c - shift, r - 1)
        for start in ((c - 1, r), above):
            _arrow(ax, start, (c, r), color="C3", gap=9, width=2)
    axes[0].set_title("image", fontsize=11)
    axes[1].set_title("skewed", fontsize=11)
    return figure


def second_direction() -> Figure:
    """What the second LSTM has read at a pixel, one row up, and what is lost without whole pixels."""
    height, width, at = 5, 7, (3, 2)
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.6))
    past = [(r, c) for r in range(height) for c in range(width) if (r, c) < at]
    for ax, last in zip(axes, (at[0], at[0] - 1), strict=False):
        for r, c in itertools.product(range(last + 1), range(at[1], width)):
            future = (r, c) not in past
            _fill(ax, r, c, PALE["C1"] if future else PALE["C0"])
            if future and (r, c) != at:
                ax.text(
                    c,
                    r,
                    "!",
                    ha="center",
                    va="center",
                    fontsize=12,
                    color="C3",
                    weight="bold",
                )
    axes[0].set_title("at $(r, c)$:\nreads the future", fontsize=SMALL + 1)
    axes[1].set_title("moved down:\nread at $(r-1, c)$", fontsize=SMALL + 1)
    torch.manual_seed(0)
    model = DiagonalBiLSTM((1, height, width), 2, channels=8, n_layers=1, kernel_size=3)
    with torch.no_grad():
        model.own.weight.zero_()
    seen = receptive_field_map(model, (0, *at))[0]
    for r, c in past:
        if seen[r, c]:
            _fill(axes[2], r, c, PALE["C0"])
        else:
            axes[2].text(c, r, "×", ha="center", va="center", fontsize=16, color="C3")
    axes[2].set_title("both directions, of\nmasked features only", fontsize=SMALL + 1)
    for ax in axes:
        _pixels(ax, height, width)
        _mark(ax, *at)
    return figure


def attention_masks() -> Figure:
    """Who reads whom in one layer, of MADE, of a masked convolution and of causal attention."""
    side, D = 4, 16
    degrees = torch.arange(D)
    hidden = torch.arange(D - 1)
    first, last = made_masks(degrees, [hidden])
    made = (last.double() @ first.double()) > 0
    near = torch.zeros(D, D, dtype=torch.bool)
    for i, j in itertools.product(range(D), repeat=2):
        (r, c), (u, v) = divmod(i, side), divmod(j, side)
        near[i, j] = j < i and r - u <= 1 and abs(c - v) <= 1
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.1), sharey=True)
    tables = {
        "MADE": made,
        "PixelCNN, $3\\times3$": near,
        "causal attention": causal_mask(D),
    }
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        ax.imshow(table, cmap="Blues", vmin=0, vmax=1.5)
        for edge in np.arange(-0.5, D, side):
            ax.axhline(edge, color="0.6", lw=0.8)
            ax.axvline(edge, color="0.6", lw=0.8)
        ax.plot([-0.5, D - 0.5], [-0.5, D - 0.5], ":", color="C1", lw=2)
        ax.set_title(title, fontsize=11)
        ax.set(xticks=[0, 4, 8, 12], yticks=[0, 4, 8, 12])
        ax.set_xlabel("token read" if ax is axes[2] else "pixel read")
    axes[0].set_ylabel("read at")
    return figure


def attention_scale() -> Figure:
    """The largest of 64 softmax weights against the dimension, with and without the division."""
    generator = torch.Generator().manual_seed(0)
    sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    largest = {"divided by $\\sqrt{d}$": [], "not divided": []}
    for d in sizes:
        queries = torch.randn(400, 1, d, generator=generator)
        keys = torch.randn(400, 64, d, generator=generator)
        for name, factor in zip(largest, (1.0, d**0.5), strict=True):
            weights = attention_weights(factor * queries, keys)
            largest[name].append(weights.max(-1).values.mean().item())
    figure, ax = plt.subplots(figsize=(6, 3))
    for index, (name, values) in enumerate(largest.items()):
        ax.plot(sizes, values, "o-" if index == 0 else "s--", label=name)
    ax.set_xscale("log", base=2)
    ax.set(xlabel="dimension $d$", ylabel="largest weight", ylim=(0, 1))
    ax.legend(fontsize=10)
    return figure


def key_value_cache() -> Figure:
    """Three steps of a cached sampler: one query, the rows stored so far, and the newest row."""
    D = 8
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.2))
    for ax, t in zip(axes, (3, 5, 8), strict=True):
        _blank(ax, (-2.6, 5.2), (D + 0.2, -1.5))
        for row in range(D):
            stored = row < t
            for x, name in ((0.6, "k"), (3.0, "v")):
                colour = PALE["C0"] if stored else "w"
                colour = PALE["C1"] if row == t - 1 else colour
                text = f"${name}_{row + 1}$" if stored else ""
                _box(ax, (x + 0.8, row), 1.6, 0.8, text, colour, SMALL)
            if stored:
                _arrow(ax, (-1.4, t - 1), (0.6, row), color="C0", gap=2, width=0.9)
        _box(ax, (-1.9, t - 1), 1.1, 0.8, f"$q_{t}$", PALE["C2"], SMALL)
        ax.text(1.4, -0.8, "keys", ha="center", fontsize=SMALL)
        ax.text(3.8, -0.8, "values", ha="center", fontsize=SMALL)
        ax.set_title(f"step {t}", fontsize=11)
    return figure


def logistic_masses() -> Figure:
    """A mixture of logistics cut into bins, and masses of one component for three scales."""
    K = 16
    width = 2 / (K - 1)
    weights, means, scales = (
        torch.tensor(v)
        for v in ([0.5, 0.3, 0.2], [-0.95, 0.1, 0.75], [0.16, 0.07, 0.05])
    )
    mixture = DiscretizedLogisticMixture(K, 3)
    mass = mixture.probabilities(torch.cat([weights.log(), means, scales.log()]))
    levels = torch.arange(K)
    centres = 2 * levels / (K - 1) - 1
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.2))
    edge = (levels == 0) | (levels == K - 1)
    for which, hatch, label in (
        (~edge, "", "mass of a bin"),
        (edge, "///", "with a tail"),
    ):
        left.bar(
            centres[which],
            mass[which] / width,
            width * 0.92,
            color=PALE["C0"],
            edgecolor="C0",
            hatch=hatch,
            lw=0.8,
            label=label,
        )
    x = torch.linspace(-1.7, 1.4, 500).unsqueeze(1)
    z = (x - means) / scales
    density = (weights / scales * torch.sigmoid(z) * torch.sigmoid(-z)).sum(1)
    left.plot(x, density, color="C3", label="density")
    left.set(xlabel="$v$", ylabel="density; mass / width", ylim=(0, 2.1))
    left.legend(fontsize=SMALL, loc="upper right")
    styles = (("-", "o"), ("--", "s"), (":", "^"))
    for index, (factor, (line, mark)) in enumerate(
        zip((2, 0.5, 0.15), styles, strict=True)
    ):
        scale = torch.tensor(factor * width)
        one = DiscretizedLogisticMixture(K, 1)
        p = one.probabilities(
            torch.stack([torch.tensor(0.0), torch.tensor(0.02), scale.log()])
        )
        right.semilogy(
            levels, p, line, marker=mark, ms=4, color=f"C{index}", label=f"{factor:g}"
        )
    right.set(xlabel="level", ylabel="probability", ylim=(1e-8, 3))
    right.legend(
        title="scale in bin widths",
        fontsize=SMALL,
        title_fontsize=SMALL,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=3,
    )
    return figure


def dilated_stack() -> Figure:
    """Values over time and four dilated layers; the sixteen values that one output reads."""
    dilations = [1, 2, 4, 8]
    figure, ax = _canvas((7.5, 3), (-2.4, 18.4), (-0.6, 4.8))
    end = 18
    reads = {end}
    for t in range(end + 1):
        for level in range(5):
            ax.plot(t, level, "o", ms=4, color="0.75", zorder=1)
    for level in range(4, -1, -1):
        for t in reads:
            ax.plot(t, level, "o", ms=8, color="C1" if level == 4 else "C0", zorder=3)
        if level:
            step = dilations[level - 1]
            for t in reads:
                for source in (t, t - step):
                    ax.plot(
                        [t, source], [level, level - 1], color="C0", lw=1.4, zorder=2
                    )
            reads = reads | {t - step for t in reads}
            ax.text(
                -0.4,
                level,
                rf"$\delta_{level}={step}$",
                ha="right",
                va="center",
                fontsize=11,
            )
    ax.text(-0.4, 0, "input", ha="right", va="center", fontsize=11)
    ax.annotate(
        "",
        (3 - 0.3, -0.42),
        (18.3, -0.42),
        arrowprops={"arrowstyle": "<->", "color": "k"},
    )
    ax.text(
        10.5,
        -0.5,
        "16 values",
        ha="center",
        va="center",
        fontsize=SMALL,
        backgroundcolor="w",
    )
    return figure


def sampling_work() -> Figure:
    """What three samplers compute in each step: all, one pixel's share, or all in a few passes."""
    D, passes = 16, 5
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.4), sharex=True, sharey=True)
    for ax in axes:
        ax.set(
            xlim=(-0.7, D - 0.3),
            ylim=(D - 0.3, -0.7),
            xticks=[],
            yticks=[],
            aspect="equal",
        )
        for spine in ax.spines.values():
            spine.set_visible(False)
    for step, place in itertools.product(range(D), repeat=2):
        used = step == place
        _cell(axes[0], step, place, "C1" if used else PALE["C7"])
        if used:
            _cell(axes[1], step, place, "C1")
        if step < passes:
            # In each pass the prefix of pixels that are right grows; the last pass finds no change.
            _cell(axes[2], step, place, "C1" if place // 4 == step else PALE["C7"])
    axes[0].set_title(f"naive: {D} passes", fontsize=11)
    axes[1].set_title(f"cached: {D} steps", fontsize=11)
    axes[2].set_title(f"fixed point: {passes} passes", fontsize=11)
    axes[0].set_ylabel("time, downwards")
    for ax in axes:
        ax.set_xlabel("pixel")
    marks = [Patch(color="C1"), Patch(color=PALE["C7"])]
    figure.legend(
        marks,
        ["computed and kept", "computed and thrown away"],
        loc="outside lower center",
        ncols=2,
        fontsize=SMALL,
    )
    return figure


def fixed_point_passes() -> Figure:
    """Parallel passes over a chain of forty binary values, with the values that are still wrong."""
    D, stay = 40, 0.9
    u = np.random.default_rng(4).random(D)

    def draw(x):
        """All values at once, each given the one before it in `x`."""
        up = np.where(np.concatenate([[0], x[:-1]]) == 1, stay, 1 - stay)
        return (u >= 1 - up).astype(int)

    iterates = [np.zeros(D, dtype=int)]
    while len(iterates) < 2 or (iterates[-1] != iterates[-2]).any():
        iterates.append(draw(iterates[-1]))
    sample = iterates[-1]
    figure, ax = plt.subplots(figsize=(7.5, 3.2))
    table = np.array(iterates)
    ax.imshow(np.where(table, 0.55, 0.97), cmap="gray", vmin=0, vmax=1, aspect="auto")
    for t, i in np.argwhere(table != sample).tolist():
        ax.text(
            i, t, "×", ha="center", va="center", color="C3", fontsize=13, weight="bold"
        )
    n = len(iterates)
    edge = np.repeat(np.arange(n + 1), 2)[1:-1] - 0.5
    ax.plot(np.repeat(np.arange(n), 2) - 0.5, edge, color="C0", lw=2.5)
    ax.set(
        xlabel="dimension $i$",
        ylabel="pass $t$",
        xticks=range(0, D, 5),
        yticks=range(n),
    )
    ax.set_xticklabels(range(1, D + 1, 5))
    marks = [
        Line2D([], [], marker="x", color="C3", ls="", ms=8, mew=2),
        Line2D([], [], color="C0", lw=2.5),
        Patch(color=str(0.55)),
    ]
    figure.legend(
        marks,
        ["not yet the sample", "left of this line: always right", "value 1"],
        loc="outside upper center",
        ncols=3,
        fontsize=SMALL,
    )
    return figure


def off_the_data() -> Figure:
    """Share of sequences that have left the data, for models of the same teacher-forced error."""
    leave, steps = 0.01, np.arange(0, 301)
    figure, ax = plt.subplots(figsize=(7.2, 3.2))
    styles = (("-", 0), ("--", 0.01), ("-.", 0.05), (":", 0.5))
    for index, (line, back) in enumerate(styles):
        total = leave + back
        share = leave / total * (1 - (1 - total) ** steps)
        ax.plot(steps, share, line, color=f"C{index}", lw=2)
        ax.text(
            304,
            share[-1],
            rf"$\beta = {back:g}$",
            va="center",
            fontsize=11,
            color=f"C{index}",
        )
    ax.set(xlabel="step $t$", ylabel="share off the data", xlim=(0, 300), ylim=(0, 1))
    ax.set_title(
        rf"the same training loss: {-np.log(1 - leave):.4f} nats per step for every $\beta$",
        fontsize=11,
    )
    return figure


def conditional_quantiles() -> Figure:
    """A density of two values and the unit square that its conditional quantiles map it to."""

    def to_x(u1, u2):
        """Draw x_1, then x_2 given x_1: a normal and a logistic quantile."""
        x1 = torch.special.ndtri(u1)
        return x1, 0.5 * x1**2 - 1 + (0.25 + 0.12 * x1.abs()) * torch.logit(u2) / 1.2

    generator = torch.Generator().manual_seed(0)
    u = torch.rand(2, 500, generator=generator, dtype=torch.float64)
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.5))
    fine = torch.linspace(0.004, 0.996, 200, dtype=torch.float64)
    for ax, mapped in zip(axes, (to_x, lambda *u: u), strict=True):
        ax.scatter(*mapped(*u), s=7, color="0.55", lw=0)
        for q in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95):
            level = torch.full_like(fine, q)
            ax.plot(*mapped(level, fine), color="C1", lw=1.2, ls="--")
            ax.plot(*mapped(fine, level), color="C0", lw=1.4)
    axes[0].set(xlim=(-2.7, 2.7), ylim=(-2.6, 3.4), xlabel="$x_1$", ylabel="$x_2$")
    axes[1].set(
        xlim=(0, 1), ylim=(0, 1), xlabel="$u_1$", ylabel="$u_2$", aspect="equal"
    )
    axes[0].set_title("the model's distribution", fontsize=11)
    axes[1].set_title("uniform noise", fontsize=11)
    return figure


def completion_orders() -> Figure:
    """Which known pixels inform the first unknown one, for known pixels that come first or last."""
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3))
    size = 6
    for ax, top in zip(axes, (True, False), strict=True):
        known = [(r, c) for r in range(size) for c in range(size) if (r < 3) == top]
        first = (3, 0) if top else (0, 0)
        for r, c in known:
            if (r, c) < first:
                _fill(ax, r, c, PALE["C0"])
            else:
                ax.add_patch(
                    Rectangle(
                        (c - 0.5, r - 0.5),
                        1,
                        1,
                        facecolor="w",
                        edgecolor="C3",
                        hatch="xx",
                        lw=0,
                    )
                )
        _pixels(ax, size, size)
        _mark(ax, *first)
    axes[0].set_title(
        "known pixels come first:\nall of them inform", fontsize=SMALL + 1
    )
    axes[1].set_title(
        "known pixels come last:\nnone of them informs", fontsize=SMALL + 1
    )
    return figure


def any_order_sets() -> Figure:
    """The sets of known pixels of an image of three, and the conditionals that lead from one to the next."""
    figure, ax = _canvas((7.5, 3.7), (-1.0, 10.0), (-2.1, 2.5))
    chosen = [(), (2,), (2, 3), (1, 2, 3)]
    places = {}
    for size in range(4):
        sets = list(itertools.combinations((1, 2, 3), size))
        for row, known in enumerate(sets):
            places[known] = (3 * size, 1.5 * ((len(sets) - 1) / 2 - row))
    for known, (x, y) in places.items():
        for pixel in {1, 2, 3} - set(known):
            after = tuple(sorted({*known, pixel}))
            on_path = known in chosen and after in chosen
            _arrow(
                ax,
                (x + 0.72, y),
                (places[after][0] - 0.72, places[after][1]),
                color="C1" if on_path else GREY,
                width=2.4 if on_path else 1.0,
                gap=2,
            )
            if on_path:
                given = ", ".join(f"x_{i}" for i in known)
                text = f"$p(x_{pixel}|{given})$" if known else f"$p(x_{pixel})$"
                rise = places[after][1] - y
                place = (x + 1.5, y + rise / 2 + 0.24)
                if rise:  # beside an arrow that leads up or down
                    place = (x + 1.5, y - 0.25) if rise < 0 else (x + 2.3, y + 0.35)
                ax.text(*place, text, ha="center", fontsize=SMALL, color="C3")
        name = "nothing" if not known else ", ".join(map(str, known))
        _box(ax, (x, y), 1.4, 0.7, name, PALE["C1" if known in chosen else "C0"], SMALL)
    for size, text in enumerate(("no pixel known", "one", "two", "all")):
        ax.text(3 * size, 2.2, text, ha="center", fontsize=SMALL)
    return figure


def unmasking() -> Figure:
    """Random times from which pixels are masked; and the weight that makes all times count alike."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.5, 3.1), width_ratios=[1.4, 1]
    )
    times = [0.34, 0.86, 0.12, 0.62, 0.95, 0.47]
    for pixel, time in enumerate(times):
        left.barh(pixel, time, height=0.6, color=PALE["C0"], edgecolor="C0")
        left.barh(
            pixel,
            1 - time,
            left=time,
            height=0.6,
            color="w",
            edgecolor="C3",
            hatch="///",
        )
    left.axvline(0.55, color="k", linestyle="--", linewidth=1.2)
    left.text(0.55, -0.95, "$t = 0.55$", ha="center", fontsize=SMALL)
    left.set(xlabel="time", ylabel="pixel", xlim=(0, 1), ylim=(5.6, -0.6))
    left.set_yticks(range(6), range(1, 7))
    t = np.linspace(0.05, 1, 200)
    right.plot(t, 1 / t, color="C1", label="weight $1/t$")
    right.plot(t, 6 * t, color="C0", linestyle="--", label="masked pixels, mean")
    right.plot(t, np.full_like(t, 6), color="C2", linestyle="-.", label="product")
    right.set(xlabel="time", xlim=(0, 1), ylim=(0, 10.5))
    right.legend(fontsize=SMALL, loc="upper right")
    return figure


def parallel_cost() -> Figure:
    """What several pixels at once cost in a chain of binary pixels, for three kinds of blocks."""
    D, keep = 16, 0.8  # the correlation of neighbours: equal with probability 0.9

    def entropy(pixels: list[int]) -> float:
        """Bits of some pixels of the chain together."""
        gaps = np.diff(sorted(pixels)) if len(pixels) > 1 else np.zeros(0)
        p = (1 + keep**gaps) / 2
        return bool(pixels) - (p * np.log2(p) + (1 - p) * np.log2(1 - p)).sum()

    def cost(order: list[int], k: int) -> float:
        total = 0.0
        for start in range(0, D, k):
            before, block = order[:start], order[start : start + k]
            each = sum(entropy([*before, i]) - entropy(before) for i in block)
            total += each - (entropy([*before, *block]) - entropy(before))
        return total

    sizes = [1, 2, 4, 8, 16]
    far = [int(f"{i:04b}"[::-1], 2) for i in range(D)]
    rng = np.random.default_rng(0)
    random = [rng.permutation(D).tolist() for _ in range(20)]
    figure, ax = plt.subplots(figsize=(6.6, 3.4))
    for name, orders, style in (
        ("neighbours together", [list(range(D))], "o-"),
        ("random pixels together", random, "s--"),
        ("distant pixels together", [far], "^-."),
    ):
        costs = [np.mean([cost(order, k) for order in orders]) for k in sizes]
        ax.plot(sizes, costs, style, label=name)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, sizes)
    ax.set(xlabel="pixels at once", ylabel="divergence, bits")
    ax.legend(fontsize=SMALL + 0.5)
    return figure


def _canvas(size: tuple, x: tuple, y: tuple) -> tuple[Figure, Axes]:
    """A figure without axes, for drawings."""
    figure, ax = plt.subplots(figsize=size)
    _blank(ax, x, y)
    return figure, ax


def _blank(ax: Axes, x: tuple, y: tuple) -> None:
    ax.set(xlim=x, ylim=y)
    ax.set_axis_off()


def _node(
    ax: Axes, at: tuple, text: str, colour: str = "k", bold=False, size=21
) -> None:
    """A circle with a word in it."""
    width = 2.2 if bold else 1.3
    ax.plot(*at, "o", ms=size, mfc="w", mec=colour, mew=width, zorder=4)
    ax.text(*at, text, ha="center", va="center", fontsize=11, zorder=5)


def _box(
    ax: Axes, at: tuple, width: float, height: float, text: str, colour: str, size=11
) -> None:
    """A rounded box with a word in it."""
    corner = (at[0] - width / 2, at[1] - height / 2)
    style = "round,pad=0,rounding_size=0.15"
    ax.add_patch(
        FancyBboxPatch(
            corner, width, height, style, facecolor=colour, edgecolor="0.3", zorder=3
        )
    )
    ax.text(*at, text, ha="center", va="center", fontsize=size, zorder=5)


def _arrow(
    ax: Axes,
    start: tuple,
    end: tuple,
    color="k",
    linestyle="-",
    bend=0.0,
    gap=4.0,
    width=1.2,
    heads="->",
) -> None:
    """An arrow that leaves `gap` points free at both ends."""
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=heads,
            mutation_scale=12,
            color=color,
            linestyle=linestyle,
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=gap,
            shrinkB=gap,
            lw=width,
            zorder=3,
        )
    )


def _pixels(ax: Axes, height: int, width: int, colour: str = "0.4") -> None:
    """The lines of a grid of pixels; row 0 is at the top."""
    for r in range(height + 1):
        ax.plot([-0.5, width - 0.5], [r - 0.5] * 2, color=colour, lw=0.8)
    for c in range(width + 1):
        ax.plot([c - 0.5] * 2, [-0.5, height - 0.5], color=colour, lw=0.8)
    ax.set(xlim=(-0.6, width - 0.4), ylim=(height - 0.4, -0.6), aspect="equal")
    ax.set_axis_off()


def _fill(ax: Axes, r: int, c: int, colour: str) -> None:
    ax.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, facecolor=colour, lw=0))


def _cell(ax: Axes, r: int, c: int, colour: str) -> None:
    ax.add_patch(Rectangle((c - 0.42, r - 0.42), 0.84, 0.84, facecolor=colour, lw=0))


def _mark(ax: Axes, r: int, c: int) -> None:
    """The pixel that is predicted."""
    ax.add_patch(
        Rectangle((c - 0.4, r - 0.4), 0.8, 0.8, facecolor="C1", lw=0, zorder=5)
    )

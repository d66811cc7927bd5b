"""The figures of the theory page of this chapter; `book/_ext/drawn_figures.py` draws them."""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from course_lib.flow import (
    AffineCoupling,
    AttentionAutoregressive,
    Coupling,
    Flow,
    MaskedAutoregressive,
    Planar,
    RealNVP,
    Squeeze,
    VectorConditioner,
    channel_mask,
    checkerboard_mask,
    half_mask,
)
from course_lib.flow.checks import (
    TRANSFORMS,
    build,
    integral_2d,
    jacobian_error,
    round_trip_error,
    sampling_error_2d,
)
from course_lib.flow.spline import spline
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

STANDARD = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
ARROW = {"arrowstyle": "-|>", "shrinkA": 11, "shrinkB": 11, "mutation_scale": 11}


def _bend(x: Tensor) -> Tensor:
    """A smooth bijection of the plane that stretches here and squeezes there."""
    a, b = x.unbind(-1)
    a = a + 0.45 * torch.sin(1.7 * b)
    return torch.stack([a, b * (0.55 * torch.sin(1.3 * a)).exp() + 0.3 * a], -1)


def _jacobians(function: object, points: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.jacrev(function))(points)


def change_of_variables() -> Figure:
    """Squares of the data plane and what a map makes of them; the density by areas."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.9))
    ticks, fine = (
        torch.linspace(-2, 2, 11).double(),
        torch.linspace(-2, 2, 41).double(),
    )
    side = torch.linspace(-2, 2, 100).double()
    grid = torch.cartesian_prod(side, side)
    log_p = STANDARD.log_prob(_bend(grid)).sum(-1)
    log_p = log_p + torch.linalg.slogdet(_jacobians(_bend, grid)).logabsdet
    left.imshow(
        log_p.exp().reshape(100, 100).T,
        extent=(-2, 2, -2, 2),
        origin="lower",
        cmap="Greys",
        interpolation="none",
        vmin=0,
        vmax=0.42,
    )
    for t in ticks:
        for line in (
            torch.stack([fine, t + 0 * fine], 1),
            torch.stack([t + 0 * fine, fine], 1),
        ):
            left.plot(*line.T, color="0.55", lw=0.5)
            right.plot(*_bend(line).T, color="0.55", lw=0.5)
    for corner, colour, hatch, name in (
        ((0.8, -0.4), "C0", "///", "A"),
        ((-1.2, -0.4), "C1", "...", "B"),
    ):
        edge = torch.linspace(0, 0.4, 30).double()
        zero, one = 0 * edge, 0 * edge + 0.4
        square = torch.cat(
            [
                torch.stack(pair, 1)
                for pair in (
                    (edge, zero),
                    (one, edge),
                    (edge.flip(0), one),
                    (zero, edge.flip(0)),
                )
            ]
        ) + torch.tensor(corner)
        image = _bend(square)
        x, y = image.T
        area = 0.5 * (x * y.roll(-1) - y * x.roll(-1)).sum().abs().item()
        for ax, shape in ((left, square), (right, image)):
            ax.add_patch(
                Polygon(
                    shape,
                    facecolor="white",
                    edgecolor=colour,
                    hatch=hatch,
                    lw=2,
                    zorder=3,
                )
            )
        left.text(
            corner[0] + 0.2,
            corner[1] + 0.52,
            name,
            color=colour,
            ha="center",
            weight="bold",
        )
        top = image[:, 1].max().item()
        right.text(
            image[:, 0].mean().item(),
            top + 0.15,
            f"{name}: area × {area / 0.16:.2f}",
            color=colour,
            ha="center",
            weight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
        )
    left.set(xlim=(-2, 2), ylim=(-2, 2), title="data plane $x$, shaded: $p_X$")
    right.set(xlim=(-3, 3), ylim=(-3, 3), title="latent plane $z = f(x)$")
    for radius in (1, 2):
        right.add_patch(
            plt.Circle((0, 0), radius, fill=False, ls="--", color="0.3", lw=1)
        )
    for ax in (left, right):
        ax.set_aspect("equal")
    return figure


def injective_map() -> Figure:
    """A curve in the plane: lengths of its pieces and the density along it."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.6))

    def curve(z: Tensor) -> Tensor:
        return torch.stack([1.2 * z, torch.sin(2 * z) + 0.25 * z**2], -1)

    z = torch.linspace(-2.6, 2.6, 400).double()
    speed = _jacobians(curve, z).norm(dim=-1)
    density = STANDARD.log_prob(z).exp() / speed
    points = left.scatter(*curve(z).T, c=density, cmap="viridis_r", s=14)
    ticks = torch.arange(-2.5, 2.6, 0.5).double()
    left.plot(*curve(ticks).T, "o", ms=6, mfc="white", mec="black", ls="")
    figure.colorbar(
        points, ax=left, label="density per unit of length", location="bottom"
    )
    left.set(
        title="the curve $g(z)$ in the plane",
        xlabel="$x_1$",
        ylabel="$x_2$",
        aspect="equal",
    )
    right.plot(z, STANDARD.log_prob(z).exp(), label="$p_Z(z)$", ls="--")
    right.plot(z, density, label=r"$p_Z(z)\,/\,\sqrt{\det J^\top J}$")
    right.set(xlabel="$z$", ylim=(0, None))
    right.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, 1.27), ncols=2)
    return figure


def _matrix(kind: str | None, d: int, x: Tensor) -> Tensor:
    """The Jacobian of one layer of the library at x, with random parameters; None: any matrix."""
    if kind is None:
        return torch.randn(d, d)
    if kind == "Invertible1x1Convolution":
        layer = build(TRANSFORMS[kind], spread=0.6)
        return torch.block_diag(*[layer.weight().detach()] * 4)
    mask = half_mask((d,))
    layer = {
        "Planar": lambda: build(lambda: Planar((d,)), spread=0.3),
        "coupling": lambda: build(
            lambda: AffineCoupling(mask, VectorConditioner(mask, 2, (16,))), spread=0.5
        ),
        "MaskedAutoregressive": lambda: build(
            lambda: MaskedAutoregressive((d,), (24,)), spread=0.5
        ),
    }[kind]()
    return torch.autograd.functional.jacobian(lambda p: layer(p[None])[0][0], x)


def jacobian_structures() -> Figure:
    """Which entries of the Jacobian are not zero, for five maps of the library."""
    names = {
        "any map\n$O(D^3)$": None,
        "planar\n$I + $ rank 1": "Planar",
        "coupling\n(kept first)": "coupling",
        "autoregressive": "MaskedAutoregressive",
        "1×1 convolution\n(pixel by pixel)": "Invertible1x1Convolution",
    }
    figure, axes = plt.subplots(1, 5, figsize=(7.5, 2.6))
    d = 12
    torch.manual_seed(0)
    for ax, (title, kind) in zip(axes, names.items(), strict=True):
        x = torch.randn(d).double()
        matrix = _matrix(kind, d, x)
        ax.imshow(matrix.abs().sqrt(), cmap="Blues", vmin=0, vmax=1.3)
        for i in range(d):
            for j in range(d):
                if matrix[i, j] == 0:
                    ax.plot(j, i, ".", color="0.7", ms=2)
        ax.set_title(title, fontsize=11)
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_visible(True)
    axes[0].set(xlabel="entry of $x$", ylabel="entry of $z$")
    return figure


def _node(
    ax: Axes, x: float, y: float, text: str, colour: str = "white", size: float = 11
) -> None:
    ax.text(
        x,
        y,
        text,
        ha="center",
        va="center",
        fontsize=size,
        zorder=4,
        bbox={"boxstyle": "circle,pad=0.28", "facecolor": colour, "edgecolor": "black"},
    )


def _box(ax: Axes, x: float, y: float, text: str, colour: str = "white") -> None:
    ax.text(
        x,
        y,
        text,
        ha="center",
        va="center",
        fontsize=10.5,
        zorder=4,
        bbox={"boxstyle": "round,pad=0.35", "facecolor": colour, "edgecolor": "black"},
    )


def _join(
    ax: Axes, start: tuple, end: tuple, colour: str = "0.25", ls: str = "-"
) -> None:
    ax.annotate(
        "", xy=end, xytext=start, arrowprops=ARROW | {"color": colour, "ls": ls}
    )


def coupling_graph() -> Figure:
    """Two couplings with alternating masks as a graph of six entries, forward and back."""
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.5))
    rows = [2.5, 1.5, 0.5, -0.5]
    kept = [(0, 2), (1, 3)]
    for ax, forward in zip(axes, (True, False), strict=True):
        letters = "xhz"
        for column in range(3):
            for i, y in enumerate(rows):
                _node(ax, 3 * column, y, f"${letters[column]}_{i + 1}$")
        for layer in range(2):
            a = [rows[i] for i in kept[layer]]
            b = [rows[i] for i in range(4) if i not in kept[layer]]
            at = 3 * layer + 1.5
            middle = sum(a + b) / 4
            _box(ax, at, middle, "$s, t$", "#d9e8f5")
            source, target = (
                (3 * layer, 3 * layer + 3) if forward else (3 * layer + 3, 3 * layer)
            )
            for y in a:
                _join(ax, (source, y), (target, y), "0.25")
                _join(ax, (source, y), (at, middle), "C0", ":")
            for y in b:
                _join(ax, (source, y), (target, y), "C1", "--")
                _join(ax, (at, middle), (target, y), "C0", ":")
        ax.set(xlim=(-0.6, 6.6), ylim=(-1.2, 3.2))
        ax.set_title(
            r"forward: $z_b = x_b\,e^{s} + t$"
            if forward
            else r"inverse: $x_b = (z_b - t)\,e^{-s}$"
        )
        ax.axis("off")
    for label, colour, ls in (
        ("kept", "0.25", "-"),
        ("read by the network", "C0", ":"),
        ("scaled and shifted", "C1", "--"),
    ):
        axes[0].plot([], [], color=colour, ls=ls, label=label)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    return figure


def masks_and_squeeze() -> Figure:
    """The checkerboard mask, the squeeze of an image, and the channel mask after it."""
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.1), width_ratios=(1, 1, 2.1))
    image = torch.arange(16).reshape(1, 1, 4, 4).float()
    board = checkerboard_mask((1, 4, 4))[0]
    squeezed = Squeeze((1, 4, 4))(image)[0][0]
    channels = channel_mask((4, 2, 2))
    colours = {True: "#d9e8f5", False: "#fbe3cf"}

    def cell(
        ax: Axes, row: float, column: float, text: str, colour: str, hatch: str
    ) -> None:
        ax.add_patch(
            Rectangle(
                (column, -row),
                1,
                -1,
                facecolor=colour,
                edgecolor="0.4",
                hatch=hatch,
                lw=1,
            )
        )
        ax.text(
            column + 0.5,
            -row - 0.5,
            text,
            ha="center",
            va="center",
            fontsize=11,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2},
        )

    palette = ["#d9e8f5", "#fbe3cf", "#dcefdc", "#f0dfef"]
    for i in range(4):
        for j in range(4):
            known = bool(board[i, j])
            cell(axes[0], i, j, str(4 * i + j), colours[known], "" if known else "///")
            which = int((squeezed == image[0, 0, i, j]).nonzero()[0, 0])
            cell(axes[1], i, j, str(4 * i + j), palette[which], "")
    for c in range(4):
        for i in range(2):
            for j in range(2):
                known = bool(channels[c, i, j])
                cell(
                    axes[2],
                    i + 1,
                    2.5 * c + j,
                    str(int(squeezed[c, i, j])),
                    palette[c],
                    "" if known else "///",
                )
        axes[2].text(2.5 * c + 1, -3.45, f"channel {c + 1}", ha="center", fontsize=10)
    axes[0].set_title("checkerboard mask")
    axes[1].set_title("before the squeeze")
    axes[2].set_title("after it, with a channel mask")
    for ax, width in zip(axes, (4, 4, 9.5), strict=True):
        ax.set(xlim=(-0.1, width + 0.1), ylim=(-4.1, 0.1), aspect="equal")
        ax.axis("off")
    return figure


def multi_scale() -> Figure:
    """Where the entries of a 1 × 8 × 8 image leave a multi-scale flow of three scales."""
    figure, ax = plt.subplots(figsize=(7.5, 3.4))
    steps = [
        (0, "image\n1 × 8 × 8"),
        (2.6, "4 × 4 × 4"),
        (5.2, "8 × 2 × 2"),
        (7.8, "16 × 1 × 1"),
    ]
    heights = [2.8, 2.8, 1.4, 0.7]
    entries = [64, 64, 32, 16]
    shapes = ["2 × 4 × 4", "4 × 2 × 2", "16 × 1 × 1"]
    for k, ((x, label), height, n) in enumerate(
        zip(steps, heights, entries, strict=True)
    ):
        ax.add_patch(
            Rectangle((x, 0), 0.7, height, facecolor="#d9e8f5", edgecolor="black")
        )
        ax.text(
            x + 0.35, height + 0.12, f"{label}\n{n} entries", ha="center", fontsize=9.5
        )
        if k:
            continue
    for k in range(3):
        start = steps[k][0] + 0.7
        left = heights[k] if k == 0 else heights[k] / 2
        ax.annotate(
            "",
            xy=(steps[k + 1][0], left / 2),
            xytext=(start, left / 2),
            arrowprops={"arrowstyle": "-|>", "color": "0.25"},
        )
        text = "couple, squeeze,\ncouple"
        ax.text(
            (start + steps[k + 1][0]) / 2, left / 2 + 0.1, text, ha="center", fontsize=9
        )
    for k in (1, 2, 3):
        x, height = steps[k][0], heights[k]
        part = height / 2 if k < 3 else height
        ax.add_patch(
            Rectangle(
                (x, height - part),
                0.7,
                part,
                facecolor="#fbe3cf",
                edgecolor="black",
                hatch="///",
            )
        )
        ax.annotate(
            "",
            xy=(x + 0.35, -1.05),
            xytext=(x + 0.35, 0),
            arrowprops={"arrowstyle": "-|>", "color": "C1", "ls": "--"},
        )
        ax.text(
            x + 0.35, -1.5, f"$z^{{({k})}}$: {shapes[k - 1]}", ha="center", color="C1"
        )
    ax.text(0.35, -1.5, "to the latent", ha="center", color="C1", fontsize=10)
    ax.set(xlim=(-0.8, 9.6), ylim=(-1.8, 4.2))
    ax.axis("off")
    return figure


def spline_bin() -> Figure:
    """One bin of a rational-quadratic spline for three slopes, and a whole spline."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.6))
    xi = torch.linspace(0, 1, 200)
    width, height = 1.0, 0.8
    secant = height / width
    for (first, last), ls, colour in (
        ((0.2, 0.2), "-", "C0"),
        ((2.5, 0.3), "--", "C1"),
        ((2.5, 2.5), ":", "C2"),
    ):
        below = secant + (first + last - 2 * secant) * xi * (1 - xi)
        y = height * (secant * xi**2 + first * xi * (1 - xi)) / below
        left.plot(
            xi,
            y,
            ls=ls,
            color=colour,
            label=rf"$\delta_0 = {first},\ \delta_1 = {last}$",
        )
    left.plot([0, 1], [0, height], color="0.6", lw=1)
    left.plot([0, 1], [0, height], "o", color="black", ms=6)
    left.set(
        xlabel=r"$\xi$",
        ylabel="$y - y_0$",
        title="one bin, $w = 1$, $h = 0.8$",
        ylim=(-0.02, 0.84),
    )
    left.legend(fontsize="small")
    torch.manual_seed(4)
    free = [1.2 * torch.randn(n).double() for n in (5, 5, 4)]
    x = torch.linspace(-4, 4, 500).double()
    y, log_slope = spline(x, *(f.expand(500, -1) for f in free), 3.0)
    right.plot(x, y, label="spline")
    right.plot(x, log_slope, ls="--", label="its log-slope")
    ends = [0.01 + 0.95 * f.softmax(0) for f in free[:2]]
    knots = [torch.cat([-3 * torch.ones(1), 6 * e.cumsum(0) - 3]) for e in ends]
    right.plot(*knots, "o", color="black", ms=5, label="knots")
    for edge in (-3, 3):
        right.axvline(edge, color="0.7", lw=1, ls=":")
    right.set(xlabel="$x_j$", title="five bins between −3 and 3; identity outside")
    right.title.set_fontsize(11)
    right.legend(fontsize="small")
    return figure


def residual_series() -> Figure:
    """Error of the truncated series of a log-determinant, with its bound, for three contractions."""
    figure, ax = plt.subplots(figsize=(6.4, 3.4))
    torch.manual_seed(0)
    d, terms = 8, np.arange(1, 26)
    matrix = torch.randn(d, d).double()
    matrix = matrix + matrix.T
    matrix = matrix / torch.linalg.matrix_norm(matrix, 2)
    for lipschitz, ls, marker in ((0.5, "-", "o"), (0.8, "--", "s"), (0.95, ":", "^")):
        a = lipschitz * matrix
        exact = torch.linalg.slogdet(torch.eye(d).double() + a).logabsdet.item()
        powers, total, errors = torch.eye(d).double(), 0.0, []
        for k in terms:
            powers = powers @ a
            total += (-1) ** (k + 1) * powers.trace().item() / k
            errors.append(abs(total - exact))
        bound = d * lipschitz ** (terms + 1) / ((terms + 1) * (1 - lipschitz))
        (line,) = ax.plot(
            terms, errors, marker, ms=4, label=f"error, $L = {lipschitz}$"
        )
        ax.plot(terms, bound, ls=ls, color=line.get_color(), label="bound")
    ax.set(
        yscale="log",
        ylim=(1e-10, 1e2),
        xlabel="terms of the series",
        ylabel="error in nats",
    )
    ax.legend(fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def autoregressive_dependence() -> Figure:
    """Which variables MAF's and IAF's networks read, and the order of the slow direction."""
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.5))
    for ax, (name, read, made) in zip(
        axes, (("MAF", "x", "z"), ("IAF", "z", "x")), strict=True
    ):
        for i in range(4):
            _node(ax, i * 1.7, 2, f"${read}_{i + 1}$", "#d9e8f5")
            _node(ax, i * 1.7, 0, f"${made}_{i + 1}$", "#fbe3cf")
            _join(ax, (i * 1.7, 2), (i * 1.7, 0), "C1", "--")
            for j in range(i):
                _join(ax, (j * 1.7, 2), (i * 1.7, 0), "C0", ":")
        one, many = (
            (r"$x \to z$: one pass", r"$z \to x$: $D$ steps")
            if read == "x"
            else (r"$z \to x$: one pass", r"$x \to z$: $D$ steps")
        )
        ax.set_title(f"{name}: the network reads ${read}_{{<i}}$")
        ax.text(2.55, -1.0, f"{one};  {many}", ha="center", fontsize=10.5)
        ax.set(xlim=(-0.6, 5.7), ylim=(-1.3, 2.6))
        ax.axis("off")
    for label, colour, ls in (
        (r"read by the network ($\mu_i$, $\alpha_i$)", "C0", ":"),
        ("scaled and shifted", "C1", "--"),
    ):
        axes[0].plot([], [], color=colour, ls=ls, label=label)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2
    )
    return figure


class _Moon:
    """x₁ from two normal distributions, x₂ normal around a parabola: conditionals are in closed form."""

    weights = torch.tensor([0.4, 0.6]).double()
    means = torch.tensor([-1.1, 1.0]).double()
    scales = torch.tensor([0.45, 0.5]).double()

    def first(self) -> MixtureSameFamily:
        """The distribution of x₁."""
        return MixtureSameFamily(
            Categorical(self.weights), Normal(self.means, self.scales)
        )

    def second(self, x: Tensor) -> Normal:
        """The distribution of x₂ given x₁."""
        return Normal(0.7 * x.square() - 0.9, 0.25 + 0.1 * x.abs())

    def log_prob(self, x: Tensor) -> Tensor:
        """The density."""
        return self.first().log_prob(x[:, 0]) + self.second(x[:, 0]).log_prob(x[:, 1])

    def rearranged(self, x: Tensor) -> Tensor:
        """The Knothe–Rosenblatt map."""
        u = torch.stack(
            [self.first().cdf(x[:, 0]), self.second(x[:, 0]).cdf(x[:, 1])], 1
        )
        return STANDARD.icdf(u.clamp(1e-12, 1 - 1e-12))


def block_triangular() -> Figure:
    """Where the Jacobian of a TarFlow block is not zero, for patches of one and of four entries."""
    figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.4))
    for ax, patch in zip(axes, (1, 4), strict=True):
        layer = build(
            lambda patch=patch: AttentionAutoregressive(
                (12,), patch=patch, width=8, heads=2, n_blocks=1
            )
        )
        x = torch.randn(12, generator=torch.Generator().manual_seed(0)).double()
        jacobian = torch.autograd.functional.jacobian(
            lambda p, layer=layer: layer(p.unsqueeze(0))[0].flatten(), x
        )
        ax.imshow(jacobian != 0, cmap="Blues", vmin=0, vmax=1.5)
        for edge in range(patch, 12, patch):
            ax.axhline(edge - 0.5, color="0.6", lw=0.8)
            ax.axvline(edge - 0.5, color="0.6", lw=0.8)
        ax.set_title(f"patches of {patch}", fontsize=11)
        ax.set(xticks=[0, 4, 8], yticks=[0, 4, 8], xlabel="entry of $x$")
    axes[0].set_ylabel("entry of $z$")
    return figure


def knothe_rosenblatt() -> Figure:
    """A bent density, its conditional distribution functions, and the plane after the rearrangement."""
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.3))
    moon = _Moon()
    side = torch.linspace(-2.6, 2.6, 150).double()
    grid = torch.cartesian_prod(side, side)
    axes[0].contourf(
        side,
        side,
        moon.log_prob(grid).exp().reshape(150, 150).T,
        levels=9,
        cmap="Greys",
    ).set_rasterized(True)
    for x1, colour, ls in ((-1.2, "C0", "-"), (0.1, "C1", "--"), (1.4, "C2", ":")):
        at = torch.tensor(x1).double()
        axes[0].axvline(x1, color=colour, ls=ls)
        axes[1].plot(
            side, moon.second(at).cdf(side), color=colour, ls=ls, label=f"$x_1 = {x1}$"
        )
    axes[0].set(
        title="density $p(x_1, x_2)$", xlabel="$x_1$", ylabel="$x_2$", aspect="equal"
    )
    axes[1].set(title=r"$F_2(x_2 \mid x_1)$", xlabel="$x_2$", ylim=(-0.02, 1.02))
    figure.legend(
        *axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    torch.manual_seed(0)
    x1 = moon.first().sample((700,))
    x = torch.stack([x1, moon.second(x1).sample()], 1)
    axes[2].scatter(*moon.rearranged(x).T, s=4, color="0.55", rasterized=True)
    fine = torch.linspace(-2.6, 2.6, 90).double()
    for at, colour, ls in ((-1.2, "C0", "-"), (0.1, "C1", "--"), (1.4, "C2", ":")):
        line = torch.stack([torch.full_like(fine, at), fine], 1)
        axes[2].plot(*moon.rearranged(line).T, color=colour, ls=ls, lw=2)
    for at in (-0.6, 0.2, 1.0):
        line = torch.stack([fine, torch.full_like(fine, at)], 1)
        axes[0].plot(*line.T, color="black", lw=0.8)
        axes[2].plot(*moon.rearranged(line).T, color="black", lw=1.2)
    axes[2].set(
        title="after $T$: standard normal",
        xlabel="$z_1$",
        ylabel="$z_2$",
        xlim=(-3.2, 3.2),
        ylim=(-3.2, 3.2),
        aspect="equal",
    )
    return figure


def _bridge(z: Tensor, slope: float, gap: float) -> Tensor:
    """The increasing map of greatest slope `slope` that leaves least mass in a gap around 0."""
    half = gap / (2 * slope)
    outside = z.sign() * gap / 2 + 0.5 * (z - z.sign() * half)
    return torch.where(z.abs() < half, slope * z, outside)


def topological_obstruction() -> Figure:
    """The filament between two modes, and how steep a map must be to make it thin."""
    figure, panels = plt.subplot_mosaic("AC;BB", figsize=(7.5, 5.6))
    axes = [panels[name] for name in "ABC"]
    gap = 2.0
    z = torch.linspace(-2.5, 2.5, 501).double()
    slopes = ((4.0, "C0", "-"), (16.0, "C1", "--"))
    for slope, colour, ls in slopes:
        axes[0].plot(
            z,
            _bridge(z, slope, gap),
            color=colour,
            ls=ls,
            label=f"largest slope {slope:.0f}",
        )
    axes[0].axhspan(-1, 1, color="0.9", zorder=0)
    axes[0].text(1.7, -0.1, "gap", fontsize=10)
    axes[0].set(
        xlabel="noise $z_1$", ylabel="$x_1 = g(z_1)$", title="two sampling maps"
    )
    axes[0].legend(fontsize="small", loc="upper left", borderpad=0)
    # The density of (g(z₁), 0.35 z₂), on a logarithmic scale.
    side = torch.linspace(-2.2, 2.2, 221).double()
    half = gap / 8
    inside = side.abs() < gap / 2
    back = torch.where(
        inside, side / 4, side.sign() * half + 2 * (side - side.sign() * gap / 2)
    )
    log_p = STANDARD.log_prob(back) - torch.where(inside, math.log(4), math.log(0.5))
    across = torch.linspace(-1.4, 1.4, 141).double()
    log_q = STANDARD.log_prob(across / 0.35) - math.log(0.35)
    shown = axes[1].imshow(
        ((log_p[None, :] + log_q[:, None]) / math.log(10)).clamp(min=-3),
        extent=(-2.2, 2.2, -1.4, 1.4),
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap="viridis",
    )
    figure.colorbar(shown, ax=axes[1], label=r"$\log_{10} p$")
    axes[1].set(title="density, largest slope 4", xlabel="$x_1$", ylabel="$x_2$")
    lipschitz = torch.logspace(-0.3, 2.3, 100).double()
    axes[2].plot(lipschitz, 2 * STANDARD.cdf(gap / (2 * lipschitz)) - 1, color="black")
    for slope, colour, _ in slopes:
        lost = 2 * STANDARD.cdf(torch.tensor(gap / (2 * slope)).double()) - 1
        axes[2].plot(slope, lost, "o" if slope == 4 else "s", color=colour, ms=8)
    axes[2].fill_between(
        lipschitz,
        1e-3,
        2 * STANDARD.cdf(gap / (2 * lipschitz)) - 1,
        color="0.9",
        zorder=0,
    )
    axes[2].text(0.6, 3e-3, "impossible", fontsize=11)
    axes[2].set(
        xscale="log",
        yscale="log",
        ylim=(1.5e-3, 1.2),
        xlim=(0.5, 200),
        xlabel="Lipschitz constant $L$",
        ylabel="mass in the gap",
        title="the bound, for a gap of 2",
    )
    for ax in axes:
        ax.title.set_fontsize(11)
    return figure


def _two_modes() -> MixtureSameFamily:
    """Two normal distributions of the plane, of unequal weight."""
    means = torch.tensor([[-2.6, -1.0], [2.2, 1.2]])
    return MixtureSameFamily(
        Categorical(torch.tensor([0.4, 0.6])), Independent(Normal(means, 0.5), 1)
    )


def _fitted(direction: str, seed: int, data: Tensor) -> Flow:
    """A small RealNVP fitted to the two modes by one direction of the KL divergence."""
    target = _two_modes()
    torch.manual_seed(seed)
    flow = RealNVP((2,), layers=4, hidden=(16,))
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(160):
        if direction == "forward":
            loss = -flow.log_prob(data[torch.randint(len(data), (128,))]).mean()
        else:
            x, log_det = flow.inverse(torch.randn(128, 2))
            loss = (-log_det - target.log_prob(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flow


def reverse_kl() -> Figure:
    """The same small flow fitted to two modes by either direction of the KL divergence."""
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.1), sharey=True)
    target = _two_modes()
    side = torch.linspace(-4.2, 4.2, 120)
    grid = torch.cartesian_prod(side, side)
    torch.manual_seed(0)
    data = target.sample((4000,))
    true = target.log_prob(grid).exp().reshape(120, 120).T
    fits = {
        "forward KL": ("forward", 2),
        "reverse KL": ("reverse", 2),
        "reverse KL, another start": ("reverse", 0),
    }
    for ax, (title, (direction, seed)) in zip(axes, fits.items(), strict=True):
        with torch.enable_grad():
            flow = _fitted(direction, seed, data)
        with torch.no_grad():
            p = flow.log_prob(grid).exp()
        ax.contourf(
            side, side, p.reshape(120, 120).T, levels=9, cmap="viridis"
        ).set_rasterized(True)
        ax.contour(
            side, side, true, [0.03], colors="white", linestyles="--", linewidths=1
        )
        left = p[grid[:, 0] < 0].sum() * (8.4 / 119) ** 2
        ax.text(
            -4, -3.9, f"mass at $x_1 < 0$: {left:.2f}", color="white", fontsize=10.5
        )
        ax.set(aspect="equal", xlabel="$x_1$")
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("$x_2$")
    return figure


def _velocity(x: Tensor, t: float) -> Tensor:
    """E[x₁ − z | xₜ = x] for xₜ = (1 − t) z + t x₁, z standard normal and x₁ of two modes."""
    means, scale = torch.tensor([-1.6, 1.3]).double(), 0.35
    variance = (1 - t) ** 2 + t**2 * scale**2
    weights = torch.tensor([0.4, 0.6]).double()
    offset = x[..., None] - t * means
    responsibility = (weights.log() - offset.square() / (2 * variance)).softmax(-1)
    slope = (t * scale**2 - (1 - t)) / variance
    return (responsibility * (means + slope * offset)).sum(-1)


def _path_density(x: Tensor, t: float) -> Tensor:
    means, scale = torch.tensor([-1.6, 1.3]).double(), 0.35
    deviation = math.sqrt((1 - t) ** 2 + t**2 * scale**2)
    weights = torch.tensor([0.4, 0.6]).double()
    return (weights * Normal(t * means, deviation).log_prob(x[..., None]).exp()).sum(-1)


def continuous_flow() -> Figure:
    """Trajectories from noise to two modes, and the density that the trace carries along one of them."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.5, 3.4), width_ratios=(1.3, 1)
    )
    times, steps = torch.linspace(0, 1, 101).double(), 100
    side = torch.linspace(-3, 3, 240).double()
    shade = torch.stack([_path_density(side, float(t)) for t in times], 1)
    left.imshow(
        shade.sqrt(),
        extent=(0, 1, -3, 3),
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap="Greys",
        vmax=1,
    )
    x = torch.linspace(-2.2, 2.2, 12).double()
    log_p = STANDARD.log_prob(x)
    path, densities = [x], [log_p]
    slope_of = torch.func.vmap(torch.func.grad(_velocity), in_dims=(0, None))

    def rates(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        return _velocity(x, t), -slope_of(x, t)

    for k in range(steps):
        t, h = k / steps, 1 / steps
        k1 = rates(x, t)
        k2 = rates(x + h / 2 * k1[0], t + h / 2)
        k3 = rates(x + h / 2 * k2[0], t + h / 2)
        k4 = rates(x + h * k3[0], t + h)
        x, log_p = (
            old + h / 6 * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i])
            for i, old in enumerate((x, log_p))
        )
        path.append(x)
        densities.append(log_p)
    path, densities = torch.stack(path), torch.stack(densities)
    left.plot(times, path, color="C0", lw=1.2)
    chosen = {3: ("C1", "--", "o"), 7: ("C3", "-", "s")}
    for i, (colour, ls, marker) in chosen.items():
        left.plot(times, path[:, i], color=colour, ls=ls, lw=2.6)
        right.plot(times, densities[:, i], color=colour, ls=ls, label="by the trace")
        exact = torch.stack(
            [
                _path_density(path[k, i], float(times[k])).log()
                for k in range(0, 101, 10)
            ]
        )
        right.plot(times[::10], exact, marker, color=colour, ms=5, label="exact")
    left.set(
        xlabel="time $t$",
        ylabel="$x_t$",
        title=r"noise ($t=0$) to data ($t=1$)",
        xlim=(0, 1),
    )
    right.set(xlabel="time $t$", title=r"$\log p_t(x_t)$ along two paths")
    handles, labels = right.get_legend_handles_labels()
    right.legend(handles[:2], labels[:2], fontsize="small", loc="lower right")
    return figure


def hutchinson() -> Figure:
    """Estimates of a trace with one probe each, and the standard deviations that are derived."""
    figure, ax = plt.subplots(figsize=(6.6, 3.3))
    torch.manual_seed(3)
    d, n = 16, 20_000
    matrix = torch.randn(d, d).double() / 4 + torch.diag(
        torch.linspace(-1, 1.5, d).double()
    )
    symmetric = (matrix + matrix.T) / 2
    off = symmetric - torch.diag(symmetric.diagonal())
    for name, probes, variance, ls in (
        (
            "Rademacher",
            2.0 * torch.randint(2, (n, d)).double() - 1,
            2 * off.square().sum(),
            "-",
        ),
        ("normal", torch.randn(n, d).double(), 2 * symmetric.square().sum(), "--"),
    ):
        values = torch.einsum("ni,ij,nj->n", probes, matrix, probes)
        ax.hist(
            values,
            bins=60,
            range=(-20, 30),
            density=True,
            histtype="step",
            ls=ls,
            lw=1.8,
            label=f"{name}: std {values.std():.2f}, formula {variance.sqrt():.2f}",
        )
    ax.axvline(matrix.trace(), color="black", lw=1, ls=":", label="trace")
    ax.set(
        xlabel=r"$\varepsilon^\top A\,\varepsilon$", ylabel="density", ylim=(0, None)
    )
    ax.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.45, 1), ncols=3)
    return figure


def temperature() -> Figure:
    """A flow of the line at three temperatures beside powers of its density; chord and arc."""
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.1))
    x = torch.linspace(-3.2, 3.2, 600).double()
    mixture = MixtureSameFamily(
        Categorical(torch.tensor([0.3, 0.7]).double()),
        Normal(torch.tensor([-1.4, 1.0]).double(), torch.tensor([0.3, 0.6]).double()),
    )
    z = STANDARD.icdf(mixture.cdf(x).clamp(1e-15, 1 - 1e-15))
    log_p = mixture.log_prob(x)
    for t, ls in ((1.0, "-"), (0.7, "--"), (0.4, ":")):
        lowered = log_p + 0.5 * (1 - 1 / t**2) * z.square() - math.log(t)
        power = (log_p / t**2).exp()
        axes[0].plot(x, lowered.exp(), ls=ls, label=f"$T = {t}$")
        axes[1].plot(x, power / torch.trapezoid(power, x), ls=ls, label=f"$T = {t}$")
    axes[0].set(title=r"latent with std $T$", xlabel="$x$", ylabel="density")
    axes[1].set(title=r"power $p(x)^{1/T^2}$, normalized", xlabel="$x$")
    axes[1].legend(fontsize="small")
    torch.manual_seed(0)
    d = 64
    a, b = torch.randn(2, d).double()
    share = torch.linspace(0, 1, 101).double()[:, None]
    angle = torch.arccos(a @ b / (a.norm() * b.norm()))
    arc = (
        torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b
    ) / torch.sin(angle)
    norms = torch.randn(4000, d).norm(dim=1)
    axes[2].axhspan(*norms.quantile(torch.tensor([0.01, 0.99])).tolist(), color="0.9")
    axes[2].plot(share, arc.norm(dim=1), label="arc")
    axes[2].plot(
        share, ((1 - share) * a + share * b).norm(dim=1), ls="--", label="chord"
    )
    axes[2].text(0.5, 9.2, "98 % of draws", ha="center", fontsize=10)
    axes[2].set(
        title="norm, $D = 64$",
        xlabel="share of the way",
        ylim=(3, 11),
    )
    axes[2].legend(fontsize="small", loc="lower right")
    for ax in axes:
        ax.title.set_fontsize(11)
    return figure


def dequantization() -> Figure:
    """A density over the boxes of five levels: masses as areas, and the gap of Jensen's inequality."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.3))
    levels, fine = 5, 80
    y = ((torch.arange(levels * fine).double() + 0.5) / (levels * fine)).reshape(
        levels, fine
    )
    p = torch.distributions.Beta(2.2, 4.0).log_prob(y.double()).exp()
    mass = p.mean(1) / levels
    bound = p.log().mean(1) - math.log(levels)
    left.plot(y.flatten(), p.flatten(), color="black", label="$p(y)$")
    for k in range(levels):
        left.fill_between(y[k], p[k], color="C0", alpha=0.25 if k % 2 else 0.5, lw=0)
        left.text(
            (k + 0.5) / levels,
            p[k].mean().item() + (0.28 if k else -0.75),
            f"{mass[k]:.2f}",
            ha="center",
            fontsize=10,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8},
        )
        left.axvline(k / levels, color="0.7", lw=0.8)
    left.set(
        xticks=[(k + 0.5) / levels for k in range(levels)],
        xticklabels=range(levels),
        xlabel="level $x$, which owns $[x/5, (x+1)/5)$",
        ylabel="density of $y$",
        ylim=(0, 2.75),
        title="areas are probabilities $P(x)$",
    )
    at = np.arange(levels)
    right.bar(at - 0.2, -mass.log2(), 0.38, label=r"$-\log_2 P(x)$", color="C0")
    right.bar(
        at + 0.2,
        -bound / math.log(2),
        0.38,
        label="bound, uniform noise",
        color="C1",
        hatch="///",
        edgecolor="white",
    )
    right.set(
        xlabel="level $x$", ylabel="bits", title="the gap is the variation within a box"
    )
    right.legend(fontsize="small", loc="upper left")
    for ax in (left, right):
        ax.title.set_fontsize(11)
    return figure


class _Fault(Flow):
    """A small RealNVP of the plane with one fault."""

    def __init__(self, fault: str) -> None:
        flow = build(lambda: RealNVP((2,), layers=4, hidden=(16,)), seed=2, spread=0.2)
        super().__init__(flow.transform)
        self.fault = fault
        self.double().eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latents, with the fault."""
        z, log_det = self.transform(x)
        return z, {"doubled": 2, "sign": -1}.get(self.fault, 1) * log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latents to data, with the fault."""
        if self.fault != "order":
            x, log_det = self.transform.inverse(z)
            return x, {"doubled": 2, "sign": -1}.get(self.fault, 1) * log_det
        log_det = z.new_zeros(len(z))
        for layer in reversed(self.transform.transforms):
            if isinstance(layer, Coupling):
                kept, changing = layer._split(z)
                shift, raw = layer.conditioner(kept).unbind(1)
                s = layer.bound * torch.tanh(raw / layer.bound)
                z = layer._merge(kept, changing * (-s).exp() - shift)
                log_det = log_det - s.sum(1)
            else:
                z, term = layer.inverse(z)
                log_det = log_det + term
        return z, log_det

    def draw(self, n: int) -> Tensor:
        """Samples, through the faulty inverse."""
        z = torch.randn(
            n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        return self.inverse((0.8 if self.fault == "cold" else 1) * z)[0]


def _failed_checks(flow: _Fault, x: Tensor) -> tuple[bool, ...]:
    """Whether the Jacobian, the round trip, the integral and the cells find something wrong."""
    with torch.no_grad():
        integral = integral_2d(
            lambda p: flow.log_prob(p.double()), limit=10, n_points=201
        )
        return (
            max(jacobian_error(flow, x)) > 1e-6,
            round_trip_error(flow, x) > 1e-6,
            abs(integral - 1) > 1e-2,
            sampling_error_2d(flow.log_prob, flow.draw(4000), limit=9.0) > 1.6,
        )


def checks_and_faults() -> Figure:
    """Five faults of a flow and which of the checks notice them, computed."""
    faults = {
        "none": "none",
        "log-determinant doubled": "doubled",
        "sign of the log-determinant": "sign",
        r"inverse as $z\,e^{-s} - t$": "order",
        "sampler of another temperature": "cold",
    }
    columns = ["Jacobian", "round trip", "integral", "samples\nin cells"]
    figure, ax = plt.subplots(figsize=(7.4, 3.2))
    x = torch.randn(
        4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    for row, fault in enumerate(faults.values()):
        found = _failed_checks(_Fault(fault), x)
        for column, caught in enumerate(found):
            ax.add_patch(
                Rectangle(
                    (column, row),
                    1,
                    1,
                    facecolor="#fbe3cf" if caught else "#d9e8f5",
                    edgecolor="white",
                    lw=2,
                )
            )
            ax.text(
                column + 0.5,
                row + 0.5,
                "fails" if caught else "passes",
                ha="center",
                va="center",
                weight="bold" if caught else "normal",
                fontsize=11,
            )
    ax.set(
        xlim=(0, 4),
        ylim=(5, 0),
        xticks=[0.5, 1.5, 2.5, 3.5],
        xticklabels=columns,
        yticks=[k + 0.5 for k in range(5)],
        yticklabels=list(faults),
    )
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return figure

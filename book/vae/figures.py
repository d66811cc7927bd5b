"""Figures of the pages on variational autoencoders, drawn whenever the book is built."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import scipy.optimize
import torch
from course_lib.data import digits, intensities
from course_lib.divergences import kl_gaussian, kl_standard_normal
from course_lib.vae import nearest_code
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, FancyArrowPatch, FancyBboxPatch
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.distributions import Normal

FLOAT = torch.float64


def _line(low: float, high: float, points: int = 801) -> Tensor:
    return torch.linspace(low, high, points, dtype=FLOAT)


def _normal(x: Tensor, mean: float | Tensor = 0.0, std: float | Tensor = 1.0) -> Tensor:
    """A Gaussian density."""
    return (-0.5 * ((x - mean) / std) ** 2).exp() / (std * math.sqrt(2 * math.pi))


def _source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _digit_images() -> Tensor:
    """The training digits as rows of intensities in [0, 1], shape ``(1300, 64)``."""
    data = digits()
    return intensities(data.train, data.levels).flatten(1).to(FLOAT)


def _eigenvalues() -> Tensor:
    """Eigenvalues of the digits' covariance, the largest first."""
    return (
        torch.linalg.eigvalsh(_digit_images().T.cov(correction=0)).flip(0).clamp(min=0)
    )


def _ellipse(
    ax: Axes, mean: Tensor, covariance: Tensor, radius: float = 2.0, **style
) -> None:
    """The ellipse of a Gaussian at `radius` standard deviations."""
    values, vectors = np.linalg.eigh(covariance.numpy())
    angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
    ax.add_patch(
        Ellipse(
            mean.tolist(),
            2 * radius * math.sqrt(values[1]),
            2 * radius * math.sqrt(values[0]),
            angle=angle,
            **style,
        )
    )


# --- theory ---------------------------------------------------------------------------------------


def linear_autoencoder() -> Figure:
    """Projections on the principal axis in the plane, and the error left on the digits."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
    x = torch.randn(40, 2, generator=_source(3), dtype=FLOAT) @ torch.tensor(
        [[1.5, 0.7], [0.0, 0.5]], dtype=FLOAT
    )
    centre = x.mean(0)
    axis = torch.linalg.eigh((x - centre).T.cov())[1][:, -1]
    projected = centre + ((x - centre) @ axis).unsqueeze(1) * axis
    ends = centre + torch.tensor([[-4.0], [4.0]], dtype=FLOAT) * axis
    left.plot(*ends.T, color="black", linewidth=1, label="principal axis")
    for point, image in zip(x.tolist(), projected.tolist(), strict=True):
        left.plot(*zip(point, image, strict=True), color="grey", linewidth=0.8)
    left.scatter(*x.T, s=16, color="C0", label="data", zorder=3)
    left.scatter(
        *projected.T, s=16, marker="x", color="C1", label="reconstruction", zorder=3
    )
    left.set(
        xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=(-4, 4), ylim=(-2.6, 3.4)
    )
    left.legend(loc="upper left", fontsize=10)

    images, sizes = _digit_images(), (1, 2, 4, 8, 16, 32)
    values = _eigenvalues()
    tails = values.flip(0).cumsum(0).flip(0)
    right.plot(range(64), tails, label="sum of the eigenvalues left out")
    right.plot(
        sizes,
        [_trained_error(images, d) for d in sizes],
        "x",
        color="C1",
        markersize=8,
        markeredgewidth=2,
        label="trained linear autoencoder",
    )
    right.set(
        xlabel="code dimensions d", ylabel="squared error per image", ylim=(0, None)
    )
    right.legend(fontsize=10)
    return figure


def _trained_error(x: Tensor, d: int, rounds: int = 25) -> float:
    """Squared error per example of a linear autoencoder: decoder and codes are fitted in turn."""
    codes = torch.randn(len(x), d, generator=_source(d), dtype=FLOAT)
    ones = torch.ones(len(x), 1, dtype=FLOAT)
    for _ in range(rounds):
        design = torch.cat([codes, ones], 1)
        decoder = torch.linalg.solve(design.T @ design, design.T @ x)
        weight, bias = decoder[:-1], decoder[-1]
        codes = (x - bias) @ weight.T @ torch.linalg.inv(weight @ weight.T)
    return (x - bias - codes @ weight).square().sum(1).mean().item()


def latent_variable_model() -> Figure:
    """Prior, decoder and marginal of a model with one code and one pixel."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(8, 3))
    z, x = _line(-3.5, 3.5), _line(-2.2, 2.2)
    mean, noise = (1.8 * z).tanh() + 0.15 * z, 0.25
    left.plot(z, _normal(z))
    left.fill_between(z, _normal(z), alpha=0.2)
    left.set(xlabel="code $z$", title="prior $p(z)$", ylim=(0, None))
    middle.plot(z, mean, color="C1")
    middle.fill_between(z, mean - 2 * noise, mean + 2 * noise, color="C1", alpha=0.25)
    code = torch.tensor(0.35, dtype=FLOAT)
    image = (1.8 * code).tanh() + 0.15 * code + 0.2
    middle.plot(
        [code, code], [-2.2, image], color="black", linestyle=":", linewidth=1.2
    )
    middle.plot(
        [code, 3.5], [image, image], color="black", linestyle=":", linewidth=1.2
    )
    middle.plot(code, image, "o", color="black", markersize=5)
    middle.set(
        xlabel="code $z$",
        ylabel="example $x$",
        title="decoder $p(x|z)$",
        ylim=(-2.2, 2.2),
    )
    marginal = (_normal(x.unsqueeze(1), mean, noise) * _normal(z)).sum(1) * (
        z[1] - z[0]
    )
    right.plot(marginal, x, color="C2")
    right.fill_betweenx(x, marginal, color="C2", alpha=0.2)
    right.axhline(image, color="black", linestyle=":", linewidth=1.2)
    right.set(
        title="marginal $p(x)$", xlim=(0, None), ylim=(-2.2, 2.2), xlabel="density"
    )
    return figure


def prior_sampling() -> Figure:
    """Prior samples against a narrow posterior, and two counts of the samples that are needed."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.5))
    s = 0.1
    samples = torch.randn(400, 2, generator=_source(5), dtype=FLOAT)
    left.scatter(*samples.T, s=8, color="C0", label="prior samples")
    variance = s**2 / (1 + s**2)
    centre = (0.9, 0.8)
    left.add_patch(
        Circle(
            centre,
            2 * math.sqrt(variance),
            fill=False,
            color="C3",
            linewidth=2,
            zorder=3,
        )
    )
    left.annotate(
        "posterior",
        centre,
        (1.6, 2.7),
        arrowprops={"arrowstyle": "->", "color": "black", "linewidth": 1.4},
        fontsize=11,
    )
    left.set(
        xlabel="$z_1$",
        ylabel="$z_2$",
        aspect="equal",
        xlim=(-3.4, 3.4),
        ylim=(-3.4, 3.4),
    )
    d = torch.arange(1, 11)
    variance_factor = (1 + s**2) / (s * math.sqrt(2 + s**2)) * math.exp(1 / (2 + s**2))
    right.semilogy(d, variance_factor**d, marker="o", label="by the variance")
    right.semilogy(
        d,
        (1 + 1 / s**2) ** (d / 2),
        marker="s",
        linestyle="--",
        label=r"$e^{\mathrm{KL}}$",
    )
    right.set(xlabel="latent dimensions d", ylabel="samples of the prior")
    right.legend()
    return figure


def two_joints() -> Figure:
    """The encoder's and the decoder's joint density of a data set with two values."""
    z, x = _line(-3, 3, 241), _line(-2, 2, 241)
    noise, width = 0.12, 0.6
    at_each = [0.5 * _normal(x, value, noise) for value in (-1.0, 1.0)]
    codes = [_normal(z, mean, width) for mean in (-0.8, 0.8)]
    encoder = sum(torch.outer(a, c) for a, c in zip(at_each, codes, strict=True))
    # The best decoder for these posteriors: the mean, and the variance that is left on average.
    share = codes[1] / (codes[0] + codes[1])
    mean = 2 * share - 1
    aggregate = 0.5 * (codes[0] + codes[1])
    left_over = (aggregate * (1 - mean**2)).sum() * (z[1] - z[0]) + noise**2
    decoder = _normal(x.unsqueeze(1), mean, left_over.sqrt()) * _normal(z)
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.9), sharex=True, sharey=True)
    for ax, joint, title in (
        (panels[0], encoder, "encoder: $p_{\\mathrm{data}}(x)\\,q(z|x)$"),
        (panels[1], decoder, "decoder: $p(z)\\,p(x|z)$"),
    ):
        ax.contourf(
            z, x, joint / joint.max(), levels=np.linspace(0.03, 1, 12), cmap="Blues"
        )
        over_z, over_x = joint.sum(0), joint.sum(1)
        ax.plot(z, -2 + 0.7 * over_z / over_z.max(), color="C1", label="marginal of z")
        ax.plot(
            -3 + 0.9 * over_x / over_x.max(),
            x,
            color="C2",
            ls="--",
            label="marginal of x",
        )
        ax.set(title=title, xlabel="code $z$")
    panels[0].set_ylabel("example $x$")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        fontsize=11,
    )
    return figure


def elbo_curves() -> Figure:
    """The bound over the approximate posterior, and over the decoder's weight."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6))
    w, sigma, x = 1.2, 0.7, 1.5

    def bound(m: float | Tensor, s: float, w: float | Tensor) -> Tensor:
        error = (x - w * m) ** 2 + w**2 * s**2
        reconstruction = -0.5 * (error / sigma**2 + math.log(2 * math.pi * sigma**2))
        return reconstruction - 0.5 * (s**2 + m**2 - 1 - 2 * math.log(s))

    def log_p(w: float | Tensor) -> Tensor:
        variance = torch.as_tensor(w, dtype=FLOAT) ** 2 + sigma**2
        return -0.5 * (x**2 / variance + (2 * math.pi * variance).log())

    def posterior(w: float) -> tuple[float, float]:
        return w * x / (w**2 + sigma**2), sigma / math.sqrt(w**2 + sigma**2)

    m = _line(-0.4, 2.4)
    best, width = posterior(w)
    for scale, style in ((1.0, "-"), (0.25, "--"), (1.8, "-.")):
        name = "posterior's width" if scale == 1 else f"{scale} times it"
        left.plot(m, bound(m, scale * width, w), style, label=name)
    left.axhline(log_p(w), color="black", linewidth=1, linestyle=":")
    left.plot(best, log_p(w), "o", color="black", markersize=6)
    left.text(-0.4, log_p(w) + 0.08, r"$\log p(x)$", fontsize=11)
    left.set(
        xlabel=r"mean of $q$",
        ylabel="nats",
        title="over $q$",
        ylim=(log_p(w).item() - 3.7, log_p(w).item() + 0.6),
    )
    left.legend(fontsize=10, loc="lower center")
    weights = _line(0.05, 3.2)
    right.plot(weights, log_p(weights), color="black", label=r"$\log p_w(x)$")
    for at, style, color in ((0.5, "--", "C0"), (1.6, "-.", "C1")):
        right.plot(
            weights,
            bound(*posterior(at), weights),
            style,
            color=color,
            label=f"ELBO, $q$ of $w = {at}$",
        )
        right.plot(at, log_p(at), "o", color=color, markersize=6)
    top = log_p(weights).max().item()
    right.set(
        xlabel="decoder's weight $w$",
        title=r"over $\theta$",
        ylim=(top - 2.2, top + 1.1),
    )
    right.legend(fontsize=10, loc="upper right")
    return figure


def amortization_gap() -> Figure:
    """A correlated posterior, two diagonal Gaussians, and the parts of the gap."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.8), width_ratios=[2.2, 1])
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.2]], dtype=FLOAT)
    mean = torch.zeros(2, dtype=FLOAT)
    precision = torch.linalg.inv(covariance)
    side = _line(-3.2, 3.2, 161)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1)
    density = (-0.5 * ((grid @ precision) * grid).sum(-1)).exp()
    left.contourf(side, side, density, levels=np.linspace(0.05, 1, 10), cmap="Blues")
    best = (1 / precision.diagonal()).diag()
    encoder_mean = torch.tensor([0.55, 0.25], dtype=FLOAT)
    encoder = torch.tensor([0.75, 0.3], dtype=FLOAT).diag()
    _ellipse(left, mean, best, fill=False, color="C1", linewidth=2.2)
    _ellipse(
        left,
        encoder_mean,
        encoder,
        fill=False,
        color="C3",
        linewidth=2.2,
        linestyle="--",
    )
    left.plot(0, 0, "o", color="C1")
    left.plot(*encoder_mean, "x", color="C3", markersize=8, markeredgewidth=2)
    left.plot([], [], color="C1", label="best diagonal Gaussian")
    left.plot([], [], color="C3", linestyle="--", label="the encoder's")
    left.legend(loc="upper left", fontsize=10)
    left.set(
        xlabel="$z_1$",
        ylabel="$z_2$",
        aspect="equal",
        xlim=(-3.2, 3.2),
        ylim=(-3.2, 3.2),
    )
    family = kl_gaussian(mean, best, mean, covariance).item()
    whole = kl_gaussian(encoder_mean, encoder, mean, covariance).item()
    right.bar([0], [family], color="C1", width=0.5)
    right.bar(
        [0],
        [whole - family],
        bottom=[family],
        color="C3",
        width=0.5,
        hatch="//",
        alpha=0.8,
    )
    for height, text in (
        (family / 2, f"approximation\n{family:.2f}"),
        ((whole + family) / 2, f"amortization\n{whole - family:.2f}"),
    ):
        right.text(0.32, height, text, va="center", fontsize=11)
    right.set(ylabel="gap in nats", xlim=(-0.4, 1.3), xticks=[])
    return figure


def two_gradients() -> Figure:
    """Eight samples: moved along the slope of the integrand, or weighted by value times score."""
    mu, sigma = 1.0, 0.7
    noise = torch.tensor([-1.5, -0.9, -0.5, -0.15, 0.2, 0.55, 1.0, 1.6], dtype=FLOAT)
    z = mu + sigma * noise
    figure, axes = plt.subplots(
        2, 2, figsize=(8, 5), sharex=True, height_ratios=[1.2, 1]
    )
    line = _line(-1.2, 3.2)
    estimates = (2 * z, z**2 * noise / sigma)
    for column, (title, values, color) in enumerate(
        (
            ("move the samples", estimates[0], "C0"),
            ("weight the samples", estimates[1], "C3"),
        )
    ):
        top, bottom = axes[:, column]
        top.plot(line, line**2, color="grey", label="$f(z) = z^2$")
        top.fill_between(
            line, 6 * _normal(line, mu, sigma), color="C2", alpha=0.2, label="$q(z)$"
        )
        top.set(title=title, ylim=(-0.4, 9))
        bottom.axhline(0, color="black", linewidth=0.8)
        bottom.vlines(z, 0, values, color=color, linewidth=5)
        bottom.axhline(2 * mu, color="black", linestyle="--", linewidth=1.2)
        bottom.set(xlabel="sample $z$", ylim=(-4, 11.5))
        mean, spread = values.mean().item(), values.std().item()
        bottom.text(
            0.03,
            0.8,
            f"mean {mean:.1f}, spread {spread:.1f}",
            transform=bottom.transAxes,
            fontsize=11,
        )
        if column == 0:
            for point in z.tolist():
                top.annotate(
                    "",
                    (point + 0.3, point**2 + 0.6 * point),
                    (point, point**2),
                    arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.8},
                )
        else:
            top.vlines(z, 0, z**2, color=color, linewidth=1.5, linestyle=":")
        top.plot(z, z**2, "o", color=color, markersize=5)
    axes[0, 0].set_ylabel("integrand")
    axes[0, 0].legend(loc="upper left", fontsize=10)
    axes[1, 0].set_ylabel("estimate")
    axes[1, 1].text(-1.15, 2.5, "gradient", fontsize=11)
    return figure


def decoder_distributions() -> Figure:
    """The integral of the cross-entropy's exponential, and the Gaussian loss against σ."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.5))
    pi = _line(0.001, 0.999, 999)
    integral = (2 * pi - 1) / (pi.log() - (1 - pi).log())
    integral = torch.where((pi - 0.5).abs() < 1e-9, 0.5, integral)
    left.plot(pi, integral)
    left.axhline(1, color="black", linestyle="--", linewidth=1)
    left.axhline(0.5, color="grey", linestyle=":", linewidth=1.2)
    left.text(0.5, 1.02, "what a density has", fontsize=11, ha="center", va="bottom")
    left.set(
        xlabel=r"$\pi$", ylabel="integral over grey values", ylim=(0, 1.2), xlim=(0, 1)
    )
    pixels, error = 64, 0.04

    def loss(sigma: float | Tensor) -> Tensor:
        sigma = torch.as_tensor(sigma, dtype=FLOAT)
        return 0.5 * pixels * (error / sigma**2 + (2 * math.pi * sigma**2).log())

    sigma = torch.logspace(-1.15, 1, 300, dtype=FLOAT)
    right.semilogx(sigma, loss(sigma))
    for value, text, marker, place in (
        (math.sqrt(error), "learned:\nσ = 0.2", "o", (0.35, -62)),
        (1.0, "squared error:\nσ = 1", "s", (0.23, 95)),
        (math.sqrt(pixels / 2), "averaged:\nσ = $\\sqrt{D/2}$", "^", (1.1, 190)),
    ):
        right.plot(value, loss(value), marker, color="C1", markersize=8)
        right.annotate(
            text,
            (value, loss(value)),
            place,
            fontsize=10.5,
            arrowprops={"arrowstyle": "-", "color": "black"},
        )
    right.set(xlabel="σ", ylabel="loss in nats per image", ylim=(-80, 240))
    return figure


def _box(
    ax: Axes, x: float, y: float, text: str, width: float = 1.5, color: str = "C0"
) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - 0.32),
            width,
            0.64,
            boxstyle="round,pad=0.05",
            facecolor=color,
            alpha=0.25,
            edgecolor="black",
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=11)


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], **style: object
) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=14,
            **({"color": "black"} | style),
        )
    )


def training_recipe() -> Figure:
    """The computation of the loss, from the image to its two terms."""
    figure, ax = plt.subplots(figsize=(8, 3.3))
    ax.set(xlim=(-0.6, 10.2), ylim=(-0.6, 3.8))
    ax.set_axis_off()
    _box(ax, 0.2, 2, "$x$", 0.8, "grey")
    _box(ax, 2.1, 2, "encoder", color="C0")
    _box(ax, 4.4, 2, r"$\mu,\ \log\sigma^2$", 1.6, "C0")
    _box(ax, 6.6, 2, r"$z=\mu+\sigma\epsilon$", 1.6, "C2")
    _box(ax, 8.7, 2, "decoder", 1.4, "C1")
    _box(ax, 6.6, 3.25, r"$\epsilon\sim\mathcal{N}(0,I)$", 1.6, "grey")
    _box(ax, 4.4, 0.6, r"$\mathrm{KL}(q(z|x)\,\|\,p(z))$", 2.6, "C0")
    _box(ax, 8.7, 0.6, r"$-\log p(x|z)$", 2.0, "C1")
    for start, end in (
        ((0.65, 2), (1.3, 2)),
        ((2.9, 2), (3.55, 2)),
        ((5.25, 2), (5.75, 2)),
    ):
        _arrow(ax, start, end)
    _arrow(ax, (7.45, 2), (7.95, 2))
    _arrow(ax, (6.6, 2.88), (6.6, 2.4), linestyle="--")
    _arrow(ax, (4.4, 1.6), (4.4, 1.0))
    _arrow(ax, (8.7, 1.6), (8.7, 1.0))
    ax.text(6.75, 0.6, "+", fontsize=18, ha="center", va="center")
    ax.text(
        6.7, -0.35, "loss: the sum of both boxes, averaged over the batch", ha="center"
    )
    ax.text(2.1, 3.25, "dashed: no gradient", fontsize=11, ha="center", va="center")
    return figure


# --- divergences ----------------------------------------------------------------------------------


def kl_directions() -> Figure:
    """The integrands of both directions of the divergence of two Gaussians."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharex=True, sharey=True)
    x = _line(-4, 4)
    q, p = Normal(1.0, 0.5), Normal(0.0, 1.0)
    log_q, log_p = q.log_prob(x), p.log_prob(x)
    for ax, name, first, second in (
        (panels[0], "KL(q‖p)", log_q, log_p),
        (panels[1], "KL(p‖q)", log_p, log_q),
    ):
        ax.plot(x, log_q.exp(), label="$q$")
        ax.plot(x, log_p.exp(), linestyle="--", label="$p$")
        integrand = first.exp() * (first - second)
        ax.fill_between(x, integrand, color="C2", alpha=0.35, label="integrand")
        ax.axhline(0, color="black", linewidth=0.6)
        area = integrand.sum() * (x[1] - x[0])
        ax.set(title=f"{name} = {area:.2f} nats", xlabel="$x$")
    panels[0].set_ylabel("density, and integrand")
    panels[0].legend(loc="upper left", fontsize=11)
    return figure


def gaussian_fits() -> Figure:
    """The best diagonal Gaussians for a correlated one, in both directions."""
    figure, ax = plt.subplots(figsize=(6.4, 4.4))
    covariance = torch.tensor([[1.6, 1.0], [1.0, 1.0]], dtype=FLOAT)
    precision, zero = torch.linalg.inv(covariance), torch.zeros(2, dtype=FLOAT)
    x, y = _line(-4, 4, 201), _line(-3, 3, 151)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    density = (-0.5 * ((grid @ precision) * grid).sum(-1)).exp()
    ax.contourf(x, y, density, levels=np.linspace(0.05, 1, 10), cmap="Blues")
    _ellipse(
        ax,
        zero,
        (1 / precision.diagonal()).diag(),
        fill=False,
        color="C1",
        linewidth=2.2,
    )
    _ellipse(
        ax,
        zero,
        covariance.diagonal().diag(),
        fill=False,
        color="C3",
        linewidth=2.2,
        linestyle="--",
    )
    ax.plot([], [], color="C1", label="least KL(q‖p): $1/\\Lambda_{jj}$")
    ax.plot(
        [], [], color="C3", linestyle="--", label="least KL(p‖q): $(\\Sigma_p)_{jj}$"
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize=11)
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=(-4, 4), ylim=(-3, 3))
    return figure


def kl_landscape() -> Figure:
    """The divergence of one coordinate over its mean and its standard deviation."""
    figure, ax = plt.subplots(figsize=(6.4, 4))
    mu, log_s = torch.meshgrid(_line(-3, 3, 121), _line(-3, 1.1, 121), indexing="ij")
    value = kl_standard_normal(mu.reshape(-1, 1), 2 * log_s.reshape(-1, 1)).view(
        mu.shape
    )
    lines = ax.contour(
        mu,
        log_s.exp(),
        value,
        levels=[0.1, 0.5, 1, 2, 3, 4, 5],
        colors="C0",
        linewidths=1.3,
    )
    ax.clabel(lines, fontsize=10, fmt="%g")
    ax.set_yscale("log")
    ax.plot(0, 1, "o", color="black")
    ax.annotate("prior", (0, 1), (0.15, 1.12), fontsize=11)
    for start_mu, start_s in (
        (2.3, 0.3),
        (-2.2, 0.12),
        (0.9, 0.09),
        (-1.5, 2.2),
        (-0.6, 0.35),
    ):
        slope = (start_mu, start_s**2 - 1)  # with respect to μ and log σ
        scale = 0.45 / math.hypot(*slope)
        ax.annotate(
            "",
            (start_mu - scale * slope[0], start_s * math.exp(-scale * slope[1])),
            (start_mu, start_s),
            arrowprops={"arrowstyle": "-|>", "color": "C3", "linewidth": 1.8},
        )
    ax.set(xlabel="mean $\\mu$", ylabel="standard deviation σ", ylim=(0.05, 3))
    ax.set_yticks(
        [0.05, 0.1, 0.2, 0.5, 1, 2], labels=["0.05", "0.1", "0.2", "0.5", "1", "2"]
    )
    ax.minorticks_off()
    return figure


# --- objectives -----------------------------------------------------------------------------------


def importance_weights() -> Figure:
    """The integrand of the weights' second moment for a narrow and a wide proposal."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.3), sharex=True, sharey=True)
    z = _line(-5, 5)
    p = _normal(z)
    for ax, variance, title in (
        (panels[0], 0.4, "too narrow: $\\sigma_q^2 = 0.4$"),
        (panels[1], 2.0, "too wide: $\\sigma_q^2 = 2$"),
    ):
        q = _normal(z, 0.0, math.sqrt(variance))
        ax.plot(z, p, label="posterior")
        ax.plot(z, q, linestyle="--", label="proposal $q$")
        ax.plot(
            z, p**2 / q, linestyle=":", linewidth=2.4, label="$w^2 q$, with $p(x) = 1$"
        )
        ax.set(title=title, xlabel="$z$", ylim=(0, 1))
    panels[1].legend(fontsize=10, loc="upper right")
    return figure


def _bound_of_k(log_w: Tensor, k: int) -> float:
    """Mean of log w̄ for weights of mean 1; its first-order term, whose mean is 0, is left out."""
    groups = log_w[: len(log_w) // k * k].view(-1, k)
    log_mean = groups.logsumexp(1) - math.log(k)
    return (log_mean - (log_mean.exp() - 1)).mean().item()


def iwae_bounds() -> Figure:
    """The importance-weighted bound and its gap against k, for three proposals."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6))
    noise = torch.randn(300_000, generator=_source(0), dtype=FLOAT)
    sizes = (1, 2, 5, 10, 20, 50, 100, 200, 500)
    for variance, style in ((2.0, "o-"), (0.6, "s--"), (0.2, "^-.")):
        z = math.sqrt(variance) * noise
        log_w = -0.5 * z**2 + 0.5 * noise**2 + 0.5 * math.log(variance)
        values = np.array([_bound_of_k(log_w, k) for k in sizes])
        name = f"$\\sigma_q^2 = {variance}$"
        left.semilogx(sizes, values, style, markersize=5, label=name)
        right.loglog(sizes, -values, style, markersize=5, label=name)
    left.axhline(0, color="black", linestyle=":", linewidth=1.2)
    left.set(xlabel="samples k", ylabel=r"$\mathcal{L}_k - \log p(x)$ in nats")
    left.legend(fontsize=10, loc="lower right")
    reference = np.array([1.0, 500.0])
    right.loglog(
        reference, (2 / math.sqrt(3) - 1) / 2 / reference, color="grey", linewidth=1
    )
    right.text(15, 0.0011, "slope −1", fontsize=11, ha="right")
    right.set(xlabel="samples k", ylabel="gap in nats")
    return figure


def gradient_signal() -> Figure:
    """Signal-to-noise ratio of the gradients of the importance-weighted bound against k."""
    figure, ax = plt.subplots(figsize=(6.4, 4))
    weight, sigma, x = 1.0, 0.8, 1.2
    mean, std = weight * x / (weight**2 + sigma**2), sigma / math.hypot(weight, sigma)
    m, s = mean + 0.35, 1.2 * std
    sizes = (1, 2, 4, 8, 16, 32, 64, 128)
    noise = torch.randn(20_000, max(sizes), generator=_source(1))
    ratios = {
        "decoder": [],
        "encoder, doubly reparameterized": [],
        "encoder, plain": [],
    }
    for k in sizes:
        z = m + s * noise[:, :k]
        residual = x - weight * z
        log_w = -0.5 * residual**2 / sigma**2 - 0.5 * z**2 + 0.5 * noise[:, :k] ** 2
        normalized = log_w.softmax(1)
        joint_slope = weight * residual / sigma**2 - z  # ∂ log p(x, z)/∂z
        draws = (
            (normalized * z * residual / sigma**2).sum(1),  # with respect to the weight
            (normalized**2 * (joint_slope + noise[:, :k] / s)).sum(1),
            (normalized * joint_slope).sum(
                1
            ),  # with respect to m; log q at fixed noise is constant
        )
        for name, values in zip(ratios, draws, strict=True):
            ratios[name].append((values.mean().abs() / values.std()).item())
    k = np.array(sizes, dtype=float)
    for (name, values), marker, power in zip(
        ratios.items(), ("o", "s", "^"), (0.5, 0.5, -0.5), strict=True
    ):
        (points,) = ax.loglog(sizes, values, marker, markersize=7, label=name)
        middle = len(sizes) // 2
        line = values[middle] * (k / k[middle]) ** power
        ax.loglog(k, line, color=points.get_color(), linewidth=1)
    ax.set(xlabel="samples k", ylabel="signal-to-noise ratio")
    ax.legend(fontsize=11)
    return figure


def posterior_collapse() -> Figure:
    """The decoder's best weight against the noise, and which directions of the digits are used."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.5))
    s2, noise = 1.5, _line(0, 2.4)
    left.plot(noise, (s2 - noise).clamp(min=0))
    tried = np.array([0.2, 0.6, 1.0, 1.4, 1.8, 2.2])
    left.plot(
        tried, [_best_weight(s2, v) for v in tried], "o", color="C1", markersize=7
    )
    left.axvline(s2, color="grey", linestyle=":", linewidth=1.2)
    left.text(s2 + 0.04, 1.3, "variance of\nthe data", fontsize=11)
    left.set(xlabel=r"$\beta\sigma^2$", ylabel=r"best $w^2$")
    values = _eigenvalues()
    right.semilogy(range(1, 65), values.clamp(min=1e-6), color="black", linewidth=1.5)
    for level, style, color in (
        (0.01, "--", "C0"),
        (0.1, "-.", "C1"),
        (1.0, ":", "C3"),
    ):
        used = int((values > level).sum())
        name = rf"$\beta\sigma^2 = {level}$: {used} used"
        right.axhline(level, linestyle=style, color=color, linewidth=1.8, label=name)
    right.legend(fontsize=10, loc="lower left")
    right.set(xlabel="direction, sorted", ylabel="eigenvalue", ylim=(1e-4, 3))
    return figure


def _best_weight(data_variance: float, noise: float) -> float:
    """The decoder's squared weight at the optimum, found by minimizing the loss numerically."""

    def loss(parameters: Sequence[float]) -> float:
        w, a, log_tau = parameters
        tau2 = math.exp(2 * log_tau)
        error = data_variance * (1 - w * a) ** 2 + w**2 * tau2
        return error / (2 * noise) + 0.5 * (
            tau2 + a**2 * data_variance - 1 - 2 * log_tau
        )

    return (
        scipy.optimize.minimize(loss, (0.8, 0.4, -0.5), method="Nelder-Mead").x[0] ** 2
    )


def aggregate_posterior() -> Figure:
    """Posteriors, their mean and the prior; and the two parts of the averaged KL term."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.5), width_ratios=[2.2, 1])
    z = _line(-4, 4)
    means = torch.tensor([-1.7, -0.9, 0.1, 0.6, 1.9], dtype=FLOAT)
    widths = torch.tensor([0.4, 0.5, 0.35, 0.6, 0.45], dtype=FLOAT)
    posteriors = _normal(z, means.unsqueeze(1), widths.unsqueeze(1))
    aggregate = posteriors.mean(0)
    for index, curve in enumerate(posteriors):
        label = "posteriors $q(z|x_n)$, divided by 5" if index == 0 else None
        left.plot(z, curve / 5, color="C0", linewidth=1, label=label)
    left.plot(z, aggregate, color="C1", linewidth=3, label="aggregate $q(z)$")
    left.plot(z, _normal(z), color="black", linestyle="--", label="prior $p(z)$")
    left.set(xlabel="$z$", ylabel="density", ylim=(0, 0.62))
    left.legend(fontsize=10, loc="upper left")
    step = z[1] - z[0]
    whole = kl_standard_normal(means.unsqueeze(1), 2 * widths.log().unsqueeze(1)).mean()
    rest = (aggregate * (aggregate / _normal(z)).log()).sum() * step
    information = (whole - rest).item()
    right.bar([0], [information], width=0.5, color="C2")
    right.bar([0], [rest], bottom=[information], width=0.5, color="C4", hatch="//")
    right.axhline(math.log(5), color="black", linestyle=":", linewidth=1.4)
    right.text(1.9, math.log(5) + 0.02, r"$\log 5$", fontsize=11, ha="right")
    for height, text in (
        (information / 2, f"information\n{information:.2f}"),
        (information + rest.item() / 2, f"aggregate to\nprior {rest:.2f}"),
    ):
        right.text(0.32, height, text, fontsize=11, va="center")
    right.set(ylabel="nats", xlim=(-0.4, 1.9), ylim=(0, 1.9), xticks=[])
    return figure


def rate_distortion() -> Figure:
    """Least squared error against the rate for Gaussian digits, and reverse water-filling."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6))
    values, sigma = _eigenvalues(), 0.1

    def point(level: float) -> tuple[float, float]:
        rate = 0.5 * (values / level).log().clamp(min=0).sum().item()
        return rate, values.clamp(max=level).sum().item()

    levels = np.logspace(-3.2, 0.1, 200)
    left.plot(*zip(*(point(level) for level in levels), strict=True), color="C0")
    for beta, marker in ((0.25, "v"), (1, "s"), (4, "o"), (16, "D"), (64, "^")):
        left.plot(*point(beta * sigma**2), marker, color="C1", markersize=7)
        left.annotate(
            f"β = {beta}",
            point(beta * sigma**2),
            (7, 5),
            textcoords="offset points",
            fontsize=10.5,
        )
    level = 4 * sigma**2
    rate, error = point(level)
    along = np.array([-17.0, 14.0])
    left.plot(
        rate + along,
        error - 2 * level * along,
        color="C3",
        linestyle="--",
        linewidth=1.3,
    )
    left.set(
        xlabel="rate in nats", ylabel="squared error", xlim=(-1, 82), ylim=(0, 5.3)
    )
    shown = values[:30].numpy()
    places = np.arange(1, 31)
    right.bar(
        places,
        shown.clip(max=level),
        width=0.9,
        color="grey",
        label="error that is left",
    )
    right.bar(
        places,
        (shown - level).clip(min=0),
        bottom=shown.clip(max=level),
        width=0.9,
        color="C0",
        label="explained by the code",
    )
    right.axhline(level, color="C3", linestyle="--", linewidth=1.5)
    right.text(
        30.5,
        level + 0.01,
        r"level $\beta\sigma^2$",
        ha="right",
        va="bottom",
        fontsize=11,
    )
    right.set(xlabel="direction, sorted", ylabel="eigenvalue", ylim=(0, None))
    right.legend(fontsize=10)
    return figure


def beta_bound() -> Figure:
    """The weighted objective against β for two posteriors."""
    figure, ax = plt.subplots(figsize=(6.4, 3.8))
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=FLOAT)
    likelihood = torch.tensor([0.02, 0.9, 0.05, 0.3], dtype=FLOAT)
    log_p = (prior * likelihood).sum().log().item()
    exact = prior * likelihood / (prior * likelihood).sum()
    mixed = 0.45 * exact + 0.55 * prior
    beta = _line(0, 3, 61)
    for q, style, name in (
        (exact, "-", "exact posterior"),
        (mixed, "-.", "nearer to the prior"),
    ):
        reconstruction, kl = (q * likelihood.log()).sum(), (q * (q / prior).log()).sum()
        ax.plot(beta, reconstruction - beta * kl, style, label=name, linewidth=2)
    ax.axhline(log_p, color="black", linestyle="--", linewidth=1)
    ax.text(3, log_p + 0.05, r"$\log p(x)$", ha="right", fontsize=11)
    ax.axvline(1, color="grey", linestyle=":", linewidth=1.2)
    ax.plot(1, log_p, "o", color="black")
    ax.text(0.05, log_p - 1.2, "β < 1: no bound", fontsize=11)
    ax.set(xlabel="β", ylabel=r"$\mathcal{L}^{(\beta)}(x)$ in nats", xlim=(0, 3))
    ax.legend(fontsize=11, loc="upper right")
    return figure


def learned_prior() -> Figure:
    """An aggregate posterior with gaps, the standard normal and a fitted mixture."""
    figure, ax = plt.subplots(figsize=(6.4, 3.8))
    z = _line(-4.5, 4.5)
    source = _source(2)
    groups = torch.tensor([-1.5, 0.0, 1.4], dtype=FLOAT)[torch.arange(60) % 3]
    means = groups + 0.2 * torch.randn(60, generator=source, dtype=FLOAT)
    aggregate = _normal(z, means.unsqueeze(1), 0.22).mean(0)
    samples = means.repeat(200) + 0.22 * torch.randn(
        12_000, generator=source, dtype=FLOAT
    )
    mixture = GaussianMixture(4, random_state=0).fit(samples.unsqueeze(1).numpy())
    fitted = torch.from_numpy(mixture.score_samples(z.unsqueeze(1).numpy())).exp()
    step = z[1] - z[0]

    def divergence(prior: Tensor) -> float:
        return (
            aggregate * (aggregate / prior).log()
        ).nan_to_num().sum().item() * step.item()

    ax.fill_between(z, aggregate, color="C0", alpha=0.3, label="aggregate $q(z)$")
    normal = _normal(z)
    ax.plot(
        z,
        normal,
        color="black",
        linestyle="--",
        label=f"standard normal: KL = {divergence(normal):.2f}",
    )
    ax.plot(z, fitted, color="C1", label=f"mixture of 4: KL = {divergence(fitted):.3f}")
    ax.set(xlabel="$z$", ylabel="density", ylim=(0, 0.85))
    ax.legend(fontsize=11, loc="upper left")
    return figure


def hierarchy() -> Figure:
    """Three codes above an example: generation, and two orders of the encoder."""
    figure, axes = plt.subplots(1, 3, figsize=(8, 4.2))
    names = ("$x$", "$z_1$", "$z_2$", "$z_3$")
    titles = ("generation", "encoder, bottom-up", "encoder, top-down")
    for ax, title in zip(axes, titles, strict=True):
        for level, name in enumerate(names):
            color = "grey" if level == 0 else "C0"
            ax.add_patch(
                Circle((0, level), 0.26, facecolor=color, alpha=0.3, edgecolor="black")
            )
            ax.text(0, level, name, ha="center", va="center", fontsize=14)
        ax.set(xlim=(-1.1, 1.1), ylim=(-0.5, 3.5), aspect="equal", title=title)
        ax.set_axis_off()
    labels = ("$p(x|z_1)$", "$p(z_1|z_2)$", "$p(z_2|z_3)$")
    for level in range(3):
        _arrow(axes[0], (0, level + 0.72), (0, level + 0.28))
        axes[0].text(0.15, level + 0.5, labels[level], fontsize=11, va="center")
        _arrow(axes[1], (0, level + 0.28), (0, level + 0.72))
        below = "x" if level == 0 else f"z_{level}"
        axes[1].text(
            0.15, level + 0.5, f"$q(z_{level + 1}|{below})$", fontsize=11, va="center"
        )
    for level in (1, 2):
        _arrow(axes[2], (0, level + 0.72), (0, level + 0.28))
        label = f"$q(z_{level}|z_{level + 1},x)$"
        axes[2].text(0.12, level + 0.5, label, fontsize=11, va="center")
    for level, bend in ((1, 0.0), (2, -0.55), (3, -0.6)):
        start, end = (
            ((0, 0.28), (0, 0.72))
            if level == 1
            else ((-0.22, 0.15), (-0.24, level - 0.12))
        )
        _arrow(axes[2], start, end, connectionstyle=f"arc3,rad={bend}", linestyle="--")
    return figure


def aggregate_matching() -> Figure:
    """Overlapping posteriors that are each pulled to the prior, and points that fill it together."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 4.1), sharex=True, sharey=True)
    radii = torch.tensor([0.5] * 4 + [1.2] * 5 + [1.9] * 3, dtype=FLOAT)
    angles = torch.arange(12, dtype=FLOAT) * 2.4
    centres = torch.stack([radii * angles.cos(), radii * angles.sin()], 1)
    for ax, title in zip(
        panels, ("VAE: each posterior", "WAE: all codes together"), strict=True
    ):
        for radius in (1, 2):
            ax.add_patch(
                Circle((0, 0), radius, fill=False, color="grey", linewidth=1.2)
            )
        ax.set(
            title=title,
            xlabel="$z_1$",
            aspect="equal",
            xlim=(-2.9, 2.9),
            ylim=(-2.9, 2.9),
        )
    for centre in centres:
        x, y = (0.85 * centre).tolist()
        panels[0].add_patch(
            Ellipse(
                (x, y),
                1.25,
                1.0,
                facecolor="C0",
                alpha=0.2,
                edgecolor="C0",
                linewidth=1.5,
            )
        )
        panels[0].annotate(
            "",
            (0.55 * x, 0.55 * y),
            (x, y),
            arrowprops={"arrowstyle": "-|>", "color": "C3", "linewidth": 1.6},
        )
    panels[1].scatter(*centres.T, color="C1", s=60, edgecolor="black", linewidth=0.6)
    panels[0].set_ylabel("$z_2$")
    return figure


def vector_quantization() -> Figure:
    """Regions of a codebook in the plane, one of them empty; and the step that quantizes one number."""
    rng = np.random.default_rng(3)
    centres = np.array([[-1.6, 0.9], [0.2, 1.5], [1.5, 0.6], [-0.7, -0.9], [0.6, -0.5]])
    points = np.concatenate([c + 0.28 * rng.standard_normal((40, 2)) for c in centres])
    codebook = np.concatenate([centres + 0.1, [[2.6, -1.5]]])
    x, y = np.meshgrid(np.linspace(-2.7, 3.3, 300), np.linspace(-2.1, 2.5, 300))
    grid = torch.tensor(np.stack([x, y], -1))
    nearest = nearest_code(grid, torch.tensor(codebook)).numpy()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.5, 3.2), width_ratios=[1.25, 1]
    )
    for k in range(len(codebook)):
        left.contour(x, y, nearest == k, levels=[0.5], colors="0.6", linewidths=0.8)
    left.plot(*points.T, "o", ms=3, color="C0", alpha=0.6)
    left.plot(*codebook.T, "X", ms=10, color="C1", mec="k", mew=0.8)
    left.annotate("dead code", codebook[-1], (1.1, -1.95), fontsize=9.5)
    left.set(xticks=[], yticks=[], aspect="equal")
    levels = np.array([-1.5, -0.4, 0.5, 1.6])
    z = np.linspace(-2.2, 2.2, 600)
    quantized = levels[np.abs(z[:, None] - levels).argmin(1)]
    jumps = np.abs(np.diff(quantized, prepend=quantized[0])) > 0.1
    right.plot(z, z, "--", color="C1", label="straight through")
    right.plot(z, np.where(jumps, np.nan, quantized), color="C0", label="quantized")
    right.plot(levels, levels, "X", ms=8, color="C1", mec="k", mew=0.8)
    right.set(xlabel="$z$", ylabel="$z_q$", xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
    right.legend(fontsize=9.5, loc="upper left")
    return figure

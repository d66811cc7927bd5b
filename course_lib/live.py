"""The elements of `course_lib.widgets` while a kernel is alive: standard widgets that call Python.

On a page the script of an element does the arithmetic. Before a living kernel the library itself
does it: a slider calls the reader's own function again, and a decoder that was trained again
decodes otherwise. Only widgets that ipywidgets 7 and 8 have in common are used, since hosted
notebooks bring version 7 and have no others.
"""

import base64
import html
import io
import traceback
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor, nn
from torch.distributions import Normal

from course_lib.diffusion import Level, ddim, guided, heun, posterior, reverse_variances
from course_lib.divergences import kl_univariate_gaussian
from course_lib.gan import dirac
from course_lib.gan.closed_forms import jensen_shannon, optimal_discriminator
from course_lib.mixtures import GaussianMixture
from course_lib.plotting import density_1d
from course_lib.schedules import LinearPath, Schedule
from course_lib.solvers import integrate, time_grid

VIEW = "application/vnd.jupyter.widget-view+json"
STEPS = tuple(2**k for k in range(8))  # what the slider of `sampling_paths` can be set to
FINE_STEPS = 128  # of the fourth-order solution that stands for the exact one


def has_reader() -> bool:
    """Whether the running cell was sent by a front end before which somebody sits.

    Such a front end lets code ask for input, and says so in each request; builds, exports and
    test runs do not. They get no widgets: nobody could move them, and the state of widgets would
    be stored in the notebook and in each page made of it.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent("shell") if kernel is not None else {}
    return bool(request.get("content", {}).get("allow_stdin"))


def png(figure: Figure, dpi: float = 80) -> bytes:
    """A figure as a picture, all of its canvas; the figure is closed."""
    buffer = io.BytesIO()
    # A fixed canvas, not a tight one: pictures of one slider must lie exactly on one another.
    with plt.rc_context({"savefig.bbox": None}):
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    plt.close(figure)
    return buffer.getvalue()


def view(
    controls: Mapping[str, ipywidgets.Widget], show: Callable[..., str], caption: str
) -> ipywidgets.VBox:
    """Controls, and below them what `show` returns for their values, anew after each move.

    Args:
        controls: widgets with a value, by the name of the argument of `show`.
        show: maps the values to HTML. If it raises, the traceback is shown in its place.
        caption: one sentence shown below.

    Returns:
        The widget that holds all of them.
    """
    # HTML, not the widget for images: that one has no text for readers who do not see it.
    shown = ipywidgets.HTML()

    def update(_: object = None) -> None:
        try:
            shown.value = show(**{name: control.value for name, control in controls.items()})
        except Exception:  # raised in a callback, it would end in a log that nobody reads
            shown.value = f'<pre role="alert">{html.escape(traceback.format_exc())}</pre>'

    for control in controls.values():
        control.observe(update, "value")
    update()
    return ipywidgets.VBox([*controls.values(), shown, ipywidgets.HTML(html.escape(caption))])


def frame_slider(
    draw: Callable[[object], Figure],
    values: Sequence,
    texts: Sequence[str],
    *,
    label: str,
    alt: str,
    caption: str,
    dpi: int,
) -> ipywidgets.VBox:
    """A slider that calls `draw` for the value it stands at, when it is let go."""
    slider = ipywidgets.SelectionSlider(
        options=[(text, index) for index, text in enumerate(texts)],
        value=0,
        continuous_update=False,  # nobody knows how long `draw` takes
        **_labelled(label),
    )
    return view(
        {"index": slider}, lambda index: _image(png(draw(values[index]), dpi), alt), caption
    )


def latent_plane(
    decoder: nn.Sequential,
    *,
    image_shape: tuple[int, int],
    points: Tensor,
    labels: Tensor,
    limit: float,
    alt: str,
    caption: str,
) -> ipywidgets.VBox:
    """Two sliders for a point of the plane, decoded by `decoder` with the weights it has by then."""
    weight = next(decoder.parameters())
    places, colours = points.detach().cpu(), labels.cpu() % 10

    def show(first: float, second: float) -> str:
        z = torch.tensor([first, second]).to(weight)
        with torch.no_grad():
            grey = decoder(z).sigmoid().view(image_shape)
        figure = Figure(figsize=(4, 4), layout="constrained")
        ax = figure.subplots()
        ax.scatter(*places.T, s=6, c=colours, cmap="tab10", vmin=0, vmax=9, alpha=0.6)
        ax.scatter(first, second, s=120, facecolors="none", edgecolors="black", linewidths=2)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="first z", ylabel="second z")
        decoded = "the image that is decoded from this point"
        return _side_by_side(
            _image(png(figure), alt), _image(_pixels(grey.cpu().numpy()), decoded, width=200)
        )

    controls = {
        "first": _number("first coordinate of z", 0, -limit, limit, limit / 60),
        "second": _number("second coordinate of z", 0, -limit, limit, limit / 60),
    }
    return view(controls, show, caption)


def gaussian_pair(
    p: tuple[float, float],
    q: tuple[float, float],
    *,
    discriminator: bool,
    alt: str,
    caption: str,
) -> ipywidgets.VBox:
    """Sliders for both means and standard deviations; densities and divergences of the library."""
    wide = torch.linspace(-30, 30, 6001, dtype=torch.float64)
    x = torch.linspace(-6, 6, 301)

    def show(mean_p: float, std_p: float, mean_q: float, std_q: float) -> str:
        log_p, log_q = Normal(mean_p, std_p).log_prob, Normal(mean_q, std_q).log_prob
        figure = Figure(figsize=(7, 3), layout="constrained")
        ax = density_1d(log_p, -6, 6, label="p", color="C0", ax=figure.subplots())
        density_1d(log_q, -6, 6, label="q", color="C1", linestyle="--", ax=ax)
        if discriminator:
            ax.plot(x, optimal_discriminator(log_p(x), log_q(x)), ":", color="black", label="D*")
            jsd = jensen_shannon(log_p, log_q, wide).item()
            text = (
                f"JSD(p‖q) = {jsd:.4f} nats, "
                f"value of the game 2·JSD − log 4 = {2 * jsd - np.log(4):.4f}"
            )
        else:
            reverse = kl_univariate_gaussian(mean_q, std_q, mean_p, std_p)
            forward = kl_univariate_gaussian(mean_p, std_p, mean_q, std_q)
            text = f"KL(q‖p) = {reverse:.4f} nats, KL(p‖q) = {forward:.4f} nats"
        ax.set(xlim=(-6, 6), ylim=(0, 1))
        ax.legend(loc="upper right")
        return _image(png(figure), alt) + _text(text)

    controls = {}
    for name, (mean, std) in (("p", p), ("q", q)):
        controls[f"mean_{name}"] = _number(f"mean of {name}", mean, -3, 3, 0.1)
        controls[f"std_{name}"] = _number(f"standard deviation of {name}", std, 0.4, 3, 0.1)
    return view(controls, show, caption)


def dirac_orbit(
    gamma: float, start: tuple[float, float], *, steps: int, alt: str, caption: str
) -> ipywidgets.VBox:
    """Sliders for the start and the method; field and orbit of `course_lib.gan.dirac`."""
    methods = {"minimax": dirac.minimax, "non-saturating": dirac.non_saturating}
    side = torch.linspace(-2, 2, 11, dtype=torch.float64)
    states = torch.cartesian_prod(side, side)

    def show(
        theta: float, psi: float, gamma: float, rate: float, loss: str, alternating: bool
    ) -> str:
        method = methods[loss](gamma)
        path = dirac.trajectory(method, (theta, psi), steps, rate, alternating=alternating)
        modulus = dirac.update_eigenvalues(method, rate, alternating=alternating).abs().max()
        figure = Figure(figsize=(5, 5), layout="constrained")
        ax = figure.subplots()
        ax.quiver(*states.T, *method.field(states).T, color="0.55", angles="xy")
        ax.plot(*path.T, color="C0")
        ax.scatter(theta, psi, s=120, facecolors="none", edgecolors="C3", linewidths=3)
        ax.scatter(0, 0, marker="+", color="black")
        ax.set(xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), xlabel="generator θ", ylabel="discriminator ψ")
        text = (
            f"start ({theta:.2f}, {psi:.2f}): distance {path[0].norm():.3f}, "
            f"after {steps} steps {path[-1].norm():.3g}; largest modulus {modulus:.4f}"
        )
        return _image(png(figure), alt) + _text(text)

    controls = {
        "theta": _number("θ at the start", start[0], -2, 2, 0.05),
        "psi": _number("ψ at the start", start[1], -2, 2, 0.05),
        "gamma": _number("weight γ of the penalty", gamma, 0, 3, 0.05),
        "rate": _number("step size", 0.2, 0.05, 0.5, 0.05),
        "loss": ipywidgets.Dropdown(options=list(methods), **_labelled("loss of the generator")),
        "alternating": ipywidgets.Checkbox(indent=False, **_labelled("update in turn")),
    }
    return view(controls, show, caption)


def receptive_field(fields: Mapping[str, Tensor], *, alt: str, caption: str) -> ipywidgets.VBox:
    """Choose a model and, by row and column, the pixel that is predicted."""
    height, width = next(iter(fields.values())).shape[:2]
    orange, blue = to_rgb("#d55e00"), to_rgb("#56a0d3")

    def show(model: str, row: int, column: int) -> str:
        at = (row - 1, column - 1)
        seen = fields[model][at].bool().cpu().numpy()
        earlier = np.arange(height * width).reshape(height, width) < at[0] * width + at[1]
        colours = np.ones((height, width, 3))
        colours[seen], colours[at] = blue, orange
        figure, ax = _grid(colours)
        missed = earlier & ~seen
        ax.plot(*np.nonzero(missed)[::-1], "x", color="black")
        text = (
            f"row {row}, column {column}: sees {seen.sum()} of {earlier.sum()} earlier pixels, "
            f"misses {missed.sum()}"
        )
        return _image(png(figure), alt) + _text(text)

    controls = {
        "model": ipywidgets.Dropdown(options=list(fields), **_labelled("model")),
        "row": _count("row", height // 2 + 1, 1, height),
        "column": _count("column", width // 2 + 1, 1, width),
    }
    return view(controls, show, caption)


def pixel_reveal(
    image: Tensor, probabilities: Tensor, *, alt: str, caption: str
) -> ipywidgets.VBox:
    """A slider for the number of pixels that are known."""
    height, width = image.shape
    image, probabilities = image.cpu().flatten().long(), probabilities.detach().cpu().flatten(0, 1)
    levels = probabilities.shape[-1]
    bits = -probabilities.gather(-1, image.unsqueeze(-1)).squeeze(-1).log2()
    grey = (image / (levels - 1)).numpy().repeat(3).reshape(-1, 3)

    def show(known: int) -> str:
        colours = np.tile(to_rgb("#a9c8e0"), (height * width, 1))
        colours[:known] = grey[:known]
        figure, ax = _grid(colours.reshape(height, width, 3))
        row, column = divmod(known, width)
        ax.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#d55e00", linewidth=3)
        )
        level, predicted = image[known].item(), probabilities[known]
        chart = Figure(figsize=(4, 2.5), layout="constrained")
        bars = chart.subplots()
        colour = ["#d55e00" if k == level else "#56a0d3" for k in range(levels)]
        bars.bar(range(levels), predicted.tolist(), color=colour, edgecolor="0.13", linewidth=0.5)
        bars.set(ylim=(0, 1), xlabel="level", ylabel="probability")
        text = (
            f"pixel {known + 1} is level {level}: probability {predicted[level]:.3f}, "
            f"{bits[known]:.2f} bits; {bits[: known + 1].mean():.3f} bits per pixel so far"
        )
        described = "bar chart of the predicted probabilities of the next pixel's levels"
        return _side_by_side(_image(png(figure), alt), _image(png(chart), described)) + _text(text)

    return view({"known": _count("pixels revealed", 0, 0, height * width - 1)}, show, caption)


def noised_mixture(
    mixture: GaussianMixture,
    point: Sequence[float],
    log_snr: float,
    *,
    limit: float,
    alt: str,
    caption: str,
) -> ipywidgets.VBox:
    """Sliders for λ and for the noised point; density, score and posterior mean of the library."""
    mixture = _double(mixture)
    side = torch.linspace(-limit, limit, 90, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    places = torch.linspace(-limit, limit, 15, dtype=torch.float64)[1:-1]
    starts = torch.cartesian_prod(places, places)

    def show(log_snr: float, first: float, second: float) -> str:
        level = torch.tensor([log_snr, -log_snr], dtype=torch.float64).sigmoid().sqrt()
        z = torch.tensor([[first, second]], dtype=torch.float64)
        score, clean = mixture.score(z, *level)[0], mixture.posterior_mean(z, *level)[0]
        figure = Figure(figsize=(5, 5), layout="constrained")
        ax = figure.subplots()
        density = (0.5 * mixture.log_prob(points, *level)).exp().view(90, 90).mT
        _shade(ax, side, density)
        arrows = mixture.score(starts, *level)
        length = arrows.norm(dim=1, keepdim=True)
        arrows = arrows / length * torch.tanh(length / 3)
        ax.quiver(*starts.T, *arrows.T, color="0.35", angles="xy", scale=18, width=0.004)
        ax.plot(*torch.stack([z[0], clean]).T, "--", color="#8a3800")
        ring = {"s": 120, "facecolors": "none", "edgecolors": "#8a3800", "linewidths": 3}
        ax.scatter(*z.T, **ring, label="noised point z")
        ax.scatter(*clean, marker="D", color="#8a3800", label="posterior mean of x")
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
        ax.legend(loc="upper left")
        text = (
            f"λ = {log_snr:.1f}: α = {level[0]:.3f}, σ = {level[1]:.3f}; at z = {_pair(z[0], 2)} log density "
            f"{mixture.log_prob(z, *level).item():.3f}, score {_pair(score)}, posterior mean {_pair(clean)}"
        )
        return _image(png(figure), alt) + _text(text)

    controls = {
        "log_snr": _number("log signal-to-noise ratio λ", log_snr, -6, 6, 0.1),
        "first": _number("first coordinate of z", point[0], -limit, limit, 0.05),
        "second": _number("second coordinate of z", point[1], -limit, limit, 0.05),
    }
    return view(controls, show, caption)


def fixed_noise(seed: int) -> Tensor:
    """Standard normal numbers for the most steps of `sampling_paths`, as a page writes them."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(STEPS[-1], 2, generator=generator, dtype=torch.float64)
    return noise.round(decimals=4)


def coarse_noise(noise: Tensor, steps: int) -> Tensor:
    """The noise of fewer, longer steps: sums of that of the short ones, of unit variance again."""
    share = len(noise) // steps
    return noise.view(steps, share, -1).sum(1) / share**0.5


def sampling_paths(
    mixture: GaussianMixture,
    schedule: Schedule,
    start: Sequence[float],
    steps: int,
    *,
    noise: Tensor,
    example: Sequence[float] | None,
    methods: Sequence[str],
    limit: float,
    alt: str,
    caption: str,
) -> ipywidgets.VBox:
    """Controls for the start, the steps and the solver; paths by the samplers of the library."""
    mixture = _double(mixture)
    third = "ancestral sampling" if example is None else "path of a pair"
    denoise = mixture.denoiser(schedule)
    side = torch.linspace(-limit, limit, 90, dtype=torch.float64)
    density = (0.5 * mixture.log_prob(torch.cartesian_prod(side, side))).exp().view(90, 90).mT

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        return mixture.velocity(z, t, schedule)

    def solve(method: str, z: Tensor, times: Tensor) -> Tensor:
        if method == "midpoint":
            return integrate(velocity, z, times, "midpoint")
        if method != "Heun":
            return ddim(denoise, schedule, z, times)
        if isinstance(schedule, LinearPath):  # z/α has no value where α is 0
            return integrate(velocity, z, times, "heun")
        return heun(denoise, schedule, z, times)

    def ancestral_step(z: Tensor, times: Tensor, fresh: Tensor) -> Tensor:
        t, s = (Level(schedule.alpha(time), schedule.sigma(time)) for time in times)
        mean, _ = posterior(z, denoise(z, times[0]), s, t)
        return mean + reverse_variances(s, t)[0].sqrt() * fresh

    def show(first: float, second: float, steps: int, method: str) -> str:
        z = torch.tensor([[first, second]], dtype=torch.float64)
        exact, solver, random = [z], [z], [z]
        for times in time_grid(FINE_STEPS).unfold(0, 2, 1):
            exact.append(integrate(velocity, exact[-1], times, "rk4"))
        for times, fresh in zip(
            time_grid(steps).unfold(0, 2, 1), coarse_noise(noise, steps), strict=True
        ):
            solver.append(solve(method, solver[-1], times))
            random.append(ancestral_step(random[-1], times, fresh))
        if example is not None:
            random = [z, torch.tensor([example], dtype=torch.float64)]
        figure = Figure(figsize=(5, 5), layout="constrained")
        ax = figure.subplots()
        _shade(ax, side, density)
        for path, style, colour, width, name in (
            (exact, "-", "0.5", 4, "exact ODE"),
            (solver, "o-", "#00507a", 2, "solver"),
            (random, "o--", "#8a3800", 1.5, third),
        ):
            ax.plot(*torch.cat(path).T, style, color=colour, lw=width, ms=4, label=name)
        ring = {"s": 120, "facecolors": "none", "edgecolors": "black", "linewidths": 3}
        ax.scatter(first, second, **ring, label="start, at time 1")
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
        ax.legend(loc="upper left")
        ends = [path[-1][0] for path in (exact, solver, random)]
        text = (
            f"start {_pair(z[0], 2)}: the exact ODE ends at {_pair(ends[0])}, {method} with {steps} steps at "
            f"{_pair(ends[1])}, at a distance of {(ends[1] - ends[0]).norm():.3g}; "
            + (
                f"ancestral sampling at {_pair(ends[2])}"
                if example is None
                else f"the path of the pair leads to {_pair(ends[2], 2)}"
            )
        )
        return _image(png(figure), alt) + _text(text)

    controls = {
        "first": _number("first coordinate of the start", start[0], -limit, limit, 0.05),
        "second": _number("second coordinate of the start", start[1], -limit, limit, 0.05),
        "steps": ipywidgets.SelectionSlider(
            options=STEPS, value=steps, **_labelled("number of steps")
        ),
        "method": ipywidgets.Dropdown(options=list(methods), **_labelled("solver")),
    }
    return view(controls, show, caption)


def guided_gaussian(
    own: tuple[float, float], every: tuple[float, float], w: float, *, alt: str, caption: str
) -> ipywidgets.VBox:
    """A slider for the weight; the ODE is solved by `integrate`, the velocities are those of mixtures."""
    path = LinearPath()
    classes = [
        GaussianMixture(
            *(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[mean]], [[[variance]]]))
        )
        for mean, variance in (own, every)
    ]
    x = torch.linspace(-1, 3.5, 451, dtype=torch.float64)

    def show(w: float) -> str:
        def velocity(z: Tensor, t: Tensor) -> Tensor:
            return guided(*(each.velocity(z, t, path) for each in classes), w)

        # The map is affine, so two starting points tell it.
        starts = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        low, high = integrate(velocity, starts, time_grid(100), "rk4")[:, 0].tolist()
        precision = (1 + w) / own[1] - w / every[1]
        mean = ((1 + w) * own[0] / own[1] - w * every[0] / every[1]) / precision
        sampled, tilted = (low, (high - low) ** 2), (mean, 1 / precision)
        figure = Figure(figsize=(7, 3.3), layout="constrained")
        ax = figure.subplots()
        for (mean, variance), style, colour, name in (
            (own, ":", "0.3", "the class"),
            (tilted, "--", "C1", "tilted density"),
            (sampled, "-", "C0", "guided ODE"),
        ):
            density = Normal(mean, variance**0.5).log_prob(x).exp()
            ax.plot(x, density, style, color=colour, label=name)
        ax.set(xlim=(-1, 3.5), ylim=(0, 4.5))
        ax.legend(loc="upper left")
        words = [f"mean {m:.3f} and variance {v:.4f}" for m, v in (sampled, tilted)]
        text = (
            f"w = {w:.1f}: the guided ODE ends with {words[0]}, the tilted density has {words[1]}"
        )
        return _image(png(figure), alt) + _text(text)

    return view({"w": _number("guidance weight w", w, 0, 3, 0.1)}, show, caption)


def _double(mixture: GaussianMixture) -> GaussianMixture:
    """In float64 on the processor, in which also a page computes."""
    parts = (mixture.weights, mixture.means, mixture.covariances)
    return GaussianMixture(*(part.detach().cpu().double() for part in parts))


def _shade(ax: Axes, side: Tensor, density: Tensor) -> None:
    """Numbers over the plane as shades of blue, none so dark that a mark on it is lost."""
    ax.pcolormesh(
        side.numpy(), side.numpy(), density.numpy(), cmap="Blues", vmax=1.4 * density.max().item()
    )


def _pair(values: Tensor, digits: int = 3) -> str:
    return f"({', '.join(f'{value:.{digits}f}' for value in values.tolist())})"


def _labelled(label: str) -> dict[str, object]:
    """Options of a control that shows all of its label, which also names it, and is wide enough."""
    return {
        "description": label,
        "style": {"description_width": "initial"},
        "layout": ipywidgets.Layout(width="32rem", max_width="98%"),
    }


def _number(label: str, value: float, low: float, high: float, step: float) -> ipywidgets.Widget:
    return ipywidgets.FloatSlider(value=value, min=low, max=high, step=step, **_labelled(label))


def _count(label: str, value: int, low: int, high: int) -> ipywidgets.Widget:
    return ipywidgets.IntSlider(value=value, min=low, max=high, **_labelled(label))


def _image(picture: bytes, alt: str, width: int | None = None) -> str:
    """An image of that many pixels across, large pixels as squares; by default as large as it is."""
    across, down = Image.open(io.BytesIO(picture)).size
    if width is not None:
        across, down = width, round(width * down / across)
    return (
        f'<img alt="{html.escape(alt, quote=True)}" width="{across}" height="{down}" '
        'style="max-width: 100%; image-rendering: pixelated" '
        f'src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
    )


def _pixels(grey: np.ndarray) -> bytes:
    """Values in [0, 1] as a picture with one pixel for each, shape ``(H, W)``."""
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * grey).astype(np.uint8)).save(buffer, format="png")
    return buffer.getvalue()


def _grid(colours: np.ndarray) -> tuple[Figure, Axes]:
    """Squares of the given colours, shape ``(H, W, 3)``, that fill a figure."""
    height, width = colours.shape[:2]
    figure = Figure(figsize=(4, 4 * height / width))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(colours, aspect="auto")
    ax.set_xticks(np.arange(width + 1) - 0.5, labels=[])
    ax.set_yticks(np.arange(height + 1) - 0.5, labels=[])
    ax.grid(color="0.46")
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return figure, ax


def _side_by_side(*parts: str) -> str:
    style = "display: flex; gap: 1rem; flex-wrap: wrap; align-items: center"
    return f'<div style="{style}">{"".join(parts)}</div>'


def _text(text: str) -> str:
    return f'<p role="status">{html.escape(text)}</p>'

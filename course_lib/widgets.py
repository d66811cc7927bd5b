"""Things to drag, that work in a live notebook and on a page without a kernel alike.

Each object displays itself as plain HTML with a few lines of script and all its data inside:
no kernel, no network, no library in the page. Keyboard and touch work because the
controls are the browser's own.

Where a kernel is alive it offers widgets as well, whose callbacks run there (`course_lib.live`).
Both are representations of one output, so nothing else has to be typed: a front end that knows widgets
shows these, any other front end and any page or export made of the notebook shows the HTML.
"""

import base64
import html
import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from ipywidgets import DOMWidget
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from course_lib import live
from course_lib.inputs import require_kind, require_real
from course_lib.mixtures import GaussianMixture
from course_lib.schedules import LinearLogSNR, LinearPath, Schedule

_count = itertools.count(1)
# What a page knows to do between affine maps.
_FUNCTIONS = {nn.ReLU: "relu", nn.Tanh: "tanh"}
# Each element brings both, so that it works wherever its notebook is shown; a page of the book has them once
# (`book/_ext/shared_elements.py`).
_SCRIPT, _STYLE = (
    Path(__file__).with_name(f"widgets.{ending}").read_text(encoding="utf-8")
    for ending in ("js", "css")
)


class Element:
    """A piece of HTML for pages, and its live counterpart for a notebook with a kernel.

    Attributes:
        markup: the HTML.
        description: what stands for the element where no HTML can be shown.
        widgets: makes the widgets of a live notebook.
    """

    def __init__(self, markup: str, description: str, widgets: Callable[[], DOMWidget]) -> None:
        self.markup = markup
        self.description = description
        self.widgets = widgets

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        bundle: dict[str, object] = {"text/plain": repr(self), "text/html": self.markup}
        if live.has_reader():
            # The same in ipywidgets 7 and 8, of which only the latter could write it itself.
            model = self.widgets().model_id
            bundle[live.VIEW] = {"version_major": 2, "version_minor": 0, "model_id": model}
        return bundle

    def __repr__(self) -> str:
        """Describe the element where no HTML can be shown."""
        return f"<{self.description}>"


def frame_slider(
    draw: Callable[[object], Figure],
    values: Sequence,
    *,
    label: str,
    alt: str,
    caption: str = "",
    dpi: int = 80,
) -> Element:
    """A slider over figures, one for each value: drawn in advance for a page, anew in a live notebook.

    Args:
        draw: called with each value; returns the figure for it. All of one size.
        values: what to draw, in the order of the slider.
        label: what the slider changes, for instance ``"distance of the modes"``.
        alt: what the figure shows, for readers who do not see it.
        caption: one sentence shown below: what to look for.
        dpi: resolution of the frames.

    Returns:
        An object that displays itself.

    Raises:
        ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("values is empty; at least one value to draw is expected.")
    frames = []
    for value in values:
        picture = io.BytesIO(live.png(draw(value), dpi))
        small = io.BytesIO()
        # A palette is enough for a drawing, and a third of the size.
        Image.open(picture).convert("RGB").quantize(32).save(small, format="png", optimize=True)
        frames.append("data:image/png;base64," + base64.b64encode(small.getvalue()).decode())
    texts = [f"{v:g}" if isinstance(v, int | float) else str(v) for v in values]
    data = {"frames": frames, "texts": texts}
    body = (
        f'<img alt="{html.escape(alt, quote=True)}" src="{frames[0]}">'
        f"<label>{html.escape(label)}: <output>{html.escape(texts[0])}</output>"
        f'<input type="range" min="0" max="{len(values) - 1}" value="0" '
        f'aria-label="{html.escape(label, quote=True)}"></label>'
    )
    widgets = partial(
        live.frame_slider, draw, values, texts, label=label, alt=alt, caption=caption, dpi=dpi
    )
    description = f"slider over {len(values)} figures: {alt}"
    return _element("frames", body, data, caption, description, widgets)


def latent_plane(
    decoder: nn.Sequential,
    *,
    image_shape: tuple[int, int],
    points: Tensor,
    labels: Tensor,
    limit: float = 3.0,
    half_precision: bool = False,
    alt: str,
    caption: str = "",
) -> Element:
    """A latent plane with a point to move, decoded by the trained network.

    The page evaluates the network as it is now; the sliders of a live notebook call `decoder` itself.

    Args:
        decoder: affine maps, after each of which a ReLU or a tanh may stand (and dropouts, which are left
            out), from 2 numbers to the logits of H·W pixels.
        image_shape: height and width (H, W) of the decoded image.
        points: latent means of some examples, shape ``(N, 2)``, shown for orientation.
        labels: their classes 0 … 9, shape ``(N,)``.
        limit: the plane shown is [−limit, limit]².
        half_precision: let the page hold the weights in half precision, at half of the size.
        alt: what the element shows, for readers who do not see it.
        caption: one sentence shown below.

    Returns:
        An object that displays itself.

    Raises:
        ValueError: the decoder does not map 2 numbers to H·W, or has other layers.
    """
    layers = [layer for layer in decoder if not isinstance(layer, nn.Dropout)]
    height, width = image_shape
    inner = [i for i, layer in enumerate(layers) if not isinstance(layer, nn.Linear)]
    if (
        not layers
        # The first and the last are affine, and each of the others stands behind an affine one.
        or {0, len(layers) - 1} & set(inner)
        or any(type(layers[i]) not in _FUNCTIONS or i - 1 in inner for i in inner)
        or layers[0].in_features != 2
        or layers[-1].out_features != height * width
    ):
        raise ValueError(
            f"decoder is {decoder}; nn.Linear, between which nn.ReLU or nn.Tanh may stand, from 2 numbers "
            f"to {height * width} logits, are expected."
        )
    text = _float16 if half_precision else _float32
    data = {
        "half": half_precision,
        "layers": [
            {
                "inputs": layer.in_features,
                "weight": text(layer.weight),
                "bias": text(layer.bias),
                "function": _FUNCTIONS.get(type(after), ""),
            }
            for layer, after in itertools.zip_longest(layers, layers[1:])
            if isinstance(layer, nn.Linear)
        ],
        "shape": [height, width],
        "points": np.round(points.detach().cpu().numpy(), 3).tolist(),
        "labels": labels.tolist(),
        "limit": limit,
    }
    body = (
        f'<div class="panes"><canvas class="plane" width="320" height="320" '
        f'tabindex="0" role="application" '
        f'aria-label="{html.escape(alt, quote=True)} Move with the arrow keys."></canvas>'
        f'<canvas class="image" width="{width}" height="{height}" '
        f'role="img" aria-label="the image that is decoded from this point"></canvas></div>'
        f"<p><output></output></p>"
    )
    widgets = partial(
        live.latent_plane,
        nn.Sequential(*layers),  # the same modules, without those that are left out
        image_shape=image_shape,
        points=points,
        labels=labels,
        limit=limit,
        alt=alt,
        caption=caption,
    )
    return _element("plane", body, data, caption, f"latent plane: {alt}", widgets)


def gaussian_pair(
    *,
    p: tuple[float, float] = (0.0, 1.0),
    q: tuple[float, float] = (1.0, 0.5),
    discriminator: bool = False,
    alt: str,
    caption: str = "",
) -> Element:
    """Two Gaussians on the line to move and stretch, with what is known of them in closed form.

    Args:
        p: mean in [−3, 3] and standard deviation in [0.4, 3] of p at the start.
        q: the same of q.
        discriminator: draw D* = p / (p + q) (``eq-optimal-discriminator``) and state the
            Jensen–Shannon divergence; otherwise state both KL divergences (``eq-kl-univariate``).
        alt: what the element shows, for readers who do not see it.
        caption: one sentence shown below.

    Returns:
        An object that displays itself.

    Raises:
        ValueError: a mean or a standard deviation is out of the sliders' range.
    """
    sliders = ""
    for name, (mean, std) in (("p", p), ("q", q)):
        for value, low, high, what in ((mean, -3, 3, "mean"), (std, 0.4, 3, "std")):
            if not low <= value <= high:
                raise ValueError(f"the {what} of {name} is {value}; {low} to {high} is expected.")
        sliders += _slider(f"mean_{name}", f"mean of {name}", -3, 3, 0.1, mean)
        sliders += _slider(f"std_{name}", f"standard deviation of {name}", 0.4, 3, 0.1, std)
    body = (
        f'<svg class="wide" viewBox="0 0 560 240" role="img" {_label(alt)}></svg>'
        f'<div class="controls">{sliders}</div><p><output></output></p>'
    )
    data = {"discriminator": discriminator}
    widgets = partial(
        live.gaussian_pair, p, q, discriminator=discriminator, alt=alt, caption=caption
    )
    return _element("gaussians", body, data, caption, f"two Gaussians: {alt}", widgets)


def dirac_orbit(
    *,
    gamma: float = 0.0,
    start: tuple[float, float] = (1.0, -1.0),
    steps: int = 150,
    alt: str,
    caption: str = "",
) -> Element:
    """The Dirac-GAN's field and one orbit, computed in the page as ``course_lib.gan.dirac`` does.

    The start can be dragged; sliders set the weight γ of the penalty on data and the step size.

    Args:
        gamma: γ at the start, 0 to 3.
        start: (θ, ψ) at the start, each in [−2, 2].
        steps: number of updates of both players.
        alt: what the element shows, for readers who do not see it.
        caption: one sentence shown below.

    Returns:
        An object that displays itself.

    Raises:
        ValueError: γ or the start is out of range.
    """
    if not (0 <= gamma <= 3 and all(-2 <= value <= 2 for value in start)):
        raise ValueError(
            f"gamma is {gamma} and start {start}; gamma in [0, 3] and both numbers of the start "
            f"in [-2, 2] are expected."
        )
    body = (
        f'<svg class="drag" viewBox="0 0 400 400" tabindex="0" role="application" '
        f"{_label(alt + ' Move the start with the arrow keys.')}></svg>"
        f'<div class="controls">{_slider("gamma", "weight γ of the penalty", 0, 3, 0.05, gamma)}'
        f"{_slider('rate', 'step size', 0.05, 0.5, 0.05, 0.2)}"
        f"{_choice('loss', 'loss of the generator', ('minimax', 'non-saturating'))}"
        f'<label><input type="checkbox" name="alternating"> update in turn</label></div>'
        f"<p><output></output></p>"
    )
    data = {"steps": steps, "start": list(start), "limit": 2.4}
    widgets = partial(live.dirac_orbit, gamma, start, steps=steps, alt=alt, caption=caption)
    return _element("dirac", body, data, caption, f"Dirac-GAN: {alt}", widgets)


def receptive_field(fields: Mapping[str, Tensor], *, alt: str, caption: str = "") -> Element:
    """Choose a pixel and see on which others its prediction depends.

    Args:
        fields: for each model by name, a boolean tensor of shape ``(H, W, H, W)``: True at
            ``[i, j, k, l]`` if the prediction of pixel (i, j) depends on pixel (k, l).
        alt: what the element shows, for readers who do not see it.
        caption: one sentence shown below.

    Returns:
        An object that displays itself.

    Raises:
        ValueError: there are no fields, or one has another shape.
    """
    shapes = {tuple(field.shape) for field in fields.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 4 or shape[:2] != shape[2:]:
        raise ValueError(
            f"fields have the shapes {[tuple(f.shape) for f in fields.values()]}; one shape "
            f"(H, W, H, W) for all, and at least one model, are expected."
        )
    height, width = shape[:2]
    bits = {
        name: "".join("01"[bit] for bit in field.flatten().int().tolist())
        for name, field in fields.items()
    }
    body = (
        f"{_choice('model', 'model', tuple(fields))}"
        f'<svg viewBox="0 0 {20 * width} {20 * height}" tabindex="0" role="application" '
        f"{_label(alt + ' Move with the arrow keys.')}></svg><p><output></output></p>"
    )
    data = {"shape": [height, width], "fields": bits}
    widgets = partial(live.receptive_field, fields, alt=alt, caption=caption)
    return _element("field", body, data, caption, f"receptive fields: {alt}", widgets)


def pixel_reveal(image: Tensor, probabilities: Tensor, *, alt: str, caption: str = "") -> Element:
    """Reveal an image pixel by pixel, beside the predicted distribution of the next one.

    Args:
        image: grey levels 0 … K−1, shape ``(H, W)``.
        probabilities: of each level given the pixels before, shape ``(H, W, K)``.
        alt: what the element shows, for readers who do not see it.
        caption: one sentence shown below.

    Returns:
        An object that displays itself.

    Raises:
        ValueError: the shapes do not fit, or the probabilities of a pixel do not sum to 1.
    """
    if image.ndim != 2 or probabilities.shape[:-1] != image.shape:
        raise ValueError(
            f"image has shape {tuple(image.shape)} and probabilities "
            f"{tuple(probabilities.shape)}; (H, W) and (H, W, K) are expected."
        )
    if not ((probabilities.sum(-1) - 1).abs() < 1e-3).all():  # also catches NaN
        raise ValueError("probabilities do not sum to 1 over the last axis; pass no logits.")
    height, width = image.shape
    levels = probabilities.shape[-1]
    known = _slider("known", "pixels revealed", 0, height * width - 1, 1, 0)
    body = (
        f'<div class="panes"><svg class="drag" viewBox="0 0 {20 * width} {20 * height}" '
        f'role="img" {_label(alt)}></svg>'
        f'<svg viewBox="0 0 320 200" role="img" '
        f'aria-label="bar chart of the predicted probabilities of the next pixel\'s levels"></svg>'
        f"</div>{known}<p><output></output></p>"
    )
    data = {
        "shape": [height, width],
        "levels": levels,
        "image": image.flatten().tolist(),
        # Six digits: enough that the surprise of an unlikely level is right to two decimals.
        "probabilities": [
            [float(f"{value:.6g}") for value in row]
            for row in probabilities.reshape(-1, levels).tolist()
        ],
    }
    widgets = partial(live.pixel_reveal, image, probabilities, alt=alt, caption=caption)
    description = f"image revealed pixel by pixel: {alt}"
    return _element("reveal", body, data, caption, description, widgets)


def noised_mixture(
    mixture: GaussianMixture,
    *,
    point: tuple[float, float] = (0.6, 0.3),
    log_snr: float = 1.0,
    limit: float = 2.8,
    alt: str,
    caption: str = "",
) -> Element:
    """A mixture of the plane under noise: density, score, and the posterior mean of a point to drag.

    The page computes them as `course_lib.mixtures.GaussianMixture` does (``eq-mixture-score``). The slider
    sets λ = log(α²/σ²) under α² + σ² = 1.

    Args:
        mixture: of two dimensions.
        point: the noised example z at the start, within ±`limit`.
        log_snr: λ at the start, in [−6, 6].
        limit: the plane shown is [−limit, limit]².
        alt: what the element shows, for readers who do not see it.
        caption: one sentence shown below.

    Returns:
        An object that displays itself.

    Raises:
        TypeError: `mixture` is not a `GaussianMixture`.
        ValueError: it is not of the plane, or the point or λ is out of range.
    """
    _require_plane(mixture)
    point = _require_point(point, "point", limit)
    log_snr = require_real(log_snr, "log_snr", "a number in [-6, 6]", at_least=-6, at_most=6)
    body = _plane(alt, "Move the point with the arrow keys.", legend=1) + (
        f'<div class="controls">'
        f"{_slider('log_snr', 'log signal-to-noise ratio λ', -6, 6, 0.1, log_snr)}</div>"
        f"<p><output></output></p>"
    )
    data = {"mixture": _numbers(mixture), "limit": limit, "point": point}
    widgets = partial(
        live.noised_mixture, mixture, point, log_snr, limit=limit, alt=alt, caption=caption
    )
    return _element("noised", body, data, caption, f"noised mixture: {alt}", widgets)


def sampling_paths(
    mixture: GaussianMixture,
    *,
    schedule: Schedule | None = None,
    start: tuple[float, float] = (-1.9, 1.3),
    steps: int = 8,
    seed: int = 0,
    example: tuple[float, float] | None = None,
    limit: float = 2.8,
    alt: str,
    caption: str = "",
) -> Element:
    """The way of one point from noise to data: the exact ODE, a solver of it, and ancestral sampling.

    The start can be dragged; a slider sets the number of steps. The page computes all of them from the
    exact field, as `course_lib.diffusion.ddim`, `heun` and `ancestral` do. The noise of ancestral sampling
    is fixed: that of a long step is the sum, scaled to unit variance, of those of the 128 short ones that it
    spans.

    Args:
        mixture: of two dimensions.
        schedule: a `LinearLogSNR` with given ends, by default from 6 to −6, or a `LinearPath`, on which DDIM
            is Euler's method in time.
        start: the point at time 1, within ±`limit`.
        steps: number of steps at the start, a power of 2 up to 128.
        seed: of the noise.
        example: on a `LinearPath`, the clean end of a pair. The straight path of this pair, from the start to
            the example, is drawn in the place of ancestral sampling.
        limit: the plane shown is [−limit, limit]².
        alt: what the element shows, for readers who do not see it.
        caption: one sentence shown below.

    Returns:
        An object that displays itself.

    Raises:
        TypeError: `mixture` is not a `GaussianMixture`, or `schedule` not one of these two.
        ValueError: the mixture is not of the plane, the ends are learned, a number is out of range, or an
            example is given on another path.
    """
    _require_plane(mixture)
    schedule = LinearLogSNR(6.0, -6.0) if schedule is None else schedule
    is_path = isinstance(schedule, LinearPath)
    if not is_path and not isinstance(schedule, LinearLogSNR):
        raise TypeError(
            f"schedule is {schedule!r}; a LinearLogSNR with given ends, or a LinearPath, is expected."
        )
    if not is_path and schedule.given is None:
        raise ValueError("the ends of schedule are learned; given ones are expected in a page.")
    start = _require_point(start, "start", limit)
    if steps not in live.STEPS:
        raise ValueError(
            f"steps is {steps!r}; one of {', '.join(map(str, live.STEPS))} is expected."
        )
    if example is not None:
        if not is_path:
            raise ValueError(
                "example is given; a LinearPath is expected with it, whose pairs are straight."
            )
        example = _require_point(example, "example", limit)
    noise = live.fixed_noise(seed)
    methods = ("Euler", "Heun", "midpoint") if is_path else ("DDIM", "Heun")
    body = _plane(alt, "Move the start with the arrow keys.", legend=2) + (
        f'<div class="controls">{_stops("steps", "number of steps", live.STEPS, steps)}'
        f"{_choice('method', 'solver', methods)}</div><p><output></output></p>"
    )
    data = {
        "mixture": _numbers(mixture),
        "limit": limit,
        "start": start,
        "ends": None if is_path else list(schedule.given),
        "noise": noise.tolist(),
        "fine_steps": live.FINE_STEPS,
        "example": example,
    }
    widgets = partial(
        live.sampling_paths,
        mixture,
        schedule,
        start,
        steps,
        noise=noise,
        example=example,
        methods=methods,
        limit=limit,
        alt=alt,
        caption=caption,
    )
    return _element("paths", body, data, caption, f"sampling paths: {alt}", widgets)


def guided_gaussian(
    *,
    own: tuple[float, float] = (1.0, 0.3),
    every: tuple[float, float] = (0.0, 1.0),
    w: float = 2.0,
    alt: str,
    caption: str = "",
) -> Element:
    """A Gaussian class among Gaussian data: what the guided ODE samples, and the tilted density.

    A slider sets the weight w of guidance (``eq-guidance``). The page solves the ODE on the linear path as
    `course_lib.solvers.integrate` does.

    Args:
        own: mean and variance of the class.
        every: mean and variance of all data, the variance at least that of the class, so that the tilted
            density exists for every w.
        w: weight at the start, in [0, 3].
        alt: what the element shows, for readers who do not see it.
        caption: one sentence shown below.

    Returns:
        An object that displays itself.

    Raises:
        ValueError: a variance is not positive, that of the class is the larger one, or `w` is out of range.
    """
    w = require_real(w, "w", "a number in [0, 3]", at_least=0, at_most=3)
    own, every = (
        (
            require_real(mean, f"the mean of {name}"),
            require_real(variance, f"the variance of {name}"),
        )
        for name, (mean, variance) in (("own", own), ("every", every))
    )
    if not 0 < own[1] <= every[1]:
        raise ValueError(
            f"the variances are {own[1]:g} and {every[1]:g}; positive ones, of the class at most that of all "
            f"data, are expected."
        )
    body = (
        f'<svg class="wide" viewBox="0 0 560 260" role="img" {_label(alt)}></svg>'
        f'<div class="controls">{_slider("w", "guidance weight w", 0, 3, 0.1, w)}</div>'
        f"<p><output></output></p>"
    )
    widgets = partial(live.guided_gaussian, own, every, w, alt=alt, caption=caption)
    data = {"own": own, "every": every}
    return _element("guided", body, data, caption, f"guided Gaussian: {alt}", widgets)


def _require_plane(mixture: GaussianMixture) -> None:
    require_kind(mixture, GaussianMixture, "mixture")
    if mixture.event_shape != (2,):
        raise ValueError(
            f"mixture has examples of shape {mixture.event_shape}; those of the plane, (2,), are expected."
        )


def _require_point(point: tuple[float, float], name: str, limit: float) -> list[float]:
    if len(point) != 2 or not all(-limit <= value <= limit for value in point):
        raise ValueError(f"{name} is {point}; two numbers in [-{limit:g}, {limit:g}] are expected.")
    return [float(value) for value in point]


def _numbers(mixture: GaussianMixture) -> dict[str, list]:
    """What the page needs of a mixture, to all digits."""
    names = ("weights", "means", "covariances")
    return {name: getattr(mixture, name).detach().cpu().double().tolist() for name in names}


def _plane(alt: str, keys: str, legend: int) -> str:
    """A square plane with that many rows of a legend below it."""
    return (
        f'<svg class="drag" viewBox="0 0 400 {404 + 18 * legend}" tabindex="0" role="application" '
        f"{_label(f'{alt} {keys}')}></svg>"
    )


def _label(text: str) -> str:
    return f'aria-label="{html.escape(text, quote=True)}"'


def _slider(name: str, label: str, low: float, high: float, step: float, value: float) -> str:
    return (
        f"<label>{html.escape(label)}: <output>{value:g}</output>"
        f'<input type="range" name="{name}" min="{low:g}" max="{high:g}" step="{step:g}" '
        f'value="{value:g}" {_label(label)}></label>'
    )


def _stops(name: str, label: str, stops: Sequence[int], value: int) -> str:
    """A slider over the values of a list."""
    return (
        f"<label>{html.escape(label)}: <output>{value}</output>"
        f'<input type="range" name="{name}" min="0" max="{len(stops) - 1}" value="{stops.index(value)}" '
        f'data-stops="{json.dumps(stops)}" {_label(label)}></label>'
    )


def _choice(name: str, label: str, options: tuple[str, ...]) -> str:
    inner = "".join(f"<option>{html.escape(option)}</option>" for option in options)
    return f'<label>{html.escape(label)}: <select name="{name}">{inner}</select></label>'


def _float32(tensor: Tensor) -> str:
    """Little-endian float32 values as base64, row by row."""
    return base64.b64encode(tensor.detach().cpu().numpy().astype("<f4").tobytes()).decode()


def _float16(tensor: Tensor) -> str:
    """Little-endian float16 values as base64, row by row."""
    return base64.b64encode(tensor.detach().cpu().numpy().astype("<f2").tobytes()).decode()


def _element(
    kind: str,
    body: str,
    data: dict,
    caption: str,
    description: str,
    widgets: Callable[[], DOMWidget],
) -> Element:
    # Names count up from 1 in every process, so that a rebuilt page is the same to the byte.
    name = f"course-{kind}-{next(_count)}"
    note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    payload = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    without_script = f"What moves here needs JavaScript. {description.partition(': ')[2]}"
    return Element(
        f'<figure class="course-element" id="{name}" data-kind="{kind}">{body}'
        f"<noscript><p>{html.escape(without_script)}</p></noscript>{note}"
        f'<script type="application/json">{payload}</script></figure>'
        f"<style>{_STYLE}</style><script>(function(){{{_SCRIPT}\n"
        f"start(document.getElementById({json.dumps(name)}));}})()</script>",
        description,
        widgets,
    )

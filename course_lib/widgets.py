"""Things to drag, that work in a live notebook and on a page without a kernel alike.

Each object displays itself as plain HTML with a few lines of script and all its data inside:
no kernel, no network, no library in the page. Keyboard and touch work because the
controls are the browser's own.
"""

import base64
import html
import io
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

_count = itertools.count(1)
_SCRIPT = Path(__file__).with_name("widgets.js").read_text(encoding="utf-8")


class Element:
    """A piece of HTML that a notebook or a page displays."""

    def __init__(self, markup: str, description: str) -> None:
        self.markup = markup
        self.description = description

    def _repr_html_(self) -> str:
        return self.markup

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
    """A slider over figures that were drawn in advance, one for each value.

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
        figure = draw(value)
        buffer = io.BytesIO()
        # A fixed canvas, not a tight one: frames must lie exactly on one another.
        with plt.rc_context({"savefig.bbox": None}):
            figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
        plt.close(figure)
        frames.append("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
    texts = [f"{v:g}" if isinstance(v, int | float) else str(v) for v in values]
    data = {"frames": frames, "texts": texts}
    body = (
        f'<img alt="{html.escape(alt, quote=True)}" src="{frames[0]}">'
        f"<label>{html.escape(label)}: <output>{html.escape(texts[0])}</output>"
        f'<input type="range" min="0" max="{len(values) - 1}" value="0" '
        f'aria-label="{html.escape(label, quote=True)}"></label>'
    )
    return _element("frames", body, data, caption, f"slider over {len(values)} figures: {alt}")


def latent_plane(
    decoder: nn.Sequential,
    *,
    image_shape: tuple[int, int],
    points: Tensor,
    labels: Tensor,
    limit: float = 3.0,
    alt: str,
    caption: str = "",
) -> Element:
    """A latent plane with a point to drag; the page itself decodes it with the trained network.

    Args:
        decoder: affine maps, ReLUs (and dropouts, which are left out) from 2 numbers to the logits
            of H·W pixels.
        image_shape: height and width (H, W) of the decoded image.
        points: latent means of some examples, shape ``(N, 2)``, shown for orientation.
        labels: their classes 0 … 9, shape ``(N,)``.
        limit: the plane shown is [−limit, limit]².
        alt: what the element shows, for readers who do not see it.
        caption: one sentence shown below.

    Returns:
        An object that displays itself.

    Raises:
        ValueError: the decoder does not map 2 numbers to H·W, or has other layers.
    """
    layers = [layer for layer in decoder if not isinstance(layer, nn.Dropout)]
    affine, between = layers[::2], layers[1::2]
    height, width = image_shape
    if not (
        all(isinstance(layer, nn.Linear) for layer in affine)
        and all(isinstance(layer, nn.ReLU) for layer in between)
        and affine[0].in_features == 2
        and affine[-1].out_features == height * width
    ):
        raise ValueError(
            f"decoder is {decoder}; nn.Linear and nn.ReLU in turn, from 2 numbers to "
            f"{height * width} logits, are expected."
        )
    data = {
        "layers": [
            {
                "inputs": layer.in_features,
                "weight": _float32(layer.weight),
                "bias": _float32(layer.bias),
            }
            for layer in affine
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
        f'role="img" aria-label="decoded image"></canvas></div>'
        f"<p><output></output></p>"
    )
    return _element("plane", body, data, caption, f"latent plane: {alt}")


def _float32(tensor: Tensor) -> str:
    """Little-endian float32 values as base64, row by row."""
    return base64.b64encode(tensor.detach().cpu().numpy().astype("<f4").tobytes()).decode()


def _element(kind: str, body: str, data: dict, caption: str, description: str) -> Element:
    # Names count up from 1 in every process, so that a rebuilt page is the same to the byte.
    name = f"course-{kind}-{next(_count)}"
    note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    payload = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    return Element(
        f'<figure class="course-element" id="{name}">{body}{note}'
        f'<script type="application/json">{payload}</script></figure>'
        f"<script>(function(){{{_SCRIPT}\nstart_{kind}(document.getElementById({json.dumps(name)}));}})()</script>",
        description,
    )

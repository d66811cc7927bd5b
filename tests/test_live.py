"""The widgets of a live notebook show what Python computes, whatever the version of ipywidgets.

`tests/book/test_hosted.py` runs this file again with the widgets of hosted notebooks, outside of
the checkout: it uses nothing but the installed library.
"""

import base64
import io
import os
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from jupyter_client.manager import start_new_kernel
from matplotlib.colors import to_rgb
from nbclient import NotebookClient
from PIL import Image
from torch import nn
from torch.distributions import Normal, kl_divergence

import course_lib
from course_lib import widgets
from course_lib.diffusion import ddim, guided, heun
from course_lib.gan import dirac, jensen_shannon
from course_lib.live import VIEW
from course_lib.mixtures import GaussianMixture
from course_lib.schedules import LinearLogSNR, LinearPath
from course_lib.solvers import integrate, time_grid

ALT = "what <is> shown"


class Live:
    """The widgets of an element, with what a reader would see of them."""

    def __init__(self, element):
        *controls, self.html, self.caption = element.widgets().children
        self.controls = {control.description: control for control in controls}

    def set(self, description, value):
        self.controls[description].value = value

    @property
    def pictures(self):
        """All pictures, grey or RGB values in [0, 1]."""
        found = re.findall(r'src="data:image/png;base64,([^"]+)"', self.html.value)
        images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]
        return [np.asarray(i if i.mode == "L" else i.convert("RGB")) / 255 for i in images]

    @property
    def numbers(self):
        text = re.search(r"<p role=\"status\">(.*?)</p>", self.html.value)[1].replace("−", "-")
        return [float(n) for n in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def corners(picture, height, width):
    """The colour of each square of a grid, off its centre, where a mark may stand."""
    rows = ((np.arange(height) + 0.2) * picture.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.2) * picture.shape[1] / width).astype(int)
    return picture[rows][:, columns]


def grey_figure(value):
    figure = plt.figure(figsize=(1, 1))
    figure.add_axes((0, 0, 1, 1)).imshow([[value]], vmin=0, vmax=1, cmap="gray", aspect="auto")
    return figure


def slider(draw, **options):
    return widgets.frame_slider(draw, [0.2, 0.5, 1.0], label="grey", alt=ALT, **options)


def test_slider_calls_the_readers_function_anew():
    factor = 1.0
    live = Live(slider(lambda value: grey_figure(factor * value), caption="<b>"))
    centre = [picture[40, 40, 0] for picture in live.pictures]
    assert centre == pytest.approx([0.2], abs=1 / 255)
    factor = 0.5
    live.set("grey", 2)
    assert live.pictures[0][40, 40, 0] == pytest.approx(0.5, abs=1 / 255)
    assert live.controls["grey"].label == "1"
    assert 'alt="what &lt;is&gt; shown"' in live.html.value
    assert live.caption.value == "&lt;b&gt;"
    assert not plt.get_fignums()


def test_an_error_of_the_readers_function_is_shown_until_it_is_mended():
    broken = False

    def draw(value):
        if broken:
            raise ValueError(f"no <figure> for {value}")
        return grey_figure(value)

    live = Live(slider(draw))
    broken = True
    live.set("grey", 1)
    assert "ValueError: no &lt;figure&gt; for 0.5" in live.html.value
    assert 'role="alert"' in live.html.value
    assert not live.pictures
    broken = False
    live.set("grey", 2)
    assert live.pictures[0][40, 40, 0] == pytest.approx(1.0)


def test_plane_decodes_with_the_decoder_as_it_is_now():
    torch.manual_seed(1)
    decoder = nn.Sequential(nn.Linear(2, 30), nn.ReLU(), nn.Dropout(0.5), nn.Linear(30, 12))
    live = Live(
        widgets.latent_plane(
            decoder,
            image_shape=(3, 4),
            points=torch.randn(5, 2),
            labels=torch.arange(5),
            alt=ALT,
        )
    )
    planes = []
    for first, second, factor in ((0.0, 0.0, 1), (1.5, -2.0, 1), (1.0, -2.0, 5)):
        with torch.no_grad():
            decoder[-1].weight *= factor  # trained again
        live.set("first coordinate of z", first)
        live.set("second coordinate of z", second)
        plane, shown = live.pictures
        planes.append(plane)
        with torch.no_grad():
            hidden = decoder[0](torch.tensor([first, second])).relu()
            expected = decoder[-1](hidden).sigmoid().view(3, 4)
        torch.testing.assert_close(torch.tensor(shown).float(), expected, atol=1 / 255, rtol=0)
    assert expected.max() - expected.min() > 0.5
    assert (planes[0] != planes[1]).any()  # the ring has moved


def test_divergences_of_the_pair():
    live = Live(widgets.gaussian_pair(alt=ALT))
    before = live.pictures[0]
    for name, mean, std in (("p", -1.3, 2.2), ("q", 0.8, 0.6)):
        live.set(f"mean of {name}", mean)
        live.set(f"standard deviation of {name}", std)
    p, q = Normal(-1.3, 2.2), Normal(0.8, 0.6)
    expected = [kl_divergence(q, p).item(), kl_divergence(p, q).item()]
    assert live.numbers == pytest.approx(expected, abs=6e-5)
    assert (live.pictures[0] != before).any()


def test_optimal_discriminator_of_the_pair():
    live = Live(widgets.gaussian_pair(discriminator=True, alt=ALT))
    live.set("mean of q", -2.0)
    p, q = Normal(0.0, 1.0), Normal(-2.0, 0.5)
    grid = torch.linspace(-30, 30, 6001, dtype=torch.float64)
    divergence = jensen_shannon(p.log_prob, q.log_prob, grid).item()
    assert live.numbers[0] == pytest.approx(divergence, abs=6e-5)
    assert live.numbers[-1] == pytest.approx(2 * divergence - np.log(4), abs=6e-5)


@pytest.mark.parametrize("loss", ["minimax", "non-saturating"])
def test_orbit_is_that_of_the_library(loss):
    live = Live(widgets.dirac_orbit(gamma=0.3, start=(1.0, -0.7), steps=60, alt=ALT))
    live.set("loss of the generator", loss)
    live.set("update in turn", True)
    live.set("step size", 0.35)
    live.set("θ at the start", -1.5)
    method = (dirac.minimax if loss == "minimax" else dirac.non_saturating)(0.3)
    path = dirac.trajectory(method, (-1.5, -0.7), 60, 0.35, alternating=True)
    modulus = dirac.update_eigenvalues(method, 0.35, alternating=True).abs().max()
    assert live.numbers[:2] == [-1.5, -0.7]
    *_, steps, end, shown = live.numbers
    assert steps == 60
    assert end == pytest.approx(path[-1].norm().item(), rel=6e-3)
    assert shown == pytest.approx(modulus.item(), abs=6e-5)


def test_chosen_pixel_shows_its_field():
    generator = torch.Generator().manual_seed(0)
    order = torch.arange(20)
    fields = {
        name: (torch.rand(20, 20, generator=generator) < 0.5) & (order[None] < order[:, None])
        for name in ("first", "second")
    }
    blocks = {name: field.view(4, 5, 4, 5) for name, field in fields.items()}
    live = Live(widgets.receptive_field(blocks, alt=ALT))
    for row, column, model in ((2, 3, "first"), (3, 1, "second")):
        live.set("model", model)
        live.set("row", row + 1)
        live.set("column", column + 1)
        place = 5 * row + column
        seen = fields[model][place]
        count = int(seen.sum())
        assert live.numbers == [row + 1, column + 1, count, place, place - count]
        squares = corners(live.pictures[0], 4, 5).reshape(20, 3)
        blue, orange = (np.array(to_rgb(c)) for c in ("#56a0d3", "#d55e00"))
        is_blue = np.abs(squares - blue).max(-1) < 0.01
        assert is_blue.tolist() == seen.tolist()
        assert np.abs(squares[place] - orange).max() < 0.01


def test_revealed_pixels_and_their_cost():
    torch.manual_seed(0)
    image = torch.randint(0, 5, (3, 4))
    probabilities = torch.randn(3, 4, 5).softmax(-1)
    live = Live(widgets.pixel_reveal(image, probabilities, alt=ALT))
    bits = -probabilities.gather(-1, image.unsqueeze(-1)).flatten().log2()
    for known in (0, 5, 11):
        live.set("pixels revealed", known)
        pixel, level, probability, cost, average = live.numbers
        assert (pixel, level) == (known + 1, image.flatten()[known])
        assert probability == pytest.approx(0.5 ** bits[known].item(), abs=6e-4)
        assert cost == pytest.approx(bits[known].item(), abs=6e-3)
        assert average == pytest.approx(bits[: known + 1].mean().item(), abs=6e-4)
        squares = corners(live.pictures[0], 3, 4).reshape(12, 3)[:, 0]
        expected = (image.flatten() / 4).numpy()
        assert squares[:known] == pytest.approx(expected[:known], abs=0.01)
        assert squares[known:] == pytest.approx(to_rgb("#a9c8e0")[0], abs=0.01)


def two_modes():
    """Two Gaussians of the plane."""
    return GaussianMixture(
        torch.tensor([0.4, 0.6]),
        torch.tensor([[-1.0, 0.5], [0.8, -0.3]]),
        torch.tensor([[[0.2, 0.1], [0.1, 0.3]], [[0.1, 0.0], [0.0, 0.2]]]),
    )


def in_double(mixture):
    parts = (mixture.weights, mixture.means, mixture.covariances)
    return GaussianMixture(*(part.double() for part in parts))


def test_noised_mixture_follows_its_sliders():
    live = Live(widgets.noised_mixture(two_modes(), alt=ALT))
    before = live.pictures[0]
    live.set("log signal-to-noise ratio λ", -1.5)
    live.set("first coordinate of z", -0.75)
    live.set("second coordinate of z", 1.1)
    mixture, z = in_double(two_modes()), torch.tensor([[-0.75, 1.1]]).double()
    level = torch.tensor([-1.5, 1.5]).double().sigmoid().sqrt()
    known = [*mixture.score(z, *level)[0], *mixture.posterior_mean(z, *level)[0]]
    expected = [-1.5, *level, -0.75, 1.1, mixture.log_prob(z, *level).item(), *known]
    assert live.numbers == pytest.approx([float(v) for v in expected], abs=6e-4)
    assert (live.pictures[0] != before).any()


@pytest.mark.parametrize("schedule", [LinearLogSNR(5.0, -6.0), LinearPath()], ids=["λ", "path"])
def test_sampling_paths_follow_their_controls(schedule):
    live = Live(widgets.sampling_paths(two_modes(), schedule=schedule, alt=ALT))
    before = live.numbers
    live.set("number of steps", 16)
    live.set("first coordinate of the start", 1.2)
    mixture, z = in_double(two_modes()), torch.tensor([[1.2, 1.3]]).double()
    denoise, is_path = mixture.denoiser(schedule), isinstance(schedule, LinearPath)

    def velocity(z, t):
        return mixture.velocity(z, t, schedule)

    exact = integrate(velocity, z, time_grid(160), "rk4")[0]
    second = integrate(velocity, z, time_grid(16), "heun") if is_path else None
    for method, end in (
        ("Euler" if is_path else "DDIM", ddim(denoise, schedule, z, time_grid(16))),
        ("Heun", second if is_path else heun(denoise, schedule, z, time_grid(16))),
    ):
        live.set("solver", method)
        error = (end[0] - exact).norm().item()
        assert live.numbers[:7] == pytest.approx(
            [1.2, 1.3, *exact.tolist(), 16, *end[0].tolist()], abs=6e-4
        )
        assert live.numbers[7] == pytest.approx(error, rel=6e-3)
    assert live.numbers[8:] != before[8:]


def test_the_path_of_a_pair_is_straight_and_midpoint_is_that_of_the_library():
    path, mixture = LinearPath(), in_double(two_modes())
    live = Live(widgets.sampling_paths(two_modes(), schedule=path, example=(0.8, -0.3), alt=ALT))
    live.set("solver", "midpoint")
    live.set("number of steps", 4)
    z = torch.tensor([[-1.9, 1.3]]).double()
    end = integrate(lambda z, t: mixture.velocity(z, t, path), z, time_grid(4), "midpoint")
    assert live.numbers[5:7] == pytest.approx(end[0].tolist(), abs=6e-4)
    assert live.numbers[8:] == [0.8, -0.3]


def test_guided_gaussian_follows_its_slider():
    live = Live(widgets.guided_gaussian(own=(0.5, 0.4), every=(-0.2, 1.3), alt=ALT))
    live.set("guidance weight w", 1.5)
    path = LinearPath()
    own, every = (
        GaussianMixture(*(torch.tensor(v).double() for v in ([1.0], [[m]], [[[c]]])))
        for m, c in ((0.5, 0.4), (-0.2, 1.3))
    )

    def velocity(z, t):
        return guided(own.velocity(z, t, path), every.velocity(z, t, path), 1.5)

    starts = torch.tensor([[0.0], [1.0]]).double()
    low, high = integrate(velocity, starts, time_grid(160), "rk4")[:, 0].tolist()
    x = torch.linspace(-8, 8, 2001).double()[:, None]
    p = (2.5 * own.log_prob(x) - 1.5 * every.log_prob(x)).softmax(0)
    mean = (p @ x).item()
    expected = [1.5, low, (high - low) ** 2, mean, (p @ (x - mean) ** 2).item()]
    assert live.numbers == pytest.approx(expected, abs=6e-4)


def test_every_control_says_what_it_does():
    elements = (
        widgets.noised_mixture(two_modes(), alt=ALT),
        widgets.sampling_paths(two_modes(), alt=ALT),
        widgets.guided_gaussian(alt=ALT),
        slider(grey_figure),
        widgets.gaussian_pair(alt=ALT),
        widgets.dirac_orbit(alt=ALT),
        widgets.receptive_field({"m": torch.ones(2, 2, 2, 2, dtype=torch.bool)}, alt=ALT),
        widgets.pixel_reveal(torch.zeros(2, 2), torch.ones(2, 2, 1), alt=ALT),
    )
    for element in elements:
        live = Live(element)
        assert "" not in live.controls
        # The whole label is to be read, not its first letters.
        assert {c.style.description_width for c in live.controls.values()} == {"initial"}


CODE = "from course_lib.widgets import gaussian_pair\ngaussian_pair(alt='two curves')"


@pytest.fixture
def here(monkeypatch):
    """Kernels find the library where these tests found it."""
    monkeypatch.setenv("PYTHONPATH", str(Path(course_lib.__file__).parents[1]))


def test_a_front_end_with_a_reader_is_offered_widgets_and_html(here):
    manager, client = start_new_kernel(kernel_name="python3", env=dict(os.environ))
    bundles = []

    def keep(message):
        if message["msg_type"] == "execute_result":
            bundles.append(message["content"]["data"])

    try:
        client.execute_interactive(CODE, allow_stdin=True, output_hook=keep, timeout=120)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    (bundle,) = bundles
    assert set(bundle) == {"text/plain", "text/html", VIEW}
    assert set(bundle[VIEW]) == {"version_major", "version_minor", "model_id"}
    assert "course-element" in bundle["text/html"]


def test_a_build_gets_html_and_no_state_of_widgets(here):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {"text/plain", "text/html"}
    assert "widgets" not in notebook.metadata

"""Moves the elements of a live notebook in JupyterLab, by keyboard and mouse, with a real kernel.

Once with today's widgets, once with those of hosted notebooks and a front end that fits them. What
is then seen must be what Python computes. Needs a Chromium; run by `make test-live`.
"""

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import nbconvert
import nbformat
import notebooks as tool
import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Normal, kl_divergence

from course_lib.diffusion import heun
from course_lib.gan import dirac
from course_lib.live import VIEW
from course_lib.mixtures import GaussianMixture
from course_lib.schedules import LinearLogSNR
from course_lib.solvers import time_grid
from tests.book.environments import HIDDEN, prepared

pytestmark = pytest.mark.live

DECODER = """
import torch
from torch import nn

torch.manual_seed(1)
decoder = nn.Sequential(nn.Linear(2, 30), nn.ReLU(), nn.Linear(30, 12))
"""
ELEMENTS = {
    "frames": """
import matplotlib.pyplot as plt
from course_lib.widgets import *

calls = []

def draw(value):
    calls.append(value)
    figure = plt.figure(figsize=(1, 1))
    grey = [[value + 0.01 * len(calls)]]  # a function of the value and of how often it was called
    figure.add_axes((0, 0, 1, 1)).imshow(grey, vmin=0, vmax=1, cmap="gray", aspect="auto")
    return figure

frame_slider(draw, [0.2, 0.4, 0.6, 0.8], label="grey", alt="a grey square")
""",
    "plane": """
latent_plane(decoder, image_shape=(3, 4), points=torch.zeros(1, 2), labels=torch.zeros(1),
             alt="a plane")
""",
    "pair": "gaussian_pair(alt='two curves')",
    "orbit": "dirac_orbit(gamma=0.3, alt='an orbit')",
    "field": """
fields = torch.tril(torch.ones(20, 20), -1).bool().view(4, 5, 4, 5)
receptive_field({"none": ~fields & fields, "all": fields}, alt="pixels")
""",
    "reveal": """
pixel_reveal(torch.arange(12).view(3, 4), torch.full((3, 4, 12), 1 / 12), alt="an image")
""",
    "noised": """
mixture = GaussianMixture(
    torch.tensor([0.4, 0.6]),
    torch.tensor([[-1.0, 0.5], [0.8, -0.3]]),
    torch.tensor([[[0.2, 0.1], [0.1, 0.3]], [[0.1, 0.0], [0.0, 0.2]]]),
)
noised_mixture(mixture, alt="a noised mixture")
""",
    "paths": "sampling_paths(mixture, alt='three paths')",
    "guided": "guided_gaussian(alt='three curves')",
}
# Runs when all elements stand there already: their callbacks have to see it.
AGAIN = "with torch.no_grad():\n    decoder[-1].bias += 2 * torch.linspace(-1, 1, 12)"
VERSION = "import ipywidgets\nprint(ipywidgets.__version__)"


@dataclass
class FrontEnd:
    """A JupyterLab and the kernel to use in it."""

    python: Path
    kernel: str
    widgets: str  # how the version of ipywidgets in the kernel starts
    environment: dict[str, str]  # with what the server is started


@pytest.fixture(scope="module")
def lab_of_today():
    return FrontEnd(Path(sys.executable), "python3", "8.", {"PYTHONPATH": str(tool.ROOT)})


@pytest.fixture(scope="module")
def lab_of_hosted(hosted_with_course, tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    (data / "kernels" / "hosted").mkdir(parents=True)
    command = [str(hosted_with_course), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "hosted", "language": "python"}
    (data / "kernels" / "hosted" / "kernel.json").write_text(json.dumps(spec))
    with prepared("live") as python:
        yield FrontEnd(python, "hosted", "7.7.", {"JUPYTER_PATH": str(data)})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module", params=["lab_of_today", "lab_of_hosted"])
def lab(request, browser, tmp_path_factory):
    """The notebook with all elements, executed in a browser that reaches nothing but the server."""
    front = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("lab")
    cells = [DECODER, *ELEMENTS.values(), AGAIN, VERSION]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells],
        metadata={"kernelspec": {"name": front.kernel, "display_name": front.kernel}},
    )
    (folder / "content").mkdir()
    nbformat.write(notebook, folder / "content" / "elements.ipynb")
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k not in HIDDEN}
    environment |= {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA")}
    environment |= {
        f"JUPYTERLAB_{name}_DIR": str(folder / name) for name in ("SETTINGS", "WORKSPACES")
    }
    log = folder / "log"
    command = [
        *(front.python, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", "--ServerApp.token=", "--expose-app-in-browser"),
        *("--ServerApp.password=", f"--ServerApp.root_dir={folder / 'content'}"),
    ]  # fmt: skip
    with log.open("w") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment | front.environment
        )
    try:
        wait_for(lambda: is_open(port, server), 60, log.read_text)
        # So tall that every cell is in view: what is out of it, the front end may not render.
        page = browser.new_page(viewport={"width": 1200, "height": 6000})
        page.route("**/*", lambda route: keep_local(route, port))
        page.goto(f"http://127.0.0.1:{port}/lab/tree/elements.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        yield Lab(page, front, folder / "content" / "elements.ipynb", log)
    finally:
        server.terminate()  # ends its kernels
        server.wait(30)


def keep_local(route, port):
    local = urlsplit(route.request.url).netloc in {"", f"127.0.0.1:{port}"}
    (route.continue_ if local else route.abort)()


def is_open(port, server):
    assert server.poll() is None, "the server has ended"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition, seconds, describe):
    """Wait until the condition holds; a short while passes between two looks."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, describe()
        time.sleep(0.1)


class Lab:
    """The executed notebook."""

    def __init__(self, page, front, path, log):
        self.page, self.front, self.path, self.log = page, front, path, log
        page.wait_for_function("window.jupyterapp?.commands.hasCommand('notebook:run-all-cells')")
        session = "window.jupyterapp.shell.currentWidget?.sessionContext?.session"
        page.wait_for_function(f"{session}?.kernel?.connectionStatus === 'connected'")
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        version = page.locator(".jp-Cell").nth(len(ELEMENTS) + 2).locator(".jp-OutputArea-output")
        version.wait_for(timeout=180_000)
        self.version = version.inner_text().strip()
        self.names = list(ELEMENTS)

    def output(self, name):
        return Seen(self.page.locator(".jp-Cell").nth(1 + self.names.index(name)))


class Seen:
    """One element in the notebook, as its reader has it."""

    def __init__(self, cell):
        self.box = cell.locator(".jp-OutputArea-output .widget-vbox").first
        self.box.wait_for(timeout=60_000)
        self.page = cell.page
        self.shown = self.box.locator(".widget-html").first

    def control(self, label):
        exact = re.compile(f"^{re.escape(label)}$")
        name = self.box.page.locator("label, .widget-label", has_text=exact)
        return self.box.locator(".widget-inline-hbox", has=name)

    def value(self, label):
        return self.control(label).locator(".widget-readout").inner_text()

    def html(self):
        return self.shown.inner_html()

    def changed(self, move):
        """Do something, and wait until something else is shown."""
        before = self.html()
        move()
        wait_for(lambda: self.html() != before, 30, lambda: f"nothing changes: {before[-500:]}")
        assert "Traceback" not in self.html()

    def press(self, label, key="ArrowRight"):
        handle = self.control(label).locator(".noUi-handle, .ui-slider-handle")
        handle.focus()
        self.changed(lambda: self.page.keyboard.press(key))

    def drag(self, label, share):
        """Take the handle with the mouse to a place between 0 and 1."""
        control = self.control(label)
        handle = control.locator(".noUi-handle, .ui-slider-handle").bounding_box()
        track = control.locator(".noUi-base, .ui-slider").first.bounding_box()

        def move():
            mouse = self.page.mouse
            middle = handle["y"] + handle["height"] / 2
            mouse.move(handle["x"] + handle["width"] / 2, middle)
            mouse.down()
            mouse.move(track["x"] + share * track["width"], middle, steps=5)
            mouse.up()

        self.changed(move)

    def settle(self):
        """Wait for the last of several answers."""
        last = None

        def is_last():
            nonlocal last
            before, last = last, self.html()
            time.sleep(1)
            return before == last

        wait_for(is_last, 30, self.html)

    def pictures(self):
        found = re.findall(r'src="data:image/png;base64,([^"]+)"', self.html())
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(p))).convert("L")) for p in found]

    def numbers(self):
        text = self.shown.locator("p").inner_text().replace("−", "-")
        return [float(n) for n in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def test_the_kernel_has_the_widgets_that_are_meant(lab):
    assert lab.version.startswith(lab.front.widgets)


def test_slider_calls_the_readers_function(lab):
    seen = lab.output("frames")
    # Four calls for the page's frames, one for what is shown first, one for each move.
    for calls, move, value in (
        (6, lambda: seen.press("grey"), 0.4),
        (7, lambda: seen.drag("grey", 1.0), 0.8),
        (8, lambda: seen.press("grey", "ArrowLeft"), 0.6),
    ):
        move()
        seen.settle()
        assert float(seen.value("grey")) == value
        (picture,) = seen.pictures()
        assert picture[40, 40] / 255 == pytest.approx(value + 0.01 * calls, abs=1 / 255)
    assert seen.shown.locator("img").get_attribute("alt") == "a grey square"


def test_plane_decodes_with_the_retrained_decoder(lab):
    seen = lab.output("plane")
    names = {}
    exec(DECODER + AGAIN, names)
    labels = ("first coordinate of z", "second coordinate of z")
    for move in (
        lambda: seen.press(labels[0]),
        lambda: seen.drag(labels[0], 0.8),
        lambda: seen.drag(labels[1], 0.1),
        lambda: seen.press(labels[1], "ArrowLeft"),
    ):
        move()
        seen.settle()
        z = torch.tensor([float(seen.value(label).replace("−", "-")) for label in labels])
        with torch.no_grad():
            expected = names["decoder"](z).sigmoid().view(3, 4).numpy()
        assert seen.pictures()[1] / 255 == pytest.approx(expected, abs=1 / 255)
    assert abs(z).min() > 1  # the handles did move


def test_divergences_of_the_pair(lab):
    seen = lab.output("pair")
    seen.press("mean of p")
    seen.drag("standard deviation of q", 0.6)
    seen.settle()
    values = {
        what + name: float(seen.value(f"{what} of {name}").replace("−", "-"))
        for what in ("mean", "standard deviation")
        for name in "pq"
    }
    p = Normal(values["meanp"], values["standard deviationp"])
    q = Normal(values["meanq"], values["standard deviationq"])
    assert values["meanp"] == 0.1
    expected = [kl_divergence(q, p).item(), kl_divergence(p, q).item()]
    assert seen.numbers() == pytest.approx(expected, abs=6e-5)


def test_orbit_follows_every_control(lab):
    seen = lab.output("orbit")
    seen.drag("θ at the start", 0.2)
    seen.press("weight γ of the penalty")
    seen.press("step size", "ArrowLeft")
    seen.changed(lambda: seen.box.locator("select").select_option("non-saturating"))
    seen.changed(lambda: seen.box.locator("input[type=checkbox]").check())
    seen.settle()
    theta = float(seen.value("θ at the start").replace("−", "-"))
    method = dirac.non_saturating(0.35)
    path = dirac.trajectory(method, (theta, -1.0), 150, 0.15, alternating=True)
    modulus = dirac.update_eigenvalues(method, 0.15, alternating=True).abs().max().item()
    *_, end, shown = seen.numbers()
    assert theta < 0
    assert end == pytest.approx(path[-1].norm().item(), rel=6e-3)
    assert shown == pytest.approx(modulus, abs=6e-5)


def test_field_and_reveal_follow_their_sliders(lab):
    seen = lab.output("field")
    assert seen.numbers() == [3, 3, 0, 12, 12]
    seen.changed(lambda: seen.box.locator("select").select_option("all"))
    seen.press("row")
    seen.drag("column", 0.0)
    seen.settle()
    assert seen.numbers() == [4, 1, 15, 15, 0]
    seen = lab.output("reveal")
    seen.press("pixels revealed")
    seen.press("pixels revealed")
    seen.settle()
    assert seen.numbers()[:3] == [3, 2, 0.083]


def in_double(code):
    """The mixture of an element, in the type in which elements compute."""
    names = {"torch": torch, "GaussianMixture": GaussianMixture}
    exec(code.split("\nnoised_mixture")[0], names)
    mixture = names["mixture"]
    parts = (mixture.weights, mixture.means, mixture.covariances)
    return GaussianMixture(*(part.double() for part in parts))


def test_noised_mixture_follows_its_sliders(lab):
    seen = lab.output("noised")
    seen.drag("log signal-to-noise ratio λ", 0.3)
    seen.press("first coordinate of z")
    seen.drag("second coordinate of z", 0.8)
    seen.settle()
    mixture = in_double(ELEMENTS["noised"])
    log_snr, alpha, sigma, *z = seen.numbers()[:5]
    level = torch.tensor([log_snr, -log_snr]).double().sigmoid().sqrt()
    assert [alpha, sigma] == pytest.approx(level.tolist(), abs=6e-4)
    assert z[0] == 0.65
    z = torch.tensor([z]).double()
    known = [*mixture.score(z, *level)[0], *mixture.posterior_mean(z, *level)[0]]
    expected = [mixture.log_prob(z, *level).item(), *(float(v) for v in known)]
    assert seen.numbers()[5:] == pytest.approx(expected, abs=6e-4)


def test_sampling_paths_follow_their_controls(lab):
    seen = lab.output("paths")
    seen.press("number of steps")
    seen.changed(lambda: seen.box.locator("select").select_option("Heun"))
    seen.drag("first coordinate of the start", 0.7)
    seen.settle()
    mixture, schedule = in_double(ELEMENTS["noised"]), LinearLogSNR(6.0, -6.0)
    shown = seen.numbers()
    assert shown[4] == 16
    z = torch.tensor([shown[:2]]).double()
    end = heun(mixture.denoiser(schedule), schedule, z, time_grid(16))[0]
    assert shown[5:7] == pytest.approx(end.tolist(), abs=6e-4)


def test_guided_gaussian_follows_its_slider(lab):
    seen = lab.output("guided")
    seen.press("guidance weight w", "ArrowLeft")
    seen.settle()
    precision = 2.9 / 0.3 - 1.9
    shown = seen.numbers()
    assert shown[0] == 1.9
    assert shown[2:] == pytest.approx([0.3**2.9, 2.9 / 0.3 / precision, 1 / precision], abs=6e-4)


def test_stored_notebook_opens_as_a_page_of_its_own(lab, visit, tmp_path):
    lab.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    wait_for(lambda: VIEW in lab.path.read_text(), 30, lab.path.read_text)
    notebook = nbformat.read(lab.path, as_version=4)
    assert "widgets" not in notebook.metadata
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    (tmp_path / "exported.html").write_text(page, encoding="utf-8")
    opened = visit(tmp_path / "exported.html").page
    assert opened.locator(".course-element").count() == len(ELEMENTS)
    figure = opened.locator(".course-element").first
    before = figure.locator("img").get_attribute("src")
    figure.locator("input").focus()
    opened.keyboard.press("ArrowRight")
    assert figure.locator("img").get_attribute("src") != before

"""Interactive elements carry all that they need, and say what they show."""

import ast
import base64
import json
import re

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from course_lib.glue import glue
from course_lib.mixtures import GaussianMixture
from course_lib.schedules import Cosine, LinearLogSNR
from course_lib.widgets import (
    dirac_orbit,
    frame_slider,
    gaussian_pair,
    guided_gaussian,
    latent_plane,
    noised_mixture,
    pixel_reveal,
    receptive_field,
    sampling_paths,
)


def data(element):
    text = re.search(r'<script type="application/json">(.*?)</script>', element.markup, re.S)[1]
    return json.loads(text)


def slider():
    def draw(value):
        figure, ax = plt.subplots(figsize=(2, 1))
        ax.plot([0, value])
        return figure

    return frame_slider(
        draw,
        [0.5, 1.0, 2.0],
        label='slope "a"',
        alt="a line that grows steeper",
        caption="Look <here>",
    )


def test_slider_holds_one_frame_of_one_size_for_each_value():
    element = slider()
    frames = data(element)["frames"]
    assert data(element)["texts"] == ["0.5", "1", "2"]
    assert len(set(frames)) == 3
    sizes = {base64.b64decode(frame.split(",")[1])[16:24] for frame in frames}
    assert len(sizes) == 1  # width and height in the PNG header
    assert not plt.get_fignums()


def test_elements_are_described_escaped_and_load_nothing():
    element = slider()
    assert 'alt="a line that grows steeper"' in element.markup
    assert "slope &quot;a&quot;" in element.markup
    assert "Look &lt;here&gt;" in element.markup
    # The name of SVG's namespace has the form of an address, but nothing is asked there.
    markup = element.markup.replace("http://www.w3.org/2000/svg", "")
    assert "http" not in re.sub(r'"data:image[^"]*"', "", markup)
    assert repr(element) == "<slider over 3 figures: a line that grows steeper>"
    with pytest.raises(ValueError, match="empty"):
        frame_slider(None, [], label="x", alt="x")


@pytest.mark.parametrize("half", [False, True])
def test_plane_holds_the_weights_of_the_decoder(half):
    torch.manual_seed(0)
    decoder = nn.Sequential(
        nn.Linear(2, 5), nn.ReLU(), nn.Dropout(0.1), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3),
        nn.Linear(3, 6),
    )  # fmt: skip
    element = latent_plane(
        decoder, image_shape=(2, 3), points=torch.zeros(4, 2), labels=torch.arange(4),
        half_precision=half, alt="a plane",
    )  # fmt: skip
    value = torch.tensor([0.3, -1.2])
    for layer in data(element)["layers"]:
        weight, bias = (
            torch.frombuffer(
                bytearray(base64.b64decode(layer[name])),
                dtype=torch.float16 if half else torch.float32,
            ).float()
            for name in ("weight", "bias")
        )
        value = weight.reshape(-1, layer["inputs"]) @ value + bias
        value = {"relu": torch.relu, "tanh": torch.tanh, "": torch.clone}[layer["function"]](value)
    tolerance = {"atol": 1e-3, "rtol": 1e-3} if half else {}
    torch.testing.assert_close(value, decoder.eval()(torch.tensor([0.3, -1.2])), **tolerance)


@pytest.mark.parametrize(
    "decoder",
    [
        nn.Sequential(nn.Linear(3, 6)),
        nn.Sequential(nn.Linear(2, 5)),
        nn.Sequential(),
        nn.Sequential(nn.Linear(2, 5), nn.Sigmoid(), nn.Linear(5, 6)),
        nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Tanh(), nn.Linear(5, 6)),
        nn.Sequential(nn.Linear(2, 6), nn.ReLU()),
    ],
)
def test_plane_refuses_other_networks(decoder):
    with pytest.raises(ValueError, match=r"nn\.ReLU or nn\.Tanh may stand"):
        latent_plane(
            decoder, image_shape=(2, 3), points=torch.zeros(1, 2), labels=torch.zeros(1), alt="x"
        )


def test_receptive_fields_are_stored_in_the_order_of_the_pixels():
    field = torch.zeros(2, 3, 2, 3, dtype=torch.bool)
    field[1, 0, 0, 2] = True  # pixel 3 depends on pixel 2
    bits = data(receptive_field({"one": field}, alt="x"))["fields"]["one"]
    assert [i for i, bit in enumerate(bits) if bit == "1"] == [3 * 6 + 2]


def round_mixture(dimensions=2):
    """One round Gaussian."""
    return GaussianMixture(
        torch.ones(1), torch.zeros(1, dimensions), torch.eye(dimensions).expand(1, -1, -1)
    )


def test_a_page_holds_the_mixture_to_all_digits():
    covariances = torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.5, -0.2], [-0.2, 0.6]]]) / 3
    mixture = GaussianMixture(torch.tensor([0.3, 0.7]), torch.randn(2, 2), covariances)
    for element in (noised_mixture(mixture, alt="x"), sampling_paths(mixture, alt="x")):
        for name, value in data(element)["mixture"].items():
            assert torch.equal(torch.tensor(value), getattr(mixture, name))


@pytest.mark.parametrize(
    "build",
    [
        lambda: noised_mixture(None, alt="x"),
        lambda: sampling_paths(round_mixture(), schedule=Cosine(), alt="x"),
        lambda: sampling_paths(round_mixture(), schedule=LinearLogSNR, alt="x"),
    ],
)
def test_elements_refuse_other_kinds(build):
    with pytest.raises(TypeError, match="is expected"):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: noised_mixture(round_mixture(3), alt="x"), r"shape \(3,\); those of the plane"),
        (lambda: noised_mixture(round_mixture(), point=(3, 0), alt="x"), r"point is \(3, 0\)"),
        (lambda: noised_mixture(round_mixture(), log_snr=7, alt="x"), "log_snr is 7"),
        (lambda: sampling_paths(round_mixture(1), alt="x"), "of the plane"),
        (lambda: sampling_paths(round_mixture(), start=(0, -4), alt="x"), r"start is \(0, -4\)"),
        (lambda: sampling_paths(round_mixture(), steps=10, alt="x"), "steps is 10; one of 1, 2, 4"),
        (
            lambda: sampling_paths(
                round_mixture(), schedule=LinearLogSNR(5, -5, learned=True), alt="x"
            ),
            "ends of schedule are learned",
        ),
        (
            lambda: sampling_paths(round_mixture(), example=(0, 0), alt="x"),
            "a LinearPath is expected",
        ),
        (lambda: guided_gaussian(w=-1, alt="x"), "w is -1"),
        (lambda: guided_gaussian(own=(1.0, 1.5), alt="x"), "variances are 1.5 and 1"),
        (lambda: guided_gaussian(own=(1.0, 0.0), alt="x"), "variances are 0 and 1"),
        (lambda: gaussian_pair(p=(0, 0.1), alt="x"), "std of p is 0.1"),
        (lambda: gaussian_pair(q=(4, 1), alt="x"), "mean of q is 4"),
        (lambda: dirac_orbit(gamma=-1, alt="x"), "gamma is -1"),
        (lambda: dirac_orbit(start=(3, 0), alt="x"), r"start \(3, 0\)"),
        (lambda: receptive_field({}, alt="x"), "at least one model"),
        (lambda: receptive_field({"m": torch.ones(2, 3, 3, 2)}, alt="x"), "one shape"),
        (lambda: pixel_reveal(torch.ones(2, 2), torch.ones(4, 5), alt="x"), "are expected"),
        (lambda: pixel_reveal(torch.ones(1, 1), torch.ones(1, 1, 5), alt="x"), "do not sum to 1"),
        (
            lambda: pixel_reveal(torch.ones(1, 1), torch.full((1, 1, 5), torch.nan), alt="x"),
            "do not sum to 1",
        ),
    ],
)
def test_elements_refuse_what_they_cannot_show(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_glued_values_are_recorded_as_the_book_reads_them(monkeypatch):
    shown = []
    monkeypatch.setattr("course_lib.glue.display", lambda *a, **k: shown.append((a, k)))
    glue("answer", 42)
    glue("rounded", "1.50")
    ((content,), options) = shown[0]
    assert options["metadata"]["scrapbook"]["name"] == "answer"
    texts = [next(iter(content.values())) for ((content,), _) in shown]
    assert [ast.literal_eval(text) for text in texts] == ["42", "1.50"]  # as myst-nb reads them
    assert list(content) == ["application/papermill.record/text/plain"]

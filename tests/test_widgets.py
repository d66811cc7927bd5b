"""Interactive elements carry all that they need, and say what they show."""

import base64
import json
import re

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from course_lib.glue import glue
from course_lib.widgets import frame_slider, latent_plane


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
    assert "http" not in re.sub(r'"data:image[^"]*"', "", element.markup)
    assert repr(element) == "<slider over 3 figures: a line that grows steeper>"
    with pytest.raises(ValueError, match="empty"):
        frame_slider(None, [], label="x", alt="x")


def test_plane_holds_the_weights_of_the_decoder():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Dropout(0.1), nn.Linear(5, 6))
    element = latent_plane(
        decoder, image_shape=(2, 3), points=torch.zeros(4, 2), labels=torch.arange(4), alt="a plane"
    )
    layers = data(element)["layers"]
    value = torch.tensor([0.3, -1.2])
    for index, layer in enumerate(layers):
        weight, bias = (
            torch.frombuffer(bytearray(base64.b64decode(layer[name])), dtype=torch.float32)
            for name in ("weight", "bias")
        )
        value = weight.reshape(-1, layer["inputs"]) @ value + bias
        value = value.relu() if index < len(layers) - 1 else value
    torch.testing.assert_close(value, decoder.eval()(torch.tensor([0.3, -1.2])))


@pytest.mark.parametrize(
    "decoder",
    [
        nn.Sequential(nn.Linear(3, 6)),
        nn.Sequential(nn.Linear(2, 5)),
        nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 6)),
    ],
)
def test_plane_refuses_other_networks(decoder):
    with pytest.raises(ValueError, match=r"nn\.Linear and nn\.ReLU"):
        latent_plane(
            decoder, image_shape=(2, 3), points=torch.zeros(1, 2), labels=torch.zeros(1), alt="x"
        )


def test_glued_values_are_recorded_as_the_book_reads_them(monkeypatch):
    shown = []
    monkeypatch.setattr("course_lib.glue.display", lambda *a, **k: shown.append((a, k)))
    glue("answer", 42)
    ((content,), options) = shown[0]
    assert content == {"application/papermill.record/text/plain": "42"}
    assert options["metadata"]["scrapbook"]["name"] == "answer"

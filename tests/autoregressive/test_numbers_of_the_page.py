"""Numbers that the theory page states, from the library or by counting."""

import re
from pathlib import Path

import pytest

from course_lib.autoregressive import PixelCNN
from course_lib.autoregressive.wavenet import receptive_field
from tests.autoregressive.properties import jacobian

PAGE = Path(__file__).parents[2] / "book" / "autoregressive" / "theory.md"
TEXT = re.sub(r"\s+", " ", PAGE.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("kernel_size", "stated"),
    [(3, r"for $8\times8$ pixels at most {} in place of 64"), (7, "at most {} passes.")],
)
def test_passes_that_suffice_for_a_pixelcnn(kernel_size, stated):
    model = PixelCNN((1, 8, 8), 2, channels=6, n_layers=9, kernel_size=kernel_size)
    seen = jacobian(model) > 0
    longest = []
    for place in range(64):
        longest.append(1 + max((longest[j] for j in range(place) if seen[place, j]), default=0))
    assert stated.format(max(longest)) in TEXT


def test_layers_of_a_gated_pixelcnn_that_see_everything():
    # L = max(H, W) − ρ, which the receptive fields of small models confirm.
    radius = 7 // 2
    stated = r"{} layers for images of $8\times8$, and {} for $28\times28$"
    assert stated.format(8 - radius, 28 - radius) in TEXT


def test_layers_of_a_wavenet_that_see_a_second():
    layers = next(n for n in range(99) if receptive_field([2**i for i in range(n)]) >= 16_000)
    assert f"= {2**layers // 1000}{{,}}{2**layers % 1000}$: {layers} layers" in TEXT
    assert receptive_field([1] * 15_999) == 16_000
    assert "15,999 layers" in TEXT

"""The example of the README runs, and gives a Bernoulli decoder zeros and ones."""

import re
from pathlib import Path

import pytest
import torch

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def ran():
    """What the example leaves behind, and what it printed; with fewer steps and samples."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    for slow, quick in (("steps=2000", "steps=40"), ("k=500", "k=5")):
        assert code.count(slow) == 1
        code = code.replace(slow, quick)
    printed = []
    names = {"print": lambda *values: printed.append(values)}
    torch.manual_seed(0)
    exec(compile(code, "README.md", "exec"), names)
    return names, printed


def test_the_example_prints_a_log_likelihood(ran):
    ((value, unit),) = ran[1]
    assert unit == "nats per image"
    assert -64 < value.item() < 0


def test_the_example_gives_a_bernoulli_decoder_zeros_and_ones(ran):
    names, _ = ran
    for part in (names["train"], names["test"]):
        assert set(part.unique().tolist()) == {0.0, 1.0}
    assert len(names["train"]) == len(names["data"].train)
    assert len(names["test"]) == len(names["data"].test)

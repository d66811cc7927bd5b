"""The library on a device that is not the CPU: simulated here, since a GPU is seldom at hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from course_lib.experiments import RECIPES
from course_lib.flow.checks import MODELS, TRANSFORMS

from .autoregressive import properties
from .sharing import once

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def run_checks(folder: Path) -> None:
    command = [sys.executable, "-m", "tests.second_device.checks"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    (folder / "problems").write_text(ran.stdout)


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> dict[str, str | None]:
    """By check, what went wrong: in a process of its own, since the simulation changes torch."""
    found = once(tmp_path_factory, "second-device", run_checks) / "problems"
    return dict(json.loads(line) for line in found.read_text().splitlines())


def test_nothing_is_made_or_left_on_the_cpu(problems):
    assert {name: problem for name, problem in problems.items() if problem} == {}


def test_every_model_transform_and_recipe_is_among_the_checks(problems):
    assert set(properties.MODELS) | set(MODELS) <= set(problems)
    assert {f"transform {name}" for name in TRANSFORMS} <= set(problems)
    assert {f"recipe {' '.join(key)}" for key in RECIPES if key[0] == "digits"} <= set(problems)
    assert {"what is mixed is noticed", "every model of a family"} <= set(problems)

"""What follows of itself once a family is entered: run in a copy of the repository, prints JSON.

python -m tests.families.report
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import course_lib

ROOT = Path.cwd()
assert Path(course_lib.__file__).parents[1] == ROOT, "the library of the copy is meant"
sys.path += [str(ROOT / "book" / "_ext")]

import tested_equations  # noqa: E402
import torch  # noqa: E402

from benchmarks import accelerator  # noqa: E402
from course_lib.command_line import main  # noqa: E402
from course_lib.data import digits  # noqa: E402
from course_lib.experiments import find_recipe, read_records  # noqa: E402
from course_lib.experiments.running import build  # noqa: E402
from course_lib.experiments.tables import digits_rows  # noqa: E402
from course_lib.families import FAMILIES  # noqa: E402
from course_lib.grading.box import room  # noqa: E402
from tests import test_architecture as architecture  # noqa: E402
from tests.book.families import missing_pieces, undescribed  # noqa: E402


def broken_rule(text: str) -> str | None:
    """What the architecture test says to a module of that text in the new family."""
    path = ROOT / "course_lib" / "dummy" / "other.py"
    path.write_text(text, encoding="utf-8")
    try:
        architecture.test_imports_run_downwards(path)
    except AssertionError as error:
        return str(error).splitlines()[0]
    finally:
        path.unlink()
    return None


def second_device() -> dict:
    """The checks on another device: to be asked last, since the simulated device changes torch."""
    from tests.second_device import checks

    return {"names": list(checks.CHECKS), "unmoved": checks.unmoved()}


def report() -> dict:
    """All that follows."""
    folders = ["--results", "new-results", "--checkpoints", "new-checkpoints"]
    status = main(["train", "Dummy", "--quiet", *folders])
    (record,) = read_records(ROOT / "new-results")
    _, recipe = find_recipe("digits", "Dummy")
    data = digits()
    torch.manual_seed(0)
    model = build("Dummy", data, recipe)
    with room("none") as made:
        seen = sorted(path.name for path in (made.folder / "course_lib").iterdir())
    architecture.test_every_package_that_is_a_family_is_in_the_list()
    return {
        "status": status,
        "record": asdict(record),
        "row": next(row for row in digits_rows([record]) if row[0] == "Dummy"),
        "seen": seen,
        "rules": {
            text: broken_rule(text)
            for text in (
                "import torch",
                "from course_lib import vae",
                "from course_lib.experiments import RECIPES",
                "from course_lib.families import FAMILIES",
            )
        },
        "counted": tested_equations.count_models(),
        "missing": missing_pieces(FAMILIES["dummy"], ROOT),
        "undescribed": sorted(m for m in undescribed(()) if m.startswith("dummy.")),
        "scored": len(accelerator.score(model, recipe, data.test[:5], "float32")),
        "timed": [key for key in accelerator.RECIPES if key[1] == "Dummy"],
    }


if __name__ == "__main__":
    print(json.dumps({**report(), "checks": second_device()}))

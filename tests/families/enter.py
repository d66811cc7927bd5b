"""A copy of the repository that has one family more, entered as CONTRIBUTING says."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
DUMMY = Path(__file__).with_name("dummy")
# What is read beside the library and the tests.
COPIED = ("course_lib", "tests", "benchmarks", "book", "_toc.yml", "_config.yml", "README.md")


def enter(copy: Path) -> list[str]:
    """Make the copy; return the files of the library that were changed or added in it."""
    ignored = shutil.ignore_patterns("__pycache__", "*.ipynb", ".hypothesis")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    shutil.copytree(DUMMY, copy / "course_lib" / "dummy", ignore=ignored)
    touched = [f"course_lib/dummy/{path.name}" for path in sorted(DUMMY.glob("*.py"))]
    for file, right, changed in (
        (
            "families.py",
            "(AUTOREGRESSIVE, VAE, GAN, FLOW, DIFFUSION, FLOW_MATCHING)",
            "(AUTOREGRESSIVE, VAE, GAN, FLOW, DIFFUSION, FLOW_MATCHING, DUMMY)",
        ),
        (
            "families.py",
            "from course_lib.family import Family\n",
            "from course_lib.dummy.family import FAMILY as DUMMY\n"
            "from course_lib.family import Family\n",
        ),
        (
            "experiments/recipes.py",
            "\n\ndef find_recipe",
            "\nfrom course_lib.dummy.family import DummyRecipe\n"
            'RECIPES["digits", "Dummy", "60s"] = DummyRecipe(20, 32, 1e-2, evaluations=2)\n'
            'RECIPES["mnist", "Dummy", "gpu"] = DummyRecipe(20, 32, 1e-2, evaluations=2)\n'
            "\n\ndef find_recipe",
        ),
    ):
        path = copy / "course_lib" / file
        text = path.read_text(encoding="utf-8")
        assert text.count(right) == 1, (file, right)
        path.write_text(text.replace(right, changed), encoding="utf-8")
        touched.append(f"course_lib/{file}")
    return sorted(set(touched))

"""pyproject.toml, environment.yml and constraints.txt say the same about the dependencies."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"pytorch": "torch"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUN_TIME = {r.name: r for r in map(Requirement, PROJECT["dependencies"])}
EVERYTHING = RUN_TIME | {
    r.name: r
    for extra in PROJECT["optional-dependencies"].values()
    for r in map(Requirement, extra)
    if r.name != PROJECT["name"]
}
PINNED = {
    r.name.lower(): r
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
    for r in [Requirement(line)]
}


def test_the_package_declares_lower_bounds_only():
    for requirement in RUN_TIME.values():
        assert [s.operator for s in requirement.specifier] == [">="], requirement


def test_hosted_notebooks_satisfy_the_bounds():
    """Versions of today's hosted notebooks: installing the package must replace none of them."""
    hosted = {
        "torch": "2.11.0", "numpy": "2.1.0", "matplotlib": "3.10.0", "scikit-learn": "1.6.0",
        "ipywidgets": "7.7.0", "pooch": "1.8.0", "tqdm": "4.66.0", "seaborn": "0.13.2",
        "ipython": "7.34.0", "pillow": "11.0.0", "sympy": "1.13.0", "scipy": "1.14.0",
    }  # fmt: skip
    for name, version in hosted.items():
        assert RUN_TIME[name].specifier.contains(version), name


def test_the_conda_environment_has_the_same_bounds():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    listed = [e for e in entries if isinstance(e, str) and not e.startswith(("python>", "pip"))]
    listed += [entry for entry in pip if not entry.startswith("-e")]
    conda = {}
    for entry in map(Requirement, listed):
        conda[CONDA_NAMES.get(entry.name, entry.name)] = str(entry.specifier)
    assert conda == {name: str(r.specifier) for name, r in RUN_TIME.items()}
    assert f"python{PROJECT['requires-python']}" in entries


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_every_dependency_is_pinned_within_its_bound(name):
    specifier = PINNED[name.lower()].specifier
    (pin,) = specifier
    assert pin.operator == "=="
    assert EVERYTHING[name].specifier.contains(Version(pin.version))


def test_torch_is_pinned_nowhere_else():
    for path in ROOT.rglob("*"):
        relative = path.relative_to(ROOT)
        if path.suffix in {".toml", ".yml", ".yaml", ".cfg"} and relative.parts[0][0] != ".":
            assert "torch==" not in path.read_text(encoding="utf-8"), relative

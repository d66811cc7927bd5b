"""The list of families: every part of the course reads it, and a new family is in all of them at once."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace

import pytest
from torch import nn

from course_lib.data import digits
from course_lib.experiments import RECIPES, STUDIES
from course_lib.experiments.running import build
from course_lib.families import FAMILIES, find_family
from course_lib.family import Family, Recipe
from tests.book.families import missing_pieces
from tests.families.enter import ROOT, enter


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_a_family_has_all_its_pieces(family):
    missing = missing_pieces(family, ROOT)
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_the_models_of_a_family_are_public_names_of_its_package(family):
    assert family.models
    for model in family.models:
        assert issubclass(model, nn.Module)
        assert getattr(family.package, model.__name__) is model
        assert model.__name__ in family.package.__all__
        assert family.model(model.__name__) is model


def test_every_family_is_measured():
    measured = {recipe.family for recipe in RECIPES.values()}
    measured |= {study.family for study in STUDIES.values()}
    assert measured == set(FAMILIES)
    for recipe in RECIPES.values():
        assert isinstance(recipe, FAMILIES[recipe.family].recipe)


def test_an_unknown_family_is_an_error():
    known = "one of autoregressive, vae, gan, flow, diffusion, flow_matching is expected"
    with pytest.raises(ValueError, match=f"no family 'energy'; {known}"):
        find_family("energy")

    @dataclass(frozen=True)
    class Unknown(type(RECIPES["digits", "MADE", "60s"])):
        family: str = field(default="energy", init=False)

    with pytest.raises(ValueError, match=known):
        build("MADE", digits(), Unknown(1, 1, 1.0))
    # Nor can a recipe be given another family, or none.
    with pytest.raises((TypeError, ValueError)):
        replace(RECIPES["digits", "MADE", "60s"], family="flow")
    with pytest.raises(TypeError):
        Recipe(1, 1, 1.0)


def test_an_unknown_model_is_an_error():
    with pytest.raises(ValueError, match=r"'vae' has no model 'MADE'; one of Autoencoder.* VAE"):
        build("MADE", digits(), RECIPES["mnist", "VAE", "cpu"])


def test_a_family_and_its_recipes_have_the_same_name():
    with pytest.raises(ValueError, match="'energy' name the family 'flow'"):
        Family("energy", "Energy", (), FAMILIES["flow"].recipe)


@pytest.fixture(scope="module")
def entered(tmp_path_factory):
    """The files that a new family has touched, and what followed."""
    copy = tmp_path_factory.mktemp("course")
    touched = enter(copy)
    # A process with the library of the copy, which takes seconds: the tests that need it are marked slow.
    ran = subprocess.run(
        [sys.executable, "-m", "tests.families.report"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return touched, json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_new_family_touches_two_files_of_the_library_beside_its_own(entered):
    touched, _ = entered
    assert [name for name in touched if not name.startswith("course_lib/dummy/")] == [
        "course_lib/experiments/recipes.py",
        "course_lib/families.py",
    ]


@pytest.mark.slow
def test_a_new_family_is_built_trained_measured_and_recorded(entered):
    _, report = entered
    assert report["status"] == 0
    record = report["record"]
    assert record["model"] == "Dummy"
    assert record["settings"]["family"] == "dummy"
    assert record["settings"]["weight"] == 1.0
    assert list(record["metrics"]) == ["dummy_measure"]
    assert 2 < record["metrics"]["dummy_measure"]["value"] < 4.1  # log2 of 17 levels is 4.09
    assert report["row"][3] == "dummy measure"
    assert report["scored"] == 5
    assert ["mnist", "Dummy", "gpu"] in report["timed"]


@pytest.mark.slow
def test_a_new_family_is_checked_on_a_second_device(entered):
    _, report = entered
    assert "recipe digits Dummy 60s" in report["checks"]["names"]
    assert "dummy.Dummy" in report["checks"]["unmoved"]  # until that check has run


@pytest.mark.slow
def test_a_new_family_is_hidden_from_students(entered):
    _, report = entered
    assert "training" in report["seen"]
    assert not {"dummy", "families.py", *FAMILIES} & set(report["seen"])


@pytest.mark.slow
def test_a_new_family_obeys_the_rules_of_imports(entered):
    _, report = entered
    allowed, family, *above = report["rules"].values()
    assert allowed is None
    assert family == "a family imports another family"
    assert set(above) == {"a model or a shared module imports a tool above it"}


@pytest.mark.slow
def test_a_new_family_is_counted_and_what_it_lacks_is_named(entered):
    _, report = entered
    assert report["undescribed"] == ["dummy.Dummy"]
    for piece in (
        "book/dummy/theory.md does not exist",
        "book/reference/api/dummy.md does not exist",
        "assignments/dummy/questions.py does not exist",
        "tests/dummy holds no test",
        "_toc.yml lacks 'book/dummy/theory'",
        "README.md lacks '(book/dummy/theory.md)'",
    ):
        assert piece in report["missing"]
    from tested_equations import count_models

    assert report["counted"] == count_models() + 1

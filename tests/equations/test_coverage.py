"""Every labelled equation has its test, and every test its equation."""

import importlib

import pytest
from equation_labels import ROOT, book_labels, equation_tests

LABELS, TESTS = book_labels(), equation_tests()


def test_every_labelled_equation_has_a_test():
    untested = {label: page for label, page in LABELS.items() if label not in TESTS}
    assert not untested, f"no test is marked with these labels: {untested}"


def test_every_test_names_a_labelled_equation():
    unknown = {label: test.file for label, test in TESTS.items() if label not in LABELS}
    assert not unknown, f"no page of the book shows these labels: {unknown}"


@pytest.mark.parametrize("test", TESTS.values(), ids=lambda test: test.label)
def test_every_equation_is_perturbed_and_its_function_exists(test):
    assert test.wrong, f"{test.name} in {test.file} names no wrong version to tell apart"
    if test.implemented_by:
        module, _, name = test.implemented_by.rpartition(".")
        try:
            owner = importlib.import_module(module)
        except ModuleNotFoundError:  # a method: the class is one level up
            module, _, owner_name = module.rpartition(".")
            owner = getattr(importlib.import_module(module), owner_name)
        assert callable(getattr(owner, name))


def test_labels_are_read_from_pages_and_a_missing_test_is_noticed(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "book" / "page.md").write_text(
        "$$\nx = 1\n$$ (eq-x)\n\n```{math}\n:label: eq-y\n```\n"
    )
    (tmp_path / "tests" / "test_x.py").write_text(
        "import pytest\n\n"
        '@pytest.mark.equation("eq-x", formula=1, wrong={"two": 2})\n'
        "def test_x(formula): ...\n"
    )
    assert set(book_labels(tmp_path)) == {"eq-x", "eq-y"}
    assert set(equation_tests(tmp_path)) == {"eq-x"}
    assert equation_tests(tmp_path)["eq-x"].wrong == ("two",)


def test_root_is_the_repository():
    assert (ROOT / "_config.yml").exists()

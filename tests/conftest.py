"""One process, one thread, float64 where a test asks for it; and the tests of equations.

A test of a displayed equation is marked

    @pytest.mark.equation(
        "eq-kl-univariate",
        formula=kl_univariate_gaussian,
        wrong={"half dropped": ..., "arguments swapped": ...},
        implemented_by="course_lib.divergences.kl_univariate_gaussian",
    )
    def test_kl_univariate(formula): ...

and compares `formula`, the claim as the book states it, with a route that is independent of it.
It runs once with the formula, and must pass; and once with each of the wrong ones, and must
then fail: a test that cannot tell a dropped factor from the truth is itself reported.
"""

import pytest
import torch

torch.set_num_threads(1)
# A minute and more each. Processes that share the tests take from one another while there are any: what
# takes long is begun first, so that none of them is left with it at the end.
LONG = (
    "tests/test_second_device.py",
    "tests/grading/test_masters.py",
    "tests/experiments/test_processes.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("equation")
    if mark is None:
        return
    cases = [pytest.param(mark.kwargs["formula"], id="claim")]
    for name, wrong in mark.kwargs["wrong"].items():
        cases.append(pytest.param(wrong, id=f"wrong: {name}"))
    metafunc.parametrize("formula", cases)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    if "[wrong: " not in pyfuncitem.name:
        return (yield)
    try:
        yield
    except AssertionError:
        return True
    pytest.fail(f"{pyfuncitem.name}: the perturbed equation passed the test of the right one")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def float64() -> None:
    """Make float64 the default type for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)

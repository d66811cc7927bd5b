"""Whatever is passed to a public function: a result, or an error that names it and what is expected."""

import importlib
import inspect
import re
import traceback
import warnings
from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from course_lib import autoregressive, diffusion, flow, flow_matching, gan, training, vae
from tests.contract import CASES, Case, wrong

ARGUMENTS = [
    (name, argument)
    for name, case in CASES.items()
    for argument in case.arguments
    if argument not in case.free
]
# Types, objects, and a class whose arguments `fit` looks at.
NO_CASE = {
    "flow": {"AutoregressiveTransform"},  # what is common to two layers, which have cases
    "gan": {"HINGE", "MINIMAX", "NON_SATURATING", "RELATIVISTIC", "WASSERSTEIN"},
    "training": {"Batch", "Loss", "LossTerms", "BatchTransform", "TrainingError", "Player"},
}


@pytest.mark.parametrize(
    "package", [vae, gan, autoregressive, flow, diffusion, flow_matching, training]
)
def test_everything_public_has_a_case(package):
    short = package.__name__.removeprefix("course_lib.")
    called = {name.split(" ")[0].split(".")[1] for name in CASES if name.startswith(f"{short}.")}
    public = {name for name in package.__all__ if not inspect.ismodule(getattr(package, name))}
    assert public - called == NO_CASE.get(short, set())


@pytest.mark.parametrize(
    "module",
    [
        "classifier",
        "data",
        "distributions",
        "divergences",
        "evaluation",
        "interpolation",
        "mmd",
        "plotting",
    ],
)
def test_every_function_of_a_shared_module_has_a_case(module):
    members = vars(importlib.import_module(f"course_lib.{module}"))
    public = {
        name
        for name, value in members.items()
        if inspect.isfunction(value)
        and value.__module__ == f"course_lib.{module}"
        and not name.startswith("_")
    }
    # These take nothing that could be wrong, or too long.
    public -= {"data_folder", "mnist", "train_classifier", "use_style"}
    called = {name.split(" ")[0].split(".")[1] for name in CASES if name.startswith(f"{module}.")}
    assert public - called == set()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_a_wrong_argument_is_named(name, argument):
    case = CASES[name]
    faults = []
    for what, value in wrong(case.arguments[argument]):
        fault = _fault(case, argument, what, value)
        if fault:
            faults.append(f"{what}: {fault}")
    plt.close("all")
    assert not faults, f"{name}({argument}=…)\n" + "\n".join(faults)


def _fault(case: Case, argument: str, what: str, value: object) -> str | None:
    """What is wrong with how a call goes; None for a result without NaN, or an error that helps."""
    try:
        result = case.call(**case.arguments | {argument: value})
    except (TypeError, ValueError) as error:
        text = str(error)
        file = traceback.extract_tb(error.__traceback__)[-1].filename
        # A number of examples may disagree with the labels, which are then named.
        names = {argument, case.inner or argument, "labels" if argument == "n" else argument}
        if not any(re.search(rf"(?<![a-zA-Z]){re.escape(name)}(?![a-z])", text) for name in names):
            return f"{argument} is not named: {text}"
        if "expected" not in text:
            return f"what is expected is not said: {text}"
        if "course_lib" not in file:
            return f"raised by chance, in {file}: {text}"
    except training.TrainingError as error:  # names the term, and what to try
        return None if "became NaN" in str(error) else str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    else:
        if what == "text":
            return "accepted"
        # What holds no number yields none; that is not hidden.
        allowed = {"NaN", "nan", "infinity"} | ({"huge"} if case.overflows else set())
        if what not in allowed and any(map(_holds_nan, _tensors_in(result))):
            return "the result holds NaN"
    return None


def _tensors_in(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors_in(part)
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))
    elif isinstance(value, Distribution):
        yield value.mean


def _holds_nan(tensor: Tensor) -> bool:
    return bool(tensor.is_floating_point() and tensor.isnan().any())


TENSORS = [
    (name, argument)
    for name, argument in ARGUMENTS
    if isinstance(CASES[name].arguments[argument], Tensor)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "argument"), TENSORS)
def test_how_a_tensor_lies_in_memory_does_not_matter(name, argument):
    case = CASES[name]
    right = case.arguments[argument]
    apart = torch.stack([right, right], -1)[..., 0]
    variants = [apart]
    if right.is_floating_point():
        variants.append(right.clone().requires_grad_())
    expected = _called(case, {})
    for variant in variants:
        given = _called(case, {argument: variant})
        assert len(given) == len(expected)
        for a, b in zip(given, expected, strict=True):
            torch.testing.assert_close(a.detach(), b.detach())


def _called(case: Case, other: dict) -> list[Tensor]:
    torch.manual_seed(0)
    generator = case.arguments.get("generator")
    if isinstance(generator, torch.Generator):
        generator.manual_seed(0)
    with warnings.catch_warnings():
        result = case.call(**case.arguments | other)
    plt.close("all")
    return list(_tensors_in(result))

"""Why numbers can be wrong although the formula is right: precision, overflow, saturation."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from course_lib.checking.answers import Arrays
from course_lib.checking.compare import agree, structure_fault
from course_lib.checking.public import Case

STABLE = (
    "use logsigmoid(x) for log(sigmoid(x)), softplus(x) for log(1 + exp(x)), logsumexp or log_softmax "
    "for the logarithm of a sum of exponentials"
)


def suspicion(results: Sequence[Arrays], cases: Sequence[Case]) -> str | None:
    """What of the arithmetic may be the cause of wrong results; ``None`` if nothing points to it.

    Args:
        results: what was answered, one for each case.
        cases: the probes with what is expected.
    """
    given = [_values(result, case) for result, case in zip(results, cases, strict=True)]
    if any(pair is None for pair in given):
        return None  # another shape: not a matter of arithmetic
    infinite = [not np.isfinite(found).all() for found, _ in given]
    wrong = [
        not agree(result, case.expected, case.tolerance)
        for result, case in zip(results, cases, strict=True)
    ]
    single = [
        any(isinstance(x, np.ndarray) and x.dtype == np.float32 for x in case.inputs)
        for case in cases
    ]
    half = any(value.dtype == np.float16 for result in results for value in result.values())
    if any(infinite):
        where = " in float32" if all(s for s, i in zip(single, infinite, strict=True) if i) else ""
        if half:
            return "the result is float16, which ends at 65504: compute in the type of the inputs"
        return (
            f"a number on the way is too large or too small{where}, or 0 is divided by 0: {STABLE}"
        )
    imprecise = _imprecision(given, wrong)
    if imprecise:
        return imprecise
    if any(single) and all(s for s, w in zip(single, wrong, strict=True) if w) and not all(single):
        return (
            "it is right in float64 and wrong in float32, where digits are lost or numbers get too "
            f"large or too small on the way: {STABLE}"
        )
    return _saturation(given, cases)


def _values(result: Arrays, case: Case) -> tuple[np.ndarray, np.ndarray] | None:
    """Given and expected numbers of one case, flat; None if they cannot be compared."""
    numbers = {
        name: np.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0)
        for name, value in result.items()
        if value.dtype.kind in "biuf"
    }
    if structure_fault(numbers, case.expected) is not None:
        return None
    return (
        _flat(result[name] for name in case.expected),
        _flat(case.expected[name] for name in case.expected),
    )


def _flat(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(part.astype(np.float64).ravel() for part in parts)])


def _imprecision(
    given: Sequence[tuple[np.ndarray, np.ndarray]], wrong: Sequence[bool]
) -> str | None:
    """Whether all is nearly right, and how many digits there are."""
    errors = [
        np.abs(found - right).max(initial=0) / max(np.abs(right).max(initial=0), 1e-300)
        for found, right in given
    ]
    if max(errors) > 0.02:
        return None
    values = np.concatenate(
        [found for (found, _), bad in zip(given, wrong, strict=True) if bad] or [np.zeros(0)]
    )
    # The coarser one first: most of its values are values of the other one, too.
    for name, kind in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        rounded = torch.from_numpy(values).to(kind).double().numpy()
        if np.array_equal(rounded, values):
            return f"the precision looks like {name}'s: compute in the type of the inputs"
    what = f"it is nearly right (to {max(errors):.1g} of the largest value)"
    if np.array_equal(values.astype(np.float32), values) and max(errors) < 1e-3:
        return f"{what}: the precision looks like float32's; compute in the type of the inputs"
    return (
        f"{what}: a constant with few digits, an added epsilon, or a lower precision than that of the "
        "inputs on the way?"
    )


def _saturation(
    given: Sequence[tuple[np.ndarray, np.ndarray]], cases: Sequence[Case]
) -> str | None:
    """Whether different values are all answered by the same one, and others rightly."""
    margins = [
        max(
            case.tolerance.atol + case.tolerance.rtol * np.abs(value).max(initial=0)
            for value in case.expected.values()
        )
        for case in cases
    ]
    off = [np.abs(f - r) > m for (f, r), m in zip(given, margins, strict=True)]
    found, right = (
        np.concatenate([pair[k][o] for pair, o in zip(given, off, strict=True)]) for k in (0, 1)
    )
    if found.size < 2 or all(o.all() for o in off):  # a constant answers everything
        return None
    common = np.median(found)
    alike = np.abs(found - common) <= 1e-3 * abs(common)
    if (
        not common
        or alike.sum() < max(2, found.size / 2)
        or np.ptp(right[alike]) <= 1e-2 * np.abs(right).max()
    ):
        return None
    return (
        f"different values are all answered by {common:.4g}: something is clamped, or an epsilon is "
        f"added inside a logarithm; {STABLE}"
    )

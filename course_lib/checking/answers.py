"""From what a student wrote (a function, an expression, a number) to plain arrays.

Every answer is reduced to a mapping from labels to NumPy arrays before anything is compared, so
that no comparison ever calls a method of an object that the student made.
"""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Arrays = dict[str, np.ndarray]
KINDS = ("function", "expression", "value")


class NotAnswered(Exception):
    """The question still holds its placeholder."""


def as_function(answer: Any, kind: str, symbols: Sequence[str] = ()) -> Callable[..., Any]:
    """Turn an answer into a function of the probe's inputs.

    Args:
        answer: a callable; a SymPy expression or a string that is one; or a value.
        kind: ``"function"``, ``"expression"`` or ``"value"``.
        symbols: the names of an expression's variables, in the order of the inputs.

    Raises:
        NotAnswered: the answer is still ``None`` or ``...``.
        TypeError: the answer is of another kind than the question asks for.
        ValueError: an expression cannot be read, or uses other names than `symbols`.
    """
    if answer is None or answer is ...:
        raise NotAnswered
    if kind == "value":
        return lambda: answer
    if kind == "function":
        if not callable(answer):
            raise TypeError(f"a function is expected, and {type(answer).__name__} was given")
        return _returning(answer)
    return _lambdified(answer, symbols)


def _returning(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; a forgotten ``return`` is an error in it, and no placeholder."""

    def answer(*inputs: Any) -> Any:
        result = function(*inputs)
        if result is None:
            raise TypeError("the function returned None (is its `return` missing?)")
        if isinstance(result, (tuple, list)) and any(part is None for part in result):
            raise TypeError(
                "the function returned None as one of its results (the .grad of a tensor that is not "
                "leaf is None)"
            )
        return result

    return answer


def _lambdified(expression: Any, symbols: Sequence[str]) -> Callable[..., Any]:
    import sympy
    from sympy.concrete.expr_with_limits import ExprWithLimits
    from sympy.core.function import AppliedUndef

    from course_lib.checking import expressions

    shown = reprlib.repr(expression)
    try:
        if isinstance(expression, str):
            found = expressions.read(expression, symbols)
        else:
            found = sympy.sympify(expression, strict=True)
    except (sympy.SympifyError, expressions.Unreadable) as error:
        reason = str(error) if isinstance(expression, str) else "it is not an expression"
        raise ValueError(
            f"the expression {shown} cannot be read: {reason}. Write it as in 2 * log(x) + y: "
            f"products with *, and the arguments of functions in parentheses"
        ) from error
    if not isinstance(found, sympy.Expr):
        comma = "; decimals have a point, not a comma" if isinstance(found, tuple) else ""
        raise TypeError(
            f"one expression is expected, and a {type(found).__name__} was given{comma}"
        )
    # Bounds may be infinite; what stands between them may not.
    bare = found.replace(lambda e: isinstance(e, ExprWithLimits), lambda e: e.function)
    if bare.has(sympy.zoo, sympy.nan):
        raise ValueError(f"the expression {shown} is undefined: it divides by 0")
    if bare.has(sympy.oo, -sympy.oo):
        raise ValueError(f"the expression {shown} is infinite")
    # A student may have declared symbols with assumptions (positive=True), or as σ: the name decides.
    known = {s: expressions.read(s.name, symbols) for s in found.free_symbols}
    unknown = sorted(
        [s.name for s, read in known.items() if str(read) not in symbols]
        + [str(function.func) for function in found.atoms(AppliedUndef)]
    )
    if unknown:
        raise ValueError(
            f"the expression uses {', '.join(unknown)}; the variables are {', '.join(symbols)}"
        )
    found = found.subs(known)
    found = found.replace(
        lambda e: isinstance(e, (sympy.Derivative, sympy.Limit)), lambda e: e.doit()
    )
    variables = [sympy.Symbol(name) for name in symbols]
    if found.has(ExprWithLimits):
        pointwise = np.vectorize(_at_a_point(found, variables), otypes=[float])
        return lambda *inputs: pointwise(*map(_array, inputs))
    function = sympy.lambdify([variables], found, ["scipy", "numpy"])
    # A constant expression would otherwise come back without the shape of the inputs.
    return lambda *inputs: function([_array(x) for x in inputs]) + 0 * sum(map(_array, inputs))


def _at_a_point(expression: Any, variables: Sequence[Any]) -> Callable[..., float]:
    """A function of numbers for an expression with integrals, sums or products."""
    import sympy

    def exactly(*point: float) -> float:
        # The numbers become rational: with floating ones SymPy sums some series wrongly.
        value = expression.subs(dict(zip(variables, map(sympy.Rational, point), strict=True)))
        number = value.evalf()
        return float(number if number.is_real else value.doit().evalf())

    if expression.has(sympy.Sum, sympy.Product):
        return lambda *point: exactly(*map(float, point))
    function = sympy.lambdify([variables], expression, ["scipy", "numpy"])

    def quickly(*point: float) -> float:
        try:  # SciPy's quadrature, where it knows all of the functions
            return float(function(point))
        except Exception:
            return exactly(*map(float, point))

    return quickly


def as_arrays(result: Any, label: str = "") -> Arrays:
    """Reduce a result to arrays: one, also for a list or tuple of numbers; else several.

    Raises:
        NotAnswered: the result is ``None``.
        TypeError: something in the result is not a number, array or tensor.
    """
    if result is None or result is ...:
        raise NotAnswered
    if isinstance(result, Mapping):
        return {
            name: value
            for key, item in result.items()
            for name, value in as_arrays(item, _join(label, str(key))).items()
        }
    if isinstance(result, (tuple, list)):
        labels = [_join(label, str(index)) for index in range(len(result))]
        parts = map(as_arrays, result, labels)
        several = {name: value for part in parts for name, value in part.items()}
        if list(several) == labels:
            numbers = list(several.values())
            if all(number.shape == () for number in numbers):
                return {label: np.array(numbers)}
        return several
    return {label: _array(result)}


def _join(label: str, part: str) -> str:
    return f"{label}.{part}" if label else part


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu().to_dense()
        value = value.to(torch.float32) if value.dtype == torch.bfloat16 else value
        # Torch may only have noted that values are to be conjugated or negated.
        return np.array(value.resolve_conj().resolve_neg().numpy())
    if isinstance(value, (np.ndarray, np.generic, bool, int, float, complex)):
        array = np.array(value)
        if array.dtype.kind in "biufc":
            return array
    if hasattr(value, "is_number") and value.is_number:  # an exact number of SymPy
        return np.array(float(value))
    raise TypeError(
        f"numbers, arrays or tensors are expected, and {type(value).__name__} was given"
    )

"""From what a student wrote (a function, an expression, a number) to plain arrays.

Every answer is reduced to a mapping from labels to NumPy arrays before anything is compared, so
that no comparison ever calls a method of an object that the student made.
"""

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
                "the function returned None as one of its results (the .grad of a tensor that is no "
                "leaf is None)"
            )
        return result

    return answer


def _lambdified(expression: Any, symbols: Sequence[str]) -> Callable[..., Any]:
    import sympy

    variables = {name: sympy.Symbol(name) for name in symbols}
    try:
        read = sympy.sympify(expression, locals=dict(variables))
    except (sympy.SympifyError, SyntaxError, TypeError, AttributeError) as error:
        reason = str(getattr(error, "base_exc", None) or error)
        raise ValueError(
            f"the expression {expression!r} cannot be read: {reason}. Write it as in 2 * log(x) + y: "
            f"products with *, and log(x) rather than np.log(x)"
        ) from error
    # A student may have declared symbols with assumptions (positive=True): the name decides.
    if not isinstance(read, sympy.Expr):
        raise TypeError(f"one expression is expected, and a {type(read).__name__} was given")
    if read.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        raise ValueError(
            f"the expression {expression!r} is infinite or undefined, as it divides by 0"
        )
    unknown = sorted({s.name for s in read.free_symbols} - set(symbols))
    if unknown:
        raise ValueError(
            f"the expression uses {', '.join(unknown)}; the variables are {', '.join(symbols)}"
        )
    read = read.subs({s: variables[s.name] for s in read.free_symbols})
    evaluate = sympy.lambdify([variables[name] for name in symbols], read, "numpy")
    # A constant expression would otherwise come back without the shape of the inputs.
    return lambda *inputs: evaluate(*(_array(x) for x in inputs)) + 0 * sum(map(_array, inputs))


def as_arrays(result: Any, label: str = "") -> Arrays:
    """Reduce a result to arrays: one, also for a list or tuple of numbers; else several.

    Raises:
        NotAnswered: the result is ``None``.
        TypeError: something in the result is no number, array or tensor.
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
        value = value.detach().cpu()
        value = value.to(torch.float32) if value.dtype == torch.bfloat16 else value
        return np.array(value.resolve_conj().numpy())
    if isinstance(value, (np.ndarray, np.generic, bool, int, float, complex)):
        array = np.array(value)
        if array.dtype.kind in "biufc":
            return array
    if hasattr(value, "is_number") and value.is_number:  # an exact number of SymPy
        return np.array(float(value))
    raise TypeError(
        f"numbers, arrays or tensors are expected, and {type(value).__name__} was given"
    )

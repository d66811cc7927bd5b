"""Formulas that Python and a page's script compute alike.

A formula is written as in Python, ``(s**2 + m**2 - 1) / 2 - log(s)``, and becomes a tree of lists:
``["/", …]``, the name of a value, or a number. The tree is JSON; ``_static/self-checks.js`` evaluates it
with the same operations as `evaluate` does here. A test compares the two.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping

Tree = float | str | list

OPERATORS: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.Mod: "%",
}
FUNCTIONS: dict[str, Callable[..., float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "%": operator.mod,
    "neg": operator.neg,
    "log": math.log,
    "log2": math.log2,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "abs": abs,
    "tanh": math.tanh,
    "floor": math.floor,
    "ceil": math.ceil,
    "min": min,
    "max": max,
}
CONSTANTS = {"pi": math.pi}


def parse(text: str | float) -> Tree:
    """The tree of a formula.

    Args:
        text: numbers, names, ``+ - * / ** %``, parentheses and the functions of `FUNCTIONS`.

    Returns:
        The tree.

    Raises:
        ValueError: anything else stands in it.
    """
    try:
        return _converted(ast.parse(str(text).strip(), mode="eval").body)
    except (SyntaxError, TypeError) as error:
        raise ValueError(f"{text!r} is no formula: {error}") from None


def _converted(node: ast.expr) -> Tree:
    match node:
        case ast.Constant(value=int() | float()):
            return float(node.value)
        case ast.Name():
            return node.id
        case ast.UnaryOp(op=ast.USub()):
            return ["neg", _converted(node.operand)]
        case ast.BinOp() if type(node.op) in OPERATORS:
            return [OPERATORS[type(node.op)], _converted(node.left), _converted(node.right)]
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
            return [name, *map(_converted, node.args)]
    raise TypeError(f"{ast.unparse(node)!r} is not understood")


def names(tree: Tree) -> set[str]:
    """The names of values that a formula uses."""
    if isinstance(tree, str):
        return set() if tree in CONSTANTS else {tree}
    return set().union(*map(names, tree[1:])) if isinstance(tree, list) else set()


def evaluate(tree: Tree, values: Mapping[str, float]) -> float:
    """The value of a formula.

    Args:
        tree: from `parse`.
        values: the numbers by their names.

    Returns:
        Its value.
    """
    if isinstance(tree, str):
        return CONSTANTS[tree] if tree in CONSTANTS else float(values[tree])
    if isinstance(tree, list):
        return FUNCTIONS[tree[0]](*(evaluate(part, values) for part in tree[1:]))
    return tree

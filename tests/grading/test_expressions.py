"""Expressions are read as they are written by hand, mean one thing, and give the right numbers."""

import contextlib
import math

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.checking.answers import as_function
from course_lib.checking.expressions import Unreadable, read

NAMES = ("x", "y", "sigma_p", "mu", "theta", "lambda")
POINT = {"x": 0.7, "y": 1.9, "sigma_p": 0.6, "mu": 0.3, "theta": 1.2, "lambda": 2.5}


def value(expression, names=NAMES):
    point = [np.array([POINT.get(name, 1.7)]) for name in names]
    (found,) = as_function(expression, "expression", names)(*point)
    return found


x, y, s, mu, theta, lam = POINT.values()
WRITTEN = {
    "2x": 2 * x,
    "2 x y": 2 * x * y,
    "2(x + 1)(y - 1)": 2 * (x + 1) * (y - 1),
    "x(1 + y)": x * (1 + y),
    "x^2": x**2,
    "x²y³": x**2 * y**3,
    "x⁻²": x**-2,
    "(x + y)²": (x + y) ** 2,
    "2^-1": 0.5,
    "-x²": -(x**2),
    "x − y × 2 · mu ÷ 3": x - y * 2 * mu / 3,
    "σ_p²": s**2,
    "σₚ²": s**2,
    "σp": s,
    "µ + μ": 2 * mu,
    "θλ": theta * lam,
    "2πσ_p²": 2 * math.pi * s**2,
    "ln(x)": math.log(x),
    "ln x + 1": math.log(x) + 1,
    "exp x": math.exp(x),
    "exp(−x²/(2σ_p²))": math.exp(-(x**2) / (2 * s**2)),
    "e^x": math.exp(x),
    "e^(−x/2)": math.exp(-x / 2),
    "e^-x²": math.exp(-(x**2)),
    "E**x": math.exp(x),
    "e": math.e,
    "|x - y|": abs(x - y),
    "2|x - y||mu|": 2 * abs(x - y) * mu,
    "||x| - |y||": abs(x - y),
    "log|x - y|": math.log(abs(x - y)),
    "√x": math.sqrt(x),
    "√(2π) x": math.sqrt(2 * math.pi) * x,
    "½x + ¼": x / 2 + 0.25,
    "(1/2) x": x / 2,
    "[x + {y}]": x + y,
    "np.log(x) + math.exp(y) * torch.sqrt(x)": math.log(x) + math.exp(y) * math.sqrt(x),
    "log2(x) + log10(x) + log1p(x)": math.log2(x) + math.log10(x) + math.log1p(x),
    "arcsinh(x) + arsinh(x) + asinh(x)": 3 * math.asinh(x),
    "1.5e-3 x + .5": 1.5e-3 * x + 0.5,
    "Rational(1, 3) + S(1)/3": 2 / 3,
    "Max(x, y) + max(x, y)": None,
    "Piecewise((x, x > 2), (y, True))": y,
    "erf(x) + gamma(y)": math.erf(x) + math.gamma(y),
    "log(x, 2)": math.log2(x),
}
del WRITTEN["Max(x, y) + max(x, y)"]


@pytest.mark.parametrize("text", WRITTEN)
def test_it_is_read_as_it_is_meant(text):
    assert value(text) == pytest.approx(WRITTEN[text], rel=1e-12)


COLLIDING = [
    *(
        "Q",
        "E",
        "I",
        "N",
        "S",
        "O",
        "C",
        "e",
        "pi",
        "oo",
        "beta",
        "gamma",
        "zeta",
        "lambda",
        "re",
        "im",
    ),
    *(
        "Symbol",
        "test",
        "log",
        "exp",
        "sign",
        "if",
        "is",
        "None",
        "True",
        "ln",
        "abs",
        "np",
        "sigma_1",
    ),
]


@pytest.mark.parametrize("name", COLLIDING)
def test_a_variable_may_have_any_name(name):
    here = POINT.get(name, 1.7)
    assert value(f"2*{name} + {name}**2", (name, "x")) == pytest.approx(2 * here + here**2)
    assert value(sympy.Symbol(name, positive=True) * 3, (name, "x")) == pytest.approx(3 * here)


@pytest.mark.parametrize("name", [n for n in dir(sympy) if n.isidentifier() and len(n) < 9])
def test_a_name_that_is_no_variable_is_unknown_or_a_number(name):
    """Whatever SymPy has under it: never an object that nobody asked for."""
    read_as = sympy.Symbol("function")
    with contextlib.suppress(Unreadable):  # an elementary function without its argument
        read_as = read(name, ("x",))
    known = (sympy.Symbol, sympy.Number, sympy.NumberSymbol)
    assert isinstance(read_as, known) or name in ("True", "False")


@pytest.mark.parametrize(
    "name", ["Q", "I", "N", "S", "O", "C", "beta", "zeta", "b", "xy", "_x", "x1"]
)
def test_an_unknown_name_is_named(name):
    with pytest.raises(ValueError, match=f"uses {name}; the variables are x, y"):
        as_function(f"2*{name} + x", "expression", ("x", "y"))


AMBIGUOUS = ("1/2x", "x/2(y)", "e^2x", "2^3x", "log 2 x", "log x y", "exp 2x", "√2x", "√x²", "x/2π")


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused(text):
    with pytest.raises(ValueError, match=r"two ways.*parentheses"):
        as_function(text, "expression", NAMES)


UNREADABLE = [
    *(
        "2 *",
        "",
        "(x",
        "x)",
        "|x",
        "x 2",
        "2 3",
        "x = 2",
        "f'(x)",
        "x.y",
        "log",
        "log()",
        "$x$",
        "x!",
    ),
    *(
        "\\frac{1}{2}",
        "lambda x: x",
        "__import__('os').system('ls')",
        "x if y else 2",
        '"x"',
        "x;y",
    ),
    *("log²(x)", "9" * 5000, "(" * 5000, "x < y < 2", "Integral(x, 1, 2, 3)"),
]


@pytest.mark.parametrize("text", UNREADABLE, ids=lambda text: text[:20])
def test_what_cannot_be_read_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"cannot be read: .+\. Write it as in") as raised:
        as_function(text, "expression", NAMES)
    assert len(str(raised.value)) < 600


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="xyσμ²⁻23.+-−*/^()|√, elnxpog\u00a0<>'_", max_size=24) | st.text(max_size=12)
)
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(Unreadable):  # and no other error
        read(text, NAMES)


def test_a_function_or_several_expressions_are_refused():
    for other in (lambda x: x, np.ones(2), [1]):
        with pytest.raises(ValueError, match="cannot be read: it is not an expression"):
            as_function(other, "expression", NAMES)
    for several in ("x, y", "0,5"):
        with pytest.raises(TypeError, match="a tuple was given; decimals have a point"):
            as_function(several, "expression", NAMES)
    with pytest.raises(ValueError, match="'x / 0' is undefined: it divides by 0"):
        as_function("x / 0", "expression", NAMES)
    with pytest.raises(ValueError, match=r"'x \+ oo' is infinite"):
        as_function("x + oo", "expression", NAMES)


def test_symbols_count_by_name_whatever_they_assume():
    positive = sympy.Symbol("x", positive=True)
    assert value(sympy.Symbol("σ_p") * positive**2) == pytest.approx(s * x**2)
    assert value(sympy.Symbol("λ", real=True)) == lam
    with pytest.raises(ValueError, match="uses f, k"):
        as_function(sympy.Function("f")(positive) * sympy.Symbol("k"), "expression", NAMES)
    assert as_function("2", "expression", ("x",))(np.ones(2)).tolist() == [2, 2]


def integrals():
    t, k, a = sympy.symbols("t k x")
    bell = (math.pi / x) ** 0.5
    return {
        "infinite bounds": (sympy.Integral(sympy.exp(-a * t**2), (t, -sympy.oo, sympy.oo)), bell),
        "as text": ("Integral(exp(-x t²), (t, -∞, ∞))", bell),
        "one infinite bound": ("y + Integral(exp(-x t), (t, 0, oo))", y + 1 / x),
        "a bound that varies": (sympy.Integral(t**2, (t, 0, a)), x**3 / 3),
        "a mean": ("Integral(t² exp(-(t-μ)²/(2σ_p²)), (t, -oo, oo))/√(2π σ_p²)", mu**2 + s**2),
        "nested": ("Integral(Integral(s t, (s, 0, t)), (t, 0, x))", x**4 / 8),
        "a series": (sympy.Sum(a**k, (k, 0, sympy.oo)), 1 / (1 - x)),
        "a sum": ("Sum(x^k, (k, 0, 3))", 1 + x + x**2 + x**3),
        "a product": ("Product(x k, (k, 1, 3))", 6 * x**3),
        "a derivative": (sympy.Derivative(a**3, a), 3 * x**2),
        "a limit": (sympy.Limit(sympy.sin(a * t) / t, t, 0), x),
    }  # fmt: skip


@pytest.mark.parametrize("name", integrals())
def test_integrals_sums_and_limits_are_evaluated(name):
    expression, right = integrals()[name]
    assert value(expression) == pytest.approx(right, rel=1e-7)


def test_an_integral_that_diverges_is_not_a_number():
    assert not np.isfinite(value("Integral(exp(t), (t, 0, oo))"))


LEAVES = st.sampled_from(
    [("x", x), ("y", y), ("σ_p", s), ("λ", lam), ("2", 2.0), ("0.5", 0.5), ("π", math.pi)]
)


PAIRS = {
    ("({0})({1})", "({0})*({1})", "({0})·({1})", "({0}) × ({1})", "({0}) ({1})"): lambda a, b: (
        a * b
    ),
    ("({0}) - ({1})", "{0} − ({1})"): lambda a, b: a - b,
    ("{0} + {1}", "({0})+({1})"): lambda a, b: a + b,
}
SINGLE = {
    ("({0})²", "({0})^2", "({0})**2", "({0})^(2)"): lambda a: a**2,
    ("|{0}|", "abs({0})", "Abs({0})"): abs,
    ("√(1 + ({0})²)", "sqrt(1 + ({0})^2)"): lambda a: math.sqrt(1 + a**2),
    ("ln(1 + ({0})²)", "log(1+({0})^2)"): lambda a: math.log(1 + a**2),
    ("e^(−({0})²)", "exp(-({0})^2)"): lambda a: math.exp(-(a**2)),
    ("-({0})", "−({0})"): lambda a: -a,
}


def combined(children):
    """Notations of one operation, each beside what it means."""

    def built(operations, count):
        form = st.sampled_from([(text, f) for texts, f in operations.items() for text in texts])
        parts = st.tuples(*[children] * count)
        return st.builds(
            lambda how, parts: (
                how[0].format(*(t for t, _ in parts)),
                how[1](*(v for _, v in parts)),
            ),
            form,
            parts,
        )

    return built(PAIRS, 2) | built(SINGLE, 1)


@settings(max_examples=120, deadline=None)
@given(st.recursive(LEAVES, combined, max_leaves=6))
def test_every_notation_means_the_same(pair):
    text, right = pair
    if abs(right) < 1e12:
        assert value(text) == pytest.approx(right, rel=1e-8, abs=1e-8 * max(1, abs(right)))

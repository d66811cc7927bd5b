"""Read an expression as students write it: ``2 * log(x) + y``, and also ``2x²``, ``e^(−x)``, ``|σ_p|``.

A parser of its own rather than `sympy.sympify`, which runs any code, takes letters such as Q, S or beta
for something of its own, and reads no mathematics. What can be read in two ways is refused.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

ASCII = str.maketrans(
    {
        **dict.fromkeys("−‐‑‒–—", "-"),
        **dict.fromkeys("×·⋅∙•∗✕", "*"),
        **dict.fromkeys("÷∕⁄", "/"),
        **dict.fromkeys("[{", "("),
        **dict.fromkeys("]}", ")"),
        **{"≤": "<=", "≥": ">=", "∞": " oo "},
    }
)
SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿˣ"
FRACTIONS = "[¼-¾⅐-⅞]"
GREEK = re.compile(r"([\u0370-\u03ff])(\w*)")
TOKEN = re.compile(
    r"(?P<space>\s*)(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?:(?:np|numpy|math|torch|sympy|sp)\.)?(?P<name>[^\W\d]\w*)"
    r"|(?P<sign>\*\*|[<>]=?|[-+*/^(),|√])|(?P<unknown>\S))"
)
# Functions whose argument may do without parentheses, with other names that they have elsewhere.
ELEMENTARY = {
    **{f: f for f in ("log", "exp", "sqrt", "sign", "erf", "erfc", "atan2")},
    **{p + f + h: p + f + h for p in ("", "a") for f in ("sin", "cos", "tan") for h in ("", "h")},
    **{f"arc{f}{h}": f"a{f}{h}" for f in ("sin", "cos", "tan") for h in ("", "h")},
    **{f"ar{f}": f"a{f}" for f in ("sinh", "cosh", "tanh")},
    **{"ln": "log", "abs": "Abs"},
}
OTHER_FUNCTIONS = ("cbrt", "root", "diff", "integrate", "summation", "limit", "simplify", "S", "N")


class Unreadable(ValueError):
    """A text is not an expression; the message says why."""


def read(text: str, symbols: Sequence[str]) -> Any:
    """Read an expression.

    Args:
        text: the expression. A name is a variable where `symbols` has it; else a function of SymPy
            if an argument follows; ``pi``, ``e``, ``E`` and ``oo`` are constants.
        symbols: names of the variables.

    Returns:
        A SymPy object, in which names that mean nothing are symbols too.

    Raises:
        ValueError: it is not an expression, or could be read in two ways.
    """
    try:
        return _Parser(text, symbols).whole()
    except Unreadable:
        raise
    except Exception as error:  # SymPy refuses arguments with errors of many types
        raise Unreadable(str(error) or type(error).__name__) from error


def _plain(text: str, short: dict[str, str]) -> str:
    """The text with ASCII names and signs: Greek letters spelled, raised digits as powers."""

    def spelled(match: re.Match[str]) -> str:
        *_, name = unicodedata.name(match[1]).lower().replace("lamda", "lambda").split(" letter ")
        name = name.removeprefix("final ").split(" with ")[0]
        name = name if match[1].islower() else name.capitalize()
        joined = f"{name}{match[2]}"
        # σ_p and σ2 are one name; of πx and μσ, where only the beginning is, each letter is another.
        if joined.replace("_", "") in short or re.fullmatch(r"_\w+|\d+", match[2]):
            return f" {joined}"
        return f" {name} {GREEK.sub(spelled, match[2])}"

    text = re.sub(f"[{SUPERSCRIPTS}]+", lambda m: f"^({unicodedata.normalize('NFKC', m[0])})", text)
    text = re.sub(FRACTIONS, lambda m: f"({unicodedata.normalize('NFKC', m[0])})", text)
    text = unicodedata.normalize("NFKC", text).translate(ASCII)
    return GREEK.sub(spelled, text)


class _Parser:
    """Recursive descent: each method reads one kind of thing from what is left of the text."""

    def __init__(self, text: str, symbols: Sequence[str]) -> None:
        import sympy

        self._sympy = sympy
        self._names = {name: name for name in symbols}
        short = {name.replace("_", ""): name for name in symbols}
        self._names = {**short, **self._names}  # "sigmap" is sigma_p, unless there is a sigmap
        self._tokens = [
            (match.lastgroup, match[match.lastgroup], bool(match["space"]))
            for match in TOKEN.finditer(_plain(text, short).strip())
        ] + [("end", "the end", True)]
        self._at = 0
        self._bars = 0

    def whole(self) -> Any:
        value = self.several()
        if self.kind != "end":
            raise Unreadable(f"{self.text!r} is not expected where it stands")
        return value

    @property
    def kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def text(self) -> str:
        return self._tokens[self._at][1]

    @property
    def spaced(self) -> bool:
        return self._tokens[self._at][2]

    def next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1][1]

    def take(self, *signs: str) -> str | None:
        return self.next() if self.kind == "sign" and self.text in signs else None

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise Unreadable(f"{sign!r} is expected before {self.text!r}")

    def at_factor(self) -> bool:
        """Whether a factor begins here, although no sign precedes it."""
        opens = self.text in "(√" or (self.text == "|" and not self._bars)
        return self.kind == "name" or (self.kind == "sign" and opens)

    def several(self) -> Any:
        values = [self.comparison()]
        while self.take(","):
            values.append(self.comparison())
        return values[0] if len(values) == 1 else tuple(values)

    def comparison(self) -> Any:
        left = self.sum()
        if sign := self.take("<", "<=", ">", ">="):
            right = self.sum()
            return self._sympy.Rel(left, right, sign)
        return left

    def sum(self) -> Any:
        value = self.product()
        while sign := self.take("+", "-"):
            other = self.product()
            value = value + other if sign == "+" else value - other
        return value

    def product(self) -> Any:
        value, divided = self.signed(), False
        while True:
            if self.take("*"):
                value, divided = value * self.signed(), False
            elif self.take("/"):
                value, divided = value / self.signed(), True
            elif self.at_factor():
                if divided:
                    self.ambiguous("a product without a sign behind a division")
                value = value * self.power()
            else:
                return value

    def signed(self) -> Any:
        if self.take("-"):
            return -self.signed()
        return self.signed() if self.take("+") else self.power()

    def power(self) -> Any:
        base = self.atom()
        if not self.take("^", "**"):
            return base
        enclosed = self.text == "("
        exponent = self.signed()
        if not enclosed and self.at_factor() and not self.spaced:
            self.ambiguous("a product without a sign behind a power")
        return base**exponent

    def atom(self) -> Any:
        kind, text = self.kind, self.next()
        if kind == "number":
            return self._sympy.Integer(text) if text.isdigit() else self._sympy.Float(text)
        if kind == "name":
            return self.named(text)
        if text == "(":
            return self.enclosed()
        if text == "|":
            self._bars += 1
            value = self.sum()
            self.expect("|")
            self._bars -= 1
            return self._sympy.Abs(value)
        if text == "√":
            return self.applied("√", self._sympy.sqrt)
        raise Unreadable(f"{text!r} is not expected where it stands")

    def enclosed(self) -> Any:
        """What stands in parentheses, of which the first has been read."""
        outside, self._bars = self._bars, 0
        value = self.several()
        self.expect(")")
        self._bars = outside
        return value

    def named(self, name: str) -> Any:
        if name in self._names:
            return self._sympy.Symbol(self._names[name])
        if name in ("pi", "oo"):
            return getattr(self._sympy, name)
        if name in ("e", "E"):
            return self._sympy.E
        sp = self._sympy
        if name in ("True", "False"):
            return sp.sympify(name == "True")
        computed = {
            "log2": lambda x: sp.log(x) / sp.log(2),
            "log10": lambda x: sp.log(x) / sp.log(10),
            "log1p": lambda x: sp.log(1 + x),
            "expm1": lambda x: sp.exp(x) - 1,
        }
        if name in computed or name in ELEMENTARY:
            return self.applied(name, computed.get(name) or getattr(sp, ELEMENTARY[name]))
        function = getattr(sp, name, None)
        known = isinstance(function, type) and issubclass(function, sp.Basic)
        if self.text == "(" and (known or name in OTHER_FUNCTIONS):
            return self.applied(name, function)
        return sp.Symbol(name)

    def applied(self, name: str, function: Any) -> Any:
        if self.take("("):
            arguments = self.enclosed()
            return function(*arguments) if isinstance(arguments, tuple) else function(arguments)
        if self.kind != "number" and not self.at_factor():
            raise Unreadable(f"{name} has no argument: write {name}(…)")
        argument = self.atom() if name == "√" else self.power()
        if (self.at_factor() and (name != "√" or not self.spaced)) or self.text in ("^", "**"):
            self.ambiguous(f"{name} and what follows it")
        return function(argument)

    def ambiguous(self, what: str) -> None:
        raise Unreadable(f"{what} can be read in two ways, at {self.text!r}: use parentheses")

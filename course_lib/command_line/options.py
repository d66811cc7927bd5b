"""Types of options, which say what is expected where something else is given."""

import argparse
import math
from collections.abc import Callable


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """A reader of positive, finite numbers of a kind."""
    what = "whole number" if kind is int else "number"

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is given; a positive {what} is expected")
        return value

    return read


def factor(text: str) -> tuple[str, float]:
    """A name and a positive factor, as in ``ada=1.5``."""
    name, _, number = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(
            f"{text!r} is given; a name and a factor are expected, as in ada=1.5"
        )
    return name, positive(float)(number)


def processes(text: str) -> int | str:
    """A number of processes, or ``auto``."""
    return text if text == "auto" else positive(int)(text)


def seed(text: str) -> int:
    """A seed: what torch takes, also after the number of a process has been added."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**62:
        raise argparse.ArgumentTypeError(
            f"{text!r} is given; a whole number from 0 to 2**62 - 1 is expected"
        )
    return value

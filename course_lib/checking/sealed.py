"""Expected numbers that can be recognized and not read.

A question that asks for numbers has no other inputs: its expected values are its answer. So the public
file holds for each a grid of cells as wide as the tolerance, such that the value is the centre of one,
and a slow hash of which cell that is. Who has the number to five digits finds the cell; who has not
would have to try all cells.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

ROUNDS = 20_000  # about 10 ms a cell


@dataclass(frozen=True)
class Seal:
    """A result that is known by its hash.

    Attributes:
        name: what is sealed; part of the hash, so that equal values have different ones.
        shape: the shape of the result.
        width: the width of a cell: twice the tolerance.
        offsets: for each entry, in order, the distance of the value from a multiple of `width`.
        digest: the hash of the cells.
    """

    name: str
    shape: tuple[int, ...]
    width: float
    offsets: tuple[float, ...]
    digest: str

    def holds(self, value: np.ndarray) -> bool:
        """Whether a result of the right shape, all of it finite, is the sealed one, to five digits."""
        return _digest(self.name, _cells(value, self.offsets, self.width)) == self.digest


def seal(name: str, value: np.ndarray) -> Seal:
    """Seal a result of finite numbers, to five digits: decimals, or significant ones."""
    flat = value.astype(np.float64).ravel()
    largest = np.abs(flat).max(initial=0)
    # The power of ten, and no more of the size, which would tell the value.
    tolerance = 6e-6 + (6e-5 * 10 ** np.floor(np.log10(largest)) if largest else 0)
    width = float(2 * tolerance)
    offsets = tuple((flat - width * np.round(flat / width)).tolist())
    return Seal(name, value.shape, width, offsets, _digest(name, _cells(flat, offsets, width)))


def _cells(value: np.ndarray, offsets: tuple[float, ...], width: float) -> tuple[float, ...]:
    flat = value.astype(np.float64).ravel()
    return tuple((np.round((flat - np.array(offsets)) / width) + 0.0).tolist())


@lru_cache(maxsize=4096)
def _digest(name: str, cells: tuple[float, ...]) -> str:
    return hashlib.pbkdf2_hmac("sha256", repr(cells).encode(), name.encode(), ROUNDS).hex()[:32]

"""Draws of probes' inputs: float64, from a given generator."""

import torch
from torch import Tensor


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform values between `low` and `high`, in the given shape."""
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def signed(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Values of modulus `low` to `high`; half of them, at random places, are negative.

    Where there are at least two, both signs occur.
    """
    modulus = uniform(generator, low, high, *shape)
    sign = torch.ones(modulus.numel(), dtype=modulus.dtype)
    sign[torch.randperm(len(sign), generator=generator)[: len(sign) // 2]] = -1
    return modulus * sign.reshape(modulus.shape)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal values, in the given shape."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def number(generator: torch.Generator, low: float, high: float) -> float:
    """A plain number between `low` and `high`, of three decimals: short in a student's notebook."""
    return round(uniform(generator, low, high).item(), 3)


def integer(generator: torch.Generator, low: int, high: int) -> int:
    """A plain integer from `low` to `high` − 1."""
    return int(torch.randint(low, high, (), generator=generator))

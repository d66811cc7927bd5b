"""Numbers of a trained model that are computed from what it answers, not from what it claims.

A student's model is asked for plain arrays only, and the likelihood or distance is computed
here, outside of it: a model can be as wrong as it likes, but it cannot report a better number
than the law that it defines. Each measure takes ``ask(function, *arrays) -> arrays``, which the
student's check answers by calling the functions, and the grading by asking the isolated process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.data import Dataset, digits

Ask = Callable[..., dict[str, np.ndarray]]


class Invalid(ValueError):
    """The answers define no valid model; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """A measured number, with its unit; lower is better.

    Attributes:
        value: the number.
        unit: what it counts, for instance ``"nats per image"``.
        suspicious: set when the number is better than an honest model of this size reaches, so
            that an instructor looks at it (trained on the test images, for instance).
    """

    value: float
    unit: str
    suspicious: bool = False


def binary_digits(split: str) -> Tensor:
    """Digits with every pixel set to 1 where its level is at least 8: float64, ``(N, 64)``."""
    return (images(split).flatten(1) >= 8).double()


def images(split: str) -> Tensor:
    """Grey levels 0 … 16 of a split of the digits, uint8, shape ``(N, 1, 8, 8)``."""
    data: Dataset = digits()
    return {"train": data.train, "validation": data.validation, "test": data.test}[split]


def decoder_nats(ask: Ask, *, split: str, seed: int) -> Measurement:
    """−log p(x) of a Bernoulli decoder with two latent variables, by quadrature, in nats per image.

    Asks ``decode(z)`` for the logits, shape ``(N, 64)``, at 4,096 points z that follow the
    standard normal prior evenly (a scrambled Sobol sequence), and averages the likelihoods:
    log p(x) = log (1/M) Σ_m p(x | z_m), the exact log-likelihood of the mixture that those answers
    define. The images are never shown to the decoder.

    Raises:
        Invalid: the answer has another shape, or is not finite.
    """
    sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed)
    uniform = sobol.draw(4096, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    z = torch.special.ndtri(uniform)
    logits = one_array(ask("decode", z.float().numpy()), (len(z), 64), "decode(z)")
    x = binary_digits(split)
    log_one, log_zero = (
        torch.nn.functional.logsigmoid(logits),
        torch.nn.functional.logsigmoid(-logits),
    )
    log_likelihood = x @ log_one.T + (1 - x) @ log_zero.T  # (N, M)
    log_prob = torch.logsumexp(log_likelihood, 1) - np.log(len(z))
    value = -log_prob.mean().item()
    return Measurement(value, "nats per image", suspicious=value < 14)


def one_array(arrays: dict[str, np.ndarray], shape: tuple[int, ...], what: str) -> Tensor:
    """The one array that was answered, as float64.

    Raises:
        Invalid: several results, another shape, or values that are not finite.
    """
    if set(arrays) != {""}:
        raise Invalid(f"{what} must return one tensor of shape {shape}")
    array: Any = arrays[""]
    if array.shape != shape:
        raise Invalid(f"{what} has shape {array.shape}; {shape} is expected")
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise Invalid(f"{what} holds values that are no finite real numbers")
    return torch.from_numpy(array.astype(np.float64))

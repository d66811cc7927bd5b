"""The distribution that a decoder with two latent variables defines."""

import numpy as np
import torch
from torch import Tensor

from course_lib.checking.measures.common import (
    Ask,
    Invalid,
    Measurement,
    ask_each,
    binary_digits,
    one_array,
    walks,
)

# How far the 64 probabilities move, as a distance, per unit that z moves. On the whole: 3 for a network
# that is trained as the statement says, 7 for a deep one that is trained long, and 20 and more for tables
# of images of which enough remains, also where they are faded into one another. Where it is
# fastest: 5 and 14 for the networks, 100 and more for the tables.
STEEP, LEAP = 16.0, 80.0


def decoder_nats(ask: Ask, *, split: str, seed: int) -> Measurement:
    """−log p(x) of a Bernoulli decoder with two latent variables, by quadrature, in nats per image.

    Asks ``decode(z)`` for the logits, shape ``(N, 64)``, at 4,096 points z that follow the
    standard normal prior evenly (a scrambled Sobol sequence), and averages the likelihoods:
    log p(x) = log (1/M) Σ_m p(x | z_m), the exact log-likelihood of the mixture that those answers
    define. The images are never shown to the decoder.

    A table of smoothed training images would be a good mixture, too, and is not a decoder. So the answer
    must be a function of each z alone, and a continuous one: walks in small steps are asked among
    the other points.

    Raises:
        Invalid: it is not; or the answer has another shape, or is not finite.
    """
    sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed)
    uniform = sobol.draw(4096, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    z = torch.special.ndtri(uniform).float()
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randn(2, 32, 2, generator=generator)
    path = walks(*ends, steps=128)

    def query(points: Tensor) -> Tensor:
        arrays = ask("decode", points.contiguous().numpy())
        return one_array(arrays, (len(points), 64), "decode(z)")

    points = torch.cat([z, path.flatten(0, 1)])
    logits = ask_each(query, points, generator, "decode(z)", tolerance=1e-2)
    logits, walked = logits[: len(z)], logits[len(z) :].view(*path.shape[:2], 64)
    _require_gradual(walked.sigmoid(), (ends[1] - ends[0]).norm(dim=1))

    x = binary_digits(split)
    log_one, log_zero = (
        torch.nn.functional.logsigmoid(logits),
        torch.nn.functional.logsigmoid(-logits),
    )
    log_likelihood = x @ log_one.T + (1 - x) @ log_zero.T  # (N, M)
    log_prob = torch.logsumexp(log_likelihood, 1) - np.log(len(z))
    value = -log_prob.mean().item()
    return Measurement(value, "nats per image", suspicious=value < 14)


def _require_gradual(probabilities: Tensor, length: Tensor) -> None:
    """Require it of walks, ``(steps + 1, W, 64)``, that have the given lengths, ``(W,)``."""
    moved = (probabilities[1:] - probabilities[:-1]).norm(dim=2)  # (steps, W)
    slope, fastest = moved.sum(0) / length, moved.amax(0) * len(moved) / length
    if slope.median() > STEEP or fastest.quantile(0.75) > LEAP:
        raise Invalid(
            "the images leap while z moves in small steps, as those of a table do: a decoder is a "
            "continuous function of z. (If it is a network: train it for fewer steps, with the KL term.)"
        )

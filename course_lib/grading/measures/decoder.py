"""The law of a decoder with two latent variables."""

import numpy as np
import torch

from course_lib.grading.measures.common import Ask, Measurement, binary_digits, one_array


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

r"""The objectives of the two players, as plain functions of the discriminator's outputs.

Sign convention: every function is **minimized** by the player it is named for, and a high output
of the discriminator means "real". Factor ½: none here. The value function ``eq-gan-value`` is
:math:`V = \mathbb E\log D(x) + \mathbb E\log(1 - D(G(z)))`; the discriminator minimizes −V. The
text's :math:`J^D = -\tfrac12 V` and :math:`J^G` (Goodfellow, 2016) carry a ½ that makes
them means over a batch that is half real and half generated: they are half of what stands
here. A penalty's weight means what its equation says only beside the losses without the ½.

All logistic losses take logits, never probabilities: ``softplus(-a) = -log sigmoid(a)`` stays
finite where the sigmoid has rounded to 0 or 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from course_lib.inputs import require_real, require_shapes
from course_lib.precision import at_least_float32


def discriminator_loss(
    real_logits: Tensor, fake_logits: Tensor, *, real_label: float = 1.0
) -> Tensor:
    r"""The discriminator's loss of the logistic games: −V, without a factor ½.

    .. math:: -\tfrac1N\sum_i \left[\alpha\log D(x_i) + (1-\alpha)\log(1 - D(x_i))\right]
              - \tfrac1M\sum_j \log(1 - D(G(z_j)))

    With α = `real_label` = 1 it is −V of ``eq-gan-value``. Below 1 it is one-sided label smoothing
    (Salimans et al., 2016): only the real label is softened, so the optimal discriminator is
    α p_data / (p_data + p_g), equation ``eq-label-smoothing``. The label of generated examples
    stays 0.

    Args:
        real_logits: logits of D at real examples, shape ``(N,)``.
        fake_logits: logits of D at generated examples, shape ``(M,)``.
        real_label: the target α for real examples, in (½, 1].

    Returns:
        A scalar in nats, to be minimized by the discriminator; 2 log 2 at D = ½.

    Raises:
        ValueError: `real_label` is outside (½, 1], or logits are empty or not one per example.
    """
    real_label = require_real_label(real_label)
    real_logits = _require_outputs(real_logits, "real_logits")
    fake_logits = _require_outputs(fake_logits, "fake_logits")
    real = real_label * softplus(-real_logits) + (1 - real_label) * softplus(real_logits)
    return real.mean() + softplus(fake_logits).mean()


def minimax_loss(fake_logits: Tensor) -> Tensor:
    r"""The generator's loss of the minimax (saturating) game: the part of V that it can change.

    .. math:: \tfrac1M\sum_j \log(1 - D(G(z_j)))

    Its derivative by a logit is −D/M: it vanishes where D is sure that an example is generated.
    No factor ½; the text's J^G is half of it, plus a constant.

    Args:
        fake_logits: logits of D at generated examples, shape ``(M,)``.

    Returns:
        A scalar in nats, to be minimized by the generator; at most 0.

    Source: Goodfellow et al. (2014), equation ``eq-gan-value``.
    """
    fake_logits = _require_outputs(fake_logits, "fake_logits")
    return -softplus(fake_logits).mean()


def non_saturating_loss(fake_logits: Tensor) -> Tensor:
    r"""The generator's loss of the non-saturating game.

    .. math:: -\tfrac1M\sum_j \log D(G(z_j))

    Its derivative by a logit is −(1 − D)/M: largest in size where D is sure that an example is
    generated, equation ``eq-nonsaturating-gradient``. No factor ½; the text's J^G is half of it.

    Args:
        fake_logits: logits of D at generated examples, shape ``(M,)``.

    Returns:
        A scalar in nats, to be minimized by the generator; at least 0.

    Source: Goodfellow et al. (2014).
    """
    fake_logits = _require_outputs(fake_logits, "fake_logits")
    return softplus(-fake_logits).mean()


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    r"""The critic's loss in a Wasserstein game: minus its estimate of W₁.

    .. math:: \tfrac1M\sum_j f(G(z_j)) - \tfrac1N\sum_i f(x_i)

    The dual ``eq-w1-dual`` is a maximum over 1-Lipschitz critics, so its negative is minimized: minus
    this loss is the estimate of the distance. No factor ½.

    Args:
        real_scores: f at real examples, shape ``(N,)``; any real numbers.
        fake_scores: f at generated examples, shape ``(M,)``.

    Returns:
        A scalar in units of the data, to be minimized by the critic.

    Source: Arjovsky, Chintala and Bottou (2017).
    """
    real_scores = _require_outputs(real_scores, "real_scores")
    fake_scores = _require_outputs(fake_scores, "fake_scores")
    return fake_scores.mean() - real_scores.mean()


def wasserstein_loss(fake_scores: Tensor) -> Tensor:
    r"""The generator's loss in a Wasserstein game: :math:`-\tfrac1M\sum_j f(G(z_j))`.

    The generator raises the critic's score of its examples. No factor ½.

    Args:
        fake_scores: f at generated examples, shape ``(M,)``.

    Returns:
        A scalar, to be minimized by the generator.

    Source: Arjovsky, Chintala and Bottou (2017).
    """
    fake_scores = _require_outputs(fake_scores, "fake_scores")
    return -fake_scores.mean()


@dataclass(frozen=True)
class Objective:
    """A game: one loss for each player.

    Attributes:
        name: what to call it in tables and figures.
        discriminator: maps the outputs at real and at generated examples to a scalar that the
            discriminator (or critic) minimizes.
        generator: maps the outputs at generated examples to a scalar that the generator minimizes.
        output: what is recorded of the discriminator's outputs: probabilities for the logistic
            games, the scores themselves for a critic.
    """

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]


MINIMAX = Objective("minimax", discriminator_loss, minimax_loss, torch.sigmoid)
NON_SATURATING = Objective("non-saturating", discriminator_loss, non_saturating_loss, torch.sigmoid)
WASSERSTEIN = Objective("Wasserstein", critic_loss, wasserstein_loss, torch.clone)


def require_real_label(real_label: float) -> float:
    """Require a target for real examples in (½, 1]; return it as Python's own number.

    Raises:
        ValueError: `real_label` is not such a number.
    """
    return require_real(real_label, "real_label", "a target in (0.5, 1]", above=0.5, at_most=1)


def _require_outputs(outputs: Tensor, name: str) -> Tensor:
    """Require one output per example, and return them in a type that can be added up."""
    advice = "Each example has one output; remove a last dimension of one with squeeze(-1)."
    require_shapes(advice, **{name: (outputs, "N")})
    return at_least_float32(outputs, name)

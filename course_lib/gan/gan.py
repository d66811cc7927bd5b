"""A generator and a discriminator as one model, and the game they play as players of `fit`."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from course_lib.gan.losses import NON_SATURATING, Objective, require_real_label
from course_lib.inputs import (
    require_batch,
    require_function,
    require_kind,
    require_positive_integer,
    require_unit_interval,
)
from course_lib.precision import at_least_float32
from course_lib.training import Batch, LossTerms, Player

Penalty = Callable[[nn.Module, Tensor, Tensor], Tensor]

OPTIMIZER = "a function of parameters and lr=, such as torch.optim.SGD,"
ADAM_WITHOUT_MOMENTUM = partial(torch.optim.Adam, betas=(0.0, 0.99), fused=True)


class GAN(nn.Module):
    """A generator and the discriminator that it is trained against.

    ``forward`` is the generator's: noise to examples. Average weights (``fit(…, ema=…)``) average both
    networks; the averaged generator is the one that samples.

    Args:
        generator: maps ``(N, latent_dim)`` to ``(N, *event_shape)``.
        discriminator: maps ``(N, *event_shape)`` to one logit or score per example, shape ``(N,)``.

    Raises:
        ValueError: the two do not fit one another.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        require_kind(generator, nn.Module, "generator")
        require_kind(discriminator, nn.Module, "discriminator")
        for name in ("event_shape", "n_classes"):
            a, b = getattr(generator, name), getattr(discriminator, name)
            if a != b:
                raise ValueError(
                    f"the generator has {name} {a} and the discriminator {b}; the same is expected "
                    f"of both."
                )
        self.generator, self.discriminator = generator, discriminator
        self.event_shape, self.latent_dim = generator.event_shape, generator.latent_dim

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map noise, shape ``(N, latent_dim)``, to examples, shape ``(N, *event_shape)``."""
        return self.generator(z, labels)

    def sample(
        self,
        n: int,
        *,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw `n` samples, shape ``(n, *event_shape)``, without gradients.

        Args:
            n: number of samples.
            labels: class of each sample, shape ``(n,)``; only for a class-conditional model.
            generator: source of the noise; the global one if none is given.
        """
        return self.generator.sample(n, labels=labels, generator=generator)


def players(
    objective: Objective = NON_SATURATING,
    *,
    discriminator_updates: int = 1,
    penalty: Penalty | None = None,
    real_label: float | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = ADAM_WITHOUT_MOMENTUM,
    discriminator_optimizer: Callable[..., torch.optim.Optimizer] | None = None,
) -> tuple[Player, Player]:
    r"""The two players of the game, for `course_lib.training.fit`: the minibatch algorithm.

    In every step the discriminator is updated k times, each time on fresh data and fresh noise, then the
    generator once. The discriminator sees generated examples that are detached: its step sends
    nothing to the generator. Each player's optimizer holds that player's parameters only. Batches
    are examples, or ``(examples, labels)`` for a class-conditional model.

    Recorded are ``discriminator/loss`` (with the penalty), ``discriminator/real`` and
    ``discriminator/fake`` (the mean
    output at real and at generated examples: a probability in the logistic games),
    ``discriminator/penalty`` and ``generator/loss``. None of them measures the quality of samples.

    Args:
        objective: the losses of both players.
        discriminator_updates: k ≥ 1.
        penalty: called as ``penalty(discriminator, real, fake)``, added to the discriminator's loss.
        real_label: target of real examples for one-sided label smoothing; only in the logistic games.
        optimizer: builds each player's optimizer from the parameters and ``lr=``; Adam without
            momentum by default, because momentum carries a game past its turns.
        discriminator_optimizer: the discriminator's, where it is another one, such as
            `course_lib.gan.weight_clipping`.

    Returns:
        The players, discriminator first.

    Raises:
        ValueError: k < 1. While training: a batch of one example, or real images outside the
            range of a bounded generator.

    Source: Goodfellow et al. (2014), algorithm 1.
    """
    updates = require_positive_integer(discriminator_updates, "discriminator_updates (k)")
    require_kind(objective, Objective, "objective")
    if penalty is not None:
        require_function(penalty, "penalty", "None, or a function such as r1_penalty,")
    require_function(optimizer, "optimizer", OPTIMIZER)
    if discriminator_optimizer is not None:
        require_function(discriminator_optimizer, "discriminator_optimizer", OPTIMIZER)
    judge = objective.discriminator
    if real_label is not None:
        real_label = require_real_label(real_label)
        judge = partial(judge, real_label=real_label)

    def discriminator_loss(model: GAN, batch: Batch, progress: Tensor) -> LossTerms:
        real, labels = _split(model, batch)
        with torch.no_grad():  # detached: this step sends nothing to the generator
            fake = model(_noise(model, real), labels)
        discriminator = partial(model.discriminator, labels=labels)
        on_real, on_fake = (at_least_float32(discriminator(x)) for x in (real, fake))
        loss = judge(on_real, on_fake)
        terms = {
            "real": objective.output(on_real).mean(),
            "fake": objective.output(on_fake).mean(),
        }
        if penalty is not None:
            terms["penalty"] = penalty(discriminator, real, fake)
            loss = loss + terms["penalty"]
        return {"loss": loss, **terms}

    def generator_loss(model: GAN, batch: Batch, progress: Tensor) -> LossTerms:
        real, labels = _split(model, batch)
        fake = model(_noise(model, real), labels)
        return {"loss": objective.generator(model.discriminator(fake, labels=labels))}

    return (
        Player(
            "discriminator",
            discriminator_loss,
            lambda model: model.discriminator.parameters(),
            updates=updates,
            optimizer=discriminator_optimizer or optimizer,
        ),
        Player(
            "generator",
            generator_loss,
            lambda model: model.generator.parameters(),
            optimizer=optimizer,
        ),
    )


def _split(model: GAN, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Real examples and, for a class-conditional model, their labels."""
    real, labels = batch if isinstance(batch, tuple) else (batch, None)
    require_batch(real, model.event_shape, "the training batch", model=model)
    if len(real) < 2:
        raise ValueError(
            "the training batch holds one example; at least two are expected, because the players "
            "compare distributions through averages over the batch. Pass a larger batch_size."
        )
    if model.generator.bounded:
        require_unit_interval(real, "the training batch")
    return real, labels


def _noise(model: GAN, like: Tensor) -> Tensor:
    return torch.randn(len(like), model.latent_dim, device=like.device, dtype=like.dtype)

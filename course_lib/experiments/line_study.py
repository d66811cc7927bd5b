r"""The one-dimensional study: which training method recovers a known distribution on the line?

Every method trains the same small networks on draws of distributions that are known, so that success can
be measured without doubt. The value of a divergence between histograms depends on its definition, so
it is fixed here: KL(true ‖ generated) of histograms with 50 bins and two overflow bins,
each count raised by ½, over 10,000 draws of each distribution, averaged over 100 repetitions. Two samples of
the *same* distribution do not score 0 but the sampling-noise floor, and samples that miss all of the target's
bins score the saturation value, however far away they are. Both belong beside every result.

What one method is given, every method can be given: the number of discriminator updates, the momentum,
the rate and the average of the weights are settings of a `Method`, not of the study.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from course_lib.divergences import histogram_kl, kl_discrete
from course_lib.experiments.groups import GroupedDiscriminator, GroupedGenerator
from course_lib.gan.gan import GAN, Penalty, players
from course_lib.gan.losses import NON_SATURATING, WASSERSTEIN, Objective
from course_lib.gan.penalties import Critic, gradient_penalty, r1_penalty
from course_lib.randomness import seeded
from course_lib.training import fit, linear_decay

Draw = Callable[[tuple[int, ...], torch.Generator], Tensor]


@dataclass(frozen=True)
class Target:
    """A distribution on the line, and the interval whose bins judge it.

    Attributes:
        name: what to call it.
        draw: draws from it in a given shape.
        mean: its mean.
        std: its standard deviation.
        low: left end of the bins.
        high: right end of the bins.
    """

    name: str
    draw: Draw
    mean: float
    std: float
    low: float
    high: float


def gaussian(mean: float = 4.0, std: float = 1.25) -> Target:
    """A Gaussian, judged on four standard deviations to each side."""

    def draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return mean + std * torch.randn(shape, generator=generator)

    return Target("Gaussian", draw, mean, std, mean - 4 * std, mean + 4 * std)


def beta(a: int = 2, b: int = 5) -> Target:
    """A Beta distribution with whole parameters: the a-th smallest of a + b − 1 uniform draws."""

    def draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.rand((*shape, a + b - 1), generator=generator).kthvalue(a).values

    mean = a / (a + b)
    std = (a * b / (a + b + 1)) ** 0.5 / (a + b)
    return Target(f"Beta({a}, {b})", draw, mean, std, 0.0, 1.0)


@dataclass(frozen=True)
class Method:
    """A way to train, with all that defines it.

    Attributes:
        name: what to call it.
        objective: the losses of both players.
        penalty: the discriminator's penalty, or None.
        learning_rate: of both players' Adam.
        decay: whether the rate falls linearly to 0.
        steps: number of steps, each with one update of the generator.
        updates: updates of the discriminator in each step, each on fresh data and fresh noise.
        betas: of both players' Adam: how slowly its averages of the gradient (momentum) and of the
            squared gradient forget.
        average: decay of the average of the weights that is measured; None for the last weights.
        by: whose settings these are: ``"ours"``, or a citation's key.
    """

    name: str
    objective: Objective
    penalty: Penalty | None
    learning_rate: float = 1e-3
    decay: bool = True
    steps: int = 4000
    updates: int = 1
    betas: tuple[float, float] = (0.0, 0.99)
    average: float | None = 0.998
    by: str = "ours"


def original(**settings: object) -> Method:
    """The original GAN, with the non-saturating generator loss and no penalty."""
    return Method("non-saturating GAN", NON_SATURATING, None, **settings)


def gan_dp(gamma: float, **settings: object) -> Method:
    """The non-saturating game with the gradient penalty on data, ``eq-r1``."""

    def penalty(discriminator: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return r1_penalty(discriminator, real, gamma=gamma)

    return Method(f"GAN-DP, γ = {gamma:g}", NON_SATURATING, penalty, **settings)


def wgan_gp(weight: float, *, one_sided: bool = False, **settings: object) -> Method:
    """The Wasserstein game with the penalty on interpolates, ``eq-wgan-gp``."""

    def penalty(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return gradient_penalty(critic, real, fake, weight=weight, one_sided=one_sided)

    sides = "one-sided" if one_sided else "two-sided"
    return Method(f"WGAN-GP, λ = {weight:g}, {sides}", WASSERSTEIN, penalty, **settings)


@dataclass(frozen=True)
class Trained:
    """Generators of one method: for every target, one per seed.

    Attributes:
        method: how they were trained.
        targets: the targets.
        n_seeds: seeds per target.
        model: the networks; group ``target · n_seeds + seed``.
        steps: when moments were measured.
        means: mean of the samples then, standardized, shape ``(T, targets, seeds)``.
        stds: standard deviation of the samples then, standardized, shape ``(T, targets, seeds)``.
    """

    method: Method
    targets: tuple[Target, ...]
    n_seeds: int
    model: GAN
    steps: list[int]
    means: Tensor
    stds: Tensor

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw from every generator in the units of its target, shape ``(targets, seeds, n)``."""
        x = self.model.generator.sample(n, generator=generator).squeeze(-1)
        x = x.unflatten(0, (len(self.targets), self.n_seeds))
        mean, std = (
            torch.tensor([getattr(target, name) for target in self.targets]).view(-1, 1, 1)
            for name in ("mean", "std")
        )
        return mean + std * x


def train(
    method: Method,
    targets: Sequence[Target],
    *,
    n_seeds: int = 8,
    n_data: int = 50_000,
    batch_size: int = 128,
    latent_dim: int = 8,
    hidden: Sequence[int] = (16, 16),
    seed: int = 0,
    progress: bool = False,
) -> Trained:
    """Train one generator per target and seed, all of them at once.

    Args:
        method: how.
        targets: the targets; each is standardized by its mean and standard deviation.
        n_seeds: seeds per target. Each has its own initial weights, data, batches and noise.
        n_data: size of each training set.
        batch_size: examples per update, for each generator.
        latent_dim: number of dimensions of the noise.
        hidden: width of the hidden layers of both networks.
        seed: seeds all of it.
        progress: show a progress bar.

    Returns:
        The trained generators, with their moments along the way.
    """
    groups = len(targets) * n_seeds
    generator = torch.Generator().manual_seed(seed)
    data = torch.stack(
        [
            (target.draw((n_seeds, n_data), generator) - target.mean) / target.std
            for target in targets
        ]
    )  # (targets, seeds, n_data)
    data = data.flatten(0, 1).T.contiguous()  # (n_data, groups): a row holds one draw per group
    with seeded(seed):
        model = GAN(
            GroupedGenerator(groups, latent_dim, hidden), GroupedDiscriminator(groups, hidden)
        )
    steps: list[int] = []
    moments: list[Tensor] = []

    def measure(step: int, model: GAN) -> None:
        x = model.generator.sample(4096, generator=torch.Generator().manual_seed(1))
        steps.append(step)
        moments.append(torch.stack([x.mean((1, 2)), x.std((1, 2))]))  # (2, groups)

    fit(
        model,
        players(
            method.objective,
            discriminator_updates=method.updates,
            penalty=method.penalty,
            optimizer=partial(torch.optim.Adam, betas=method.betas, fused=True),
        ),
        data,
        steps=method.steps,
        batch_size=batch_size,
        learning_rate=method.learning_rate,
        schedule=linear_decay if method.decay else None,
        ema=method.average,
        # One draw per group becomes one example, sorted by group.
        transform=lambda batch, noise: batch.T.reshape(-1, 1),
        callback=measure,
        seed=seed,
        progress=progress,
        accelerator="cpu",  # networks this small are faster there
    )
    measured = torch.stack(moments).unflatten(2, (len(targets), n_seeds))  # (T, 2, targets, seeds)
    return Trained(method, tuple(targets), n_seeds, model, steps, measured[:, 0], measured[:, 1])


def divergences(
    trained: Trained, *, repetitions: int = 100, n_draws: int = 10_000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """KL(true ‖ generated) by histogram and by kernel density, averaged over repetitions.

    Args:
        trained: the generators.
        repetitions: how often both targets are drawn afresh.
        n_draws: draws of each target per repetition.
        seed: seeds the draws.

    Returns:
        Two tensors of shape ``(targets, seeds)``, in nats.
    """
    generator = torch.Generator().manual_seed(seed)
    by_histogram = torch.zeros(len(trained.targets), trained.n_seeds, dtype=torch.float64)
    by_kernel = torch.zeros_like(by_histogram)
    for _ in range(repetitions):
        fake = trained.sample(n_draws, generator=generator)  # (targets, seeds, n)
        for i, target in enumerate(trained.targets):
            true = target.draw((n_draws,), generator)
            by_histogram[i] += torch.stack([_histogram_kl(target, true, one) for one in fake[i]])
            by_kernel[i] += _kernel_kl(target, true, fake[i])
    return by_histogram / repetitions, by_kernel / repetitions


@dataclass(frozen=True)
class Score:
    """One number by each of the two measures, in nats.

    Attributes:
        histogram: the divergence of histograms.
        kernel: the divergence of kernel densities.
    """

    histogram: float
    kernel: float


def noise_floor(
    target: Target, *, repetitions: int = 100, n_draws: int = 10_000, seed: int = 0
) -> Score:
    """What two samples of the same target score: the least that a generator can expect."""
    return _score_of(target, target.draw, repetitions, n_draws, seed)


def saturation(
    target: Target, *, repetitions: int = 100, n_draws: int = 10_000, seed: int = 0
) -> Score:
    """What a generator scores that misses all bins of the target: no score says how far it is away.

    The histogram's value depends on the number of draws and on what is added to each count, the
    kernel's on the density that is added.
    """

    def miss(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.full(shape, target.high + 100 * target.std)

    return _score_of(target, miss, repetitions, n_draws, seed)


def _score_of(target: Target, fake: Draw, repetitions: int, n_draws: int, seed: int) -> Score:
    generator = torch.Generator().manual_seed(seed)
    histogram = kernel = 0.0
    for _ in range(repetitions):
        x, y = target.draw((n_draws,), generator), fake((n_draws,), generator)
        histogram += _histogram_kl(target, x, y).item()
        kernel += _kernel_kl(target, x, y[None]).item()
    return Score(histogram / repetitions, kernel / repetitions)


def _cells(samples: Tensor, low: float, high: float, n: int) -> Tensor:
    """Cell of each draw among n of equal width: 1 … n, with 0 and n + 1 for those outside."""
    cells = torch.floor((samples - low) / (high - low) * n).clamp(-1, n)
    return cells.long() + 1


def _counts(cells: Tensor, n: int) -> Tensor:
    counts = torch.zeros(*cells.shape[:-1], n, dtype=torch.float64)
    return counts.scatter_add_(-1, cells, torch.ones_like(cells, dtype=torch.float64))


def _histogram_kl(target: Target, true: Tensor, fake: Tensor) -> Tensor:
    """KL of histograms of 50 equal bins between `low` and `high`, and one on either side."""
    return histogram_kl(true, fake, torch.linspace(target.low, target.high, 51))


def _kernel_kl(target: Target, true: Tensor, fake: Tensor) -> Tensor:
    """KL of Gaussian kernel density estimates, with Silverman's bandwidth of the true sample.

    Densities are evaluated on a grid that reaches one standard deviation beyond the bins; draws
    outside are counted at its ends. A density of 1e-6 per standard deviation is added to both, or a
    generator with a bounded range would diverge infinitely.
    """
    edges = torch.linspace(target.low - target.std, target.high + target.std, 513)
    centres = (edges[1:] + edges[:-1]) / 2
    bandwidth = 0.9 * true.std() * len(true) ** -0.2
    # Smoothing a fine histogram is the kernel estimate up to the width of its cells.
    kernel = torch.exp(-0.5 * ((centres[:, None] - centres) / bandwidth) ** 2)
    kernel = kernel / kernel.sum(0)

    def density(samples: Tensor) -> Tensor:
        cells = _cells(samples, edges[0].item(), edges[-1].item(), 512)
        counts = _counts((cells - 1).clamp(0, 511), 512)
        mass = (
            counts @ kernel.T.double() / samples.shape[-1]
            + 1e-6 * (edges[1] - edges[0]) / target.std
        )
        return mass / mass.sum(-1, keepdim=True)

    return kl_discrete(density(true).expand(len(fake), -1), density(fake))

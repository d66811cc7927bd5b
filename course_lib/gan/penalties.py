r"""Terms that keep the discriminator's gradient in check, and weight clipping.

Every penalty is added to what the discriminator **minimizes**. The gradient is taken by the
input, its norm per example (over all dimensions of one example, never over the batch), and the
result can be differentiated again. At a zero gradient the norm has the subgradient 0: no NaN.

The discriminator's output is its logit (or score), one per example. That the gradient of the sum of outputs
holds the gradient of each example's output is true only if no output depends on another
example: hence batch normalization is refused.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from course_lib.inputs import (
    require_floating,
    require_function,
    require_generator,
    require_real,
    require_weight,
)
from course_lib.precision import at_least_float32

Critic = Callable[[Tensor], Tensor]


def gradient_penalty(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    *,
    weight: float = 1.0,
    one_sided: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The penalty of WGAN-GP, equation ``eq-wgan-gp``: no factor ½.

    .. math:: \lambda\,\tfrac1N\sum_i \left(\lVert\nabla f(\hat x_i)\rVert_2 - 1\right)^2,
              \qquad \hat x_i = u_i x_i + (1-u_i)\,G(z_i),\quad u_i \sim U(0, 1)

    Each pair has a mixing weight of its own.

    Args:
        critic: maps ``(N, *event_shape)`` to one score per example, shape ``(N,)``.
        real: real examples, shape ``(N, *event_shape)``.
        fake: generated examples, same shape; the penalty sends no gradient to where they come from.
        weight: λ ≥ 0. The paper takes 10.
        one_sided: penalize only norms above 1: max(0, ‖∇‖ − 1)².
        generator: source of the mixing weights; the global one if none is given.

    Returns:
        A scalar ≥ 0, to be added to the loss that the critic minimizes.

    Raises:
        ValueError: λ is negative, shapes differ, or `critic` holds batch normalization.

    Source: Gulrajani et al. (2017).
    """
    weight = require_weight(weight, "weight (λ)")
    _require_critic(critic, "critic")
    _require_examples(real, "real")
    _require_examples(fake, "fake")
    if real.shape != fake.shape:
        raise ValueError(
            f"real has shape {tuple(real.shape)} and fake {tuple(fake.shape)}; the same shape is "
            f"expected, because each interpolate lies between a pair. Generate len(real) examples."
        )
    require_generator(generator, real.device)
    mix = torch.rand(
        (len(real),) + (1,) * (real.dim() - 1),  # one weight per pair
        dtype=real.dtype,
        device=real.device,
        generator=generator,
    )
    points = mix * real.detach() + (1 - mix) * fake.detach()
    excess = _gradient(critic, points)[1].norm(dim=1) - 1  # (N,)
    if one_sided:
        excess = excess.clamp(min=0)
    return weight * excess.square().mean()


def r1_penalty(discriminator: Critic, real: Tensor, *, gamma: float = 1.0) -> Tensor:
    r"""The gradient penalty on data (GAN-DP, also known as R1), equation ``eq-r1``: note γ/2.

    .. math:: \frac\gamma2\,\tfrac1N\sum_i \lVert\nabla a(x_i)\rVert_2^2

    where a is the discriminator's logit.

    Args:
        discriminator: maps ``(N, *event_shape)`` to one logit per example, shape ``(N,)``.
        real: real examples, shape ``(N, *event_shape)``.
        gamma: γ ≥ 0.

    Returns:
        A scalar ≥ 0, to be added to the loss that the discriminator minimizes.

    Raises:
        ValueError: γ is negative, or `discriminator` holds batch normalization.

    Source: Mescheder, Geiger and Nowozin (2018), who simplify the regularizer of Roth et al. (2017)
    and show local convergence.
    """
    gamma = require_weight(gamma, "gamma (γ)")
    _require_critic(discriminator, "discriminator")
    _require_examples(real, "real")
    gradient = _gradient(discriminator, real)[1]
    return gamma / 2 * gradient.square().sum(1).mean()


def roth_penalty(
    discriminator: Critic, real: Tensor, fake: Tensor, *, gamma: float = 1.0
) -> Tensor:
    r"""Roth's weighted penalty on both distributions, equation ``eq-roth``: note γ/2.

    .. math:: \frac\gamma2\,\tfrac1N\sum_i (1-D(x_i))^2\lVert\nabla a(x_i)\rVert_2^2
              + \frac\gamma2\,\tfrac1M\sum_j D(G(z_j))^2\lVert\nabla a(G(z_j))\rVert_2^2

    where a is the logit and D its sigmoid. It is the effect of adding noise of variance γ
    to both distributions, to first order. Where D = ½ it damps half as much as `r1_penalty` at equal γ.

    Args:
        discriminator: maps ``(N, *event_shape)`` to one logit per example, shape ``(N,)``.
        real: real examples, shape ``(N, *event_shape)``.
        fake: generated examples, shape ``(M, *event_shape)``; no gradient is sent back to
            where they come from.
        gamma: γ ≥ 0.

    Returns:
        A scalar ≥ 0, to be added to the loss that the discriminator minimizes.

    Raises:
        ValueError: γ is negative, or `discriminator` holds batch normalization.

    Source: Roth, Lucchi, Nowozin and Hofmann (2017).
    """
    gamma = require_weight(gamma, "gamma (γ)")
    _require_critic(discriminator, "discriminator")
    _require_examples(real, "real")
    _require_examples(fake, "fake")
    real_logits, real_gradient = _gradient(discriminator, real)
    fake_logits, fake_gradient = _gradient(discriminator, fake)
    on_real = torch.sigmoid(-real_logits).square() * real_gradient.square().sum(1)
    on_fake = torch.sigmoid(fake_logits).square() * fake_gradient.square().sum(1)
    return gamma / 2 * (on_real.mean() + on_fake.mean())


def weight_clipping(
    bound: float, optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.RMSprop
) -> Callable[..., torch.optim.Optimizer]:
    """An optimizer that clips every weight to [−bound, bound] after each of its steps.

    Clipping bounds the critic's Lipschitz constant by some number, not by 1: the first, crude way
    to train a Wasserstein critic.

    Args:
        bound: largest absolute value of a weight; the paper takes 0.01.
        optimizer: called with the parameters and ``lr=``; RMSprop as in the paper.

    Returns:
        What `course_lib.training.Player` takes as `optimizer`.

    Raises:
        ValueError: `bound` is not positive.

    Source: Arjovsky, Chintala and Bottou (2017).
    """
    bound = require_real(bound, "bound", "a positive number, such as 0.01,", above=0)
    optimizer_kind = "a function of parameters and lr=, such as torch.optim.RMSprop,"
    require_function(optimizer, "optimizer", optimizer_kind)

    def clip(stepped: torch.optim.Optimizer, *_: object) -> None:
        with torch.no_grad():
            for group in stepped.param_groups:
                for parameter in group["params"]:
                    parameter.clamp_(-bound, bound)

    def build(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        built = optimizer(parameters, lr=lr)
        built.register_step_post_hook(clip)
        return built

    return build


# torch.compile cannot differentiate twice what it has compiled: this part runs uncompiled.
@torch.compiler.disable
def _gradient(critic: Critic, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs, shape ``(N,)``, and the gradient of each by its own example, shape ``(N, D)``.

    Both in at least float32: the square of a gradient is a sum over all dimensions.
    """
    # Gradients are wanted here even where the caller has switched them off (in a validation step).
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        outputs = critic(x)
        if outputs.shape != (len(x),):
            raise ValueError(
                f"the critic maps {tuple(x.shape)} to {tuple(outputs.shape)}; one output per example, "
                f"shape {(len(x),)}, is expected. Remove a last dimension of one with squeeze(-1)."
            )
        (gradient,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
    return at_least_float32(outputs), at_least_float32(gradient).flatten(1)


def _require_examples(x: Tensor, name: str) -> None:
    require_floating(x, name)
    if x.dim() == 0 or x.numel() == 0:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; at least one example, (N, *event_shape), is expected."
        )


def _require_critic(critic: Critic, name: str) -> None:
    """Require a function of examples that holds no batch normalization."""
    require_function(critic, name, "a function of examples, such as a network,")
    module = critic.func if isinstance(critic, partial) else critic
    layers = module.named_modules() if isinstance(module, nn.Module) else ()
    for layer_name, layer in layers:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"the critic's layer {layer_name!r} is {type(layer).__name__}, under a gradient penalty. "
                f"Batch normalization makes each output depend on the whole batch, so that the "
                f"gradient of one example's output is not defined. Take nn.GroupNorm or "
                f"nn.LayerNorm, spectral normalization, or none."
            )

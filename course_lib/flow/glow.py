"""Glow: actnorm, invertible 1×1 convolution, affine coupling (Kingma and Dhariwal, 2018)."""

from collections.abc import Sequence

from course_lib.flow.conditioners import ImageConditioner
from course_lib.flow.coupling import AffineCoupling
from course_lib.flow.elementwise import ActNorm
from course_lib.flow.flow import Flow
from course_lib.flow.image import Invertible1x1Convolution, Squeeze, scale_by_scale
from course_lib.flow.masks import channel_mask
from course_lib.flow.transform import Transform
from course_lib.inputs import require_positive_integer


def glow_step(
    event_shape: Sequence[int], *, width: int, dropout: float = 0.0, bound: float = 2.0
) -> list[Transform]:
    """One step of flow: normalize each channel, mix the channels, transform half of them.

    The learned mixing takes the place of alternating masks: the mask is always the same.

    Args:
        event_shape: shape ``(C, H, W)`` of the step's input, C even.
        width: hidden channels of the coupling's network.
        dropout: probability of dropping a hidden channel while training.
        bound: largest absolute value of the coupling's log-scale.

    Returns:
        The three transforms in their order.
    """
    mask = channel_mask(event_shape)
    network = ImageConditioner(mask, AffineCoupling.n_parameters, width, dropout)
    return [
        ActNorm(event_shape),
        Invertible1x1Convolution(event_shape),
        AffineCoupling(mask, network, bound),
    ]


class Glow(Flow):
    """At each scale a squeeze and several steps of flow; then half of the channels leave.

    Call ``initialize`` with a batch of data once before training.

    Args:
        event_shape: shape ``(C, H, W)`` of one image; H and W divisible by 2 to the power of
            `scales`.
        scales: number of scales.
        steps: steps of flow at each scale.
        width: hidden channels of a coupling's network.
        dropout: probability of dropping a hidden channel while training.
        logit_margin: margin of a `course_lib.flow.Logit` before all, for data in [0, 1]; None for data
            on the line.
        bound: largest absolute value of a coupling's log-scale.

    Raises:
        ValueError: the sides cannot be halved that often.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        scales: int = 2,
        steps: int = 4,
        width: int = 64,
        dropout: float = 0.0,
        logit_margin: float | None = None,
        bound: float = 2.0,
    ) -> None:
        def layers_at(shape: tuple[int, ...]) -> list[Transform]:
            squeeze = Squeeze(shape)
            layers: list[Transform] = [squeeze]
            for _ in range(require_positive_integer(steps, "steps")):
                layers += glow_step(squeeze.latent_shape, width=width, dropout=dropout, bound=bound)
            return layers

        super().__init__(scale_by_scale(event_shape, scales, layers_at, logit_margin))

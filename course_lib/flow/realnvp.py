"""RealNVP: affine couplings, for vectors and for images (Dinh, Sohl-Dickstein and Bengio, 2017)."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from course_lib.flow.conditioners import ImageConditioner, VectorConditioner
from course_lib.flow.coupling import AffineCoupling
from course_lib.flow.elementwise import ActNorm, preprocessing
from course_lib.flow.flow import Flow
from course_lib.flow.image import Squeeze, scale_by_scale
from course_lib.flow.masks import channel_mask, checkerboard_mask, half_mask
from course_lib.flow.transform import Composition, Transform
from course_lib.inputs import require_count, require_positive_integer


class RealNVP(Flow):
    """Affine couplings with multilayer perceptrons, on the flattened entries.

    Images with even sides get checkerboard masks; everything else is split into halves.

    Args:
        event_shape: shape of one x.
        layers: number of couplings; masks alternate.
        hidden: width of each hidden layer of a coupling's network.
        dropout: probability of dropping a hidden unit while training.
        logit_margin: margin of a `course_lib.flow.Logit` before all, for data in [0, 1]; None for data
            on the line.
        bound: largest absolute value of a coupling's log-scale.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        layers: int = 8,
        hidden: Sequence[int] = (128, 128),
        dropout: float = 0.0,
        logit_margin: float | None = None,
        bound: float = 2.0,
    ) -> None:
        transforms = preprocessing(event_shape, logit_margin)
        image = len(event_shape) == 3 and event_shape[1] % 2 == event_shape[2] % 2 == 0
        make_mask = checkerboard_mask if image else half_mask
        for index in range(require_count(layers, "layers")):
            mask = make_mask(event_shape, flip=index % 2 == 1)
            network = VectorConditioner(mask, AffineCoupling.n_parameters, hidden, dropout)
            transforms.append(AffineCoupling(mask, network, bound))
        super().__init__(Composition(transforms))


class MultiScaleRealNVP(Flow):
    """Affine couplings with convolutional networks, at several scales.

    At each scale: couplings with checkerboard masks, a squeeze, couplings with channel masks; then
    half of the channels leave. Activation normalization stands where the paper has batch
    normalization.

    Args:
        event_shape: shape ``(C, H, W)`` of one image; H and W divisible by 2 to the power of
            `scales`.
        scales: number of scales.
        couplings: couplings of each kind at each scale; masks alternate.
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
        couplings: int = 3,
        width: int = 32,
        dropout: float = 0.0,
        logit_margin: float | None = None,
        bound: float = 2.0,
    ) -> None:
        def coupled(
            shape: tuple[int, ...], make_mask: Callable[..., Tensor]
        ) -> Iterator[Transform]:
            for index in range(require_positive_integer(couplings, "couplings")):
                mask = make_mask(shape, flip=index % 2 == 1)
                network = ImageConditioner(mask, AffineCoupling.n_parameters, width, dropout)
                yield ActNorm(shape)
                yield AffineCoupling(mask, network, bound)

        def layers_at(shape: tuple[int, ...]) -> list[Transform]:
            squeeze = Squeeze(shape)
            return [
                *coupled(shape, checkerboard_mask),
                squeeze,
                *coupled(squeeze.latent_shape, channel_mask),
            ]

        super().__init__(scale_by_scale(event_shape, scales, layers_at, logit_margin))

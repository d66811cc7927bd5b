"""RealNVP: affine couplings, for vectors and for images (Dinh, Sohl-Dickstein and Bengio, 2017)."""

from collections.abc import Sequence

from course_lib.flow.conditioners import ImageConditioner, VectorConditioner
from course_lib.flow.coupling import AffineCoupling
from course_lib.flow.elementwise import ActNorm, preprocessing
from course_lib.flow.flow import Flow
from course_lib.flow.image import MultiScale, Squeeze
from course_lib.flow.masks import channel_mask, checkerboard_mask, half_mask
from course_lib.flow.transform import Composition


class RealNVP(Flow):
    """Affine couplings with multilayer perceptrons, on the flattened entries.

    Images with even sides get checkerboard masks; everything else is split into halves.

    Args:
        event_shape: shape of one x.
        layers: number of couplings; masks alternate.
        hidden: width of each hidden layer of a coupling's network.
        dropout: probability of dropping a hidden unit while training.
        logit: margin of a `course_lib.flow.Logit` before all, for data in [0, 1]; None for data
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
        logit: float | None = None,
        bound: float = 2.0,
    ) -> None:
        image = len(event_shape) == 3 and event_shape[1] % 2 == event_shape[2] % 2 == 0
        make_mask = checkerboard_mask if image else half_mask
        transforms = preprocessing(event_shape, logit)
        for index in range(layers):
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
        logit: margin of a `course_lib.flow.Logit` before all, for data in [0, 1]; None for data
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
        logit: float | None = None,
        bound: float = 2.0,
    ) -> None:
        shape = tuple(event_shape)
        stages = []
        for scale in range(scales):
            layers = preprocessing(shape, logit) if scale == 0 else []
            for make_mask, squeeze in ((checkerboard_mask, False), (channel_mask, True)):
                if squeeze:
                    layers.append(Squeeze(shape))
                    shape = layers[-1].latent_shape
                for index in range(couplings):
                    mask = make_mask(shape, flip=index % 2 == 1)
                    network = ImageConditioner(mask, AffineCoupling.n_parameters, width, dropout)
                    layers += [ActNorm(shape), AffineCoupling(mask, network, bound)]
            stages.append(Composition(layers))
            shape = (shape[0] // 2, *shape[1:])
        super().__init__(MultiScale(stages))

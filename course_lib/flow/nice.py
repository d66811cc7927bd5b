"""NICE: additive couplings and one scaling (Dinh, Krueger and Bengio, 2015)."""

from collections.abc import Sequence

from course_lib.flow.conditioners import VectorConditioner
from course_lib.flow.coupling import AdditiveCoupling
from course_lib.flow.elementwise import ElementwiseAffine, preprocessing
from course_lib.flow.flow import Flow
from course_lib.flow.masks import alternating_mask
from course_lib.flow.transform import Composition
from course_lib.inputs import require_count


class NICE(Flow):
    """Couplings that only shift, z = x + t(kept entries), then a scale for every entry.

    The couplings preserve volume. The scaling at the end is all there is of a log-determinant, the
    same for every x; only a logit before it, if there is one, adds a term that depends on x.

    Args:
        event_shape: shape of one x.
        layers: number of couplings; masks alternate.
        hidden: width of each hidden layer of a coupling's network.
        dropout: probability of dropping a hidden unit while training.
        logit_margin: margin of a `course_lib.flow.Logit` before all, for data in [0, 1]; None for data
            on the line.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        layers: int = 4,
        hidden: Sequence[int] = (128, 128),
        dropout: float = 0.0,
        logit_margin: float | None = None,
    ) -> None:
        transforms = preprocessing(event_shape, logit_margin)
        for index in range(require_count(layers, "layers")):
            mask = alternating_mask(event_shape, flip=index % 2 == 1)
            network = VectorConditioner(mask, AdditiveCoupling.n_parameters, hidden, dropout)
            transforms.append(AdditiveCoupling(mask, network))
        super().__init__(Composition([*transforms, ElementwiseAffine(event_shape)]))

"""Neural spline flow: couplings by splines (Durkan, Bekasov, Murray and Papamakarios, 2019)."""

from collections.abc import Sequence

from course_lib.flow.conditioners import VectorConditioner
from course_lib.flow.elementwise import ElementwiseAffine
from course_lib.flow.flow import Flow
from course_lib.flow.masks import alternating_mask
from course_lib.flow.spline import SplineCoupling, require_bins
from course_lib.flow.transform import Composition
from course_lib.inputs import require_count


class SplineFlow(Flow):
    """Rational-quadratic spline couplings, for vectors on the line.

    An affine map of every entry comes first; ``initialize`` sets it so that the data fall where the
    splines bend.

    Args:
        event_shape: shape of one x.
        layers: number of couplings; masks alternate.
        hidden: width of each hidden layer of a coupling's network.
        bins: pieces of each spline, below 100.
        limit: splines bend on [−limit, limit] and are the identity outside.
        dropout: probability of dropping a hidden unit while training.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        layers: int = 4,
        hidden: Sequence[int] = (64, 64),
        bins: int = 8,
        limit: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        bins = require_bins(bins)  # before the networks, whose sizes depend on it
        transforms = [ElementwiseAffine(event_shape)]
        for index in range(require_count(layers, "layers")):
            mask = alternating_mask(event_shape, flip=index % 2 == 1)
            network = VectorConditioner(mask, 3 * bins - 1, hidden, dropout)
            transforms.append(SplineCoupling(mask, network, bins, limit))
        super().__init__(Composition(transforms))

"""Planar flow as a model (Rezende and Mohamed, 2015)."""

from collections.abc import Sequence

from course_lib.flow.elementwise import ElementwiseAffine
from course_lib.flow.flow import Flow
from course_lib.flow.planar import Planar
from course_lib.flow.transform import Composition
from course_lib.inputs import require_count


class PlanarFlow(Flow):
    """Planar transforms, each of which pushes space apart or together along one direction.

    An affine map of every entry comes first, for location and scale. The density is in closed
    form; sampling solves one equation per layer.

    Args:
        event_shape: shape ``(D,)`` of one x.
        layers: number of planar transforms.
    """

    def __init__(self, event_shape: Sequence[int], *, layers: int = 16) -> None:
        planar = [Planar(event_shape) for _ in range(require_count(layers, "layers"))]
        super().__init__(Composition([ElementwiseAffine(event_shape), *planar]))

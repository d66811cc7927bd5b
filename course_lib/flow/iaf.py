"""IAF: inverse autoregressive flow (Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, 2016)."""

from collections.abc import Sequence

from course_lib.flow.autoregressive import autoregressive_layers
from course_lib.flow.elementwise import preprocessing
from course_lib.flow.flow import Flow
from course_lib.flow.transform import Composition


class IAF(Flow):
    """Autoregressive layers used backwards: each x is computed from the latents before it.

    Sampling takes one pass; the density goes entry by entry.

    Args:
        event_shape: shape of one x.
        layers: number of autoregressive layers, with the order of the entries reversed in between.
        hidden: width of each hidden layer of a layer's network.
        dropout: probability of dropping a hidden unit while training.
        logit_margin: margin of a `course_lib.flow.Logit` before all, for data in [0, 1]; None for data
            on the line.
        bound: largest absolute value of a log-scale.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        layers: int = 5,
        hidden: Sequence[int] = (128, 128),
        dropout: float = 0.0,
        logit_margin: float | None = None,
        bound: float = 3.0,
    ) -> None:
        layers = autoregressive_layers(
            event_shape, layers, hidden, bound=bound, dropout=dropout, inverse=True
        )
        super().__init__(Composition([*preprocessing(event_shape, logit_margin), *layers]))

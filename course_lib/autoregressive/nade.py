"""NADE: the neural autoregressive distribution estimator."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoregressive.base import Autoregressive
from course_lib.distributions import GreyLevels
from course_lib.fast import fast_path
from course_lib.inputs import require_positive_integer
from course_lib.precision import at_least_float32


class NADE(Autoregressive):
    """One hidden layer for each dimension, all sharing their weights.

    h_i = σ(c + Σ_{j<i} V_j x_j); parameters_i = b_i + U_i h_i. The hidden layers of neighbouring
    dimensions differ by one term, so that all of them together cost as much as one
    matrix product: keep the running sum.

    Source: Larochelle and Murray, "The neural autoregressive distribution estimator" (2011).

    Args:
        event_shape: shape of one example; its dimensions are generated in the order of the
            flattened tensor.
        levels: number K of grey levels.
        hidden: number of hidden units.
        distribution: of one entry; if none is given, Bernoulli for two levels and categorical for
            more.

    Example:
        >>> model = NADE((1, 4, 4), 2, hidden=20)
        >>> model.log_prob(model.sample(3)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        hidden: int = 256,
        distribution: GreyLevels | None = None,
    ) -> None:
        super().__init__(event_shape, levels, distribution)
        hidden = require_positive_integer(hidden, "hidden")
        D, P = self.n_dims, self.distribution.n_parameters
        self.V = nn.Parameter(torch.randn(D, hidden) * D**-0.5)
        self.c = nn.Parameter(torch.zeros(hidden))
        self.U = nn.Parameter(torch.randn(D, hidden, P) * hidden**-0.5)
        self.b = nn.Parameter(torch.zeros(D, P))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, shape ``(N, *event_shape, P)``, for grey levels `x`."""
        # A running sum in half precision soon swallows the terms that are added to it.
        arguments = map(at_least_float32, (self.encode(x).flatten(1), self.V, self.c, self.U))
        compute = fast_path(products) or products
        parameters = compute(*arguments) + self.b
        return parameters.view(len(x), *self.event_shape, -1)


def products(x: Tensor, V: Tensor, c: Tensor, U: Tensor) -> Tensor:
    """U_i σ(c + Σ_{j<i} V_j x_j) of every dimension i, with all hidden layers in one tensor.

    Args:
        x: encoded, shape ``(N, D)``.
        V: weights of the inputs, shape ``(D, hidden)``.
        c: bias of all hidden layers, shape ``(hidden,)``.
        U: weights of the outputs, shape ``(D, hidden, P)``.

    Returns:
        Shape ``(N, D, P)``.
    """
    return read(torch.sigmoid(running_sums(x, V, c)), U)


def running_sums(x: Tensor, V: Tensor, c: Tensor) -> Tensor:
    """c + Σ_{j<i} V_j x_j of every dimension i, shape ``(N, D, hidden)``."""
    # A running sum that starts with c = 1 · c.
    factors = F.pad(x[:, :-1], (1, 0), value=1.0)
    weights = torch.cat([c.unsqueeze(0), V[:-1]])
    return (factors.unsqueeze(-1) * weights).cumsum(1)


def read(h: Tensor, U: Tensor) -> Tensor:
    """U_i h_i of every dimension i, shape ``(N, D, P)``."""
    return torch.einsum("ndh,dhp->ndp", h, U)

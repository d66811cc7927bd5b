"""NADE: the neural autoregressive distribution estimator."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from course_lib.autoregressive.base import Autoregressive, Steps
from course_lib.custom_gradient import wants_plain_operations
from course_lib.distributions import GreyLevels
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
        # One after another pays where a small step costs little.
        in_turn = x.device.type == "cpu" and not torch.compiler.is_compiling()
        parameters = (_RunningSum.apply if in_turn else _all_at_once)(*arguments) + self.b
        return parameters.view(len(x), *self.event_shape, -1)

    def _cached(self, n: int, labels: Tensor | None) -> Steps:
        V, c, U, b = map(at_least_float32, (self.V, self.c, self.U, self.b))
        before = c.expand(n, -1).clone()
        for i in range(self.n_dims):
            value = yield i, torch.addmm(b[i], torch.sigmoid(before), U[i])
            before.addr_(at_least_float32(self.encode(value)), V[i])


def _running_sums(x: Tensor, V: Tensor, c: Tensor) -> Tensor:
    """c + Σ_{j<i} V_j x_j of every dimension i, shape ``(N, D, hidden)``."""
    # A running sum that starts with c = 1 · c.
    factors = F.pad(x[:, :-1], (1, 0), value=1.0)
    weights = torch.cat([c.unsqueeze(0), V[:-1]])
    return (factors.unsqueeze(-1) * weights).cumsum(1)


def _read(h: Tensor, U: Tensor) -> Tensor:
    """U_i h_i of every dimension i, shape ``(N, D, P)``."""
    return torch.einsum("ndh,dhp->ndp", h, U)


def _all_at_once(x: Tensor, V: Tensor, c: Tensor, U: Tensor) -> Tensor:
    return _read(torch.sigmoid(_running_sums(x, V, c)), U)


class _RunningSum(torch.autograd.Function):
    """`_all_at_once`, one dimension after another, as the paper does it.

    Only the running sum is kept, N · hidden numbers, which stay in the processor's cache. On the
    way back the terms leave it in the opposite order, and each hidden layer is computed again.
    """

    @staticmethod
    def forward(x: Tensor, V: Tensor, c: Tensor, U: Tensor) -> Tensor:
        columns = x.T.contiguous()  # (D, N)
        before = c.expand(len(x), -1).clone()
        h = torch.empty_like(before)
        products = x.new_empty(len(V), len(x), U.shape[-1])
        for i in range(len(V)):
            torch.mm(torch.sigmoid(before, out=h), U[i], out=products[i])
            before.addr_(columns[i], V[i])
        return products.transpose(0, 1)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, V, c, U = inputs = ctx.saved_tensors
        if wants_plain_operations(grad):
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                products = _all_at_once(*inputs)
            wanted = [t for t, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
            given = iter(torch.autograd.grad(products, wanted, grad, create_graph=again))
            return tuple(next(given) if needed else None for needed in ctx.needs_input_grad)
        columns, grads = x.T.contiguous(), grad.transpose(0, 1).contiguous()
        before = torch.addmm(c, x, V)  # with all terms
        h, of_h = torch.empty_like(before), torch.empty_like(before)
        of_x, of_V, of_U = torch.empty_like(columns), torch.empty_like(V), torch.empty_like(U)
        of_before = torch.zeros_like(before)  # from all hidden layers after i
        for i in reversed(range(len(V))):
            torch.mv(of_before, V[i], out=of_x[i])
            torch.mv(of_before.T, columns[i], out=of_V[i])
            before.addr_(columns[i], V[i], alpha=-1)
            torch.sigmoid(before, out=h)
            torch.mm(h.T, grads[i], out=of_U[i])
            torch.mm(grads[i], U[i].T, out=of_h)
            of_before.addcmul_(of_h, h.addcmul_(h, h, value=-1))  # σ′ = σ − σ²
        return of_x.T, of_V, of_before.sum(0), of_U

    @staticmethod
    def vmap(info: object, in_dims: tuple, *inputs: Tensor) -> tuple[Tensor, int]:
        return torch.vmap(_all_at_once, in_dims)(*inputs), 0

    @staticmethod
    def jvp(ctx: FunctionCtx, *tangents: Tensor | None) -> Tensor:
        x, V, c, U = ctx.saved_tensors
        of_x, of_V, of_c, of_U = (
            torch.zeros_like(of) if tangent is None else tangent
            for of, tangent in zip(ctx.saved_tensors, tangents, strict=True)
        )
        h = torch.sigmoid(_running_sums(x, V, c))
        of_sums = _running_sums(of_x, V, of_c) + _running_sums(x, of_V, torch.zeros_like(c))
        return _read(h, of_U) + _read(h * (1 - h) * of_sums, U)

"""NADE's running sum: in the sampler, and in training with a gradient that keeps nothing else."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from course_lib.autoregressive.base import Steps
from course_lib.autoregressive.nade import NADE, products, read, running_sums
from course_lib.fast import register
from course_lib.fast.custom_gradient import backward_is_transformed
from course_lib.precision import at_least_float32


@register(NADE.forward)
def steps(model: NADE, n: int, labels: Tensor | None) -> Steps:
    """One running sum, to which each new value adds its term."""
    V, c, U, b = map(at_least_float32, (model.V, model.c, model.U, model.b))
    before = c.expand(n, -1).clone()
    for i in range(model.n_dims):
        value = yield i, torch.addmm(b[i], torch.sigmoid(before), U[i])
        before.addr_(at_least_float32(model.encode(value)), V[i])


@register(products)
def products_in_turn(x: Tensor, V: Tensor, c: Tensor, U: Tensor) -> Tensor:
    """`course_lib.autoregressive.nade.products`, one dimension after another.

    Args:
        x: encoded, shape ``(N, D)``.
        V: shape ``(D, hidden)``.
        c: shape ``(hidden,)``.
        U: shape ``(D, hidden, P)``.

    Returns:
        Shape ``(N, D, P)``.
    """
    # It pays where a small step costs little.
    return (_RunningSum.apply if x.device.type == "cpu" else products)(x, V, c, U)


class _RunningSum(torch.autograd.Function):
    """`products`, one dimension after another, as the paper does it.

    Only the running sum is kept, N · hidden numbers, which stay in the processor's cache. On the
    way back the terms leave it in the opposite order, and each hidden layer is computed again.
    """

    @staticmethod
    def forward(x: Tensor, V: Tensor, c: Tensor, U: Tensor) -> Tensor:
        columns = x.T.contiguous()  # (D, N)
        before = c.expand(len(x), -1).clone()
        h = torch.empty_like(before)
        y = x.new_empty(len(V), len(x), U.shape[-1])
        for i in range(len(V)):
            torch.mm(torch.sigmoid(before, out=h), U[i], out=y[i])
            before.addr_(columns[i], V[i])
        return y.transpose(0, 1)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, V, c, U = inputs = ctx.saved_tensors
        if backward_is_transformed(grad):
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                y = products(*inputs)
            wanted = [t for t, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
            given = iter(torch.autograd.grad(y, wanted, grad, create_graph=again))
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
        return torch.vmap(products, in_dims)(*inputs), 0

    @staticmethod
    def jvp(ctx: FunctionCtx, *tangents: Tensor | None) -> Tensor:
        x, V, c, U = ctx.saved_tensors
        of_x, of_V, of_c, of_U = (
            torch.zeros_like(of) if tangent is None else tangent
            for of, tangent in zip(ctx.saved_tensors, tangents, strict=True)
        )
        h = torch.sigmoid(running_sums(x, V, c))
        of_sums = running_sums(of_x, V, of_c) + running_sums(x, of_V, torch.zeros_like(c))
        return read(h, of_U) + read(h * (1 - h) * of_sums, U)

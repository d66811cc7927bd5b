"""The optimizer of each player: made, and found to be one of those that the loop can use."""

import inspect
from collections.abc import Callable

import torch
from torch import nn

OptimizerFactory = Callable[..., torch.optim.Optimizer]

EXPECTED = "a function of parameters and lr=, such as torch.optim.SGD, is expected"


def require_factory(optimizer: OptimizerFactory | None, name: str) -> None:
    """Require what makes an optimizer; raise `TypeError` for one that is made, and for anything else."""
    if isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        raise TypeError(
            f"{name} is a {kind} that has its parameters already; {EXPECTED}. Pass the class, "
            f"torch.optim.{kind}, or lambda parameters, lr: torch.optim.{kind}(parameters, lr=lr) "
            f"with further settings."
        )
    if optimizer is not None and not callable(optimizer):
        raise TypeError(f"{name} is {optimizer!r}; {EXPECTED}.")


def make_optimizer(
    factory: OptimizerFactory | None,
    parameters: list[nn.Parameter],
    rate: float,
    model: nn.Module,
    name: str,
) -> torch.optim.Optimizer:
    """Make an optimizer, Adam in its fused form by default.

    Raises:
        TypeError: `factory` cannot be called with parameters and ``lr=``, makes no optimizer, or one
            that cannot take a step from one gradient of each parameter.
    """
    if factory is None:
        return torch.optim.Adam(parameters, lr=rate, fused=True)
    try:
        optimizer = factory(parameters, lr=rate)
    except TypeError as error:
        raise TypeError(f"{name} cannot be made ({error}); {EXPECTED}.") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"{name} makes a {type(optimizer).__name__}; {EXPECTED}.")
    kind = type(optimizer).__name__
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TypeError(
            f"{name} is {kind}, which evaluates the loss several times in a step; one that takes a step "
            f"from one gradient is expected, such as torch.optim.Adam. Each step of fit has one batch "
            f"and one draw of the noise."
        )
    if any("lr" not in group for group in optimizer.param_groups):
        raise TypeError(f"{name} is {kind}, which has no learning rate ('lr'); {EXPECTED}.")
    if isinstance(optimizer, torch.optim.SparseAdam):
        sparse = {
            module.weight
            for module in model.modules()
            if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse
        }
        if not sparse.issuperset(parameters):
            raise TypeError(
                f"{name} is SparseAdam, which takes sparse gradients only, as those of "
                f"nn.Embedding(sparse=True); the model's are dense. Pass torch.optim.Adam."
            )
    return optimizer

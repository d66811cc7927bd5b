"""What the hand-written backward passes share."""

import torch
from torch import Tensor


def backward_is_transformed(grad: Tensor) -> bool:
    """Whether a backward pass is itself differentiated, or mapped over a batch of gradients.

    Then it must consist of operations that PyTorch can transform, and may not write into memory.

    Args:
        grad: the gradient that the backward pass gets.
    """
    kinds = torch._C._functorch  # of batches: torch.func's, and an older one of torch.autograd.grad
    is_batch = kinds.is_batchedtensor(grad) or kinds.is_legacy_batchedtensor(grad)
    return is_batch or torch.is_grad_enabled()

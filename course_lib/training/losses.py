"""The loss of maximum likelihood, which is the same for every model with an exact likelihood."""

from torch import Tensor

from course_lib.protocols import Density
from course_lib.training.batches import Batch


def negative_log_likelihood(model: Density, batch: Batch, progress: Tensor) -> Tensor:
    """The mean of −log p(x) over a batch, as `fit` calls its losses.

    An autoregressive network sees the true dimensions before each one, not its own guesses: teacher
    forcing. That is what lets a masked network train all conditionals in one parallel pass.

    Args:
        model: any model whose likelihood is exact.
        batch: examples, or examples and labels.
        progress: not used.

    Returns:
        Nats per example, 0-d. It is the mean over examples of −log p(x), itself a sum over dimensions.
    """
    examples = batch if isinstance(batch, tuple) else (batch,)
    return -model.log_prob(*examples).mean()

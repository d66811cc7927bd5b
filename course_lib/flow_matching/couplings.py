"""Couplings: which noise each example is paired with in training.

Flow matching needs only that the pairs have the right marginals: data and standard normal noise. Independent
pairs have them. So has any permutation of a batch of independent pairs that is chosen by looking at the
batch, if then a pair is drawn at random (``eq-coupling``); pairs that lie close to one another give
straighter trajectories and a loss of smaller variance.
"""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from course_lib.inputs import require_finite, require_labels, require_positive_integer
from course_lib.schedules import require_alike


def optimal_pairing(x: Tensor, noise: Tensor) -> Tensor:
    """The permutation of the noise with the least sum of squared distances to the examples.

    An assignment problem, solved exactly in O(N³) (Crouse, 2016, as in SciPy). For finite batches it is not
    the optimal transport of the distributions. Sources: Pooladian et al. (2023), "Multisample flow
    matching"; Tong et al. (2024), "Improving and generalizing flow-based generative models with minibatch
    optimal transport".

    Args:
        x: examples, shape ``(N, *event_shape)``.
        noise: in the same shape.

    Returns:
        Indices into `noise`, int64, shape ``(N,)``: example i goes with ``noise[index[i]]``.

    Raises:
        TypeError: an argument is not a tensor of float32 or float64.
        ValueError: shapes differ, or a value is not finite.
    """
    require_alike(x=x, noise=noise)
    require_finite(x=x, noise=noise)
    # ‖x − ε‖² = ‖x‖² + ‖ε‖² − 2 x·ε, and only the last term depends on the pairing.
    cost = -x.detach().flatten(1).double() @ noise.detach().flatten(1).double().T
    _, index = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(index, device=x.device)


def paired(
    x: Tensor, noise: Tensor, labels: Tensor | None = None, *, n_classes: int | None = None
) -> Tensor:
    """Noise in the order of the optimal pairing, within each class if there are labels.

    A pairing that does not look at the classes gives each class noise from the part of the space that lies
    towards it. The conditional model then is trained on p(noise | class), which is not normal, and sampled
    from a normal distribution. Within each class noise is independent of the class, as it has to be:
    ``eq-class-coupling``.

    Args:
        x: examples, shape ``(N, *event_shape)``.
        noise: independent of `x`, in the same shape.
        labels: class of each example, int64, shape ``(N,)``; None without classes.
        n_classes: number of classes; None without classes.

    Returns:
        The noise, permuted, shape ``(N, *event_shape)``.

    Raises:
        ValueError: labels are missing, unwanted or out of range; else as `optimal_pairing`.
    """
    require_alike(x=x, noise=noise)
    if labels is not None:
        n_classes = require_positive_integer(n_classes, "n_classes")
    labels = require_labels(labels, len(x), n_classes)
    if labels is None:
        return noise[optimal_pairing(x, noise)]
    result = noise.clone()
    for label in labels.unique():
        own = (labels == label).nonzero().squeeze(1)
        result[own] = noise[own][optimal_pairing(x[own], noise[own])]
    return result

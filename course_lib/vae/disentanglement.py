"""What the averaged KL term is made of."""

import math

import torch
from torch import Tensor

from course_lib.distributions import normal_log_prob
from course_lib.inputs import require_shapes
from course_lib.precision import in_one_type

# Terms log q(z_i,j | x_n) computed at once: those of all pairs of 55,000 images would take 121 GB.
CHUNK = 2**24


def kl_decomposition(mu: Tensor, logvar: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Split the averaged KL term, equation ``eq-kl-decomposition``.

    .. math:: \mathbb{E}_x \mathrm{KL}(q(z|x)\|p(z)) = I(x; z)
              + \mathrm{KL}\Big(q(z)\Big\|\prod_j q(z_j)\Big) + \sum_j \mathrm{KL}(q(z_j)\|p(z_j))

    The aggregate posterior q(z) is the mixture of the N given posteriors: with all examples of a
    data set it is that data set's; with a batch, an estimate that is biased (its mutual information
    cannot exceed log N). The cost is that of N² densities; the memory is bounded where no gradient is
    asked for. Chen et al. (2018), *Isolating Sources of Disentanglement*.

    Args:
        mu: posterior means, shape ``(N, d)``.
        logvar: posterior log σ², shape ``(N, d)``.
        z: one sample of each posterior, shape ``(N, d)``.

    Returns:
        Mutual information, total correlation and dimension-wise KL in nats, each a Monte-Carlo mean
        over the samples and a 0-d tensor. Their sum is the mean of log q(z|x) − log p(z).
    """
    require_shapes(mu=(mu, "N d"), logvar=(logvar, "N d"), z=(z, "N d"))
    mu, logvar, z = in_one_type(mu=mu, logvar=logvar, z=z)
    log_n = math.log(len(mu))
    given_own = normal_log_prob(z, mu, logvar).sum(-1)  # log q(z_i|x_i), (N,)
    aggregate, marginals = [], []
    for part in z.split(max(1, CHUNK // mu.numel())):
        # log q(z_i,j | x_n) for all pairs: (samples of this part, N posteriors, d)
        pairs = normal_log_prob(part.unsqueeze(1), mu, logvar)
        aggregate.append(pairs.sum(-1).logsumexp(1) - log_n)
        marginals.append((pairs.logsumexp(1) - log_n).sum(-1))
    aggregate = torch.cat(aggregate)  # log q(z_i), (N,)
    marginals = torch.cat(marginals)  # Σ_j log q(z_i,j), (N,)
    prior = normal_log_prob(z).sum(-1)
    return (
        (given_own - aggregate).mean(),
        (aggregate - marginals).mean(),
        (marginals - prior).mean(),
    )

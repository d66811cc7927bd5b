"""What the averaged KL term is made of."""

import math

from torch import Tensor


def kl_decomposition(mu: Tensor, logvar: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Split the averaged KL term, equation ``eq-kl-decomposition``.

    .. math:: \mathbb{E}_x \mathrm{KL}(q(z|x)\|p(z)) = I(x; z)
              + \mathrm{KL}\Big(q(z)\Big\|\prod_j q(z_j)\Big) + \sum_j \mathrm{KL}(q(z_j)\|p(z_j))

    The aggregate posterior q(z) is the mixture of the N given posteriors: with all examples of a
    data set it is that data set's; with a batch, an estimate that is biased (its mutual information
    cannot exceed log N). Chen et al. (2018), *Isolating Sources of Disentanglement*.

    Args:
        mu: posterior means, shape ``(N, d)``.
        logvar: posterior log σ², shape ``(N, d)``.
        z: one sample of each posterior, shape ``(N, d)``.

    Returns:
        Mutual information, total correlation and dimension-wise KL in nats, each a Monte-Carlo mean
        over the samples and a 0-d tensor. Their sum is the mean of log q(z|x) − log p(z).
    """
    # log q(z_i,j | x_n) for all pairs: (N samples, N posteriors, d)
    pairs = -0.5 * ((z.unsqueeze(1) - mu) ** 2 / logvar.exp() + logvar + math.log(2 * math.pi))
    log_n = math.log(len(mu))
    given_own = pairs.diagonal().sum(0)  # log q(z_i|x_i), (N,)
    aggregate = pairs.sum(-1).logsumexp(1) - log_n  # log q(z_i), (N,)
    marginals = (pairs.logsumexp(1) - log_n).sum(-1)  # Σ_j log q(z_i,j), (N,)
    prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    return (
        (given_own - aggregate).mean(),
        (aggregate - marginals).mean(),
        (marginals - prior).mean(),
    )

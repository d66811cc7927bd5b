r"""Gaussian mixtures under noise: density, score, posterior mean and velocity, all exact.

If :math:`x \sim \sum_k w_k\,\mathcal N(m_k, C_k)`, then :math:`x_t = \alpha x + \sigma\varepsilon` is a
mixture again, with means
:math:`\alpha m_k` and covariances :math:`S_k = \alpha^2 C_k + \sigma^2 I`. All that a network is trained to
approximate is known here, at every noise level: the truth that tests and notebooks compare with.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.inputs import (
    require_batch,
    require_finite,
    require_generator,
    require_positive_integer,
    where_values_can_be_read,
)
from course_lib.schedules import Schedule, per_example, require_noise, require_single


def require_same_type(own: Tensor, **given: Tensor) -> None:
    """Require tensors of the type of another one; raise `TypeError` otherwise."""
    for name, x in given.items():
        if x.dtype != own.dtype:
            raise TypeError(
                f"{name} has dtype {x.dtype}, and what is known exactly is held in {own.dtype}; the same is "
                f"expected. Call .to({own.dtype}) on {name}."
            )


def require_noise_level(
    alpha: Tensor | float, sigma: Tensor | float, x: Tensor, *, above: bool = False
) -> tuple[Tensor, Tensor]:
    """α and σ of noised examples, in their type, each of shape ``(1,)`` or ``(N,)``.

    Args:
        alpha: factor of the signal, shape ``()`` or ``(N,)``.
        sigma: standard deviation of the noise, likewise.
        x: noised examples, shape ``(N, *event_shape)``.
        above: whether σ has to be positive.

    Raises:
        ValueError: a shape is another one, or σ is negative, or NaN.
    """
    require_noise(sigma, above=above)
    given = {"alpha": alpha, "sigma": sigma}
    alpha, sigma = (
        per_example(torch.as_tensor(value, dtype=x.dtype, device=x.device), x, name).reshape(-1)
        for name, value in given.items()
    )
    return alpha, sigma


class GaussianMixture:
    r"""A mixture of K Gaussians in D dimensions, at any noise level.

    Every method takes the level as `alpha` and `sigma`, each of shape ``()`` or ``(N,)``; without them it
    is about the data themselves. A covariance may be singular, even 0, where there is noise. What is exact
    is no model to be trained: the decomposition has no gradient where two variances are equal, so
    covariances that require one are refused.

    Each :math:`C_k = U_k \operatorname{diag}(\ell_k) U_k^\top` is decomposed once; in these coordinates
    :math:`S_k` is diagonal at every noise level.

    Args:
        weights: shape ``(K,)``, positive, sum 1.
        means: shape ``(K, D)``.
        covariances: shape ``(K, D, D)``, symmetric, no eigenvalue negative.

    Raises:
        TypeError: an argument is not a tensor of float32 or float64.
        ValueError: shapes do not fit, weights do not sum to 1, a value is not finite, or a covariance is not
            one, or requires a gradient.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        for name, value in (("weights", weights), ("means", means), ("covariances", covariances)):
            require_single(value, name)
        if (
            means.dim() != 2
            or weights.shape != means.shape[:1]
            or covariances.shape != (*means.shape, means.shape[1])
            or covariances.numel() == 0
        ):
            raise ValueError(
                f"weights has shape {tuple(weights.shape)}, means {tuple(means.shape)} and covariances "
                f"{tuple(covariances.shape)}; (K,), (K, D) and (K, D, D) are expected, K and D at "
                f"least 1."
            )
        require_same_type(means, weights=weights, covariances=covariances)
        require_finite(means=means, covariances=covariances)
        if covariances.requires_grad:
            raise ValueError(
                "covariances require a gradient, which their decomposition has not where two variances are "
                "equal; fixed ones are expected. Call .detach() on them."
            )
        if not (weights > 0).all() or abs(weights.sum().item() - 1) > 1e-5:
            raise ValueError(
                f"weights are {weights.tolist()}; positive ones that sum to 1 are expected. Divide them by "
                f"their sum."
            )
        size = covariances.abs().amax((-2, -1), keepdim=True)
        if not ((covariances - covariances.mT).abs() <= 1e-5 * size).all():
            raise ValueError("a covariance is not symmetric; symmetric ones are expected.")
        self.weights, self.means, self.covariances = weights, means, covariances
        self.event_shape = (means.shape[1],)
        self.spread, self.axes = torch.linalg.eigh(covariances)  # (K, D), (K, D, D)
        least = self.spread.min().item()
        if least < -1e-6 * self.spread.abs().max().item():
            raise ValueError(
                f"a covariance has the eigenvalue {least:.4g}; none may be negative. Build it as A @ A.mT."
            )
        self.spread = self.spread.clamp(min=0)

    @property
    def mean(self) -> Tensor:
        """E[x], shape ``(D,)``."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """Cov[x], shape ``(D, D)``: the mean of the covariances and the covariance of the means."""
        apart = self.means - self.mean
        between = torch.einsum("k,kd,ke->de", self.weights, apart, apart)
        return torch.einsum("k,kde->de", self.weights, self.covariances) + between

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw `n` examples, shape ``(n, D)``."""
        n = require_positive_integer(n, "n")
        require_generator(generator, self.means.device)
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.empty(n, *self.event_shape).to(self.means).normal_(generator=generator)
        scaled = (self.spread[which].sqrt() * noise).unsqueeze(-1)
        return self.means[which] + (self.axes[which] @ scaled).squeeze(-1)

    def _whitened(
        self, x: Tensor, alpha: Tensor | float, sigma: Tensor | float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """α, the variances along the axes of each component, and x − αm_k in these axes."""
        require_single(x, "x")
        require_batch(x, self.event_shape)
        require_same_type(self.means, x=x)
        alpha, sigma = (value.reshape(-1, 1, 1) for value in require_noise_level(alpha, sigma, x))
        variance = alpha.square() * self.spread + sigma.square()  # (1 or N, K, D)
        with where_values_can_be_read():
            if not (variance > 0).all():  # NaN is caught too
                raise ValueError(
                    "a component has no variance in some direction, and sigma is 0, or too small to be "
                    "squared: it has no density. A sigma above 0 is expected there."
                )
        apart = x.unsqueeze(1) - alpha * self.means  # (N, K, D)
        return alpha, variance, torch.einsum("kde,nkd->nke", self.axes, apart)

    def _log_joint(self, variance: Tensor, along: Tensor) -> Tensor:
        """log w_k N(x; αm_k, S_k), shape ``(N, K)``."""
        each = along.square() / variance + variance.log() + math.log(2 * math.pi)
        return self.weights.log() - 0.5 * each.sum(-1)

    def log_prob(
        self, x: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0
    ) -> Tensor:
        """Log-density of noised examples, in nats.

        Args:
            x: shape ``(N, D)``.
            alpha: factor of the signal, shape ``()`` or ``(N,)``.
            sigma: standard deviation of the noise, shape ``()`` or ``(N,)``.

        Returns:
            Shape ``(N,)``.
        """
        _, variance, along = self._whitened(x, alpha, sigma)
        return self._log_joint(variance, along).logsumexp(-1)

    def responsibilities(
        self, x: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0
    ) -> Tensor:
        """Probability of each component given a *noised* example, shape ``(N, K)``."""
        _, variance, along = self._whitened(x, alpha, sigma)
        return self._log_joint(variance, along).softmax(-1)

    def score(self, x: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0) -> Tensor:
        """∇ log p_t(x), equation ``eq-mixture-score``, shape ``(N, D)``."""
        _, variance, along = self._whitened(x, alpha, sigma)
        r = self._log_joint(variance, along).softmax(-1)
        return -torch.einsum("nk,kde,nke->nd", r, self.axes, along / variance)

    def posterior_mean(self, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """E[x | x_t], the best denoiser, equation ``eq-mixture-score``, shape ``(N, D)``."""
        alpha, variance, along = self._whitened(x, alpha, sigma)
        r = self._log_joint(variance, along).softmax(-1)
        # m_k + α C_k S_k⁻¹ (x_t − α m_k)
        pulled = torch.einsum("kde,nke->nkd", self.axes, alpha * self.spread / variance * along)
        return torch.einsum("nk,nkd->nd", r, self.means + pulled)

    def posterior_variance(self, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """E‖x − E[x|x_t]‖² given x_t, shape ``(N,)``; its mean over x_t is the least squared error."""
        alpha, variance, along = self._whitened(x, alpha, sigma)
        r = self._log_joint(variance, along).softmax(-1)
        pulled = torch.einsum("kde,nke->nkd", self.axes, alpha * self.spread / variance * along)
        means = self.means + pulled
        # Of each component C − α² C S⁻¹ C, which is C σ² S⁻¹ along the axes.
        sigma2 = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1).square()
        within = (self.spread * sigma2 / variance).sum(-1)
        centre = torch.einsum("nk,nkd->nd", r, means)
        between = (means - centre.unsqueeze(1)).square().sum(-1)
        return (r * (within + between)).sum(-1)

    def velocity(self, x: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """α̇ E[x|x_t] + σ̇ E[ε|x_t], whose ODE carries data to noise, shape ``(N, D)``.

        Written with the score's pieces, so that it is finite also where σ or α is 0.

        Args:
            x: noised examples, shape ``(N, D)``.
            t: a time, shape ``()``, or one for each example.
            schedule: the noise.
        """
        alpha, sigma = (f(t).to(x) for f in (schedule.alpha, schedule.sigma))
        rates = (f(t).to(x) for f in (schedule.alpha_rate, schedule.sigma_rate))
        alpha_rate, sigma_rate = (torch.as_tensor(rate).reshape(-1, 1) for rate in rates)
        # E[ε|x_t] = −σ s.
        noise = -sigma.reshape(-1, 1) * self.score(x, alpha, sigma)
        return alpha_rate * self.posterior_mean(x, alpha, sigma) + sigma_rate * noise

    def denoiser(self, schedule: Schedule) -> Callable[[Tensor, Tensor], Tensor]:
        """The exact denoiser as a function of latents and a time, as the samplers take it."""

        def denoise(z: Tensor, t: Tensor) -> Tensor:
            return self.posterior_mean(z, schedule.alpha(t).to(z), schedule.sigma(t).to(z))

        return denoise


def two_modes() -> GaussianMixture:
    """Two narrow modes on the line, nearly of unit variance together: an example of the book's figures."""
    return GaussianMixture(
        torch.tensor([0.4, 0.6]).double(),
        torch.tensor([[-1.2], [0.8]]).double(),
        torch.full((2, 1, 1), 0.04).double(),
    )


def three_modes() -> GaussianMixture:
    """Three modes of the plane, of different shapes: an example of the book's figures."""
    return GaussianMixture(
        torch.tensor([0.4, 0.35, 0.25]).double(),
        torch.tensor([[-1.0, -0.6], [1.0, -0.4], [0.1, 1.1]]).double(),
        torch.tensor(
            [
                [[0.08, 0.03], [0.03, 0.06]],
                [[0.05, -0.02], [-0.02, 0.1]],
                [[0.12, 0], [0, 0.05]],
            ]
        ).double(),
    )

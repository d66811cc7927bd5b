"""Variational autoencoders: models, bounds on the likelihood, and what is measured about them."""

from course_lib.vae.autoencoder import Autoencoder
from course_lib.vae.bounds import (
    elbo,
    elbo_terms,
    importance_log_weights,
    iwae_bound,
    log_likelihood,
    log_likelihood_with_error,
    log_mean_exp,
    prior_log_likelihood,
    quadrature_log_likelihood,
)
from course_lib.vae.disentanglement import kl_decomposition
from course_lib.vae.gradients import pathwise_gradient, reparameterize, score_function_gradient
from course_lib.vae.latent import interpolate, latent_grid, traversal
from course_lib.vae.linear_gaussian import LinearGaussian
from course_lib.vae.objectives import NegativeELBO, NegativeIWAEBound
from course_lib.vae.posterior import DiagonalGaussian
from course_lib.vae.vae import VAE
from course_lib.vae.vqvae import VQVAE, VQObjective, nearest_code, perplexity, straight_through
from course_lib.vae.wae import WAE, wae_objective

__all__ = [
    "VAE",
    "VQVAE",
    "WAE",
    "Autoencoder",
    "DiagonalGaussian",
    "LinearGaussian",
    "NegativeELBO",
    "NegativeIWAEBound",
    "VQObjective",
    "elbo",
    "elbo_terms",
    "importance_log_weights",
    "interpolate",
    "iwae_bound",
    "kl_decomposition",
    "latent_grid",
    "log_likelihood",
    "log_likelihood_with_error",
    "log_mean_exp",
    "nearest_code",
    "pathwise_gradient",
    "perplexity",
    "prior_log_likelihood",
    "quadrature_log_likelihood",
    "reparameterize",
    "score_function_gradient",
    "straight_through",
    "traversal",
    "wae_objective",
]

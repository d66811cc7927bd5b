"""Diffusion and score-based models: a hierarchical VAE with a fixed encoder, its denoiser and its samplers.

Time 0 is data and time 1 is noise. `Diffusion` is the model of grey levels; `Memorizer`,
`LinearGaussianDiffusion` and the mixtures of `course_lib.mixtures` are its exact counterparts. Samplers are
plain functions of a denoiser.
"""

from course_lib.diffusion.completion import replacement_moments
from course_lib.diffusion.ddpm import DDPMSchedule, linear_betas, noising_marginal
from course_lib.diffusion.diffusion import BoundTerms, Diffusion
from course_lib.diffusion.langevin import langevin, langevin_variance
from course_lib.diffusion.linear_gaussian import LinearGaussianDiffusion
from course_lib.diffusion.memorizer import Memorizer
from course_lib.diffusion.objectives import NegativeBound
from course_lib.diffusion.parametrizations import clip_clean, from_clean, to_clean
from course_lib.diffusion.samplers import ancestral, ddim, flow_velocity, heun, inpaint
from course_lib.diffusion.steps import (
    Level,
    posterior,
    reverse_variances,
    step_kl,
    step_variance,
)
from course_lib.guidance import guided

__all__ = [
    "BoundTerms",
    "DDPMSchedule",
    "Diffusion",
    "Level",
    "LinearGaussianDiffusion",
    "Memorizer",
    "NegativeBound",
    "ancestral",
    "clip_clean",
    "ddim",
    "flow_velocity",
    "from_clean",
    "guided",
    "heun",
    "inpaint",
    "langevin",
    "langevin_variance",
    "linear_betas",
    "noising_marginal",
    "posterior",
    "replacement_moments",
    "reverse_variances",
    "step_kl",
    "step_variance",
    "to_clean",
]

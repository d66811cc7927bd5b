"""Generative adversarial networks: networks, objectives, penalties, closed forms and the game.

The chapter on generative adversarial networks derives what stands here.
"""

from course_lib.gan import dirac
from course_lib.gan.closed_forms import game_value, jensen_shannon, optimal_discriminator
from course_lib.gan.discriminator import ConvDiscriminator, Discriminator
from course_lib.gan.gan import GAN, players
from course_lib.gan.generator import ConvGenerator, Generator
from course_lib.gan.losses import (
    HINGE,
    MINIMAX,
    NON_SATURATING,
    RELATIVISTIC,
    WASSERSTEIN,
    Objective,
    critic_loss,
    discriminator_loss,
    hinge_loss,
    minimax_loss,
    non_saturating_loss,
    relativistic_generator_loss,
    relativistic_loss,
    wasserstein_loss,
)
from course_lib.gan.penalties import gradient_penalty, r1_penalty, roth_penalty, weight_clipping

__all__ = [
    "GAN",
    "HINGE",
    "MINIMAX",
    "NON_SATURATING",
    "RELATIVISTIC",
    "WASSERSTEIN",
    "ConvDiscriminator",
    "ConvGenerator",
    "Discriminator",
    "Generator",
    "Objective",
    "critic_loss",
    "dirac",
    "discriminator_loss",
    "game_value",
    "gradient_penalty",
    "hinge_loss",
    "jensen_shannon",
    "minimax_loss",
    "non_saturating_loss",
    "optimal_discriminator",
    "players",
    "r1_penalty",
    "relativistic_generator_loss",
    "relativistic_loss",
    "roth_penalty",
    "wasserstein_loss",
    "weight_clipping",
]

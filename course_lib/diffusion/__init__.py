"""Diffusion and score-based models."""

from course_lib.diffusion.diffusion import BoundTerms, Diffusion
from course_lib.diffusion.objectives import NegativeBound

"""Factors on the learning rate, as functions of the share of training that is done."""

import math


def cosine_decay(progress: float) -> float:
    """A schedule: from 1 to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def linear_decay(progress: float) -> float:
    """A schedule: from 1 to 0 along a line."""
    return 1 - progress

"""Distributions of which everything is known, and integrals that are exact to rounding."""

import math

import numpy as np
import torch

from course_lib.mixtures import GaussianMixture


def plane(dtype=torch.float64):
    """Three Gaussians of the plane, none of them round, none at a special place."""
    return GaussianMixture(
        torch.tensor([0.5, 0.2, 0.3], dtype=dtype),
        torch.tensor([[1.0, -0.4], [-1.3, 0.7], [0.2, 1.9]], dtype=dtype),
        torch.tensor(
            [[[0.3, 0.1], [0.1, 0.2]], [[0.15, -0.05], [-0.05, 0.4]], [[0.5, 0.2], [0.2, 0.6]]],
            dtype=dtype,
        ),
    )


def line(dtype=torch.float64):
    """Two Gaussians of the line."""
    return GaussianMixture(
        torch.tensor([0.35, 0.65], dtype=dtype),
        torch.tensor([[-1.1], [0.8]], dtype=dtype),
        torch.tensor([[[0.2]], [[0.5]]], dtype=dtype),
    )


def grid(limit=9.0, points=361):
    """Points of a square, shape ``(P, 2)``, and the area of each."""
    side = torch.linspace(-limit, limit, points, dtype=torch.float64)
    return torch.cartesian_prod(side, side), (side[1] - side[0]) ** 2


def axis(limit=14.0, points=4001):
    """Points of the line, shape ``(P,)``, and the distance between them."""
    side = torch.linspace(-limit, limit, points, dtype=torch.float64)
    return side, side[1] - side[0]


def legendre(low, high, points=400):
    """Nodes and weights of an integral over [low, high]."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(points))
    return low + (high - low) * (nodes + 1) / 2, weights * (high - low) / 2


def conditioned(mean, cov, given, value):
    """Mean and covariance of the other entries of a Gaussian vector, given some of them."""
    rest = [i for i in range(len(mean)) if i not in given]
    a, b = cov[rest][:, rest], cov[rest][:, given]
    gain = b @ torch.linalg.inv(cov[given][:, given])
    return mean[rest] + gain @ (value - mean[given]), a - gain @ b.mT


def normal(x, mean, variance):
    """Density of a normal distribution."""
    return (-0.5 * (x - mean) ** 2 / variance).exp() / (2 * math.pi * variance) ** 0.5

"""Normalizing flows: exact densities by change of variables.

A `Transform` is a bijection with its log-determinant; a `Flow` is a transform with a standard
normal latent, hence with ``log_prob`` and ``sample``; a `DequantizedFlow` is a flow as a model of
grey levels. ``forward`` is the direction from data to latents everywhere.
"""

from course_lib.flow import fast
from course_lib.flow.autoregressive import AutoregressiveTransform, MaskedAutoregressive
from course_lib.flow.conditioners import ImageConditioner, VectorConditioner
from course_lib.flow.coupling import AdditiveCoupling, AffineCoupling, Coupling
from course_lib.flow.dequantization import (
    DequantizedFlow,
    UniformDequantizer,
    VariationalDequantizer,
    density_bits_per_dim,
    discrete_log_prob,
    negative_dequantization_bound,
)
from course_lib.flow.elementwise import ActNorm, ElementwiseAffine, Logit
from course_lib.flow.flow import Flow
from course_lib.flow.glow import Glow, glow_step
from course_lib.flow.iaf import IAF
from course_lib.flow.image import Invertible1x1Convolution, MultiScale, Permutation, Squeeze
from course_lib.flow.maf import MAF
from course_lib.flow.masks import alternating_mask, channel_mask, checkerboard_mask, half_mask
from course_lib.flow.nice import NICE
from course_lib.flow.planar import Planar
from course_lib.flow.planar_flow import PlanarFlow
from course_lib.flow.realnvp import MultiScaleRealNVP, RealNVP
from course_lib.flow.spline import SplineCoupling
from course_lib.flow.spline_flow import SplineFlow
from course_lib.flow.tarflow import AttentionAutoregressive, TarFlow
from course_lib.flow.transform import Composition, Inverse, Transform

__all__ = [
    "IAF",
    "MAF",
    "NICE",
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AttentionAutoregressive",
    "AutoregressiveTransform",
    "Composition",
    "Coupling",
    "DequantizedFlow",
    "ElementwiseAffine",
    "Flow",
    "Glow",
    "ImageConditioner",
    "Inverse",
    "Invertible1x1Convolution",
    "Logit",
    "MaskedAutoregressive",
    "MultiScale",
    "MultiScaleRealNVP",
    "Permutation",
    "Planar",
    "PlanarFlow",
    "RealNVP",
    "SplineCoupling",
    "SplineFlow",
    "Squeeze",
    "TarFlow",
    "Transform",
    "UniformDequantizer",
    "VariationalDequantizer",
    "VectorConditioner",
    "alternating_mask",
    "channel_mask",
    "checkerboard_mask",
    "density_bits_per_dim",
    "discrete_log_prob",
    "fast",
    "glow_step",
    "half_mask",
    "negative_dequantization_bound",
]

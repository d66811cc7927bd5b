"""Numbers of a trained model that are computed from what it answers, not from what it claims.

A student's model is asked for plain arrays only, and the likelihood or distance is computed
here, outside of it: a model can be as wrong as it likes, but it cannot report a better number
than the distribution that it defines. Each measure takes ``ask(function, *arrays) -> arrays``, which the
student's check answers by calling the functions, and the grading by asking the isolated process.
"""

from course_lib.checking.measures.causal import causal_bits
from course_lib.checking.measures.common import (
    Ask,
    Invalid,
    Measurement,
    binary_digits,
    images,
    one_array,
)
from course_lib.checking.measures.decoder import decoder_nats
from course_lib.checking.measures.denoiser import denoiser_bits, velocity_bits
from course_lib.checking.measures.flow import flow_bits
from course_lib.checking.measures.generator import generator_distance, image_features

__all__ = [
    "Ask",
    "Invalid",
    "Measurement",
    "binary_digits",
    "causal_bits",
    "decoder_nats",
    "denoiser_bits",
    "flow_bits",
    "generator_distance",
    "image_features",
    "images",
    "one_array",
    "velocity_bits",
]

"""Flow matching: velocities from data to noise that are fitted without solving an ODE.

Time 0 is data and time 1 is noise. `VelocityFlow` is a continuous normalizing flow with a likelihood,
`MeanFlow` a model of average velocities; `FlowMatching` and `MeanFlowLoss` are their losses. The exact
counterparts are `course_lib.mixtures.GaussianMixture` and the functions of Gaussians here.
"""

from course_lib.flow_matching.consistency import consistency_function, consistency_weights
from course_lib.flow_matching.couplings import optimal_pairing, paired
from course_lib.flow_matching.gaussian import (
    gaussian_average_velocity,
    gaussian_flow_map,
    gaussian_loss_floor,
    gaussian_optimal_map,
    gaussian_pair_velocity,
)
from course_lib.flow_matching.levels import level_ends
from course_lib.flow_matching.mean_flow import MeanFlow, MeanFlowLoss, mean_flow_target
from course_lib.flow_matching.objectives import FlowMatching, logit_normal_times
from course_lib.flow_matching.paths import (
    conditional_velocity,
    ends_from_velocity,
    gaussian_velocity,
    noise_loss_weight,
    score_from_velocity,
    velocity_from_score,
)
from course_lib.flow_matching.reflow import reflow_pairs, transport_cost
from course_lib.flow_matching.translations import (
    alpha_from_ddim,
    edm_sigma,
    guidance_scale,
    guidance_weight,
    log_snr_from_ratio,
    on_another_path,
    reversed_time,
    time_of_edm_sigma,
)
from course_lib.flow_matching.velocity_flow import LogProbWithError, VelocityFlow

__all__ = [
    "FlowMatching",
    "LogProbWithError",
    "MeanFlow",
    "MeanFlowLoss",
    "VelocityFlow",
    "alpha_from_ddim",
    "conditional_velocity",
    "consistency_function",
    "consistency_weights",
    "edm_sigma",
    "ends_from_velocity",
    "gaussian_average_velocity",
    "gaussian_flow_map",
    "gaussian_loss_floor",
    "gaussian_optimal_map",
    "gaussian_pair_velocity",
    "gaussian_velocity",
    "guidance_scale",
    "guidance_weight",
    "level_ends",
    "log_snr_from_ratio",
    "logit_normal_times",
    "mean_flow_target",
    "noise_loss_weight",
    "on_another_path",
    "optimal_pairing",
    "paired",
    "reflow_pairs",
    "reversed_time",
    "score_from_velocity",
    "time_of_edm_sigma",
    "transport_cost",
    "velocity_from_score",
]

"""The samplers of other libraries, on the same noise levels and with the same exact denoiser.

``make bench`` installs them beside the environment; what cannot be imported is not compared.
A sampler starts from latents at the first of the times and returns those at the last one.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.common import OURS
from course_lib.diffusion import ddim, heun
from course_lib.diffusion.samplers import Denoiser
from course_lib.schedules import Schedule

Sampler = Callable[[Denoiser, Schedule, Tensor, Tensor], Tensor]


def smalldiffusion() -> types.ModuleType:
    """Its samplers and its training loop, without its data sets, which would need torchvision."""
    if "smalldiffusion" not in sys.modules:
        package = types.ModuleType("smalldiffusion")
        package.__path__ = importlib.util.find_spec("smalldiffusion").submodule_search_locations
        sys.modules["smalldiffusion"] = package
    return importlib.import_module("smalldiffusion.diffusion")


def of_exploding(
    denoise: Denoiser, schedule: Schedule
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The noise ε̂ of y = x + (σ/α) ε, in whose coordinates several libraries work."""

    def noise(y: Tensor, ratio: Tensor, t: Tensor) -> Tensor:
        return (y - denoise(schedule.alpha(t) * y, t)) / ratio

    return noise


def ratios(schedule: Schedule, times: Tensor) -> Tensor:
    """σ/α at the times."""
    return schedule.sigma(times) / schedule.alpha(times)


def course_ddim(denoise: Denoiser, schedule: Schedule, z: Tensor, times: Tensor) -> Tensor:
    """This course's DDIM, without noise."""
    return ddim(denoise, schedule, z, times)


def smalldiffusion_sampler(gam: float) -> Sampler:
    """The sampler of smalldiffusion: DDIM with `gam` 1, its accelerated sampler with 2."""

    def sample(denoise: Denoiser, schedule: Schedule, z: Tensor, times: Tensor) -> Tensor:
        sigmas, noise = ratios(schedule, times), of_exploding(denoise, schedule)

        class Model(torch.nn.Module):
            def rand_input(self, n: int) -> Tensor:
                return torch.zeros(n, *z.shape[1:])

            def predict_eps_cfg(self, y: Tensor, sigma: Tensor, cond: None, scale: float) -> Tensor:
                index = (sigmas - sigma).abs().argmin()
                return noise(y, sigma, times[index])

        start = z / schedule.alpha(times[0])
        for y in smalldiffusion().samples(Model(), sigmas, gam=gam, xt=start):
            last = y
        return schedule.alpha(times[-1]) * last

    return sample


def azula_sampler(name: str) -> Sampler:
    """A sampler of azula by the name of its class, with our schedule in its interface."""

    def sample(denoise: Denoiser, schedule: Schedule, z: Tensor, times: Tensor) -> Tensor:
        import azula.denoise
        import azula.sample

        class Exact(azula.denoise.Denoiser):
            def __init__(self) -> None:
                super().__init__()
                self.schedule = lambda t: (schedule.alpha(t), schedule.sigma(t))

            def forward(self, x_t: Tensor, t: Tensor) -> azula.denoise.DiracPosterior:
                return azula.denoise.DiracPosterior(mean=denoise(x_t, t))

        sampler = getattr(azula.sample, name)(Exact(), silent=True)
        for t, s in pairwise(times):
            z = sampler.step(z, t, s)
        return z

    return sample


def diffusers_sampler(name: str) -> Sampler:
    """A scheduler of diffusers by the name of its class, with our noise levels in place of its own."""

    def sample(denoise: Denoiser, schedule: Schedule, z: Tensor, times: Tensor) -> Tensor:
        import diffusers

        scheduler = getattr(diffusers, name)(timestep_spacing="linspace")
        scheduler.set_timesteps(len(times) - 1)
        sigmas, noise = ratios(schedule, times), of_exploding(denoise, schedule)
        twice = len(scheduler.timesteps) > len(times) - 1
        # A scheduler of second order lists every level but the ends twice.
        each = [1, *[2 if twice else 1] * (len(times) - 2), 1]
        scheduler.sigmas = sigmas.repeat_interleave(torch.tensor(each))
        seen = times.repeat_interleave(torch.tensor(each))
        if (
            twice
        ):  # it makes its last step by Euler's method unless it is given the last level twice
            scheduler.sigmas = torch.cat([scheduler.sigmas, sigmas[-1:]])
            scheduler.timesteps = torch.cat([scheduler.timesteps, scheduler.timesteps[-1:]])
        y = z / schedule.alpha(times[0])
        scheduler.set_begin_index(0)
        for index, stamp in enumerate(scheduler.timesteps):
            scheduler.scale_model_input(y, stamp)  # which this denoiser does not want
            y = scheduler.step(noise(y, scheduler.sigmas[index], seen[index]), stamp, y).prev_sample
        return schedule.alpha(times[-1]) * y

    return sample


# Euler's step of the ODE for z/α, which is DDIM's, and Heun's, which evaluates twice; the accelerated sampler
# evaluates once in each step and extrapolates.
FIRST: dict[str, Sampler] = {
    OURS: course_ddim,
    "smalldiffusion": smalldiffusion_sampler(1.0),
    "azula": azula_sampler("DDIMSampler"),
    "diffusers": diffusers_sampler("EulerDiscreteScheduler"),
}
SECOND: dict[str, Sampler] = {
    OURS: heun,
    "azula": azula_sampler("HeunSampler"),
    "diffusers": diffusers_sampler("HeunDiscreteScheduler"),
}
ACCELERATED: dict[str, Sampler] = {"smalldiffusion": smalldiffusion_sampler(2.0)}

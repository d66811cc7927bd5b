"""The recorded studies: what is measured beside the likelihoods and bounds of the recipes."""

from collections.abc import Callable
from dataclasses import dataclass

from course_lib.experiments import diffusion_samplers, flow_samples, gan_source, gan_stability
from course_lib.experiments.records import StudyRecord


@dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
        family: name of the family whose methods it compares.
        run: does all of it and returns its record; takes ``n_seeds`` (numbers in each of a row's lists),
            ``steps`` of training, ``checkpoints`` and ``progress``.
        settings: returns what is recorded as its settings.
        pictured: whether ``run`` takes ``pictures``, the folder that its pictures are written to.
    """

    family: str
    run: Callable[..., StudyRecord]
    settings: Callable[[], dict]
    pictured: bool = False


STUDIES: dict[str, Study] = {
    gan_stability.NAME: Study("gan", gan_stability.run, gan_stability.settings),
    gan_source.NAME: Study("gan", gan_source.run, gan_source.settings, pictured=True),
    diffusion_samplers.NAME: Study(
        "diffusion", diffusion_samplers.run, diffusion_samplers.settings
    ),
    flow_samples.NAME: Study("flow_matching", flow_samples.run, flow_samples.settings),
}


def find_study(name: str) -> Study:
    """The study of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in STUDIES:
        raise ValueError(f"there is no study {name!r}; one of {', '.join(STUDIES)} is expected.")
    return STUDIES[name]

"""The recorded studies: what is measured of families without a likelihood, beside the recipes' runs."""

from collections.abc import Callable
from dataclasses import dataclass

from course_lib.experiments import gan_stability
from course_lib.experiments.records import StudyRecord


@dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
        family: name of the family whose methods it compares.
        run: does all of it and returns its record; takes ``n_seeds``, ``steps``,
            ``checkpoints`` and ``progress``.
        settings: returns what is recorded as its settings.
    """

    family: str
    run: Callable[..., StudyRecord]
    settings: Callable[[], dict]


STUDIES: dict[str, Study] = {
    gan_stability.NAME: Study("gan", gan_stability.run, gan_stability.settings)
}


def find_study(name: str) -> Study:
    """The study of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in STUDIES:
        raise ValueError(f"there is no study {name!r}; one of {', '.join(STUDIES)} is expected.")
    return STUDIES[name]

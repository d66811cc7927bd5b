"""The list of families: a new one is entered here, and nowhere else in the code.

What a family is, its own module ``family`` says; see `course_lib.family`.
"""

from course_lib.autoregressive.family import FAMILY as AUTOREGRESSIVE
from course_lib.diffusion.family import FAMILY as DIFFUSION
from course_lib.family import Family
from course_lib.flow.family import FAMILY as FLOW
from course_lib.flow_matching.family import FAMILY as FLOW_MATCHING
from course_lib.gan.family import FAMILY as GAN
from course_lib.vae.family import FAMILY as VAE

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (AUTOREGRESSIVE, VAE, GAN, FLOW, DIFFUSION, FLOW_MATCHING)  # as in the book
}


def find_family(name: str) -> Family:
    """The family of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in FAMILIES:
        raise ValueError(
            f"there is no family {name!r}; one of {', '.join(FAMILIES)} is expected, or a new one "
            f"must be entered in course_lib/families.py."
        )
    return FAMILIES[name]

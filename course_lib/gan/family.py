"""What the course has to know of the adversarial networks as a family."""

from course_lib import gan
from course_lib.family import Family

# Without a recipe: adversarial networks have no likelihood. `course_lib.experiments.gan_stability` measures
# them where the truth is known.
FAMILY = Family(
    name="gan",
    title="Generative adversarial networks",
    models=(gan.GAN, gan.Generator, gan.Discriminator, gan.ConvGenerator, gan.ConvDiscriminator),
    hidden=("divergences.py",),
)

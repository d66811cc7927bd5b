"""What answers a question is not in the box, and the public file does not say what the numbers are."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import course_lib
from course_lib.checking.compare import agree
from course_lib.checking.presence import LIBRARY, PACKAGES, STAND_IN
from course_lib.checking.public import decode, encode, load
from course_lib.checking.sealed import seal
from course_lib.families import FAMILIES
from course_lib.grading.box import Limits, room, start
from course_lib.grading.question import Measure, Question

from .assignments import ASSIGNMENTS, ROOT

SOURCE = Path(course_lib.__file__).parent

# Where the answer, or most of it, could be read most cheaply: a file or folder of the library, and what
# stands there. For most functions it is the neighbouring case.
CHEAPEST = {
    "autoregressive.chain_entropy": ("autoregressive", "class Autoregressive"),
    "autoregressive.three_pixels": ("checking/public", '"three_pixels"'),
    "autoregressive.made_masks": ("masked.py", "def made_masks"),
    "autoregressive.colour_masks": ("autoregressive", "def pixelcnn_mask"),
    "autoregressive.gated_unit": ("autoregressive", "def gated_unit"),
    "autoregressive.logistic_mixture": ("distributions.py", "def discretized_logistic_log_mass"),
    "autoregressive.causal_attention": ("attention.py", "def causal_mask"),
    "autoregressive.attention_step": ("autoregressive", "def steps(model: Transformer"),
    "autoregressive.receptive_field": ("autoregressive", "def receptive_field_map"),
    "autoregressive.skew_left": ("autoregressive", "def skew"),
    "autoregressive.complete": ("autoregressive", "class Autoregressive"),
    "autoregressive.teacher_forcing": ("autoregressive", "class RowLSTM"),
    "autoregressive.order_ensemble": ("evaluation.py", "def bits_per_dim"),
    "autoregressive.masked_bound": ("autoregressive", "class MaskedDiffusion"),
    "autoregressive.trained_model": ("autoregressive", "class PixelCNN"),
    "diffusion.noising_marginal": ("diffusion", "def noising_marginal"),
    "diffusion.posterior_step": ("diffusion", "def posterior("),
    "diffusion.chain_bound": ("checking/public", '"chain_bound"'),
    "diffusion.bound_bits": ("diffusion", "class BoundTerms"),
    "diffusion.mixture_score": ("mixtures.py", "class GaussianMixture"),
    "diffusion.predict_clean": ("diffusion", "def clip_clean"),
    "diffusion.reverse_step": ("diffusion", "def flow_velocity"),
    "diffusion.ddim_sample": ("diffusion", "def ddim("),
    "diffusion.reverse_variance": ("diffusion", "def reverse_variances"),
    "diffusion.guided_score": ("guidance.py", "def guided("),
    "diffusion.trained_denoiser": ("diffusion", "def level_logits"),
    "flow.log_density": ("distributions.py", "def standard_normal_log_prob"),
    "flow.bits": ("checking/public", '"bits"'),
    "flow.sinh_arcsinh": ("flow", "class ElementwiseAffine"),
    "flow.coupling_inverse": ("flow", "class AffineCoupling"),
    "flow.sylvester_log_det": ("flow", "class Planar"),
    "flow.actnorm": ("flow", "class ActNorm"),
    "flow.multiscale_log_prob": ("distributions.py", "def standard_normal_log_prob"),
    "flow.dequantized_bits": ("flow", "def discrete_log_prob"),
    "flow.logit_inverse": ("flow", "class Logit"),
    "flow.autoregressive_inverse": ("flow", "class MAF"),
    "flow.trained_flow": ("flow", "class RealNVP"),
    "flow_matching.training_pair": ("flow_matching", "def conditional_velocity"),
    "flow_matching.mixture_velocity": ("mixtures.py", "def velocity("),
    "flow_matching.velocity_from_score": ("flow_matching", "def velocity_from_score"),
    "flow_matching.gaussian_by_hand": ("checking/public", '"gaussian_by_hand"'),
    "flow_matching.heun_sample": ("solvers.py", "heun"),
    "flow_matching.ode_log_density": ("solvers.py", "def flow_log_prob"),
    "flow_matching.hutchinson": ("solvers.py", "def draw_probes"),
    "flow_matching.pair_noise": ("flow_matching", "def optimal_pairing"),
    "flow_matching.average_velocity": ("flow_matching", "def gaussian_average_velocity"),
    "flow_matching.mean_flow_target": ("flow_matching", "def mean_flow_target"),
    "flow_matching.trained_velocity": ("flow_matching", "class VelocityFlow"),
    "gan.optimal_output": ("gan", "def optimal_discriminator"),
    "gan.smoothed_discriminator": ("gan", "def optimal_discriminator"),
    "gan.game": ("divergences.py", "def js_discrete"),
    "gan.generator_gradient": ("gan", "def non_saturating_loss"),
    "gan.discriminator_loss": ("gan", "def discriminator_loss"),
    "gan.penalty_gradient": ("gan", "def gradient_penalty"),
    "gan.wgan_rounds": ("gan", "def weight_clipping"),
    "gan.noise_penalty": ("gan", "def roth_penalty"),
    "gan.w1_weighted": ("divergences.py", "def wasserstein_1d"),
    "gan.step_radii": ("gan", "def update_eigenvalues"),
    "gan.trained_generator": ("gan", "class GAN"),
    "vae.kl_gaussians": ("divergences.py", "def kl_univariate_gaussian"),
    "vae.kl_diagonal": ("divergences.py", "def kl_gaussian"),
    "vae.gap": ("checking/public", '"gap"'),
    "vae.gaussian_nll": ("distributions.py", "class Gaussian"),
    "vae.lognormal_sample": ("vae", "def reparameterize"),
    "vae.renyi_bound": ("vae", "def iwae_bound"),
    "vae.negative_elbo": ("vae", "class NegativeELBO"),
    "vae.score_gradient": ("vae", "def score_function_gradient"),
    "vae.mmd_unbiased": ("mmd.py", "def mmd"),
    "vae.trained_decoder": ("vae", "class VAE"),
}
# Other files that hold formulas of some question.
MORE = (
    *sorted({place for family in FAMILIES.values() for place in family.hidden}),
    "fast",
    "widgets.js",
    "widgets.py",
    "live.py",
    "checking/measures",
    "checking/public",
)
GRADED = [
    pytest.param(f"{a.name}.{q.name}", id=f"{a.name}.{q.name}")
    for a in ASSIGNMENTS
    for q in a.questions
    if isinstance(q, (Question, Measure))
]


@pytest.fixture(scope="module")
def seen():
    """The library as every box sees it; which needs no bubblewrap to be looked at."""
    with room("none") as made:
        yield made


def test_each_question_has_a_cheapest_source():
    assert sorted(CHEAPEST) == sorted(parameter.values[0] for parameter in GRADED)


@pytest.mark.parametrize("question", GRADED)
def test_the_cheapest_source_of_an_answer_is_not_in_the_box(seen, question):
    place, text = CHEAPEST[question]
    holding = [path for path in files(SOURCE / place) if text in path.read_text(encoding="utf-8")]
    assert holding, "the table above is out of date"
    library = seen.folder / "course_lib"
    assert not (library / place).exists()
    # Nor does it stand elsewhere.
    for path in files(library):
        assert text not in path.read_text(encoding="utf-8"), path


def test_a_family_names_what_answers_its_questions():
    for question, (place, _) in CHEAPEST.items():
        family = FAMILIES[question.split(".")[0]]
        assert place in (family.name, "checking/public", *family.hidden)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_is_in_the_box(seen, family):
    assert (SOURCE / family).is_dir()
    assert not (seen.folder / "course_lib" / family).exists()


def files(place: Path) -> list[Path]:
    """The texts of a file or folder."""
    found = place.rglob("*") if place.is_dir() else [place]
    return [path for path in found if path.suffix in (".py", ".json", ".js")]


@pytest.mark.parametrize("place", MORE)
def test_nothing_else_of_the_library_is_in_the_box(seen, place):
    assert (SOURCE / place).exists()
    assert not (seen.folder / "course_lib" / place).exists()


def test_what_is_in_the_box_is_what_is_named(seen):
    library = seen.folder / "course_lib"
    found = {path.relative_to(library).as_posix() for path in library.rglob("*") if path.is_file()}
    found = {name for name in found if "__pycache__" not in name}
    allowed = (*LIBRARY, STAND_IN)
    assert all(name in allowed or name.split("/")[0] in allowed for name in found)
    for name in found - {STAND_IN}:
        assert (library / name).read_bytes() == (SOURCE / name).read_bytes()


def test_what_the_statements_allow_works_in_the_box(seen):
    program = """
import sys
from course_lib import data, plotting, training
from course_lib.checking import WrongAnswer, check
import course_lib.sandbox.runner
check("vae.gap", 1); check("no.such", lambda: 1, 2)
print(len(data.digits().train), WrongAnswer.__name__)
print(sorted(name for name in sys.modules if name.startswith("course_lib")))
"""
    process = start(seen, Limits(), 0, "-c", program)
    with process:  # its standard input stays open: the end of it ends a box
        output, errors = process.stdout.read().decode(), process.stderr.read().decode()
        assert process.wait() == 0, errors
    checked, other, rest, modules = output.splitlines()
    assert "vae.gap: not checked here" in checked
    assert "no.such: not checked here" in other
    assert rest == "1300 WrongAnswer"
    assert "course_lib.checking.public" not in modules


def numbers(text: str) -> list[str]:
    return re.findall(r"-?\d+\.\d+(?:[eE][-+]?\d+)?", text)


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=lambda a: a.name)
def test_no_file_of_the_library_tells_an_expected_number(seen, assignment):
    for question in assignment.questions:
        if getattr(question, "kind", "") != "value":
            continue
        (case,) = question.cases(assignment.name)
        secret = np.array([abs(x) for e in case.expected.values() for x in e.ravel()])
        lines = load_text(assignment.name)
        (line,) = [text for text in lines if json.loads(text.rstrip(","))["name"] == question.name]
        shown = np.array([abs(float(x)) for x in numbers(line)])
        assert np.abs(shown[:, None] - secret).min() > 1e-4 * secret.min()
        for path in (seen.folder / "course_lib").rglob("*.py"):
            shown = np.array([abs(float(x)) for x in numbers(path.read_text("utf-8"))] or [-1.0])
            assert np.abs(shown[:, None] - secret).min() > 1e-5, path


def load_text(name: str) -> list[str]:
    text = (SOURCE / "checking" / "public" / f"{name}.json").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith("{")]


@settings(max_examples=25, deadline=None)
@given(
    value=st.floats(1e-4, 1e4) | st.floats(-1e4, -1e-4),
    digits=st.sampled_from(["decimals", "significant"]),
)
def test_a_sealed_number_is_known_by_five_digits(value, digits):
    sealed = decode(json.loads(json.dumps(encode(seal("a question", np.array(value))))))
    rounded = round(value, 5) if digits == "decimals" else float(f"{value:.5g}")
    for right in (value, rounded):
        assert agree({"": np.array(right)}, {"": sealed}, None)
    size = 10.0 ** np.floor(np.log10(abs(value)))
    for wrong in (value + 3e-4 * size + 2e-5, value * 1.01 + 1e-4, -value, 0.0, value * 1e6 + 1):
        assert not agree({"": np.array(wrong)}, {"": sealed}, None)


def test_a_sealed_array_is_known_as_a_whole():
    value = np.array([[0.25, -1.5], [3.0, 0.0]])
    sealed = seal("a question", value)
    assert agree({"": value}, {"": sealed}, None)
    for k in range(4):
        changed = value.copy()
        changed.flat[k] += 0.01
        assert not agree({"": changed}, {"": sealed}, None)
    for other in (value.T, value[0], value + np.nan, np.full((2, 2), np.inf)):
        assert not agree({"": other}, {"": sealed}, None)


@settings(deadline=None)
@given(st.integers(-9, 9), st.floats(0.1, 0.9))
def test_a_seal_tells_no_more_than_the_power_of_ten(exponent, share):
    """Values of the same size that lie whole cells apart have the same seal but for the hash."""
    low = seal("q", np.array(1.0)).width
    a, b = (seal("q", np.array(1 + (0.3 + k) * low)) for k in (3 + exponent + 9, 10_000))
    assert a.width == b.width
    assert a.offsets == pytest.approx(b.offsets, abs=1e-9)
    assert a.digest != b.digest


def test_the_packages_that_grading_has_are_those_that_the_library_needs():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^  "([\w-]+)>=', text.split("[project.optional-dependencies]")[0], re.M)
    names = {"scikit-learn": "sklearn", "pillow": "PIL", "ipython": "IPython"}
    imported = {names.get(name, name.replace("-", "_")) for name in needed}
    assert imported <= set(PACKAGES)
    assert not set(PACKAGES) & set(sys.stdlib_module_names)


def test_public_values_are_sealed():
    for assignment in ASSIGNMENTS:
        for question in load(assignment.name).values():
            if getattr(question, "kind", "") == "value":
                results = [question.cases[0].expected, *(m.results[0] for m in question.mistakes)]
                assert all(hasattr(v, "digest") for result in results for v in result.values())

"""Deliberate errors in the library, each of which the suite must notice.

Every mutant is a change of one expression, of a kind that students and libraries really make. A copy
of the repository gets the change, and the named tests must fail there.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutant:
    """One error: in `file`, `right` becomes `wrong`; `tests` must fail."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str


MUTANTS = [
    Mutant(
        "the ½ of the KL dropped",
        "course_lib/divergences.py",
        "return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(-1)",
        "return (logvar.exp() + mu.square() - 1 - logvar).sum(-1)",
        "tests/vae/test_bounds.py",
    ),
    Mutant(
        "the KL averaged over latent dimensions",
        "course_lib/divergences.py",
        "return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(-1)",
        "return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).mean(-1)",
        "tests/vae/test_bounds.py",
    ),
    Mutant(
        "the arguments of the KL exchanged",
        "course_lib/divergences.py",
        "ratio = (sigma_q / sigma_p) ** 2\n    return 0.5 * (ratio + ((mu_q - mu_p) / sigma_p) ** 2",
        "ratio = (sigma_p / sigma_q) ** 2\n    return 0.5 * (ratio + ((mu_q - mu_p) / sigma_q) ** 2",
        "tests/vae/test_kl_equations.py",
    ),
    Mutant(
        "log σ taken for log σ²",
        "course_lib/vae/posterior.py",
        "(0.5 * logvar).exp()",
        "logvar.exp()",
        "tests/vae/test_vae.py",
    ),
    Mutant(
        "the importance-weighted bound as a mean of logs",
        "course_lib/vae/bounds.py",
        "return log_weights.logsumexp(dim) - math.log(log_weights.shape[dim])",
        "return log_weights.mean(dim)",
        "tests/vae/test_bounds.py",
    ),
    Mutant(
        "the importance-weighted bound without −log k",
        "course_lib/vae/bounds.py",
        "return log_weights.logsumexp(dim) - math.log(log_weights.shape[dim])",
        "return log_weights.logsumexp(dim)",
        "tests/vae/test_bounds.py",
    ),
    Mutant(
        "the sign of the KL term",
        "course_lib/vae/bounds.py",
        "return reconstruction - kl",
        "return reconstruction + kl",
        "tests/vae/test_bounds.py",
    ),
    Mutant(
        "pixels averaged in the linear autoencoder's error",
        "course_lib/vae/autoencoder.py",
        "(x - self(x)).square().flatten(1).sum(1)",
        "(x - self(x)).square().flatten(1).mean(1)",
        "tests/vae/test_autoencoder_and_wae.py",
    ),
    Mutant(
        "dequantization by K − 1",
        "course_lib/data.py",
        "return ((x + noise) / levels)",
        "return ((x + noise) / (levels - 1))",
        "tests/test_data.py",
    ),
    Mutant(
        "validation batches weighted alike whatever their size",
        "course_lib/training.py",
        "weight = min(size, n - start) / n",
        "weight = 1 / -(-n // size)",
        "tests/test_training.py",
    ),
]


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_suite_notices(mutant, tmp_path):
    for name in ("course_lib", "tests", "tools", "book/_ext", "pyproject.toml"):
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    path = tmp_path / mutant.file
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.right) == 1, f"the line to change is gone from {mutant.file}"
    path.write_text(text.replace(mutant.right, mutant.wrong), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.tests],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # Exit status 1: tests ran and some failed. Anything else is an error of its own.
    assert run.returncode == 1, f"{mutant.tests} did not notice:\n{run.stdout[-2000:]}"
    assert "AssertionError" in run.stdout or "assert" in run.stdout

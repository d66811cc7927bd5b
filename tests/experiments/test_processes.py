"""Two processes under torchrun against one: gradients, likelihood, and what a failure leaves."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.sharing import once

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("two_processes.py")
ROOT = Path(__file__).parents[2]


def torchrun(folder):
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            SCRIPT, folder,
        ],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kill_and_repeat(folder):
    failed = torchrun(folder)
    shutil.copy(folder / "run.pt", folder / "left.pt")
    said = [failed.returncode, failed.stderr, (folder / "result.pt").exists()]
    (folder / "failed.json").write_text(json.dumps(said))
    resumed = torchrun(folder)
    assert resumed.returncode == 0, resumed.stderr


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a job that was started again after one of its two processes had been killed.

    All that is asked of two processes is done in it: to start two takes longer than what they do.
    """
    return once(tmp_path_factory, "two-processes", kill_and_repeat)


@pytest.fixture(scope="module")
def of_two(job):
    return torch.load(job / "result.pt")


def test_two_processes_take_the_gradient_of_the_whole_batch(of_two, script):
    for name, expected in script.one_gradient().items():
        torch.testing.assert_close(of_two[0][name], expected, rtol=0, atol=1e-12)
    # Another order would be another gradient: the comparison is not empty.
    assert any(not torch.equal(of_two[0][n], w) for n, w in script.one_gradient(seed=1).items())


def test_without_noise_two_processes_reach_the_likelihood_of_one(of_two, script):
    _, expected, curve = script.trained(noisy=False)
    log_prob, curve_of_two = of_two[1]
    torch.testing.assert_close(log_prob, expected, rtol=0, atol=1e-6)
    # What is recorded is the mean over the processes, in float32.
    torch.testing.assert_close(curve_of_two, curve, rtol=1e-6, atol=0)


def test_with_noise_of_their_own_they_reach_it_as_another_seed_would(of_two, script):
    def mean(**settings):
        return script.trained(**settings)[1].mean()

    one = torch.stack([mean(seed=seed) for seed in range(4)])
    tolerance = 3 * one.std()
    reached = of_two[2].mean()
    assert reached not in one
    assert abs(reached - one.mean()) < tolerance
    assert abs(mean(steps=100) - one.mean()) > tolerance  # a worse training would be seen


def test_both_processes_end_with_the_same_weights_and_running_statistics(of_two):
    for one, other in of_two[3]:
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_killed_process_ends_the_job_and_the_same_command_goes_on(job, of_two):
    status, said, finished = json.loads((job / "failed.json").read_text())
    assert status != 0
    assert "Signal 9 (SIGKILL)" in said  # torchrun names the process that died
    assert "run.pt holds everything up to step 80" in said
    assert torch.load(job / "left.pt")["step"] == 80
    assert not finished
    assert torch.load(job / "run.pt")["step"] == 400
    assert torch.isfinite(of_two[4]).all()


def test_the_command_starts_processes_and_the_first_measures_for_all(tmp_path):
    run = subprocess.run(
        [
            sys.executable, "-m", "course_lib.command_line", "train", "FVSBN", "--data", "digits",
            "--steps", "20", "--devices", "2", "--quiet",
        ],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("written:") == 1
    (path,) = (tmp_path / "results").iterdir()
    record = json.loads(path.read_text())
    assert record["hardware"]["processes"] == 2
    assert record["command"].endswith("--seed 0 --devices 2 --steps 20")
    assert record["cpu_seconds"] > 0

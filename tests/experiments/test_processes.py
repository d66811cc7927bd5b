"""Two processes under torchrun against one: gradients, likelihood, and what a failure leaves."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_processes.py")
ROOT = Path(__file__).parents[2]


def torchrun(task, folder):
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            SCRIPT, task, folder,
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


def test_two_processes_take_the_same_step_and_reach_the_same_likelihood(tmp_path, script):
    run = torchrun("train", tmp_path)
    assert run.returncode == 0, run.stderr
    weights, log_prob = torch.load(tmp_path / "result.pt")
    for name, expected in script.one_gradient().items():
        torch.testing.assert_close(weights[name], expected, rtol=0, atol=1e-12)
    # Another order would be another gradient: the comparison is not empty.
    assert any(not torch.equal(weights[n], w) for n, w in script.one_gradient(seed=1).items())
    # The noise of the binarization is drawn by each process for itself.
    single = script.trained()
    difference = log_prob - single
    assert not torch.equal(log_prob, single)
    assert abs(difference.mean()) < 0.02 * abs(single.mean())


def test_a_killed_process_ends_the_job_and_the_same_command_goes_on(tmp_path):
    failed = torchrun("killed", tmp_path)
    assert failed.returncode != 0
    assert "SIGKILL" in failed.stderr or "exitcode  : -9" in failed.stderr
    assert torch.load(tmp_path / "run.pt")["step"] == 80
    assert not (tmp_path / "result.pt").exists()
    resumed = torchrun("killed", tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert torch.load(tmp_path / "run.pt")["step"] == 400
    assert torch.isfinite(torch.load(tmp_path / "result.pt")).all()

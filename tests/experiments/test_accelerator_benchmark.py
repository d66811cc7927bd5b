"""``benchmarks.accelerator``: that it runs, so that time on a GPU is not lost on it."""

import json
import sys

import torch

from benchmarks import accelerator
from course_lib.experiments import RECIPES, running


def test_a_build_for_a_gpu_measures_on_the_cpu_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert running.accelerator_or_cpu() == torch.device("cpu")


def test_every_number_of_a_model_is_measured_and_written(tmp_path, monkeypatch, capsys):
    recipe = RECIPES["mnist", "VAE", "gpu"]
    monkeypatch.setattr(accelerator, "RECIPES", {("mnist", "VAE", "gpu"): recipe})
    out = tmp_path / "numbers.json"
    small = ["--steps", "2", "--samples", "2", "--batch", "4", "--size", "64", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["accelerator", *small])
    # What is compiled is tried, and takes its time: a refusal stands in the compiler's place.
    monkeypatch.setattr(torch, "compile", refuse)
    accelerator.main()
    model = json.loads(out.read_text())["models"]["VAE, gpu"]
    for precision in accelerator.PRECISIONS:
        assert model["training"][precision]["steps per second"] > 0
        assert model["training"][precision]["share of the peak"] > 0
        refused = model["training"][f"{precision}, compiled"]
        assert refused["steps per second"] == "RuntimeError: no compiler here"
        assert refused["share of the peak"] is None
    assert model["samples per second"] > 0
    errors = model["largest error of a log-likelihood, nats"]
    assert errors["TF32"] == 0 or torch.cuda.is_available()
    assert errors["bfloat16"] > 0
    assert "VAE, gpu" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["accelerator", *small, "--eager"])
    accelerator.main()
    model = json.loads(out.read_text())["models"]["VAE, gpu"]
    assert list(model["training"]) == list(accelerator.PRECISIONS)


def refuse(*arguments, **options):
    raise RuntimeError("no compiler here\nand more")

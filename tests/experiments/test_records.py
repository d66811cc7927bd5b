"""Records: what a file holds, that the last run counts, and that a killed run ends as if it had not been."""

import inspect
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

from course_lib.command_line import main
from course_lib.data import digits
from course_lib.experiments import (
    RECIPES,
    Metric,
    Record,
    find_recipe,
    read_records,
    records,
    write_record,
)
from course_lib.experiments.running import build, measure, run
from course_lib.families import FAMILIES, find_family
from course_lib.training import fit

ROOT = Path(__file__).parents[2]


def record(value, **changes):
    made = Record(
        "MADE", "digits", "60s", "grey levels",
        {"negative_log_likelihood": Metric(value, 0.01, "bits/dim", 360)},
        parameters=1, steps=10, best_step=5, seed=0, seconds=1.0, settings={}, command="",
    )  # fmt: skip
    return replace(made, **changes)


def test_a_record_says_how_to_judge_and_repeat_it(tmp_path):
    path = write_record(record(2.0), tmp_path)
    content = json.loads(path.read_text())
    assert path.name == "digits-MADE-60s-seed0.json"
    assert content["versions"]["torch"] == torch.__version__
    assert set(content["hardware"]) == {"processor", "accelerator", "threads", "processes"}
    assert read_records(tmp_path) == [record(2.0)]
    assert read_records(tmp_path, model="NADE") == []


@pytest.mark.parametrize("last", [2.1, 1.9, float("nan")], ids=["worse", "better", "no number"])
def test_of_two_runs_of_a_setting_the_last_counts(tmp_path, last):
    """Never the better one: that would be to choose a run on the test images."""
    path = write_record(record(2.0), tmp_path)
    assert write_record(record(last), tmp_path) == path
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # nothing is set aside
    (kept,) = read_records(tmp_path)
    assert kept.tightest[1].value == pytest.approx(last, nan_ok=True)
    # Another seed is another run, which leaves this one alone.
    write_record(record(1.0, seed=1), tmp_path)
    found = [r.tightest[1].value for r in read_records(tmp_path)]
    assert found == pytest.approx([last, 1.0], nan_ok=True)


@pytest.mark.parametrize("key", RECIPES, ids="-".join)
def test_every_recipe_names_a_model_of_its_family(key):
    recipe = RECIPES[key]
    family = find_family(recipe.family)
    assert isinstance(recipe, family.recipe)
    assert family.model(key[1]).__name__ == key[1]
    assert json.loads(json.dumps(asdict(recipe)))  # what is recorded can be written


def test_an_unknown_recipe_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"GatedPixelCNN on digits \(60s\)"):
        find_recipe("digits", "PixelSnail")
    with pytest.raises(ValueError, match="budget '7s'"):
        find_recipe("digits", "MADE", "7s")


def others_settings(name):
    """What the recipes of other families have, and those of the family called `name` do not."""
    kinds = {f.name: f.recipe for f in FAMILIES.values() if f.recipe is not None}
    own = {field.name for field in fields(kinds.pop(name))}
    return {field.name for kind in kinds.values() for field in fields(kind)} - own


def test_every_record_of_the_repository_is_of_a_recipe_as_it_stands():
    records = read_records(ROOT / "results")
    assert records
    for r in records:
        now = json.loads(json.dumps(asdict(find_recipe(r.data, r.model, r.budget)[1])))
        recorded = dict(r.settings)
        # Once a recipe had the settings of every family, and used its own.
        for name in others_settings(now["family"]):
            recorded.pop(name, None)
        assert {k: now.get(k) for k in recorded} == recorded, r.name
        assert r.steps == now["steps"]


def test_measures_are_in_their_unit():
    """Untrained models know nothing: about 1 bit per binary pixel, about log2 K per grey level."""
    data = replace(digits(), test=digits().test[:40])
    for name, budget in (("MADE", "60s"), ("RealNVP", "60s")):
        _, recipe = find_recipe("digits", name, budget)
        model = build(name, data, replace(recipe, binary=False)).eval()
        metrics = measure(model, data, recipe)
        assert {m.unit for m in metrics.values()} == {"bits/dim"}
        assert {m.n for m in metrics.values()} == {40}
        assert 2 < next(iter(metrics.values())).value < 8
    bound, tighter = metrics.values()  # of the flow, from the same draws
    assert tighter.value < bound.value
    assert list(metrics) == ["dequantization_bound", "importance_100"]


def test_measures_are_in_full_precision_on_a_gpu_too():
    data = replace(digits(), test=digits().test[:4])
    _, recipe = find_recipe("digits", "MADE", "60s")
    model, seen = build("MADE", data, recipe).eval(), []
    model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision))
    measure(model, data, recipe)
    assert set(seen) == {"ieee"}


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bit(tmp_path):
    def arguments(folder):
        return [
            "train", "MADE", "--steps", "400", "--results", str(folder / "results"),
            "--checkpoints", str(folder / "checkpoints"), "--threads", "1", "--quiet",
        ]  # fmt: skip

    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(arguments(whole)) == 0

    command = ["-m", "course_lib.command_line", *arguments(killed)]
    dies = [sys.executable, ROOT / "tests" / "killed.py", "2", *command]
    assert subprocess.run(dies, env=environment).returncode == -signal.SIGKILL
    (stopped,) = killed.glob("checkpoints/*.pt")
    assert 0 < torch.load(stopped)["step"] < 400
    subprocess.run([sys.executable, *command], check=True, env=environment, capture_output=True)

    expected, result = (
        torch.load(next(folder.glob("checkpoints/*.pt"))) for folder in (whole, killed)
    )
    assert expected["step"] == result["step"] == 400
    for name, weight in expected["model"].items():
        assert torch.equal(weight, result["model"][name])
    a, b = (
        json.loads(next(folder.glob("results/*.trial.json")).read_text())
        for folder in (whole, killed)
    )
    assert a["metrics"] == b["metrics"]
    assert a["best_step"] == b["best_step"]


def test_a_run_takes_what_it_hands_to_fit_with_the_same_defaults():
    ours, theirs = (inspect.signature(function).parameters for function in (run, fit))
    shared = (ours.keys() & theirs.keys()) - {"steps"}  # which are the recipe's
    assert {"seed", "progress", "devices", "num_nodes"} <= shared
    assert {n: ours[n].default for n in shared} == {n: theirs[n].default for n in shared}


def test_errors_of_the_command_are_sentences(capsys):
    assert main(["train", "PixelSnail"]) == 1
    assert "there is no recipe" in capsys.readouterr().err
    assert main(["train", "--list"]) == 0
    assert "course-lib train VAE --data mnist --budget cpu" in capsys.readouterr().out


def test_a_commit_is_marked_if_a_source_has_changed_and_not_by_other_runs(tmp_path, monkeypatch):
    """Records that earlier runs have written anew do not mark the later ones of the same tree."""
    module = tmp_path / "course_lib" / "experiments" / "records.py"
    record = tmp_path / "results" / "digits-MADE-60s-seed0.json"
    for path in (module, record):
        path.parent.mkdir(parents=True)
        path.write_text("before\n")
    monkeypatch.setattr(records, "__file__", str(module))
    assert records.commit() is None  # no repository
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for arguments in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "all")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    head = records.commit()
    assert len(head) == 40
    record.write_text("after\n")
    (record.parent / "digits-MADE-60s-seed1.json").write_text("new\n")
    assert records.commit() == head
    module.write_text("after\n")
    assert records.commit() == f"{head}-dirty"

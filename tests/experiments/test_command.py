"""``course-lib train``: what it says before hours are lost."""

import contextlib
import json
import os
import subprocess
from dataclasses import replace

import pytest

from course_lib.command_line import main
from course_lib.experiments import RECIPES, read_records, running
from course_lib.experiments.running import measure


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Vae"], "there is no recipe for 'Vae' on 'digits'"),
        (["VAE"], "on 'digits'; recorded are: VAE on mnist (cpu), VAE on mnist (cpu-iwae50)"),
        (
            ["gatedpixelcnn"],
            "recorded are: GatedPixelCNN on digits (300s), GatedPixelCNN on digits",
        ),
        (["MADE", "--budget", "61s"], "with the budget '61s'; recorded are: MADE on digits (60s)"),
        (["MADE", "--results", "{file}"], "the record cannot be written to {file}"),
        (["MADE", "--checkpoints", "{file}", "--quiet"], "cannot be written to {file}"),
        (["MADE", "--recorded"], "leave out the model, --budget and --steps, or --recorded"),
        (["--recorded", "--steps", "5"], "leave out the model, --budget and --steps"),
        (["--recorded", "--results", "{empty}"], "{empty} holds no record"),
        (["--recorded", "--results", "{broken}"], "digits-MADE-60s-seed0.json is not a record"),
    ],
)
def test_what_cannot_be_run_is_said_at_once(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    places = {name: str(tmp_path / name) for name in ("file", "empty", "broken")}
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "digits-MADE-60s-seed0.json").write_text("{")
    assert main(["train", *(argument.format(**places) for argument in arguments)]) == 1
    assert message.format(**places) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--steps", "0"), ("--threads", "-1"), ("--devices", "two"), ("--nodes", "1.5")],
)
def test_numbers_are_checked_as_they_are_read(option, value, capsys):
    with pytest.raises(SystemExit):
        main(["train", "MADE", option, value])
    assert f"{option}: '{value}' is given; a positive whole number is" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "much"])
def test_limits_of_grading_are_positive(value, capsys):
    with pytest.raises(SystemExit):
        main(["assignment", "grade", ".", "--assignment", "vae", "--memory", value])
    assert f"--memory: '{value}' is given; a positive number is" in capsys.readouterr().err


def test_a_trial_is_neither_read_by_a_table_nor_repeated(tmp_path, capsys):
    folders = ["--results", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    for _ in range(2):  # a second trial takes the place of the first
        for checkpoint in tmp_path.glob("checkpoints/*.pt"):
            checkpoint.unlink()
        assert main(["train", "FVSBN", "--steps", "5", "--quiet", *folders]) == 0
        assert "It is the record of a trial" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.json")
    assert path.name == "digits-FVSBN-60s-5steps-seed0.trial.json"
    assert read_records(tmp_path) == []
    assert main(["train", "--recorded", *folders]) == 1
    assert "holds no record" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "one", str(2**62)])
def test_a_seed_that_torch_cannot_take_is_refused(seed, capsys):
    with pytest.raises(SystemExit):
        main(["train", "MADE", "--seed", seed])
    assert f"--seed: '{seed}' is given; a whole number from 0 to" in capsys.readouterr().err


@pytest.fixture
def short(monkeypatch):
    """The recipe of the FVSBN, of five steps."""
    key = ("digits", "FVSBN", "60s")
    monkeypatch.setitem(RECIPES, key, replace(RECIPES[key], steps=5))


def test_a_finished_run_keeps_its_record_and_is_trained_again_only_by_recorded(
    tmp_path, short, capsys
):
    folders = ["--results", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    train = ["train", "FVSBN", "--quiet", *folders]
    assert main(train) == 0
    (record,) = tmp_path.glob("*.json")
    (checkpoint,) = tmp_path.glob("checkpoints/*.pt")
    written, saved = record.read_text(), checkpoint.stat().st_mtime_ns
    assert main(train) == 0
    said = capsys.readouterr().out
    assert f"{checkpoint} holds this run, finished and recorded" in said
    assert record.read_text() == written
    assert checkpoint.stat().st_mtime_ns == saved
    # Without its record the run is measured, and not trained.
    record.unlink()
    assert main(train) == 0
    assert checkpoint.stat().st_mtime_ns == saved
    first, second = json.loads(written), json.loads(record.read_text())
    assert first["metrics"] == second["metrics"]
    assert first["cpu_seconds"] is not None
    assert second["cpu_seconds"] is None
    # A record that is older than the run is another run's, as after a stop while it was measured.
    os.utime(record, ns=(0, 0))
    assert main(train) == 0
    assert record.stat().st_mtime_ns > saved
    # "Repeated" is trained once more.
    assert main(["train", "--recorded", "--quiet", *folders]) == 0
    assert checkpoint.stat().st_mtime_ns > saved
    third = json.loads(record.read_text())
    assert third["metrics"] == first["metrics"]
    assert third["cpu_seconds"] is not None


def test_a_repetition_that_was_stopped_goes_on_where_it_was(tmp_path, short, monkeypatch, capsys):
    folders = ["--results", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    for seed in "01":
        assert main(["train", "FVSBN", "--quiet", "--seed", seed, *folders]) == 0
    measured = []

    def stop_at_the_second(*arguments, **options):
        measured.append(arguments)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return measure(*arguments, **options)

    monkeypatch.setattr(running, "measure", stop_at_the_second)
    repeat = ["train", "--recorded", "--quiet", *folders]
    with contextlib.suppress(KeyboardInterrupt):
        main(repeat)
    first, second = sorted(tmp_path.glob("checkpoints/*.pt"))
    saved = [path.stat().st_mtime_ns for path in (first, second)]
    capsys.readouterr()
    assert main(repeat) == 0
    said = capsys.readouterr().out
    assert "A repetition was stopped and is resumed" in said
    assert f"{first} holds this run, finished and recorded" in said
    assert str(second) not in said
    assert len(measured) == 3
    assert [path.stat().st_mtime_ns for path in (first, second)] == saved
    # The next is another repetition.
    assert main(repeat) == 0
    assert len(measured) == 5
    assert "is resumed" not in capsys.readouterr().out


def test_a_run_of_several_processes_is_repeated_with_as_many(tmp_path, short, monkeypatch):
    folders = ["--results", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    assert main(["train", "FVSBN", "--quiet", *folders]) == 0
    (record,) = tmp_path.glob("*.json")
    content = json.loads(record.read_text())
    content["hardware"]["processes"] = 2
    record.write_text(json.dumps(content))
    (checkpoint,) = tmp_path.glob("checkpoints/*.pt")
    called = []

    def start(command):
        called.append(command)
        assert not checkpoint.exists()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", start)
    monkeypatch.setattr("course_lib.experiments.records.commit", lambda: None)
    assert main(["train", "--recorded", "--quiet", *folders]) == 0
    ((*_, quiet),) = called
    assert quiet == "--quiet"
    options = called[0][called[0].index("train") :]
    assert options[1:10] == [
        "FVSBN", "--data", "digits", "--budget", "60s", "--seed", "0", "--devices", "2",
    ]  # fmt: skip

"""``course-lib train``: what it says before hours are lost."""

import pytest

from course_lib.command_line import main
from course_lib.experiments import read_records


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
        (["--recorded", "--results", "{empty}"], "{empty} holds no record"),
        (["--recorded", "--results", "{broken}"], "digits-MADE-60s-seed0.json is no record"),
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
        assert main(["train", "FVSBN", "--steps", "5", "--quiet", *folders]) == 0
        assert "It is the record of a trial" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.json")
    assert path.name == "digits-FVSBN-60s-5steps-seed0.trial.json"
    assert read_records(tmp_path) == []
    assert main(["train", "--recorded", *folders]) == 1
    assert "holds no record" in capsys.readouterr().err

"""``course-lib train``: train a model by its recorded settings, and write the record."""

import argparse
import subprocess
import sys
from pathlib import Path

from course_lib.command_line.options import positive, processes, seed


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the options."""
    parser = subparsers.add_parser(
        "train",
        help="train a model by its recorded settings and write its record",
        description="Train a model by its recorded settings, measure it once on the test split, and "
        "write one JSON file, and pictures of samples beside it. "
        "A run that was stopped, or killed, resumes where its last checkpoint is when the same "
        "command is called again; on a CPU the result is the same to the last bit. "
        "A run that is finished is not trained or measured again. "
        "The record is written over that of an earlier run of the same settings and seed, better or "
        "worse: the last run counts.",
    )
    parser.add_argument("model", nargs="?", help="such as MADE or GatedPixelCNN; --list shows all")
    parser.add_argument("--list", action="store_true", help="list the recorded settings")
    parser.add_argument(
        "--recorded",
        action="store_true",
        help="train every run, and run every study, that the folder has a record of once more, with its "
        "number of processes; called again after a stop, it resumes where it was",
    )
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--budget", help="which settings; the first of the model by default")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of records")
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("checkpoints"), help="folder of checkpoints"
    )
    parser.add_argument(
        "--steps",
        type=positive(int),
        help="instead of the recorded number, for a trial, whose record ends in .trial.json: no "
        "table and no --recorded reads it",
    )
    parser.add_argument("--threads", type=positive(int), help="threads of torch on the CPU")
    parser.add_argument("--devices", type=processes, default=1, help="processes on this node")
    parser.add_argument("--nodes", type=positive(int), default=1, help="number of nodes")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, measure, write; return the exit status."""
    # Imported late: `course-lib --help` should not wait for torch.
    import torch

    from course_lib.experiments import RECIPES
    from course_lib.inputs import require_writable
    from course_lib.training import TrainingError

    if options.list or (options.model is None and not options.recorded):
        for data, model, budget in RECIPES:
            print(f"course-lib train {model} --data {data} --budget {budget}")
        return 0
    if options.recorded and (options.model or options.budget or options.steps):
        print(
            "course-lib train: --recorded repeats every record of the folder; leave out the model, "
            "--budget and --steps, or --recorded.",
            file=sys.stderr,
        )
        return 1
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        # Now, and not when the first run has been trained.
        require_writable(options.results, "the record")
        if options.recorded:
            _repeat(options)
        else:
            _train(options.model, options.data, options.budget, options.seed, options)
    except (TrainingError, OSError, ValueError) as error:
        print(f"course-lib train: {error}", file=sys.stderr)
        return 1
    return 0


def _repeat(options: argparse.Namespace) -> None:
    """Train every recorded run once more; a repetition that was stopped resumes where it was."""
    from course_lib.command_line.study import one_study
    from course_lib.experiments import read_records
    from course_lib.experiments.records import is_recorded, read_study
    from course_lib.experiments.studies import STUDIES

    records = read_records(options.results)
    studies = [name for name in STUDIES if read_study(options.results, name) is not None]
    if not records and not studies:
        raise ValueError(f"{options.results} holds no record; name its folder by --results.")
    begun = options.checkpoints / "repetition-begun"
    if begun.exists():
        print(f"A repetition was stopped and is resumed. To begin another, remove {begun}.")
    else:
        for r in records:
            _, checkpoint = _finished(r.model, r.data, r.budget, r.seed, options)
            if checkpoint is not None:
                checkpoint.unlink()
        options.checkpoints.mkdir(parents=True, exist_ok=True)
        begun.touch()
    for r in records:
        if r.hardware["processes"] == 1:
            _train(r.model, r.data, r.budget, r.seed, options)
        else:
            _train_apart(r.model, r.data, r.budget, r.seed, r.hardware["processes"], options)
    for name in studies:
        since = begun.stat().st_mtime
        if not is_recorded(options.results, name, trial=False, since=since):
            one_study(name, options)
    begun.unlink()


def _train(
    model: str, data: str, budget: str | None, seed: int, options: argparse.Namespace
) -> None:
    """One run: train, measure, write the record, say what was found."""
    from course_lib.experiments import run, write_record
    from course_lib.experiments.pictures import picture_path
    from course_lib.experiments.records import is_recorded, record_name

    trial = options.steps is not None
    name, checkpoint = _finished(model, data, budget, seed, options)
    if checkpoint is not None:
        file = record_name(data, model, name, seed)
        if is_recorded(options.results, file, trial=trial, since=checkpoint.stat().st_mtime):
            print(
                f"{checkpoint} holds this run, finished and recorded. Remove it to train again; "
                f"remove the record in {options.results} to measure again."
            )
            return
    record = run(
        model,
        data,
        budget=budget,
        seed=seed,
        checkpoints=options.checkpoints,
        pictures=None if trial else options.results,
        progress=not options.quiet,
        devices=options.devices,
        num_nodes=options.nodes,
        steps=options.steps,
    )
    if record is None:  # the first of several processes writes for all
        return
    path = write_record(record, options.results, trial=trial)
    print(record.name)
    for name, metric in record.metrics.items():
        print(
            f"  {name}: {metric.value} ± {metric.standard_error} {metric.unit} "
            f"({metric.n} test images)"
        )
    print(f"  {record.seconds:.0f} s of training; written: {path}")
    for picture in record.pictures:
        print(f"  {picture}: {picture_path(options.results, record.name, picture)}")
    if trial:
        print("  It is the record of a trial: no table and no --recorded reads it.")


def _train_apart(
    model: str, data: str, budget: str, seed: int, devices: int, options: argparse.Namespace
) -> None:
    """One run of several processes, which start this command again: not among other runs."""
    command = [
        sys.executable, "-m", "course_lib.command_line", "train", model, "--data", data,
        "--budget", budget, "--seed", str(seed), "--devices", str(devices),
        "--results", str(options.results), "--checkpoints", str(options.checkpoints),
    ]  # fmt: skip
    command += ["--threads", str(options.threads)] if options.threads else []
    command += ["--quiet"] if options.quiet else []
    if subprocess.run(command).returncode:
        raise ValueError(f"{model} on {data} with {devices} processes failed; see above.")


def _finished(
    model: str, data: str, budget: str | None, seed: int, options: argparse.Namespace
) -> tuple[str, Path | None]:
    """The name of the run's budget, and its checkpoint if that holds the finished run."""
    from course_lib.experiments import checkpoint_path, is_finished, plan

    name, recipe = plan(model, data, budget, options.steps)
    checkpoint = checkpoint_path(options.checkpoints, model, data, name, seed, recipe)
    return name, checkpoint if is_finished(checkpoint, recipe) else None

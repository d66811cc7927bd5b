"""Records: one JSON file for each run, with all that is needed to judge the number and to repeat it.

A `Record` is what one model's run by its recipe leaves behind, a `StudyRecord` what a study of many
small models does. Both are a `Run`: they say in the same words how they came about.
"""

import json
import math
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from course_lib.files import replace_text

RESULTS = "results"
TRIAL = ".trial.json"


@dataclass(frozen=True)
class Metric:
    """One measured number; lower is better for all of them.

    Attributes:
        value: the mean over the test images.
        standard_error: of that mean, from the spread over images.
        unit: ``"nats"`` per image, or ``"bits/dim"``.
        n: number of test images.
    """

    value: float
    standard_error: float
    unit: str
    n: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a number came about.

    Attributes:
        seed: of weights, order and noise.
        seconds: of training, over all interruptions.
        settings: the recipe, whole, or all settings of a study.
        command: what to type to repeat it.
        hardware: processor, accelerator, threads, processes; None for what was not recorded.
        versions: of Python, torch, numpy and the library; without those that were not recorded.
        commit: of the repository; ends in ``-dirty`` if files had been changed. None where it was not
            recorded, or outside a repository.
        date: when it was measured; None where it was not recorded.
        cpu_seconds: of processor time that training took, which other programs on the machine do
            not lengthen; None where it was not measured in one go.
    """

    seed: int
    seconds: float
    settings: dict
    command: str
    hardware: dict = field(default_factory=lambda: hardware())
    versions: dict = field(default_factory=lambda: versions())
    commit: str | None = field(default_factory=lambda: commit())
    date: str | None = field(default_factory=lambda: date.today().isoformat())
    cpu_seconds: float | None = None

    def as_json(self) -> str:
        """What its file holds: first what was found, then how."""
        content = asdict(self)
        how = {f.name for f in fields(Run)}
        return json.dumps({k: content[k] for k in sorted(content, key=how.__contains__)}, indent=1)


@dataclass(frozen=True)
class Record(Run):
    """What one run leaves behind; how it came about is described at `Run`.

    Attributes:
        model: name of the model.
        data: name of the data set.
        budget: name of the recipe's budget.
        protocol: what was done to the data, in words.
        metrics: by name. All of them bound the same negative log-likelihood from above, or are equal to
            it, so that the smallest is the one to give.
        parameters: number of trainable parameters.
        steps: optimizer steps.
        best_step: the step whose weights were measured; chosen on the validation split.
        curves: of the loss in training, ``"train"`` and ``"validation"``: pairs of step and value, nats per
            image. Empty for runs from before they were kept.
        pictures: SHA-256 digests of the files beside the record, by name; see
            `course_lib.experiments.pictures`. Empty for runs from before there were any.
    """

    model: str
    data: str
    budget: str
    protocol: str
    metrics: dict[str, Metric]
    parameters: int
    steps: int
    best_step: int | None
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its file, without the ending."""
        return record_name(self.data, self.model, self.budget, self.seed)

    @property
    def tightest(self) -> tuple[str, Metric]:
        """Name and value of the tightest bound, or of the negative log-likelihood where that is exact.

        All bounds of a record are of one model on the same images, so no model is selected here. A value
        that is NaN comes first: it must not be passed over.
        """
        return min(self.metrics.items(), key=lambda i: (not math.isnan(i[1].value), i[1].value))


@dataclass(frozen=True)
class StudyRecord(Run):
    """What one study leaves behind; how it came about is described at `Run`.

    Attributes:
        study: its name, and that of its file.
        noise_floor: for each distribution what each measure is between two samples of it.
        saturation: for each distribution what each measure is of samples that miss it altogether.
        rows: what was found, for each method and distribution; a list has one number per seed.
        pictures: SHA-256 digests of the files beside the record, by name; most studies have none.
    """

    study: str
    noise_floor: dict[str, dict[str, float]]
    saturation: dict[str, dict[str, float]]
    rows: list[dict]
    pictures: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its file, without the ending."""
        return self.study


def record_name(data: str, model: str, budget: str, seed: int) -> str:
    """Name of a record's file, without the ending."""
    return f"{data}-{model}-{budget}-seed{seed}"


def record_path(folder: Path, name: str, *, trial: bool) -> Path:
    """Where a record of that name is written; those of trials are read by nothing."""
    return folder / f"{name}{TRIAL if trial else '.json'}"


def is_recorded(folder: Path, name: str, *, trial: bool, since: float) -> bool:
    """Whether a record of that name was written after `since`, as in `stat`."""
    path = record_path(folder, name, trial=trial)
    return path.exists() and path.stat().st_mtime >= since


def write_record(record: Record, folder: Path, *, trial: bool = False) -> Path:
    """Write a record, atomically, over that of an earlier run of the same settings and seed.

    The last run counts, whether it is better or worse: to keep the better one of several would be to
    choose it on the test images, and to report the luck of the choice as quality.

    Args:
        record: what to write.
        folder: where to; it is made if need be.
        trial: whether the run was one of other settings than its recipe's, to be repeated by no
            recipe; its record ends in ``.trial.json``, and is read by nothing.

    Returns:
        The file that was written.
    """
    return _write(record, folder, trial=trial)


def write_study(record: StudyRecord, folder: Path, *, trial: bool = False) -> Path:
    """Write the record of a study, atomically, over that of an earlier run: the last one counts.

    Args:
        record: what to write.
        folder: where to; it is made if need be.
        trial: whether the study was one of other settings than its own; its record ends in
            ``.trial.json``, and is read by nothing.

    Returns:
        The file that was written.
    """
    return _write(record, folder, trial=trial)


def read_records(folder: Path, **where: object) -> list[Record]:
    """Read all records of a folder, but no trials.

    Args:
        folder: where they lie.
        where: attributes and the values that they must have, such as ``data="mnist"``.

    Returns:
        The records, sorted by the names of their files.

    Raises:
        ValueError: a file is not a record.
    """
    records = [
        _read(path) for path in sorted(folder.glob("*-seed*.json")) if not path.name.endswith(TRIAL)
    ]
    return [r for r in records if all(getattr(r, k) == value for k, value in where.items())]


def read_study(folder: Path, name: str) -> StudyRecord | None:
    """Read the record of a study; None if the folder holds none.

    Raises:
        ValueError: the file is not a record.
    """
    path = record_path(folder, name, trial=False)
    return _read(path, StudyRecord) if path.exists() else None


def _write(record: Record | StudyRecord, folder: Path, *, trial: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = record_path(folder, record.name, trial=trial)
    replace_text(path, record.as_json() + "\n")
    return path


def _read(path: Path, kind: type[Run] = Record) -> Run:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if kind is Record:
            content["metrics"] = {name: Metric(**m) for name, m in content["metrics"].items()}
        return kind(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a record ({error!r}). Remove it, or restore it."
        ) from error


def hardware() -> dict[str, object]:
    """What the run had: processor, accelerator, threads."""
    processor = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor,
        "accelerator": accelerator,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def versions() -> dict[str, str]:
    """The versions that may change a number."""
    # Torch itself says for which accelerator it was built, its package does not.
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in ("numpy", "course-lib"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # used from its source folder
            found[package] = "source"
    return found


def commit() -> str | None:
    """The commit of the repository that the library lies in, or None outside one.

    Changed records are no changed files here: of several runs each would mark those after it.
    """

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True)

    try:
        head = git("rev-parse", "HEAD")
    except OSError:
        return None
    if head.returncode:
        return None
    changed = git("status", "--porcelain", "--untracked-files=no", ":/", ":(top,exclude)results")
    return head.stdout.strip() + ("-dirty" if changed.stdout else "")

"""A study method by method: what is done is kept, so that a study that was stopped resumes."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from course_lib.experiments.records import versions
from course_lib.files import replace_text
from course_lib.progress import progress_bar

Method = TypeVar("Method")


def of_each(
    name: str,
    methods: Sequence[Method],
    measure: Callable[[Method], list[dict]],
    *,
    settings: dict,
    begun: str | None,
    checkpoints: Path | None,
    progress: bool,
) -> list[list[dict]]:
    """The rows of every method.

    Args:
        name: of the study.
        methods: what is measured, one after the other.
        measure: returns the rows of one of them.
        settings: of the study; parts of other settings are not taken over.
        begun: the commit at which the study has begun; nor are those of another one.
        checkpoints: folder where each method that is done is kept until all are.
        progress: show a progress bar.
    """
    folder = None
    if checkpoints is not None:
        same = json.dumps([settings, begun, versions()], sort_keys=True)
        folder = checkpoints / f"{name}-{hashlib.sha256(same.encode()).hexdigest()[:8]}"
    found = []
    for i, method in enumerate(progress_bar(show=progress, iterable=methods, desc=name)):
        part = None if folder is None else folder / f"{i}.json"
        if part is not None and part.exists():
            found.append(json.loads(part.read_text(encoding="utf-8")))
            continue
        found.append(measure(method))
        if part is not None:
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(part, json.dumps(found[-1]))
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def study_command(name: str, n_seeds: int, usual_seeds: int, steps: int | None) -> str:
    """What to type to repeat a study; `steps` is None unless they are those of a trial."""
    command = f"course-lib study {name}"
    command += f" --seeds {n_seeds}" if n_seeds != usual_seeds else ""
    return command + (f" --steps {steps}" if steps is not None else "")

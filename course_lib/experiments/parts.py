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

"""From a master notebook to the student's and the solution's, and to the public checks.

The master follows nbgrader's conventions: solutions stand between ``### BEGIN SOLUTION`` and
``### END SOLUTION`` in cells marked ``solution``, checks in locked cells marked ``grade``.
"""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from course_lib.checking.public import encode
from course_lib.files import replace_text
from course_lib.grading.question import Assignment, Measure, Question

CODE_STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
TEXT_STUB = "YOUR ANSWER HERE"
REGION = re.compile(
    r"^(?P<indent>[ \t]*)### BEGIN SOLUTION[^\n]*\n.*?^[ \t]*### END SOLUTION[^\n]*$",
    re.MULTILINE | re.DOTALL,
)
MAY_RAISE = "raises-exception"


def marks(cell: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a cell that nbgrader reads; empty where there is none."""
    return cell.get("metadata", {}).get("nbgrader", {})


def student_version(master: NotebookNode) -> NotebookNode:
    """Return the master without its solutions and outputs.

    Cells that raise while a question is unsolved are tagged so that “Run all” continues after them.
    """
    notebook = _copy(master)
    for cell in notebook.cells:
        mark = marks(cell)
        if mark.get("solution") and cell.cell_type == "code":
            cell.source = REGION.sub(_stub, cell.source)
        elif mark.get("solution"):
            cell.source = TEXT_STUB
        if cell.cell_type == "code" and (mark.get("solution") or mark.get("grade")):
            cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), MAY_RAISE})
    return notebook


def solution_version(master: NotebookNode) -> NotebookNode:
    """Return the master as a reader of the solutions gets it: without markers and outputs."""
    notebook = _copy(master)
    for cell in notebook.cells:
        cell.source = re.sub(
            r"^[ \t]*### (BEGIN|END) SOLUTION[^\n]*\n?", "", cell.source, flags=re.M
        )
        cell.source = cell.source.rstrip("\n")
    return notebook


def public_checks(assignment: Assignment) -> list[dict[str, Any]]:
    """What the student's check reads: probes, expected arrays and those of the known mistakes."""
    stored = []
    for question in assignment.questions:
        if isinstance(question, Measure):
            stored.append(
                {
                    "name": question.name,
                    "kind": "measure",
                    "measure": question.measure,
                    "functions": list(question.functions),
                    "limit": question.limit,
                    "seconds": question.seconds,
                }
            )
        elif isinstance(question, Question):
            stored.append(_public(assignment, question))
    return stored


def release(assignment: Assignment, library: Path) -> list[Path]:
    """Write the student's notebook, the solution's and the public checks; return their paths.

    The result depends on the assignment's folder alone: a second call writes the same bytes.

    Args:
        assignment: what to release.
        library: the folder of `course_lib`, whose ``checking/public`` takes the public checks.

    Raises:
        ValueError: master and questions contradict each other.
    """
    master = nbformat.read(assignment.master, as_version=4)
    require_consistent(assignment, master)
    written = {
        assignment.folder / "student" / f"{assignment.name}.ipynb": student_version(master),
        assignment.folder / "solution" / f"{assignment.name}.ipynb": solution_version(master),
    }
    for path, notebook in written.items():
        path.parent.mkdir(exist_ok=True)
        nbformat.validate(notebook)
        replace_text(path, nbformat.writes(notebook) + "\n")
    path = library / "checking" / "public" / f"{assignment.name}.json"
    replace_text(path, public_text(assignment))
    return [*written, path]


def public_text(assignment: Assignment) -> str:
    """The public checks as text: one question a line, so that a change shows where it is."""
    lines = ",\n".join(json.dumps(question) for question in public_checks(assignment))
    return f"[\n{lines}\n]\n"


def require_consistent(assignment: Assignment, master: NotebookNode) -> None:
    """Require that the master asks what the questions grade, for the same points.

    Raises:
        ValueError: a question has no cell, a cell no question, or the points differ.
    """
    graded = {
        marks(cell)["grade_id"].removeprefix("check-"): marks(cell).get("points")
        for cell in master.cells
        if marks(cell).get("grade")
    }
    asked = {question.name: question.points for question in assignment.questions}
    if graded != asked:
        differ = sorted(set(graded.items()) ^ set(asked.items()))
        raise ValueError(
            f"{assignment.master} and questions.py differ: {differ}. Give each question one graded "
            f"cell with grade_id 'check-<name>' (written ones: '<name>') and the same points."
        )


def _public(assignment: Assignment, question: Question) -> dict[str, Any]:
    public = question.public(assignment.name)
    return {
        "name": public.name,
        "kind": public.kind,
        "symbols": list(public.symbols),
        "seconds": public.seconds,
        "cases": [
            {
                "name": case.name,
                "inputs": [encode(x) for x in case.inputs],
                "expected": {name: encode(a) for name, a in case.expected.items()},
                "tolerance": {"rtol": case.tolerance.rtol, "atol": case.tolerance.atol},
            }
            for case in public.cases
        ],
        "mistakes": [
            {
                "hint": mistake.hint,
                "results": [
                    {name: encode(a) for name, a in result.items()} for result in mistake.results
                ],
            }
            for mistake in public.mistakes
        ],
    }


def _stub(match: re.Match[str]) -> str:
    return "\n".join(match["indent"] + line for line in CODE_STUB.splitlines())


def _copy(notebook: NotebookNode) -> NotebookNode:
    copy = nbformat.from_dict(json.loads(json.dumps(notebook)))
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return copy

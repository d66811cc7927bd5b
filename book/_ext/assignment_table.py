"""The table of assignments: what each asks, for how many points, and where to open it.

Everything in it is read from ``assignments/`` and from the repository's address in
``_config.yml``. The directive's body says in a line for each assignment what it covers::

    ```{assignment-table}
    vae: divergences of Gaussians, …
    ```
"""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from equation_labels import ROOT
from repository import read


class AssignmentTable(SphinxDirective):
    """One row for each assignment that exists, in the order of the body's lines."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Build the table.

        Raises:
            docutils.parsers.rst.DirectiveError: an assignment exists of which no line says what it covers.
        """
        from course_lib.grading.question import Written, load_assignment

        covered = dict(line.split(": ", 1) for line in self.content if line.strip())
        found = sorted(path.parent.name for path in ROOT.glob("assignments/*/questions.py"))
        unknown = sorted(set(found) - set(covered))
        if unknown:
            raise self.error(f"a line is missing for: {', '.join(unknown)}")
        repository = read(ROOT / "_config.yml")
        lines = [
            "| Assignment | What it covers | Questions | Points | Open |",
            "|:--|:--|--:|--:|:--|",
        ]
        for name in (name for name in covered if name in found):
            assignment = load_assignment(name, ROOT)
            self.env.note_dependency(str(assignment.folder / "questions.py"))
            path = f"assignments/{name}/student/{name}"
            colab = f"[Colab]({repository.colab(path)}.ipynb), " if repository.is_set else ""
            written = sum(q.points for q in assignment.questions if isinstance(q, Written))
            optional = sum(not q.points for q in assignment.questions)
            number = str(len(assignment.questions) - optional)
            if optional:
                number += f" + {optional} optional"
            lines.append(
                f"| {{doc}}`{assignment.title} </{path}>` | {covered[name]} "
                f"| {number} | {assignment.points - written:g} + {written:g} "
                f"| {colab}{{download}}`download </{path}.ipynb>` |"
            )
        container = nodes.Element()
        self.state.nested_parse(StringList(lines, self.env.docname), self.content_offset, container)
        return container.children


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.add_directive("assignment-table", AssignmentTable)
    return {"version": "1", "parallel_read_safe": True}

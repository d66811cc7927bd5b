"""Questions in the page that know the reader's mistake.

``book/<chapter>/self-checks.yml`` holds the questions of a chapter by their names; a page shows one by
::

    ```{self-check} kl-to-the-standard-normal
    ```

There are four kinds, told by what stands in a question:

* ``answer``, a formula: a number is asked. ``draw`` lists the values that each parameter may take; the page
  draws them anew at each visit. ``let`` names formulas in between. ``slips`` are wrong formulas, each with
  the hint that its value earns. ``unit`` stands behind the field; ``whole: true`` asks for an integer.
* ``options``: one is right (``right: true``); each has the hint that choosing it earns.
* ``lines``: a derivation with one wrong line to be found; the same in the form of options.
* ``steps``: lines to be put in order, given in the right one; each has the hint that it earns too early.

Every question has a ``text`` and a ``solution``. Within texts, `` {drawn}`m` `` is the value of a parameter,
of a formula of ``let``, or of the ``answer``. Texts are MyST, with formulas. A numerical answer counts as
right within `TOLERANCE`; draws for which two of the answer and the slips lie closer than four times that are
drawn again, so that a number never has two meanings.

The page works without a kernel and without a network; without a script it shows the questions, and the
answers at its end, as the printed page does.
"""

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

import formulas
from equation_labels import ROOT

TOLERANCE = 0.002  # of the answer, or absolute where the answer is below 1: three decimals suffice
KINDS = ("answer", "options", "lines", "steps")
FIELDS = {"text", "solution", "draw", "let", "slips", "unit", "whole", *KINDS}


@dataclass(frozen=True)
class Choice:
    """Something to choose or to put in its place: an option, a line, a step."""

    text: str
    hint: str = ""
    right: bool = False


@dataclass(frozen=True)
class SelfCheck:
    """One question.

    Attributes:
        name: its name.
        kind: ``"answer"``, ``"options"``, ``"lines"`` or ``"steps"``.
        text: what is asked.
        solution: the answer, with its reason.
        draw: the values that each parameter may take.
        let: formulas in between, by their names, in the order of their computation.
        answer: the formula of the answer.
        slips: wrong formulas, with their hints.
        unit: what stands behind the field.
        whole: whether the answer is an integer.
        choices: options, lines or steps.
    """

    name: str
    kind: str
    text: str
    solution: str
    draw: Mapping[str, list[float]] = field(default_factory=dict)
    let: Mapping[str, formulas.Tree] = field(default_factory=dict)
    answer: formulas.Tree = 0.0
    slips: tuple[tuple[formulas.Tree, str], ...] = ()
    unit: str = ""
    whole: bool = False
    choices: tuple[Choice, ...] = ()

    def draws(self) -> Iterator[dict[str, float]]:
        """All values of the parameters, with those of the formulas in between and the answer."""
        for numbers in itertools.product(*self.draw.values()):
            values = dict(zip(self.draw, map(float, numbers), strict=True))
            for name, tree in self.let.items():
                values[name] = formulas.evaluate(tree, values)
            values["answer"] = formulas.evaluate(self.answer, values)
            yield values

    def wrong_values(self, values: Mapping[str, float]) -> list[float]:
        """What each slip leads to."""
        return [formulas.evaluate(tree, values) for tree, _ in self.slips]

    def tolerance(self, answer: float) -> float:
        """How far from `answer` a number still counts as it."""
        return 1e-9 if self.whole else TOLERANCE * max(1.0, abs(answer))

    def is_clear(self, values: Mapping[str, float]) -> bool:
        """Whether the answer and the values of the slips lie apart."""
        apart = 4 * self.tolerance(values["answer"])
        meanings = [values["answer"], *self.wrong_values(values)]
        return all(abs(a - b) > apart for a, b in itertools.combinations(meanings, 2))

    def first(self) -> dict[str, float]:
        """The values that the page shows before its script draws others."""
        return next(filter(self.is_clear, self.draws()))

    def data(self) -> dict[str, object]:
        """What the page's script has to know."""
        if self.kind == "answer":
            return {
                "name": self.name,
                "kind": self.kind,
                "draw": self.draw,
                "let": list(self.let.items()),
                "answer": self.answer,
                "slips": [tree for tree, _ in self.slips],
                "unit": self.unit,
                "whole": self.whole,
                "tolerance": TOLERANCE,
            }
        right = (
            [choice.right for choice in self.choices].index(True) if self.kind != "steps" else None
        )
        return {"name": self.name, "kind": self.kind, "right": right, "order": self.shuffled()}

    def shuffled(self) -> list[int]:
        """The order in which steps are shown first; the same in every build, and not the right one."""
        order = list(range(len(self.choices)))
        while self.kind == "steps" and order == sorted(order):
            random.Random(f"{self.name}{order}").shuffle(order)
        return order


def read(path: Path) -> dict[str, SelfCheck]:
    """The questions of a chapter.

    Args:
        path: the file.

    Returns:
        The questions by their names.

    Raises:
        ValueError: a question is incomplete, or has something that no kind knows; the message names it.
    """
    found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return {name: _question(name, fields, path) for name, fields in found.items()}


def _question(name: str, fields: Mapping, path: Path) -> SelfCheck:
    where = f"{name} in {path.name}"
    kinds = [kind for kind in KINDS if kind in fields]
    if len(kinds) != 1:
        raise ValueError(f"{where} must have exactly one of {', '.join(KINDS)}; it has {kinds}.")
    if unknown := set(fields) - FIELDS:
        raise ValueError(f"{where} has {sorted(unknown)}; known are: {sorted(FIELDS)}.")
    if missing := {"text", "solution"} - set(fields):
        raise ValueError(f"{where} lacks {sorted(missing)}.")
    kind = kinds[0]
    common = {"name": name, "kind": kind, "text": fields["text"], "solution": fields["solution"]}
    if kind != "answer":
        choices = tuple(Choice(**choice) for choice in fields[kind])
        if kind != "steps" and [choice.right for choice in choices].count(True) != 1:
            raise ValueError(f"{where} must have exactly one of its {kind} marked 'right: true'.")
        if kind != "steps" and not all(choice.hint for choice in choices):
            raise ValueError(f"{where}: each of its {kind} must have a hint.")
        return SelfCheck(**common, choices=choices)
    slips = tuple((formulas.parse(slip["value"]), slip["hint"]) for slip in fields.get("slips", ()))
    question = SelfCheck(
        **common,
        draw=fields.get("draw", {}),
        let={key: formulas.parse(text) for key, text in fields.get("let", {}).items()},
        answer=formulas.parse(fields["answer"]),
        slips=slips,
        unit=fields.get("unit", ""),
        whole=fields.get("whole", False),
    )
    defined = {*question.draw, *question.let}
    used = [*question.let.values(), question.answer, *(tree for tree, _ in slips)]
    if unknown := set().union(*map(formulas.names, used)) - defined:
        raise ValueError(f"{where} uses {sorted(unknown)}; neither 'draw' nor 'let' defines it.")
    if not any(map(question.is_clear, question.draws())):
        raise ValueError(f"{where}: for no draw are the answer and all slips apart.")
    return question


def shown(value: float) -> str:
    """A number as the page's script writes it: at most four decimals, a real minus."""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return ("0" if text == "-0" else text).replace("-", "−")


class DrawnRole(SphinxRole):
    """The value of a parameter of the question around it."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Write the first draw's value, where the page's script finds it."""
        question = self.env.temp_data["self_check"]
        if self.text not in question.first():
            message = self.inliner.reporter.error(f"{question.name} draws no {self.text!r}")
            return [], [message]
        text = shown(question.first()[self.text])
        classes = ["drawn", f"of-{question.name}", f"value-{self.text}"]
        return [nodes.inline("", text, classes=classes)], []


class SelfCheckDirective(SphinxDirective):
    """Show one question."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Build the question; its answer waits for the end of the page.

        Raises:
            docutils.parsers.rst.DirectiveError: there is no such question, or it is wrong.
        """
        name = self.arguments[0]
        path = ROOT / Path(self.env.docname).parent / "self-checks.yml"
        self.env.note_dependency(str(path))
        try:
            question = read(path)[name]
        except KeyError:
            raise self.error(f"{path} has no question {name!r}") from None
        except (OSError, ValueError, TypeError) as error:
            raise self.error(str(error)) from None
        self.env.temp_data["self_check"] = question
        answers = self.env.temp_data.setdefault("self_check_answers", [])
        number = len(answers) + 1
        title = nodes.paragraph("", "", nodes.strong("", f"Check yourself {number}"))
        title["classes"] = ["self-check-title"]
        answers.append(
            self.parsed(f"**Check yourself {number}.** {question.solution}", "answer", f"of-{name}")
        )
        data = json.dumps(question.data()).replace("<", "\\u003c")
        script = f'<script type="application/json">{data}</script>'
        hints = [hint for _, hint in question.slips] or [choice.hint for choice in question.choices]
        box = nodes.container(classes=["self-check", f"self-check-{question.kind}"])
        box["ids"] = [f"check-{name}"]
        box += [title, self.parsed(question.text, "question")]
        order = question.shuffled()
        choices = [
            self.parsed(question.choices[index].text, "choice", f"choice-{index}")
            for index in order
        ]
        if choices:
            box += nodes.container("", *choices, classes=["choices"])
        # Hints belong to the script: print and readers without it get the answer alone.
        folded = nodes.container("", *(self.parsed(hint, "hint") for hint in hints))
        folded["classes"] = ["hints"]
        box += [ScriptOnly("", folded), nodes.raw("", script, format="html")]
        return [box]

    def parsed(self, text: str, *classes: str) -> nodes.container:
        """A text of the question as nodes."""
        container = nodes.container(classes=list(classes))
        lines = StringList(text.strip().splitlines(), self.env.docname)
        self.state.nested_parse(lines, self.content_offset, container)
        return container


class ScriptOnly(nodes.General, nodes.Element):
    """What is left out of everything but HTML."""


class ProgressDirective(SphinxDirective):
    """Say how many questions of the page are answered; the script fills it."""

    def run(self) -> list[nodes.Node]:
        """Leave the place."""
        return [nodes.raw("", '<div class="self-check-progress"></div>', format="html")]


def gather_answers(app: Sphinx, doctree: nodes.document) -> None:
    """Put the answers at the end of the page."""
    answers = app.env.temp_data.get("self_check_answers")
    if not answers:
        return
    heading = nodes.paragraph("", "", nodes.strong("", "Answers to the questions in the text"))
    place = nodes.container("", heading, *answers, classes=["self-check-answers"])
    doctree[-1].append(place)


def load_script(
    app: Sphinx, name: str, template: str, context: dict, doctree: nodes.document
) -> None:
    """Load the script on pages that have questions, and on no other."""
    if doctree and any("self-check" in box["classes"] for box in doctree.findall(nodes.container)):
        app.add_js_file("self-checks.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool | str]:
    nothing = (lambda translator, node: None, lambda translator, node: None)

    def skip(translator: nodes.NodeVisitor, node: nodes.Node) -> None:
        raise nodes.SkipNode

    app.add_node(ScriptOnly, html=nothing, latex=(skip, None), text=(skip, None))
    app.add_directive("self-check", SelfCheckDirective)
    app.add_directive("self-check-progress", ProgressDirective)
    app.add_role("drawn", DrawnRole())
    app.connect("doctree-read", gather_answers)
    app.connect("html-page-context", load_script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

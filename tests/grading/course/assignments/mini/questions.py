"""Three short questions, for tests of the grading itself."""

import torch

from course_lib.grading import Mistake, Question, Written
from course_lib.grading.draws import normal, uniform

TITLE = "Mini"


def weighted(x, w):
    return (w * x**2).sum(1)


def draw(g: torch.Generator):
    return normal(g, 4, 3), uniform(g, 0.5, 2, 3)


def question(name: str, factor: float) -> Question:
    return Question(
        name=name,
        points=1,
        reference=lambda x, w: factor * weighted(x, w),
        draw=draw,
        mistakes=(
            Mistake(
                "weights dropped", "The weights are not used", lambda x, w: factor * (x**2).sum(1)
            ),
            Mistake("mean", "The terms are averaged", lambda x, w: factor * weighted(x, w) / 3),
        ),
        equivalents=(lambda x, w: factor * (x**2 @ w),),
        seconds=4,
    )


QUESTIONS = (
    question("first", 1.0),
    question("target", 7.25),
    question("last", 3.0),
    Written(name="words", points=1, rubric="One point for a reason."),
)

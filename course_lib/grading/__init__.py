"""The instructor's side of an assignment: references, release, isolated grading, reports.

Nothing here is imported by a student's notebook; what that needs is `course_lib.checking`.
"""

from course_lib.grading.question import Measure, Mistake, Question, Written

__all__ = ["Measure", "Mistake", "Question", "Written"]

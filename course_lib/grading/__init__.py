"""What a student's notebook uses: `check`, which needs nothing beyond the package.

The instructor's side, which holds references and hidden probes, is `course_lib.assignment`.
"""

from course_lib.grading.checking import WrongAnswer, check

__all__ = ["WrongAnswer", "check"]

"""What a student's notebook uses: `check`, which needs nothing beyond the package.

The instructor's side, which holds references and hidden probes, is `course_lib.grading`.
"""

from course_lib.checking.checking import WrongAnswer, check

__all__ = ["WrongAnswer", "check"]

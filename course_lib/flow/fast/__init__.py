"""Fast paths of the flows; importing this package registers them, and `course_lib.fast` explains them."""

from course_lib.fast import attention, masked
from course_lib.flow.fast import autoregressive, tarflow

__all__ = ["attention", "autoregressive", "masked", "tarflow"]

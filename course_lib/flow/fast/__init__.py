"""Fast paths of the flows; importing this package registers them, and `course_lib.fast` explains them."""

from course_lib.fast import masked
from course_lib.flow.fast import autoregressive

__all__ = ["autoregressive", "masked"]

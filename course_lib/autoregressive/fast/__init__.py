"""Fast paths of the autoregressive models; importing this package registers them.

Each sampler is a coroutine (`course_lib.autoregressive.base.Steps`) that computes every activation once, and
belongs to the ``forward`` whose conditionals it gives. The models do not know them: see `course_lib.fast`.
"""

from course_lib.autoregressive.fast import (
    diagonal_bilstm,
    fvsbn,
    gated_pixelcnn,
    made,
    nade,
    pixelcnn,
    row_lstm,
    transformer,
    wavenet,
)
from course_lib.fast import attention, masked

__all__ = [
    "attention",
    "diagonal_bilstm",
    "fvsbn",
    "gated_pixelcnn",
    "made",
    "masked",
    "nade",
    "pixelcnn",
    "row_lstm",
    "transformer",
    "wavenet",
]

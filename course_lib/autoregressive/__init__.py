"""Autoregressive models: the chain rule, one conditional for each dimension."""

from course_lib.autoregressive import fast
from course_lib.autoregressive.base import Autoregressive
from course_lib.autoregressive.diagonal_bilstm import DiagonalBiLSTM
from course_lib.autoregressive.fvsbn import FVSBN
from course_lib.autoregressive.gated_pixelcnn import GatedPixelCNN
from course_lib.autoregressive.made import MADE, one_ordering_loss
from course_lib.autoregressive.masked_diffusion import MaskedDiffusion, any_order_loss
from course_lib.autoregressive.nade import NADE
from course_lib.autoregressive.pixelcnn import PixelCNN
from course_lib.autoregressive.receptive_field import receptive_field_map
from course_lib.autoregressive.row_lstm import RowLSTM
from course_lib.autoregressive.transformer import Transformer
from course_lib.autoregressive.wavenet import WaveNet

__all__ = [
    "FVSBN",
    "MADE",
    "NADE",
    "Autoregressive",
    "DiagonalBiLSTM",
    "GatedPixelCNN",
    "MaskedDiffusion",
    "PixelCNN",
    "RowLSTM",
    "Transformer",
    "WaveNet",
    "any_order_loss",
    "fast",
    "one_ordering_loss",
    "receptive_field_map",
]

"""What does not fit is refused, with a message that says what was expected."""

import pytest
import torch

from course_lib.autoregressive import (
    FVSBN,
    MADE,
    DiagonalBiLSTM,
    GatedPixelCNN,
    PixelCNN,
    RowLSTM,
    WaveNet,
)
from course_lib.distributions import Categorical, DiscretizedLogisticMixture

MODEL = PixelCNN((1, 4, 4), 5, channels=4, n_layers=1)
CONDITIONAL = GatedPixelCNN((1, 4, 4), 5, channels=4, n_layers=2, n_classes=3)
X = torch.randint(0, 5, (2, 1, 4, 4))
KNOWN = torch.ones(1, 4, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: MODEL.log_prob(X + 4), ValueError, r"0 … 4 are expected"),
        (lambda: MODEL.log_prob(X - 1), ValueError, r"0 … 4 are expected"),
        (lambda: MODEL.log_prob(X.float()), TypeError, r"integer grey levels"),
        (lambda: MODEL.log_prob(X.numpy()), TypeError, r"torch.Tensor is expected"),
        (lambda: MODEL.log_prob(X[0]), ValueError, r"unsqueeze"),
        (lambda: MODEL.log_prob(X[:, :, :3]), ValueError, r"\(N, 1, 4, 4\) is expected"),
        (lambda: MODEL.log_prob(X[:0]), ValueError, r"empty batch"),
        (lambda: MODEL.sample(0), ValueError, r"at least 1"),
        (lambda: MODEL.sample(2.0), TypeError, r"integer"),
        (lambda: MODEL.sample(2, labels=torch.tensor([0, 1])), ValueError, r"without classes"),
        (lambda: MODEL.complete(X, KNOWN[0]), ValueError, r"known has shape \(4, 4\)"),
        (lambda: MODEL.complete(X, KNOWN[:, :3]), ValueError, r"known has shape"),
        (lambda: MODEL.complete(X, KNOWN.int()), TypeError, r"boolean mask"),
        (lambda: MODEL.complete(X + 9, KNOWN), ValueError, r"0 … 4 are expected"),
        (lambda: MODEL.complete(X[0], KNOWN), ValueError, r"unsqueeze"),
        (lambda: CONDITIONAL.log_prob(X), ValueError, r"no labels were given"),
        (lambda: CONDITIONAL.log_prob(X, torch.tensor([0, 3])), ValueError, r"labels has levels"),
        (lambda: CONDITIONAL.sample(1, labels=torch.tensor([-1])), ValueError, r"labels has"),
        (lambda: CONDITIONAL.log_prob(X, torch.tensor([0.0, 1])), TypeError, r"labels has dtype"),
        (lambda: CONDITIONAL.sample(3, labels=torch.tensor([0, 1])), ValueError, r"2 entries"),
        (lambda: PixelCNN((4, 4), 2), ValueError, r"\(C, H, W\) is expected"),
        (lambda: PixelCNN((1, 4, 0), 2), ValueError, r"entry of event_shape"),
        (lambda: PixelCNN((1, 4, 4), 2, n_classes=3), TypeError, r"a PixelCNN has no classes"),
        (lambda: RowLSTM((1, 4, 4), 2, n_layers=0), ValueError, r"n_layers is 0"),
        (lambda: FVSBN((), 2), ValueError, r"event_shape is empty"),
        (lambda: FVSBN((3,), 1), ValueError, r"levels is 1; an integer of at least 2"),
        (lambda: FVSBN((3,), 4, distribution=Categorical(5)), ValueError, r"levels=4"),
        (lambda: DiscretizedLogisticMixture(1), ValueError, r"levels"),
        (lambda: PixelCNN((1, 3, 3), 2, kernel_size=7), ValueError, r"smaller than its reach"),
        (lambda: GatedPixelCNN((1, 3, 3), 2, kernel_size=7), ValueError, r"smaller than its reach"),
        (lambda: RowLSTM((1, 3, 3), 2, kernel_size=9), ValueError, r"Pass at most 5"),
        (lambda: DiagonalBiLSTM((1, 3, 3), 2, kernel_size=4), ValueError, r"odd number"),
        (lambda: GatedPixelCNN((1, 3, 3), 2, kernel_size=1), ValueError, r"at least 3"),
        (lambda: MADE((3,), 2, hidden=()), ValueError, r"hidden is empty"),
        (lambda: WaveNet((4,), 2, dilations=(1, 2, 4)), ValueError, r"receptive field of 8"),
        (lambda: WaveNet((1, 4), 2), ValueError, r"\(T,\)"),
    ],
)
def test_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()

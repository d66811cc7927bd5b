"""Data sets, and what turns grey levels into numbers a model can take.

`digits` is embedded in scikit-learn and needs no network; `mnist` is downloaded once, checked
and cached. Each is held as one tensor, so that training moves it to the device once instead
of feeding it through worker processes.
"""

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import torch
from torch import Tensor

from course_lib.download import fetch
from course_lib.inputs import (
    require_count,
    require_floating,
    require_floating_type,
    require_generator,
    require_levels,
    require_positive_integer,
    require_tensor,
    require_unit_interval,
)
from course_lib.precision import at_least_float32

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
# The same files as a browser may have unpacked them.
UNPACKED_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True)
class Dataset:
    """Images as integer grey levels, in three fixed splits.

    Attributes:
        name: the name of the data set.
        levels: number K of grey levels; every pixel is one of 0 … K−1.
        train: training images, uint8, shape ``(N, C, H, W)``.
        validation: validation images, for every choice made during training.
        test: test images, for the number that is reported.
        train_labels: class of each training image, int64, shape ``(N,)``.
        validation_labels: class of each validation image.
        test_labels: class of each test image.
    """

    name: str
    levels: int
    train: Tensor
    validation: Tensor
    test: Tensor
    train_labels: Tensor
    validation_labels: Tensor
    test_labels: Tensor

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape ``(C, H, W)`` of one image."""
        return tuple(self.train.shape[1:])


def digits() -> Dataset:
    """The 1,797 handwritten digits that scikit-learn ships: 8×8 pixels, 17 grey levels.

    The splits (1,300 / 137 / 360) are drawn once with a fixed seed and never change.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = torch.as_tensor(images.reshape(-1, 1, 8, 8).astype(np.uint8))
    labels = torch.as_tensor(labels, dtype=torch.int64)
    order = torch.as_tensor(np.random.RandomState(0).permutation(len(images)))
    return _split("digits", 17, images[order], labels[order], (1300, 137, 360))


def mnist() -> Dataset:
    """The 70,000 MNIST digits: 28×28 pixels, 256 grey levels.

    The original four files, packed or unpacked, are read from the folder that the environment variable
    ``COURSE_LIB_DATA`` names, else from the user's cache; what is missing there is downloaded from
    several mirrors and checked against its SHA-256. A file in ``COURSE_LIB_DATA`` is never replaced:
    other data sets have files of the same names. The last 5,000 training images are the validation
    split; the 10,000 test images are the original ones.

    Raises:
        ValueError: ``COURSE_LIB_DATA`` names a folder that does not exist.
        course_lib.download.DownloadError: a file is neither there nor available from a mirror, or another
            file has its name.
    """
    folder = data_folder()
    arrays = {
        name: _read_idx(_original(name, digest, folder)) for name, digest in MNIST_SHA256.items()
    }
    images, labels = (
        torch.as_tensor(
            np.concatenate([arrays[f"{part}-{kind}-ubyte.gz"] for part in ("train", "t10k")])
        )
        for kind in ("images-idx3", "labels-idx1")
    )
    return _split("mnist", 256, images.unsqueeze(1), labels.long(), (55_000, 5_000, 10_000))


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": digits, "mnist": mnist}


def load(name: str) -> Dataset:
    """Load a data set by its name.

    Raises:
        ValueError: there is no data set of that name.
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(
            f"name is {name!r}; the name of a data set is expected, one of "
            f"{', '.join(map(repr, DATASETS))}."
        )
    return DATASETS[name]()


def data_folder() -> Path:
    """Where downloaded files are kept: ``COURSE_LIB_DATA`` if it is set, else the user's cache.

    Raises:
        ValueError: ``COURSE_LIB_DATA`` names a folder that does not exist.
    """
    given = os.environ.get("COURSE_LIB_DATA")
    if not given:
        return Path(pooch.os_cache("course_lib"))
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"COURSE_LIB_DATA is {given!r}, which is not a folder; the folder that holds (or shall "
            f"hold) the data files is expected. Create it, or unset the variable."
        )
    return folder


def intensities(x: Tensor, levels: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Map grey levels 0 … K−1 to intensities in [0, 1]: x / (K − 1).

    Args:
        x: integer grey levels, any shape.
        levels: number K of grey levels.
        dtype: floating-point type of the result; the default one if none is given.

    Returns:
        Intensities, same shape.

    Raises:
        TypeError: `x` is not of an integer type, or `dtype` not a floating-point type.
        ValueError: `x` has levels outside 0 … K−1, or K is below 2.
    """
    levels = require_count(levels, "levels", at_least=2)
    x = require_levels(x, levels)
    dtype, wide = _types(dtype)
    return (x.to(wide) / (levels - 1)).to(dtype)


def binarize(x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw each pixel from a Bernoulli distribution whose mean is its intensity.

    Draw anew at every step for dynamic binarization; once, with a seeded generator, for an
    evaluation set that every model shares.

    Args:
        x: intensities in [0, 1], any shape.
        generator: source of the noise; the global one if none is given.

    Returns:
        A tensor of zeros and ones of the type and shape of `x`.

    Raises:
        TypeError: `x` is not of a floating-point type.
        ValueError: `x` has values outside [0, 1].
    """
    require_tensor(x)
    if not x.is_floating_point():
        raise TypeError(
            f"x has dtype {x.dtype}; intensities in [0, 1] are expected. "
            f"Convert grey levels with intensities(x, levels)."
        )
    require_unit_interval(x)
    require_generator(generator, x.device)
    return torch.bernoulli(x, generator=generator)


def dequantize(
    x: Tensor,
    levels: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Uniform dequantization: (x + u) / K with u uniform on [0, 1), so that values fill [0, 1).

    Note the K, not K − 1: each grey level owns an interval of width 1/K.

    Args:
        x: integer grey levels 0 … K−1, any shape.
        levels: number K of grey levels.
        generator: source of the noise; the global one if none is given.
        dtype: floating-point type of the result; the default one if none is given.

    Returns:
        Values in [0, 1), each in the interval of its level, same shape.

    Raises:
        TypeError: `x` is not of an integer type, or `dtype` not a floating-point type.
        ValueError: `x` has levels outside 0 … K−1, or `dtype` has no number in some interval.
    """
    levels = require_positive_integer(levels, "levels")
    x = require_levels(x, levels)
    dtype, wide = _types(dtype)
    require_generator(generator, x.device)
    noise = torch.rand(x.shape, dtype=wide, device=x.device, generator=generator)
    return fill_intervals(x, noise, levels, dtype)


def fill_intervals(x: Tensor, u: Tensor, levels: int, dtype: torch.dtype | None = None) -> Tensor:
    """(x + u) / K in the interval [x/K, (x + 1)/K) of its level, whatever rounding does.

    Args:
        x: integer grey levels 0 … K−1, any shape.
        u: noise in [0, 1], of at least float32, same shape.
        levels: number K of grey levels.
        dtype: floating-point type of the result; that of `u` if none is given.

    Returns:
        Values in [0, 1), same shape.

    Raises:
        ValueError: `dtype` has no number in some interval.
    """
    x = require_levels(x, levels)
    require_floating(u, "u")
    if u.shape != x.shape:
        raise ValueError(
            f"u has shape {tuple(u.shape)} and x {tuple(x.shape)}; the same is expected, one number "
            f"of noise for each level."
        )
    if dtype is not None:
        require_floating_type(dtype)
    dtype, x = dtype or u.dtype, x.to(u.dtype)
    # Rounding could carry x + u up to x + 1, the first point of the next level's interval. The
    # factor 1 − ε/2 rounds each such edge to the number before it, on devices without nextafter too.
    largest = (x + 1) / levels * (1 - torch.finfo(u.dtype).eps / 2)
    y = torch.minimum((x + u) / levels, largest)
    if dtype.itemsize >= u.dtype.itemsize:
        return y.to(dtype)
    most = 2 / torch.finfo(dtype).eps
    if levels > most:
        raise ValueError(
            f"dtype is {dtype}, whose numbers below 1 are farther apart than the {levels} grey levels; "
            f"a type for at most {most:.0f} levels is needed. Pass dtype=torch.float32."
        )
    # The same guard at both ends, in steps of the coarse type.
    rounded = y.to(dtype)
    up, down = (torch.nextafter(rounded, torch.full_like(rounded, end)) for end in (2, -1))
    rounded = torch.where(rounded.to(u.dtype) < x / levels, up, rounded)
    return torch.where(rounded.to(u.dtype) > largest, down, rounded)


def to_levels(y: Tensor, levels: int) -> Tensor:
    """The grey level whose interval holds each value: what `dequantize` filled, undone.

    Args:
        y: values, any shape; those outside [0, 1) fall to the levels at the ends.
        levels: number K of grey levels.

    Returns:
        Grey levels 0 … K−1, int64, same shape.

    Raises:
        TypeError: `y` is not of a floating-point type.
    """
    levels = require_positive_integer(levels, "levels")
    require_floating(y, "y")
    return (at_least_float32(y) * levels).floor().long().clamp(0, levels - 1)


def _types(dtype: torch.dtype | None) -> tuple[torch.dtype, torch.dtype]:
    """The type asked for, and the one to compute in, which is never of half precision."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    require_floating_type(dtype)
    return dtype, torch.promote_types(dtype, torch.float32)


def _split(
    name: str, levels: int, images: Tensor, labels: Tensor, sizes: tuple[int, int, int]
) -> Dataset:
    return Dataset(name, levels, *images.split(sizes), *labels.split(sizes))


def _original(name: str, sha256: str, folder: Path) -> Path:
    """The file as it is published, or unpacked if that alone is there."""
    unpacked = folder / name.removesuffix(".gz")
    alone = unpacked.is_file() and not (folder / name).exists()
    if alone and pooch.file_hash(str(unpacked)) == UNPACKED_SHA256[unpacked.name]:
        return unpacked
    ours = not os.environ.get("COURSE_LIB_DATA")
    return fetch(name, sha256, MNIST_MIRRORS, folder, replace=ours)


def _read_idx(path: Path) -> np.ndarray:
    """Read an IDX file: two zero bytes, type 8 (bytes), rank, big-endian sizes, then the data."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rank = raw[3]
    sizes = np.frombuffer(raw, ">i4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(sizes).copy()

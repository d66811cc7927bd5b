"""What takes long and is asked by several tests is made once, however many processes run the tests."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from alone import alone


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills; the processes of one run of the suite share it.

    Args:
        factory: of the test run, whose folder ends with it.
        name: of what is shared.
        make: called with an empty folder, in the first process that asks. The others wait; where it fails,
            the next one tries.
    """
    root = factory.getbasetemp()
    if (
        "PYTEST_XDIST_WORKER" in os.environ
    ):  # each process has a folder of its own, in the common one
        root = root.parent
    folder = root / name
    with alone(root / f"{name}.lock"):
        if not folder.exists():
            filled = Path(tempfile.mkdtemp(dir=root))
            make(filled)
            filled.rename(folder)
    return folder

"""Programs that some tests need: a developer who lacks one skips these tests, a CI run fails."""

import os
from typing import NoReturn

import pytest


def missing(message: str) -> NoReturn:
    """Skip the test that asks, and say why; where the variable CI is set, as hosted CI does, fail.

    A run that nobody watches must not be green because half of its tests were skipped.
    """
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)

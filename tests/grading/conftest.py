"""The files that all boxes of a test run share; without bubblewrap, tests that need it say so."""

import shutil

import pytest

from course_lib.grading.box import INSTALL, room
from tests.programs import missing


@pytest.fixture(scope="session")
def shared():
    # Only this: a sandbox that is there and does not work must not look like one that is missing.
    if shutil.which("bwrap") is None:
        missing(INSTALL)
    with room() as made:
        yield made

"""The files that all boxes of a test run share; without a sandbox, tests that need one say why."""

import pytest

from course_lib.assignment.box import SandboxError, room


@pytest.fixture(scope="session")
def shared():
    try:
        with room() as made:
            yield made
    except SandboxError as error:
        pytest.skip(str(error))

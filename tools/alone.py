"""Runs a command while nobody else runs one under the same lock: the others wait for their turn.

    python tools/alone.py LOCK -- COMMAND ...

The system lets go of a lock when its holder ends, however it ends, so none is ever left behind. Where
there are no such locks (Windows), the command just runs.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock `path`, a file that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another process that uses {path.stem}", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Run the command of the command line; its exit status."""
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        print(__doc__, file=sys.stderr)
        return 2
    with alone(Path(sys.argv[1])):
        return subprocess.run(sys.argv[3:]).returncode


if __name__ == "__main__":
    sys.exit(main())

"""Environments of their own for tests of other versions: made once in `_build`, then used again."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import notebooks as tool
from alone import alone

# What would let the checkout and its environment shine through.
HIDDEN = ("PYTHONPATH", "PIP_CONSTRAINT", "VIRTUAL_ENV")
# Stands for the address of a fork: nothing is asked there.
PUBLISHED = "https://github.com/somebody/course"


def call(*command, **options):
    """Run a command without what it could inherit from the checkout; return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k not in HIDDEN}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_checkout(target):
    """Copy the files of this checkout, those that git does not know yet included."""
    names = call(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=tool.ROOT
    )
    for name in filter(None, names.split("\0")):
        if (tool.ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tool.ROOT / name, target / name)


@contextlib.contextmanager
def prepared(name):
    """The Python of the environment `_build/NAME`, which nobody else changes meanwhile.

    Two test runs at once (`make test-live` and `make test-hosted`) install into the same one.
    """
    with alone(tool.ROOT / "_build" / f"{name}.lock"):
        yield _prepare(name)


def _prepare(name):
    """Make the environment of what `NAME-requirements.txt` asks for; its Python."""
    requirements = Path(__file__).with_name(f"{name}-requirements.txt")
    folder = tool.ROOT / "_build" / name
    stamp, python = folder / "requirements", folder / "env" / "bin" / "python"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(folder / "env", ignore_errors=True)
        call(sys.executable, "-m", "venv", folder / "env")
        call(python, "-m", "pip", "install", "-q", "-r", requirements)
        stamp.write_text(digest)
    return python

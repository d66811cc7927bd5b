"""Environments of their own for tests of other versions: made once in `_build`, then used again."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import notebooks as tool

# What would let the checkout and its environment shine through.
HIDDEN = ("PYTHONPATH", "PIP_CONSTRAINT", "VIRTUAL_ENV")


def call(*command, **options):
    """Run a command without what it could inherit from the checkout; return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k not in HIDDEN}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def prepare(name):
    """Make the environment `_build/NAME` of what `NAME-requirements.txt` asks for; its Python."""
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

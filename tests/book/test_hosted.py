"""Runs each notebook as a hosted service would: the file alone, the course not installed, old widgets.

The set-up cell's own command installs the library; only the repository's public address is
redirected to this checkout. Slow (minutes), so it has a make target of its own: `make test-hosted`.
The environment is kept in `_build/hosted` and used again.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import notebooks as tool
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.hosted

FOLDER = tool.ROOT / "_build" / "hosted"
PYTHON = FOLDER / "env" / "bin" / "python"
REQUIREMENTS = Path(__file__).with_name("hosted-requirements.txt")
KEPT = ("torch", "numpy", "ipywidgets", "ipython")


def clean_environment(**more):
    """The environment without what would let the checkout shine through."""
    hidden = ("PYTHONPATH", "PIP_CONSTRAINT", "VIRTUAL_ENV")
    return {k: v for k, v in os.environ.items() if k not in hidden} | more


def call(*command, **options):
    done = subprocess.run(
        command, capture_output=True, text=True, env=clean_environment(), **options
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def versions():
    code = (
        "import importlib.metadata as m, json; "
        f"print(json.dumps({{name: m.version(name) for name in {KEPT}}}))"
    )
    return json.loads(call(PYTHON, "-c", code))


@pytest.fixture(scope="module")
def hosted():
    """An environment with the hosted versions and without the course."""
    stamp = FOLDER / "requirements"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(FOLDER / "env", ignore_errors=True)
        call(sys.executable, "-m", "venv", FOLDER / "env")
        call(PYTHON, "-m", "pip", "install", "-q", "-r", REQUIREMENTS)
        stamp.write_text(digest)
    call(PYTHON, "-m", "pip", "uninstall", "-q", "-y", "course-lib")
    return PYTHON


@pytest.fixture(scope="module")
def public_repository(tmp_path_factory):
    """A repository with the files of this checkout, as the public address would give them."""
    target = tmp_path_factory.mktemp("public") / "course"
    names = call(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=tool.ROOT
    )
    for name in filter(None, names.split("\0")):
        if (tool.ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tool.ROOT / name, target / name)
    identity = ("-c", "user.name=course", "-c", "user.email=course@localhost")
    call("git", "init", "-q", cwd=target)
    call("git", "add", "-A", cwd=target)
    call("git", *identity, "commit", "-q", "-m", "The checkout", cwd=target)
    return target


@pytest.fixture
def kernel(hosted, public_repository, tmp_path, monkeypatch):
    """The name of a kernel in that environment, in which ``google.colab`` is imported."""
    fake = tmp_path / "fake"
    (fake / "google" / "colab").mkdir(parents=True)
    (fake / "google" / "colab" / "__init__.py").touch()
    (fake / "sitecustomize.py").write_text("import google.colab\n")
    spec = {
        "argv": [str(hosted), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "hosted",
        "language": "python",
        "env": {
            "PYTHONPATH": str(fake),
            # git+https://… of the set-up cell is answered from this checkout.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{public_repository}.insteadOf",
            "GIT_CONFIG_VALUE_0": tool.address(),
        },
    }
    folder = tmp_path / "jupyter" / "kernels" / "hosted"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in ("PYTHONPATH", "PIP_CONSTRAINT", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    return "hosted"


@pytest.mark.parametrize(
    "file", tool.notebooks(), ids=lambda file: file.relative_to(tool.ROOT).as_posix()
)
def test_notebook_alone_runs_to_its_end(file, kernel, tmp_path):
    before = versions()
    assert before["ipywidgets"].startswith("7.7.")
    assert before["ipython"] == "7.34.0"
    assert before["numpy"].startswith("2.1.")
    empty = tmp_path / "content"
    empty.mkdir()
    notebook = nbformat.read(shutil.copy(file, empty), as_version=4)
    probe = "import course_lib, sys; print(course_lib.__file__); print(sys.prefix)"
    notebook.cells.append(nbformat.v4.new_code_cell(probe))
    resources = {"metadata": {"path": empty}}
    NotebookClient(notebook, timeout=600, kernel_name=kernel, resources=resources).execute()
    home, prefix = notebook.cells[-1].outputs[0].text.splitlines()
    assert home.startswith(prefix), f"the library came from {home}, not from the installed package"
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert "torch 2." in first.outputs[0].text  # the set-up cell saw a hosted runtime
    assert versions() == before, "installing the course replaced what was there"

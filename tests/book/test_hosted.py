"""Runs each notebook as a hosted service would: the file alone, the course not installed, old widgets.

The set-up cell's own command installs the library from an address that is redirected to a copy of this
checkout, in which `tools/notebooks.py sync` has written it.
Slow (minutes), so it has a make target of its own: `make test-hosted`.
The environment is kept in `_build/hosted` and used again.
"""

import json
import shutil

import nbformat
import notebooks as tool
import pytest
from nbclient import NotebookClient

from tests.book.environments import HIDDEN, PUBLISHED, call

pytestmark = pytest.mark.hosted

KEPT = ("torch", "numpy", "ipywidgets", "ipython")


def versions(python):
    code = (
        "import importlib.metadata as m, json; "
        f"print(json.dumps({{name: m.version(name) for name in {KEPT}}}))"
    )
    return json.loads(call(python, "-c", code))


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
            "GIT_CONFIG_VALUE_0": PUBLISHED,
        },
    }
    folder = tmp_path / "jupyter" / "kernels" / "hosted"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in HIDDEN:
        monkeypatch.delenv(name, raising=False)
    return "hosted"


@pytest.mark.parametrize(
    "file", tool.notebooks(), ids=lambda file: file.relative_to(tool.ROOT).as_posix()
)
def test_notebook_alone_runs_to_its_end(file, hosted, kernel, public_repository, tmp_path):
    before = versions(hosted)
    assert before["ipywidgets"].startswith("7.7.")
    assert before["ipython"] == "7.34.0"
    assert before["numpy"].startswith("2.1.")
    empty = tmp_path / "content"
    empty.mkdir()
    published = public_repository / file.relative_to(tool.ROOT)
    notebook = nbformat.read(shutil.copy(published, empty), as_version=4)
    probe = "import course_lib, sys; print(course_lib.__file__); print(sys.prefix)"
    notebook.cells.append(nbformat.v4.new_code_cell(probe))
    resources = {"metadata": {"path": empty}}
    NotebookClient(notebook, timeout=600, kernel_name=kernel, resources=resources).execute()
    home, prefix = notebook.cells[-1].outputs[0].text.splitlines()
    assert home.startswith(prefix), f"the library came from {home}, not from the installed package"
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert "torch 2." in first.outputs[0].text  # the set-up cell saw a hosted runtime
    assert versions(hosted) == before, "installing the course replaced what was there"


def test_live_elements_work_with_the_hosted_widgets(hosted_with_course, tmp_path):
    assert versions(hosted_with_course)["ipywidgets"].startswith("7.7.")
    shutil.copy(tool.ROOT / "tests" / "test_live.py", tmp_path)
    print(call(hosted_with_course, "-m", "pytest", "-q", tmp_path / "test_live.py", cwd=tmp_path))

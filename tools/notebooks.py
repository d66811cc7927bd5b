"""Keeps the notebooks as they are to be stored.

Stored notebooks carry no outputs, except those of cells with the tag ``nbval-check-output``,
whose text is compared when the notebook is executed again; and each starts with the same
set-up cell, which names the repository's address of ``_config.yml``.

    python tools/notebooks.py execute              execute for the book what its cache lacks
    python tools/notebooks.py refresh [FILE ...]   execute, keep only the compared outputs
    python tools/notebooks.py sync                 write address and set-up cell everywhere
                                                   (then: course-lib assignment release …)
"""

import argparse
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
import yaml
import zmq
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from nbclient import NotebookClient
from tqdm import tqdm
from traitlets.config import Config

from course_lib.files import replace_text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from reproducible_build import cache_folder, prepare_kernels  # noqa: E402

COMPARED = "nbval-check-output"
# A kernel whose messages are not encrypted starts with a warning, though they never leave the machine.
ENCRYPTED = Config(
    KernelManager={"transport_encryption": "auto" if zmq.has("curve") else "disabled"}
)
SETUP = """\
# Set-up: nothing happens on your own machine; Colab installs the course's library.
import importlib.util
import subprocess
import sys

REPOSITORY = "{address}"
if "google.colab" in sys.modules:
    if importlib.util.find_spec("course_lib") is None:
        pip = [sys.executable, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, f"course-lib @ git+{{REPOSITORY}}"], check=True)
    import torch

    print(sys.version.split()[0], "torch", torch.__version__)
    if not torch.cuda.is_available():
        print("No GPU: the MNIST settings need one (Runtime > Change runtime type).")"""


def address() -> str:
    """The repository's public address, from the book's configuration."""
    return yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]


def setup_cell() -> str:
    return SETUP.format(address=address())


def notebooks() -> list[Path]:
    """The book's notebooks, which are executed for its pages."""
    return sorted((ROOT / "book").rglob("*.ipynb"))


def masters() -> list[Path]:
    """The assignments' master notebooks; what students get is generated from them."""
    return sorted(p for p in (ROOT / "assignments").glob("*/*.ipynb"))


def is_compared(cell: nbformat.NotebookNode) -> bool:
    return COMPARED in cell.metadata.get("tags", [])


def clean(notebook: nbformat.NotebookNode) -> None:
    """Remove what is not stored: outputs that are not compared, and what execution leaves behind."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            if not is_compared(cell):
                cell.outputs, cell.execution_count = [], None
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )


def refresh(path: Path) -> None:
    """Execute a notebook in its own folder and store it with its compared outputs only."""
    prepare_kernels()
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        config=ENCRYPTED,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
    ).execute()
    clean(notebook)
    write(notebook, path)


def execute(jobs: int) -> None:
    """Execute what the book's cache does not hold, several notebooks at once.

    The book's build would execute one after another; it finds these in its cache.

    Raises:
        SystemExit: a notebook failed; the message names it and shows the error.
    """
    prepare_kernels()
    cache = get_cache(str(cache_folder()))

    def is_cached(path: Path) -> bool:
        try:
            cache.match_cache_notebook(nbformat.read(path, as_version=4))
        except KeyError:
            return False
        return True

    def run(path: Path) -> tuple[Path, ExecutionResult]:
        notebook = nbformat.read(path, as_version=4)
        return path, single_nb_execution(
            notebook, str(path.parent), timeout=600, allow_errors=False, config=ENCRYPTED
        )

    missing = [path for path in notebooks() if not is_cached(path)]
    failed = []
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(missing), unit="notebook") as bar:
        for done in as_completed([pool.submit(run, path) for path in missing]):
            path, result = done.result()
            bar.write(f"{path.relative_to(ROOT)}: {result.time:.0f} s")
            bar.update()
            if result.err is not None:
                failed.append(f"{path.relative_to(ROOT)} failed:\n{result.exc_string}")
                continue
            record = cache.add_nb_to_project(str(path))
            bundle = CacheBundleIn(result.nb, record.uri, data={"execution_seconds": result.time})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    if failed:
        raise SystemExit("\n".join(failed))


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write with stable cell names, so that a stored notebook changes only where its text does."""
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:02d}"
    nbformat.validate(notebook)
    replace_text(path, nbformat.writes(notebook) + "\n")


def sync() -> None:
    """Write the set-up cell and the repository's address wherever they stand."""
    for path in [*notebooks(), *masters()]:
        notebook = nbformat.read(path, as_version=4)
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        first.source = setup_cell()
        first.metadata["tags"] = ["setup", "hide-cell"]
        write(notebook, path)
    slug = address().removeprefix("https://github.com/")
    for path in (ROOT / "README.md", ROOT / "CITATION.cff"):
        text = path.read_text(encoding="utf-8")
        text = re.sub(
            r"(github\.com/|colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+?(?=[/.)\s\"])",
            rf"\g<1>{slug}",
            text,
        )
        replace_text(path, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("execute", help="execute for the book what its cache lacks")
    command.add_argument("--jobs", type=int, default=os.cpu_count(), help="notebooks at once")
    command = commands.add_parser("refresh", help="execute, keep only the compared outputs")
    command.add_argument("files", nargs="*", type=Path, help="notebooks; all if none is named")
    commands.add_parser("sync", help="write the address and the set-up cell everywhere")
    arguments = parser.parse_args()
    if arguments.command == "sync":
        sync()
    elif arguments.command == "execute":
        execute(arguments.jobs)
    else:
        for path in tqdm(arguments.files or notebooks(), unit="notebook"):
            refresh(path)


if __name__ == "__main__":
    main()

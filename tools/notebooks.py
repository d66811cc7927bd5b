"""Keeps the notebooks as they are to be stored.

Stored notebooks carry no outputs, except those of cells with the tag ``nbval-check-output``,
whose text is compared when the notebook is executed again; and each starts with the same
set-up cell, which names the repository's address of ``_config.yml``.

    python tools/notebooks.py execute              execute for the book what its cache lacks
    python tools/notebooks.py refresh [FILE ...]   execute, keep only the compared outputs
    python tools/notebooks.py sync [ADDRESS]       set the repository's address, and write it and the
                                                   set-up cell everywhere
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
import zmq
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.main import NbArtifacts
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from kernels import manager_class
from nbclient import NotebookClient
from tqdm import tqdm
from traitlets.config import Config

from course_lib.files import replace_text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from repository import COLAB, HOW_TO_SET, Repository, parse, read  # noqa: E402
from reproducible_build import cache_folder, prepare_kernels  # noqa: E402

COMPARED = "nbval-check-output"
DRAWING = "image/svg+xml"
# A kernel hands over each figure as the picture of its page, and as a drawing.
BOTH_FORMATS = [f"--InlineBackend.figure_formats={name}" for name in ("png", "svg")]
# A kernel whose messages are not encrypted starts with a warning, though they never leave the machine. Left
# to itself the client goes on four seconds after a cell is done, also where a busy machine has not delivered
# all of its outputs yet: they are lost in silence.
EXECUTION = Config(
    KernelManager={"transport_encryption": "auto" if zmq.has("curve") else "disabled"},
    NotebookClient={"iopub_timeout": 300, "raise_on_iopub_timeout": True},
)
CONFIGURATION = ROOT / "_config.yml"
BADGE = f"[![Colab]({COLAB}assets/colab-badge.svg)]"
# A notebook that a table links to, and the badge behind it where there is one.
OPENED = re.compile(
    r"(?P<link>\[[^\]]*\]\((?P<path>[\w./-]+\.ipynb)\))(?: \[!\[Colab\]\([^)]*\)\]\([^)]*\))?"
)
SETUP = """\
# Set-up: nothing happens on your own machine; Colab installs the course's library.
import importlib.util
import subprocess
import sys

COURSE = "{requirement}"
if "google.colab" in sys.modules:
    if importlib.util.find_spec("course_lib") is None:
        pip = [sys.executable, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, COURSE], check=True)
    import torch

    print(sys.version.split()[0], "torch", torch.__version__)
    if not torch.cuda.is_available():
        print("No GPU: the MNIST settings need one (Runtime > Change runtime type).")"""
SETUP_WITHOUT_ADDRESS = """\
# Set-up: nothing happens on your own machine. On Colab the course's library is needed.
import importlib.util
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("course_lib") is None:
    raise RuntimeError(
        "This copy of the course names no public address, from which Colab could install "
        "its library. Open the notebook from a published copy. If the copy is your own: "
        "call `python tools/notebooks.py sync` in it, commit and push."
    )"""


def repository() -> Repository:
    """The repository's public address, from the book's configuration."""
    return read(CONFIGURATION)


def setup_cell(repository: Repository) -> str:
    """The first cell of every notebook."""
    if not repository.is_set:
        return SETUP_WITHOUT_ADDRESS
    return SETUP.format(requirement=repository.requirement)


def notebooks() -> list[Path]:
    """The book's notebooks, which are executed for its pages."""
    return sorted((ROOT / "book").rglob("*.ipynb"))


def masters() -> list[Path]:
    """The assignments' master notebooks; what students get is generated from them."""
    return sorted(p for p in (ROOT / "assignments").glob("*/*.ipynb"))


def students() -> list[Path]:
    """The assignments' notebooks as students get them."""
    return sorted(p for p in (ROOT / "assignments").glob("*/student/*.ipynb"))


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
        config=EXECUTION,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
    ).execute()
    clean(notebook)
    write(notebook, path)


def take_drawings(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Take the figures as drawings out of a notebook's outputs, which keep them as pictures.

    Returns:
        What each file holds. Its name says the figure's place in the notebook and its name there.
    """
    drawings = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            drawing = output.get("data", {}).pop(DRAWING, None)
            output.get("metadata", {}).pop(DRAWING, None)
            if drawing is not None:
                name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name", "figure")
                drawings[f"{len(drawings) + 1:02d}-{name.removeprefix('fig-')}.svg"] = drawing
    return drawings


def execute(jobs: int) -> None:
    """Execute what the book's cache does not hold, several notebooks at once.

    The book's build would execute one after another; it finds these in its cache, and beside each the
    drawings of its figures.

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
            notebook,
            str(path.parent),
            timeout=600,
            allow_errors=False,
            config=EXECUTION,
            kernel_manager_class=manager_class(),
            extra_arguments=BOTH_FORMATS,
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
            with tempfile.TemporaryDirectory() as folder:
                for name, drawing in take_drawings(result.nb).items():
                    (Path(folder) / name).write_text(drawing, encoding="utf-8")
                bundle = CacheBundleIn(
                    result.nb,
                    record.uri,
                    artifacts=NbArtifacts(sorted(Path(folder).iterdir()), in_folder=folder),
                    data={"execution_seconds": result.time},
                )
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    if failed:
        raise SystemExit("\n".join(failed))


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write with stable cell names, so that a stored notebook changes only where its text does."""
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:02d}"
    nbformat.validate(notebook)
    replace_text(path, nbformat.writes(notebook) + "\n")


def sync(repository: Repository) -> None:
    """Write the set-up cell and the repository's address wherever they stand."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    replace_text(CONFIGURATION, configuration(text, repository))
    for path in [*notebooks(), *masters(), *students()]:
        notebook = nbformat.read(path, as_version=4)
        index = [cell.cell_type for cell in notebook.cells].index("code")
        if "setup" not in notebook.cells[index].metadata.get("tags", []):  # it has none yet
            notebook.cells.insert(index, nbformat.v4.new_code_cell())
        first = notebook.cells[index]
        first.source = setup_cell(repository)
        first.metadata["tags"] = ["setup", "hide-cell"]
        write(notebook, path)
    for name, rewritten in (("README.md", readme), ("CITATION.cff", citation)):
        path = ROOT / name
        replace_text(path, rewritten(path.read_text(encoding="utf-8"), repository))


def configuration(text: str, repository: Repository) -> str:
    """``_config.yml`` with this address, its comments kept."""
    values = {
        "url": repository.url,
        "branch": repository.branch,
        "path_to_book": f'"{repository.folder}"',
    }
    head, entry, rest = re.fullmatch(
        r"(.*^repository:\n)((?:[ ]+.*\n)+)(.*)", text, re.M | re.S
    ).groups()
    for name, value in values.items():
        entry = re.sub(rf"^(  {name}:).*$", rf"\g<1> {value}", entry, flags=re.MULTILINE)
    return head + entry + rest


def readme(text: str, repository: Repository) -> str:
    """The README with this address: how to clone and to install, and the badges."""
    inside = f"/{repository.folder}" if repository.folder else ""
    clone = (
        f"git clone -b {repository.branch} {repository.url} && cd {repository.name}{inside}"
        if repository.is_set
        else "git clone ADDRESS course && cd course   # ADDRESS: where you have found this repository"
    )
    install = f'pip install "{repository.requirement}"' if repository.is_set else "pip install ."
    text = re.sub(r"^git clone .*$", clone, text, count=1, flags=re.MULTILINE)
    text = re.sub(r"(?<=\| the library \| `)pip install [^`]*", install, text)

    def opened(match: re.Match[str]) -> str:
        badge = f" {BADGE}({repository.colab(match['path'])})" if repository.is_set else ""
        return match["link"] + badge

    return OPENED.sub(opened, text)


def citation(text: str, repository: Repository) -> str:
    """The citation with this address; without one where none is set."""
    text = re.sub(r"^repository-code:.*\n", "", text, flags=re.MULTILINE)
    return text + (f"repository-code: {repository.url}\n" if repository.is_set else "")


def own_repository() -> Repository:
    """The address of the remote from which this clone comes, with its branch and folder.

    Raises:
        ValueError: there is no such remote, or it is not on GitHub.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    branch = git("rev-parse", "--abbrev-ref", "HEAD")
    remote = git("remote", "get-url", git("config", f"branch.{branch}.remote") or "origin")
    if not remote:
        raise ValueError(f"this clone has no remote. Name the address: {HOW_TO_SET}")
    try:
        return parse(remote, branch, git("rev-parse", "--show-prefix"))
    except ValueError as error:
        raise ValueError(f"the clone's remote: {error} Name the address: {HOW_TO_SET}") from error


def chosen_repository(address: str | None, branch: str | None, folder: str | None) -> Repository:
    """The address to write: the one given, else that of ``_config.yml``, else the clone's remote.

    Raises:
        ValueError: it is not one of GitHub, or none is known.
    """
    if address:
        return parse(address, branch or "main", folder or "")
    now = repository()
    if not now.is_set:
        now = own_repository()
    return parse(now.url, branch or now.branch, now.folder if folder is None else folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("execute", help="execute for the book what its cache lacks")
    command.add_argument("--jobs", type=int, default=os.cpu_count(), help="notebooks at once")
    command = commands.add_parser("refresh", help="execute, keep only the compared outputs")
    command.add_argument("files", nargs="*", type=Path, help="notebooks; all if none is named")
    command = commands.add_parser(
        "sync",
        help="set the repository's address, and write it and the set-up cell everywhere",
        description="Set the repository's address, and write it and the set-up cell everywhere.",
    )
    command.add_argument(
        "address",
        nargs="?",
        help="https://github.com/OWNER/NAME (default: the one of _config.yml; if that is not set, the "
        "clone's remote)",
    )
    command.add_argument("--branch", help="the branch that readers get (default: main)")
    command.add_argument(
        "--folder", help="where the course lies in the repository (default: its root)"
    )
    arguments = parser.parse_args()
    if arguments.command == "sync":
        try:
            target = chosen_repository(arguments.address, arguments.branch, arguments.folder)
        except ValueError as error:
            parser.exit(2, f"notebooks.py: {error}\n")
        sync(target)
        print(f"{target.url}, branch {target.branch}, folder /{target.folder}")
    elif arguments.command == "execute":
        execute(arguments.jobs)
    else:
        for path in tqdm(arguments.files or notebooks(), unit="notebook"):
            refresh(path)


if __name__ == "__main__":
    main()

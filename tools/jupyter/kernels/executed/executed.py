"""A kernel that executes nothing: it answers a cell with the outputs that the book's execution gave.

nbval compares stored outputs with those of a kernel. The book has executed the very same notebooks for its
pages; with this kernel they are compared without being executed once more. It knows a notebook by its folder
and its cells; what the book has not executed is an error, never an empty output.
"""

import sys
from pathlib import Path

import nbformat
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
from jupyter_cache import get_cache

sys.path.insert(0, str(Path(__file__).parents[4] / "book" / "_ext"))
from reproducible_build import cache_folder


def executed_notebooks(folder: Path) -> list[list[nbformat.NotebookNode]]:
    """The code cells of the notebooks in a folder, with the outputs of the book's execution."""
    cache = get_cache(str(cache_folder()))
    found = []
    for path in sorted(folder.glob("*.ipynb")):
        try:
            record = cache.match_cache_notebook(nbformat.read(path, as_version=4))
        except KeyError:
            continue
        cells = cache.get_cache_bundle(record.pk).nb.cells
        found.append([cell for cell in cells if cell.cell_type == "code"])
    return found


class Executed(Kernel):
    """Replays one notebook from its first cell on."""

    implementation = "executed"
    implementation_version = "1"
    banner = "Replays what the book's execution gave"
    language_info = {"name": "python", "mimetype": "text/x-python", "file_extension": ".py"}  # noqa: RUF012

    def start(self) -> None:
        """Find what may be asked for: the notebooks of the current folder."""
        self.possible = executed_notebooks(Path.cwd())
        self.position = 0
        super().start()

    def do_execute(
        self, code, silent, store_history=True, user_expressions=None, allow_stdin=False
    ):
        """Send a cell's outputs. Cells that several notebooks share have the same ones."""
        if not code.strip():
            return self._reply()
        self.possible = [
            cells
            for cells in self.possible
            if self.position < len(cells) and cells[self.position].source == code
        ]
        if not self.possible:
            text = f"the book has not executed this notebook in {Path.cwd()}: call make book"
            error = {"ename": "LookupError", "evalue": text, "traceback": [f"LookupError: {text}"]}
            self.send_response(self.iopub_socket, "error", error)
            return {"status": "error", "execution_count": self.execution_count, **error}
        for output in self.possible[0][self.position].outputs:
            content = {key: value for key, value in output.items() if key != "output_type"}
            if "data" in content:
                content["transient"] = {}
            if output.output_type == "execute_result":
                content["execution_count"] = self.execution_count
            self.send_response(self.iopub_socket, output.output_type, content)
        self.position += 1
        return self._reply()

    def _reply(self) -> dict:
        return {
            "status": "ok",
            "execution_count": self.execution_count,
            "payload": [],
            "user_expressions": {},
        }


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=Executed)

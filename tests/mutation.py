"""Runs one test with one expression of the library changed, in a process that has imported torch already.

    python -m tests.mutation

reads a mutant a line as JSON, ``{"file", "right", "wrong", "test"}``, runs its test in a forked child whose
import of `file` sees the change, and prints a line of JSON: the exit status of pytest, and its output. No
copy of the repository is made, and what takes most of a small test's time, importing torch, is done once.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What the library and the tests import of others; `torch._dynamo` for optimizers, which load it.
HEAVY = (
    "torch",
    "torch._dynamo",
    "lightning_fabric",
    "numpy",
    "scipy.stats",
    "scipy.optimize",
    "sklearn.datasets",
    "seaborn",
    "pooch",
    "pytest",
    "hypothesis",
)
# Plugins of pytest that these tests do not use would take half of the time.
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"


class Mutated(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Finds and loads one module of the library, with one expression changed."""

    def __init__(self, file: str, right: str, wrong: str) -> None:
        name = ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")
        importlib.machinery.SourceFileLoader.__init__(self, name, str(ROOT / file))
        self.right, self.wrong, self.used = right, wrong, False

    def find_spec(self, name, path, target=None):
        if name == self.name:
            return importlib.machinery.ModuleSpec(name, self, origin=self.path)
        return None

    def get_code(self, fullname):
        text = Path(self.path).read_text(encoding="utf-8")
        if text.count(self.right) != 1:
            raise SystemExit(f"{self.right!r} stands {text.count(self.right)} times in {self.path}")
        self.used = True
        return compile(text.replace(self.right, self.wrong), self.path, "exec")


def run(mutant: dict[str, str]) -> int:
    """Run the test of a mutant in this process; the exit status of pytest."""
    import pytest

    finder = Mutated(mutant["file"], mutant["right"], mutant["wrong"])
    sys.meta_path.insert(0, finder)
    status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", mutant["test"]])
    if not finder.used:
        raise SystemExit(f"{mutant['test']} does not import {mutant['file']}")
    return int(status)


def main() -> None:
    """Serve mutants until the input ends."""
    for heavy in HEAVY:
        __import__(heavy)
    assert not any(name.split(".")[0] == "course_lib" for name in sys.modules)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as output:
            child = os.fork()
            if child == 0:
                status = 70  # nothing of pytest's: an error of its own
                try:
                    os.dup2(output.fileno(), 1)
                    os.dup2(output.fileno(), 2)
                    status = run(json.loads(line))
                except BaseException as error:
                    os.write(2, f"{type(error).__name__}: {error}\n".encode())
                finally:
                    os._exit(status)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            output.seek(0)
            text = output.read().decode(errors="replace")
        print(json.dumps({"status": status, "output": text[-4000:]}), flush=True)


if __name__ == "__main__":
    main()

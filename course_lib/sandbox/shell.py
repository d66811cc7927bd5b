"""The shell that runs a notebook's cells: IPython's, made to behave as the kernel of a notebook.

A student's notebook was written in a kernel, locally or hosted. Where IPython's plain shell does
less than a kernel, a cell would stop, and the functions below the difference would be lost. So
what a kernel accepts is accepted here, without a page to show it on: magics that set up a front
end, displays, figures and windows, questions to the user, a running event loop. What only a
service has, or an installation that differs, costs no more than the line that asks for it.
"""

import asyncio
import builtins
import dis
import functools
import getpass
import importlib.util
import os
import sys
import types
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, ClassVar

from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from traitlets import Type
from traitlets.config import Config

from course_lib.sandbox.stand_ins import Absent, GuardImports, stand_in

FIGURES = "module://course_lib.sandbox.figures"
# Line magics that kernels add for the page in front of them.
OF_THE_PAGE = {"autosave", "clear", "connect_info", "less", "man", "more", "qtconsole", "subshell"}
QUESTIONS = 100  # of one cell, before it is told that no more lines come


class Publisher(DisplayPublisher):
    """Prints what is displayed, and keeps nothing."""

    def publish(self, data: dict[str, Any], *_: object, **__: object) -> None:
        """Print the plain text among the representations."""
        if "text/plain" in data:
            print(data["text/plain"])

    def clear_output(self, wait: bool = False) -> None:
        """Do nothing: printed text stays."""


class Shell(InteractiveShell):
    """IPython's shell with the manners of a notebook's kernel."""

    display_pub_class = Type(Publisher)

    def __init__(self, **settings: Any) -> None:
        self._tolerated: list[Exception] = []  # what went wrong in this cell and did not stop it
        self._missing: list[ImportError] = []  # what stand-ins raise when they are needed
        self._questions = 0
        self._extensions_missing = False
        self._figures_stay = False
        self._loop = asyncio.new_event_loop()
        self._awaits = False  # whether the running cell has an `await` at its top level
        self._nested_loops = False
        super().__init__(**settings)
        self.ast_transformers.append(GuardImports())
        self.events.register("post_execute", self._end_figures)

    def run_as_kernel(self, source: str) -> tuple[BaseException | None, list[Exception]]:
        """Run a cell within a running event loop, as a kernel does.

        Returns:
            What stopped the cell, if anything did; and what went wrong without stopping it.
        """
        self._tolerated, self._questions = [], 0
        if self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        try:
            result = self._loop.run_until_complete(self._run(source))
        except BaseException:  # out of time, in the loop itself: what it was doing is not resumed
            self._loop = asyncio.new_event_loop()
            raise
        return result.error_before_exec or result.error_in_exec, self._tolerated

    async def _run(self, source: str) -> ExecutionResult:
        prepared: dict[str, Any] = {"transformed_cell": source, "preprocessing_exc_tuple": None}
        try:
            prepared["transformed_cell"] = self.transform_cell(source)
        except Exception:
            prepared["preprocessing_exc_tuple"] = sys.exc_info()
        self._awaits = self.should_run_async(source, **prepared)
        if not self._awaits:
            if self._nested_loops:
                asyncio._set_running_loop(None)
            return self.run_cell(source, store_history=True)
        try:
            return await self.run_cell_async(source, store_history=True, **prepared)
        finally:
            self.events.trigger("post_execute")

    def tolerate(self, error: Exception) -> None:
        """Print what went wrong, and let the cell continue."""
        self._tolerated.append(error)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)

    def ask_exit(self) -> None:
        """Let `exit` and `quit` do nothing: the cells below are run."""

    def magic(self, arg_s: str) -> Any:
        """Run a line magic given in one text, as older notebooks do."""
        name, _, line = arg_s.lstrip("%").partition(" ")
        return self.run_line_magic(name, line, _stack_depth=2)

    def run_line_magic(self, magic_name: str, line: str, _stack_depth: int = 1) -> Any:
        """Run a line magic; one that fails or that is not there does not stop its cell."""
        if magic_name in OF_THE_PAGE:
            return None
        try:
            return super().run_line_magic(magic_name, line, _stack_depth=_stack_depth + 1)
        except Exception as error:
            if magic_name in ("load_ext", "reload_ext"):
                self._extensions_missing = True
            self.tolerate(error)
            return None

    def run_cell_magic(self, magic_name: str, line: str, cell: str) -> Any:
        """Run a cell magic; where its extension is not there, run what it is applied to."""
        try:
            return super().run_cell_magic(magic_name, line, cell)
        except UsageError as error:
            if self.find_cell_magic(magic_name) or not self._extensions_missing:
                raise
            self.tolerate(error)
        self.run_cell(cell).raise_error()

    def stand_in(self, error: ImportError, path: str, name: str, root: str | None) -> Any:
        """What a failed import binds to `name`; an earlier value of that name stays.

        See `course_lib.sandbox.stand_ins.stand_in`.
        """
        bound = stand_in(error, path, root)
        if isinstance(bound, Absent):
            self._missing.append(error)
            self.tolerate(error)
            return self.user_ns.get(name, bound)
        return bound

    async def run_code(self, code_obj: Any, result: Any = None, *, async_: bool = False) -> bool:
        """Run one statement of a cell; one that needs an absent module costs no more than itself.

        What it would have bound is absent, too, unless it has an earlier value.
        """
        stopped = await super().run_code(code_obj, result, async_=async_)
        error = result.error_in_exec if stopped and result is not None else None
        if not any(error is missing for missing in self._missing):
            return stopped
        result.error_in_exec = None
        self.tolerate(error)
        for step in dis.get_instructions(code_obj):
            if step.opname == "STORE_NAME":
                self.user_ns.setdefault(step.argval, Absent(error))
        return False

    def enable_gui(self, gui: str | None = None) -> None:
        """Do nothing: there are no windows."""

    def enable_matplotlib(self, gui: str | None = None) -> tuple[str, str]:
        """Accept every front end for figures: all get the same, `course_lib.sandbox.figures`."""
        self._figures_stay = gui not in (None, "auto", "inline")
        return gui or "inline", FIGURES

    def _end_figures(self) -> None:
        if not self._figures_stay and (pyplot := sys.modules.get("matplotlib.pyplot")):
            pyplot.close("all")

    def answer_question(self, prompt: object = "", stream: object = None) -> str:
        """Answer `input` by an empty line, a debugger by "continue"; at last, say that all is said."""
        self._questions += 1
        if self._questions > QUESTIONS:
            raise EOFError("input() is answered by empty lines while a notebook is graded")
        print(prompt)
        return "c" if str(prompt).strip() in ("(Pdb)", "ipdb>") else ""

    def nest_loops(self, loop: object = None) -> None:
        """Let a cell start an event loop of its own, as the package nest_asyncio does."""
        self._nested_loops = True
        if not self._awaits:
            asyncio._set_running_loop(None)
            asyncio.set_event_loop(asyncio.new_event_loop())


class BackendFinder(MetaPathFinder):
    """Finds matplotlib, and lets figures for every kind of window be those that nobody watches."""

    choosers: ClassVar = {"matplotlib": "use", "matplotlib.pyplot": "switch_backend"}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Find the module as usual; see `importlib.abc.MetaPathFinder`."""
        if fullname not in self.choosers:
            return None
        spec = PathFinder.find_spec(fullname, path)
        execute = spec.loader.exec_module

        def execute_and_replace(module: types.ModuleType) -> None:
            execute(module)
            choose = getattr(module, self.choosers[fullname])

            @functools.wraps(choose)
            def choose_files(backend: object, **options: Any) -> None:
                from matplotlib.backends import BackendFilter, backend_registry

                files = backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE)
                choose(backend if str(backend).lower() in files else FIGURES, **options)

            setattr(module, self.choosers[fullname], choose_files)

        spec.loader.exec_module = execute_and_replace
        return spec


def make_shell() -> Shell:
    """The shell, without history files, and the surroundings that a kernel gives its cells."""
    settings = Config()
    settings.HistoryManager.enabled = False
    settings.HistoryManager.hist_file = ":memory:"
    settings.InteractiveShell.colors = "NoColor"
    shell = Shell.instance(config=settings)
    builtins.input = getpass.getpass = shell.answer_question
    sys.breakpointhook = lambda *_, **__: None
    # What a kernel is started with, which parsers of arguments in notebooks allow for.
    sys.argv = ["ipykernel_launcher.py", "-f", "kernel.json"]
    if "" not in sys.path:
        sys.path.insert(0, "")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a kernel prints every text
    if importlib.util.find_spec("nest_asyncio") is None:
        sys.modules["nest_asyncio"] = nesting = types.ModuleType("nest_asyncio")
        nesting.apply = shell.nest_loops
    os.environ["MPLBACKEND"] = FIGURES
    sys.meta_path.insert(0, BackendFinder())
    os.environ["PIP_NO_INDEX"] = "1"  # without a network, pip fails at once
    return shell

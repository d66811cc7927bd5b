"""What stands for modules that a cell imports and that are not there while a notebook is graded.

A hosted notebook imports what only its service has, or a package that the grading environment
lacks. That should cost the statements that need the module, not every function below them in the same
cell: an import that fails binds its names to stand-ins. One that the notebook guards with ``try`` fails as
usual, for so a notebook finds out where it runs.
"""

import ast
import sys
from collections.abc import Iterator
from typing import Any

# Modules of notebook services and front ends: what they do is seen on a page that nobody watches.
SERVICES = ("google.colab", "IPython", "kaggle_datasets", "kaggle_secrets")


class Silent:
    """Stands for a part of a notebook service: everything may be called, and nothing happens."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> "Silent":
        if name.startswith("__"):  # protocols ask for methods, and are to see that there are none
            raise AttributeError(name)
        return Silent(f"{self._name}.{name}")

    def _itself(self, *_: object, **__: object) -> "Silent":
        return self

    __call__ = __getitem__ = __enter__ = _itself

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __exit__(self, *_: object) -> None:
        pass

    def __repr__(self) -> str:
        return f"<{self._name}, which is not there while a notebook is graded>"


class Absent:
    """Stands for any other module or a part of it: raises what its import raised when it is needed.

    That is when something is computed with it. To name a part of it (``np.ndarray | pkg.Thing["n"]``, as
    annotations do) needs nothing yet.
    """

    def __init__(self, error: ImportError) -> None:
        self._error = error

    def _fail(self, *_: object, **__: object) -> Any:
        raise self._error.with_traceback(None)

    __call__ = __iter__ = __enter__ = __mro_entries__ = __bool__ = __len__ = __float__ = _fail

    def _part(self, *_: object) -> "Absent":
        return Absent(self._error)

    __getitem__ = __or__ = __ror__ = _part

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> "Absent":
        if name.startswith("_"):  # what looks at all of a notebook's variables asks for these
            raise AttributeError(name)
        return self._part()

    def __repr__(self) -> str:
        return f"<not there: {self._error}>"


def stand_in(error: ImportError, path: str, root: str | None = None) -> Any:
    """What an import that failed binds.

    Args:
        error: what it raised.
        path: what it asked for, such as ``google.colab.drive``.
        root: the module that ``import a.b`` binds; kept if it is there.
    """
    if root in sys.modules:
        return sys.modules[root]
    if not _of_service(path):
        return Absent(error)
    if path.startswith("IPython."):  # names that moved, such as IPython.core.display.display
        import IPython.display

        moved = getattr(IPython.display, path.rpartition(".")[2], None)
        if moved is not None:
            return moved
    print(f"{path} is not there while a notebook is graded: its calls do nothing", file=sys.stderr)
    return Silent(path)


class GuardImports(ast.NodeTransformer):
    """Rewrites a cell's imports so that those that fail bind stand-ins, each name its own.

    ``import m as n`` becomes a ``try`` whose handler is ``n = get_ipython().stand_in(…)``.
    Imports inside ``try`` stay. Inside functions, only those of services are rewritten: any other
    fails when the function is called, as it should, and costs that function alone.
    """

    def __init__(self) -> None:
        self._functions = 0

    def visit(self, node: ast.AST) -> Any:
        """What stands in the place of `node`; see `ast.NodeTransformer`."""
        match node:
            case ast.Try() | ast.TryStar():
                return node
            case ast.Import():
                return [self._guarded(node, ast.Import([a]), a.name) for a in node.names]
            case ast.ImportFrom(level=0, module=module, names=names) if (
                module != "__future__" and names[0].name != "*"
            ):
                return [
                    self._guarded(node, ast.ImportFrom(module, [a], 0), f"{module}.{a.name}")
                    for a in names
                ]
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        self._functions += inside
        node = self.generic_visit(node)
        self._functions -= inside
        return node

    def _guarded(
        self, node: ast.stmt, statement: ast.Import | ast.ImportFrom, path: str
    ) -> ast.stmt:
        ast.copy_location(statement, node)
        if self._functions and not _of_service(path):
            return statement
        (alias,) = statement.names
        bound, root = alias.asname or alias.name, None
        if isinstance(statement, ast.Import) and not alias.asname:
            bound = root = alias.name.partition(".")[0]
        template = (
            "try: pass\nexcept ImportError as __error__: "
            f"{bound} = get_ipython().stand_in(__error__, {path!r}, {bound!r}, {root!r})"
        )
        (guard,) = ast.parse(template).body
        guard.body = [statement]
        for part in ast.walk(guard):
            if hasattr(part, "lineno"):
                ast.copy_location(part, node)
        return guard


def _of_service(path: str) -> bool:
    return any(path == service or path.startswith(f"{service}.") for service in SERVICES)

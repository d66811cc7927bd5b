"""What is there while a notebook is graded, and what a notebook uses that is not."""

import dis
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

# Of this library: what the statements allow, and what that and the grading itself import. Everything
# else stays out, since it may answer a question: families, masks, divergences, formulas of figures, the
# expected values of the public checks. A new module is absent until it is named here.
LIBRARY = (
    *("__init__.py", "data.py", "plotting.py", "training"),
    *("download.py", "files.py", "inputs.py", "memory.py", "networks.py", "precision.py"),
    *("progress.py", "randomness.py", "saved_settings.py"),
    *(f"checking/{name}.py" for name in ("__init__", "answers", "compare", "expressions")),
    *(f"checking/{name}.py" for name in ("presence", "sealed")),
    *(f"sandbox/{name}.py" for name in ("__init__", "figures", "runner", "shell", "stand_ins")),
    "sandbox/wire.py",
)
# There is a `check` too, which compares nothing.
STAND_IN = "checking/checking.py"
# What the library depends on, and so every machine that grades has.
PACKAGES = (
    *("torch", "numpy", "scipy", "sympy", "mpmath", "matplotlib", "seaborn", "pandas", "sklearn"),
    *("PIL", "tqdm", "pooch", "requests", "lightning_fabric", "ipywidgets", "IPython"),
    *("safetensors", "nbformat", "traitlets"),
)


def notes(answers: Iterable[Any] = ()) -> list[str]:
    """Sentences on what the notebook uses, or an answer imports, that is absent when it is graded."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    found = sorted(absent(shell.user_ns, answers)) if shell else []
    library = [name for name in found if name.startswith("course_lib.")]
    said = []
    if library:
        said.append(
            f"Note: {', '.join(library)}: absent while your notebook is graded. A cell that imports it "
            "fails there."
        )
    if others := [name for name in found if name not in library]:
        said.append(
            f"Note: {', '.join(others)}: possibly absent while your notebook is graded; PyTorch, NumPy, "
            "SciPy, SymPy and Matplotlib are there. (Files of yours are not.)"
        )
    return said


def absent(namespace: Mapping[str, Any], answers: Iterable[Any] = ()) -> set[str]:
    """Names of the modules that the values of a notebook come from, or import, and that are absent."""
    values = [value for name, value in namespace.items() if not name.startswith("_")]
    used = {name for value in (*values, *answers) for name in _modules(value)}
    return {
        name if name.startswith("course_lib.") else name.partition(".")[0]
        for name in used
        if not _present(name)
    }


def _modules(value: Any) -> Iterator[str]:
    if isinstance(value, ModuleType):
        yield value.__name__
        return
    kind = value if isinstance(value, (type, FunctionType)) else type(value)
    if isinstance(kind.__module__, str):  # a function that a program has written has none
        yield kind.__module__
    methods = vars(kind).values() if isinstance(kind, type) else [kind]
    if kind.__module__ == "__main__":
        for method in methods:
            if isinstance(method, FunctionType):
                yield from _imports(method.__code__)


def _imports(code: CodeType) -> Iterator[str]:
    """What a function imports when it is called, inner functions included."""
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME" and step.argval:
            yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _imports(inner)


def _present(name: str) -> bool:
    top, *inner = name.split(".")
    if top != "course_lib":
        return top in (*PACKAGES, "__main__") or top in sys.stdlib_module_names
    places = {"/".join(inner[: k + 1]) for k in range(len(inner))}
    return (
        not inner
        or inner == ["checking"]
        or any(place in LIBRARY or f"{place}.py" in (*LIBRARY, STAND_IN) for place in places)
    )

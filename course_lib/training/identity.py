"""What makes a run this run and no other: what its checkpoint keeps, to be compared by the next call.

Everything is described in words and by name, so that a difference can be named. The same script,
called again in another process, must give the same words: what has none for certain (an open file,
a generator of noise, a model inside of a function) counts by its type alone.
"""

import dis
import functools
import hashlib
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.training.batches import Batch

Words = Iterator[tuple[str, str]]

# How deep objects within objects are described, and how many entries of one container.
DEPTH, ENTRIES = 4, 100
# So many bytes are copied at once to be digested.
PIECE = 1 << 26
# Compiled code can be compared within one version of Python only.
COMPILER = f"{sys.implementation.cache_tag}-O{sys.flags.optimize}"


class Identity:
    """A run's settings, data and functions in words.

    Args:
        settings: numbers and words, by name.
        data: the data sets, by name; of each tensor its type, its shape and a digest count.
        parts: the model, functions and objects, by name.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        data: Mapping[str, Batch | None],
        parts: Mapping[str, object],
    ) -> None:
        self.parts = parts
        self.names = [*settings, *data, *parts]
        self.fixed = {name: _text(value) for name, value in settings.items()}
        for name, batch in data.items():
            tensors = batch if isinstance(batch, tuple) else (batch,)
            self.fixed[name] = " and ".join(map(_text, tensors))
        self.begun = self._describe_parts()

    def to_keep(self) -> dict[str, str]:
        """All of it but what training itself has changed since: a counter in a loss is no setting."""
        now = self._describe_parts()
        return self.fixed | {name: t for name, t in self.begun.items() if now.get(name) == t}

    def differences(self, kept: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """What a checkpoint says and what is so now, by name, where they differ.

        What only one of them knows is left out: it changes while training, or what it belongs to
        differs, which both know and which is named alone.
        """
        here = self.fixed | self.begun
        other = {n: (kept[n], value) for n, value in here.items() if kept.get(n, value) != value}
        owners = tuple(f"{name}." for name in other)
        return {n: pair for n, pair in other.items() if not n.startswith(owners)}

    def _describe_parts(self) -> dict[str, str]:
        return {
            key: value for name, part in self.parts.items() for key, value in describe(name, part)
        }


def describe(name: str, value: object) -> Words:
    """Describe a value and, as ``name.attribute``, what belongs to it.

    Args:
        name: what to call it.
        value: anything; of functions and objects what their code mentions is described, too.

    Yields:
        Names and texts.
    """
    return _describe(name, value, DEPTH, frozenset(), {})


def _describe(
    name: str, value: object, depth: int, mentioned: frozenset[str], seen: dict[int, object]
) -> Words:
    """Describe one value; of an object, the attributes that are `mentioned` by who uses it."""
    if isinstance(value, types.MethodType):
        mentioned |= _attributes(value.__func__.__code__)
        yield from _describe(name, value.__func__, depth, mentioned, seen)
        yield from _describe(f"{name}.self", value.__self__, depth, mentioned, seen)
        return
    yield name, _text(value)
    if depth == 0 or id(value) in seen:
        return
    inside: dict[str, object] = {}
    if isinstance(value, functools.partial):
        inside = {".func": value.func, ".args": value.args, **_dotted(value.keywords)}
    elif isinstance(value, types.FunctionType):
        if _is_of_the_user(value):
            yield f"code of {name} ({COMPILER})", _digest(_code(value.__code__, value.__doc__))
        mentioned |= _attributes(value.__code__)
        inside = _dotted(_variables(value))
    elif isinstance(value, Mapping):
        inside = {f"[{key!r}]": entry for key, entry in list(value.items())[:ENTRIES]}
    elif isinstance(value, list | tuple):
        inside = {f"[{i}]": entry for i, entry in enumerate(value[:ENTRIES])}
    elif isinstance(value, torch.optim.Optimizer):
        for i, group in enumerate(value.param_groups):
            settings = {key: one for key, one in group.items() if key not in ("params", "lr")}
            inside |= _dotted(
                {f"{key} of group {i}" if i else key: s for key, s in settings.items()}
            )
    elif isinstance(value, nn.Module):
        yield from _module(name, value)
    elif not isinstance(value, type) and _is_ours_or_of_the_user(type(value)):
        methods = _methods(type(value))
        mentioned = mentioned.union(*(_attributes(method.__code__) for method in methods.values()))
        inside = _dotted(
            {key: one for key, one in _fields(value).items() if key in mentioned}
            | {key: method for key, method in methods.items() if _is_of_the_user(method)}
        )
    elif not isinstance(value, type):
        inside = _dotted({key: one for key, one in _fields(value).items() if key in mentioned})
    if inside:
        seen[id(value)] = value
    for key, one in inside.items():
        yield from _describe(name + key, one, depth - 1, mentioned, seen)


def _module(name: str, module: nn.Module) -> Words:
    """A network's layers and their settings; its weights only if they are not to be trained."""
    for path, part in module.named_modules():
        settings = [
            f"{key}={_text(value)}"
            for key, value in sorted(vars(part).items())
            if _is_setting(value) and not key.startswith("_") and key != "training"
        ]
        part_name = f"{name}.{path}" if path else name
        yield part_name, f"{_qualified(type(part))}({', '.join(settings)})"
        for key, method in _methods(type(part)).items():
            if _is_of_the_user(method):
                code = _digest(_code(method.__code__, method.__doc__))
                yield f"code of {part_name}.{key} ({COMPILER})", code
    if not any(parameter.requires_grad for parameter in module.parameters()):
        for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
            yield f"{name}.{key}", _text(tensor)


def _text(value: object) -> str:
    """One value in words: a plain one's own, any other's type."""
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} of shape {tuple(value.shape)} with SHA-256 {_digest(_pieces(value))}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        content = np.ascontiguousarray(value).tobytes()
        return f"{value.dtype} of shape {value.shape} with SHA-256 {_digest([content])}"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 and 1 are one setting
    if isinstance(value, bool | int | float | complex | str | bytes | None | Enum):
        return str(value)
    if isinstance(value, torch.dtype | torch.device | range | slice):
        return str(value)
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(_text, value))) + "}"  # every process has another order
    if isinstance(value, tuple | list) and all(map(_is_setting, value)):
        return "(" + ", ".join(map(_text, value)) + ")"
    if isinstance(value, tuple | list | Mapping):
        return f"{type(value).__name__} of {len(value)}"
    return _qualified(value if isinstance(value, _NAMED) else type(value))


_NAMED = type | types.FunctionType | types.BuiltinFunctionType


def _is_setting(value: object) -> bool:
    if isinstance(value, tuple | list):
        return len(value) <= ENTRIES and all(map(_is_setting, value))
    return isinstance(value, bool | int | float | complex | str | np.generic | Enum | torch.dtype)


def _qualified(thing: object) -> str:
    """Its name; with its module, unless it is the user's: a script may be imported as well."""
    name = getattr(thing, "__qualname__", type(thing).__name__)
    return name if _is_of_the_user(thing) else f"{thing.__module__}.{name}"


def _is_of_the_user(thing: object) -> bool:
    """Whether it is code of a script or a notebook, and not of an installed library or of this one."""
    # A decorator may give its function the module of the one that it wraps, but not its globals.
    module = getattr(thing, "__globals__", {}).get("__name__") or getattr(thing, "__module__", None)
    package = (module or "builtins").partition(".")[0]
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    installed = "site-packages" in file or "dist-packages" in file
    return not (package in {*sys.stdlib_module_names, _OURS} - {"__main__"} or installed)


_OURS = __name__.partition(".")[0]


def _is_ours_or_of_the_user(kind: type) -> bool:
    return _is_of_the_user(kind) or kind.__module__.partition(".")[0] == _OURS


def _methods(kind: type) -> dict[str, types.FunctionType]:
    """What may run in training: the methods, and what is called when the object itself is."""
    found = {}
    for owner in kind.__mro__:
        if not _is_ours_or_of_the_user(owner):
            continue
        for name, value in vars(owner).items():
            method = getattr(value, "fget", None) or getattr(value, "__func__", value)
            special = name.startswith("__") and name != "__call__"
            if isinstance(method, types.FunctionType) and not special:
                # `super()` reaches those of the parents, too.
                found.setdefault(name if name not in found else f"{owner.__name__}.{name}", method)
    return found


def _fields(value: object) -> dict[str, object]:
    slots = {
        name: getattr(value, name)
        for owner in type(value).__mro__
        for name in getattr(owner, "__slots__", ())
        if isinstance(getattr(owner, name, None), types.MemberDescriptorType)
        and hasattr(value, name)
    }
    return slots | getattr(value, "__dict__", {})


def _variables(function: types.FunctionType) -> dict[str, object]:
    """What a function reads beside its arguments: defaults, closure, and the user's global names."""
    code = function.__code__
    given = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    found = dict(zip(given[len(given) - len(defaults) :], defaults, strict=True))
    found |= function.__kwdefaults__ or {}
    if _is_of_the_user(function):
        found |= {
            name: function.__globals__[name]
            for name in sorted(_mentions(code, "GLOBAL", "NAME"))
            if name in function.__globals__
            and not isinstance(function.__globals__[name], types.ModuleType)
        }
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _attributes(code: types.CodeType) -> frozenset[str]:
    return _mentions(code, "ATTR", "METHOD")


@functools.cache
def _mentions(code: types.CodeType, *kinds: str) -> frozenset[str]:
    """Names that code, and code inside of it, loads as attributes, or as global names."""
    operations = {f"LOAD_{kind}" for kind in kinds}
    own = {i.argval for i in dis.get_instructions(code) if i.opname in operations}
    return frozenset(own).union(
        *(_mentions(c, *kinds) for c in code.co_consts if isinstance(c, types.CodeType))
    )


def _code(code: types.CodeType, documentation: str | None = None) -> Iterator[bytes]:
    """What a function does, without the places in its file and without its documentation."""
    yield code.co_code
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)).encode()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant))).encode()
        elif documentation is None or constant != documentation:
            yield repr(constant).encode()


def _pieces(tensor: Tensor) -> Iterator[bytes]:
    """A tensor's bytes in its own type, a part at a time, from any device."""
    tensor = tensor.detach()
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    rows = tensor.reshape(1) if tensor.dim() == 0 else tensor
    size = max(1, PIECE // max(1, rows[:1].numel() * rows.element_size()))
    for part in rows.split(size):
        part = part.resolve_conj().resolve_neg().cpu().contiguous().flatten()
        yield memoryview(part.view(torch.uint8).numpy())


def _digest(pieces: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()[:16]


def _dotted(values: Mapping[str, object]) -> dict[str, object]:
    return {f".{name}": value for name, value in values.items()}

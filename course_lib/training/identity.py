"""What makes a run this run and no other: what its checkpoint keeps, to be compared by the next call.

Everything is described in words and by name, so that a difference can be named. The same script,
called again in another process, must give the same words: what has none for certain (an open file,
a generator of noise, a library's object) counts by its type alone.
"""

import dis
import functools
import hashlib
import itertools
import sys
import types
from collections.abc import Iterator, Mapping
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.training.state import State

PLAIN = bool | int | float | complex | str | bytes | None | Enum | np.generic | torch.dtype
# How deep objects within objects are described, and how many entries of one container.
DEPTH, ENTRIES = 4, 100
# Compiled code can be compared within one version of Python only.
COMPILER = f"{sys.implementation.cache_tag}-O{sys.flags.optimize}"
OURS = __name__.partition(".")[0]


class Identity:
    """The settings, data and functions of a run that is about to begin, in words by name."""

    def __init__(self, state: State) -> None:
        given, players = state.given, state.players
        settings = ("steps", "batch_size", "learning_rate", "gradient_clip", "ema", "seed")
        self.fixed = {name: _text(getattr(given, name)) for name in settings} | {
            "training examples": str(given.n_train),
            "evaluate_every": str(state.evaluate_every),
            "precision": str(given.precision),
            "accelerator": state.fabric.device.type,
            "compile": str(bool(given.compile)),
            "players": _text([(p.name, p.updates, p.learning_rate) for p in players if p.name]),
        }
        for name, data in (("train", given.train), ("validation", given.validation)):
            self.fixed[name] = " and ".join(map(_text, data if isinstance(data, tuple) else [data]))
        self.parts = {name: getattr(given, name) for name in ("model", "schedule", "transform")}
        for player, optimizer in zip(players, state.optimizers, strict=True):
            self.parts[player.called("loss")] = player.loss
            self.parts[player.called("optimizer")] = optimizer.optimizer
        self.names = [*self.fixed, *self.parts]
        self.begun = self._describe_parts()

    def _describe_parts(self) -> dict[str, str]:
        return dict(pair for name, part in self.parts.items() for pair in describe(name, part))

    def to_keep(self) -> dict[str, str]:
        """All of it but what training itself has changed since: a counter in a loss is not a setting."""
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


def describe(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Describe a value and, as ``name.attribute``, what belongs to it: names and texts."""
    seen: dict[int, object] = {}

    def words(name: str, value: object, depth: int, read: frozenset) -> Iterator[tuple[str, str]]:
        """Of objects only those attributes count that are `read` by who has or uses them."""
        yield name, _text(value)
        if depth == 0 or id(value) in seen or isinstance(value, type | Tensor) or _is_plain(value):
            return
        seen[id(value)] = value
        if isinstance(value, types.FunctionType) and _is_of_the_user(value):
            code = repr(_code(value.__code__, value.__doc__)).encode()
            yield f"code of {name} ({COMPILER})", _digest(code)
        read = read.union(*(_loaded(f.__code__, "ATTR", "METHOD") for f in _functions(value)))
        for key, one in _inside(value, read):
            yield from words(name + key, one, depth - 1, read)

    return words(name, value, DEPTH, frozenset())


def _inside(value: object, read: frozenset[str]) -> Iterator[tuple[str, object]]:
    """What belongs to a value, each with the end of its name."""
    if isinstance(value, types.MethodType):
        yield from {"": value.__func__, ".self": value.__self__}.items()
    elif isinstance(value, functools.partial):
        yield from {".func": value.func, ".args": value.args}.items()
        yield from _dotted(value.keywords)
    elif isinstance(value, types.FunctionType):
        yield from _dotted(_variables(value))
    elif isinstance(value, Mapping | list | tuple):
        entries = value.items() if isinstance(value, Mapping) else enumerate(value)
        yield from ((f"[{key!r}]", one) for key, one in itertools.islice(entries, ENTRIES))
    elif isinstance(value, torch.optim.Optimizer):
        for i, group in enumerate(value.param_groups):
            settings = {key: one for key, one in group.items() if key not in ("params", "lr")}
            yield from _dotted(settings, f" of group {i}" if i else "")
    elif isinstance(value, nn.Module):
        for path, layer in value.named_modules():
            path = f".{path}".rstrip(".")
            yield path, _text(layer)
            yield from ((f"{path}.{f.__qualname__}", f) for f in _functions(layer))
        if not any(parameter.requires_grad for parameter in value.parameters()):
            yield from _dotted(value.state_dict())  # weights that are not trained
    else:
        state = object.__getstate__(value)  # a pair, if there are slots
        for fields in state if isinstance(state, tuple) else (state,):
            yield from _dotted({key: one for key, one in (fields or {}).items() if key in read})
        yield from ((f".{f.__qualname__}", f) for f in _functions(value))


def _text(value: object) -> str:
    """One value in words: a plain one's own, of many numbers a digest, any other's type."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 and 1 are one setting
    if isinstance(value, PLAIN):
        return str(value)
    if isinstance(value, Tensor):
        dense = value.detach().to_dense().resolve_conj().resolve_neg().cpu().contiguous()
        digest = _digest(dense.flatten().view(torch.uint8).numpy())
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} of shape {tuple(value.shape)} with SHA-256 {digest}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype} of shape {value.shape} with SHA-256 {_digest(value.tobytes())}"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(_text, value)))}}}"  # every process has another order
    if isinstance(value, list | tuple) and _is_plain(value):
        return f"({', '.join(map(_text, value))})"
    if isinstance(value, list | tuple | Mapping):
        return f"{type(value).__name__} of {len(value)}"
    named = isinstance(value, type | types.FunctionType | types.BuiltinFunctionType)
    kind = value if named else type(value)
    # Without the module, if it is the user's: a script may be imported as well.
    text = kind.__qualname__ if _is_of_the_user(kind) else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, nn.Module):
        plain = {k: v for k, v in vars(value).items() if _is_plain(v) and k[0] != "_"}
        plain.pop("training", None)
        text += f"({', '.join(f'{key}={_text(plain[key])}' for key in sorted(plain))})"
    return text


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= ENTRIES and all(map(_is_plain, value))
    return isinstance(value, PLAIN)


def _is_of_the_user(thing: object) -> bool:
    """Whether it is code of a script or a notebook, and not of an installed library or of this one."""
    # A decorator may give its function the module of the one that it wraps, but not its globals.
    module = getattr(thing, "__globals__", {}).get("__name__") or thing.__module__ or "builtins"
    package = module.partition(".")[0]
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    installed = "site-packages" in file or "dist-packages" in file
    return not (package in {*sys.stdlib_module_names, OURS} - {"__main__"} or installed)


def _functions(value: object) -> list[types.FunctionType]:
    """A function itself; of an object of the user or of this library, what may run in training."""
    if isinstance(value, types.FunctionType | types.MethodType):
        return [getattr(value, "__func__", value)]
    found = []
    for owner in type(value).__mro__:  # `super()` reaches the parents' methods, too
        if _is_of_the_user(owner) or owner.__module__.partition(".")[0] == OURS:
            for name, one in vars(owner).items():
                method = getattr(one, "fget", None) or getattr(one, "__func__", one)
                special = name.startswith("__") and name != "__call__"
                if isinstance(method, types.FunctionType) and not special:
                    found.append(method)
    return found


def _variables(function: types.FunctionType) -> dict[str, object]:
    """What a function reads beside its arguments: defaults, closure, and the user's global names."""
    code, names = function.__code__, function.__globals__
    given = code.co_varnames[: code.co_argcount]
    found = dict(zip(given[::-1], (function.__defaults__ or ())[::-1], strict=False))
    found |= function.__kwdefaults__ or {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if cell != types.CellType():  # it is assigned
            found[name] = cell.cell_contents
    if _is_of_the_user(function):
        read = _loaded(code, "GLOBAL", "NAME")
        found |= {name: names[name] for name in sorted(read) if name in names}
    return {name: one for name, one in found.items() if not isinstance(one, types.ModuleType)}


@functools.cache
def _loaded(code: types.CodeType, *kinds: str) -> frozenset[str]:
    """Names that code, and code inside of it, loads as attributes, or as global variables.

    In `co_names` a global ``mean`` could not be told from ``x.mean()``.
    """
    operations = {f"LOAD_{kind}" for kind in kinds}
    own = {i.argval for i in dis.get_instructions(code) if i.opname in operations}
    inner = (_loaded(c, *kinds) for c in code.co_consts if isinstance(c, types.CodeType))
    return frozenset(own).union(*inner)


def _code(code: types.CodeType, documentation: str | None = None) -> tuple:
    """What a function does, without the places in its file and without its documentation."""
    words = {frozenset: lambda one: sorted(map(repr, one)), types.CodeType: _code}
    constants = [
        words.get(type(one), repr)(one)
        for one in code.co_consts
        if one is None or one != documentation
    ]
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return code.co_code, names, constants


def _dotted(values: Mapping[str, object], end: str = "") -> Iterator[tuple[str, object]]:
    return ((f".{name}{end}", value) for name, value in values.items())


def _digest(content: object) -> str:
    return hashlib.sha256(content).hexdigest()[:16]

"""Fast paths: what a plain function or method computes, computed quicker, and kept out of its file.

A model's file holds the plain idea. What gives the same results quicker, and takes more lines to say, stands
in a package ``fast`` beside it (here for what families share) and registers for the plain function or
method. The plain code asks `fast_path` and knows no more than that. The contract is one: equal to the
plain path, driven by the same noise, in values, gradients and samples.

Since a path belongs to one function, a subclass that overrides the method loses the path with it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

__all__ = ["FastPath", "fast_path", "plain_paths", "prepared", "register", "registered"]


@dataclass(frozen=True)
class FastPath:
    """A function that is registered, and what it wants to know beforehand.

    Attributes:
        compute: the quicker function.
        prepare: studies constants once, for a function that wants it; or None.
    """

    compute: Callable[..., Any]
    prepare: Callable[..., Any] | None = None


_paths: dict[Callable[..., Any], FastPath] = {}
_switched_off = ContextVar("fast paths are switched off", default=False)


def register(
    plain: Callable[..., Any], *, prepare: Callable[..., Any] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function as the fast path of another one.

    Args:
        plain: the function, or the method as its class holds it, whose results are given.
        prepare: what `prepared` calls.

    Returns:
        A decorator that returns the function as it is.
    """

    def add(compute: Callable[..., Any]) -> Callable[..., Any]:
        _paths[plain] = FastPath(compute, prepare)
        return compute

    return add


def fast_path(plain: Callable[..., Any]) -> Callable[..., Any] | None:
    """The fast path of a function; None if there is none, or none is wanted.

    Args:
        plain: the function, or the method as its class holds it.
    """
    # A compiler makes one of its own from the plain operations.
    if torch.compiler.is_compiling() or _switched_off.get() or plain not in _paths:
        return None
    return _paths[plain].compute


def prepared(plain: Callable[..., Any], *constants: Any) -> Any:
    """What the fast path of a function wants to know of constants, such as a mask, found once.

    Args:
        plain: the function.
        constants: what is always the same when it is called.

    Returns:
        What the fast path takes as its last argument; None if there is none, or it does not pay here.
    """
    path = _paths.get(plain)
    return None if path is None or path.prepare is None else path.prepare(*constants)


@contextmanager
def plain_paths() -> Iterator[None]:
    """Compute everything the plain way for a block: what a fast path is tested and timed against."""
    token = _switched_off.set(True)
    try:
        yield
    finally:
        _switched_off.reset(token)


def registered() -> Mapping[Callable[..., Any], FastPath]:
    """All fast paths, by the plain function or method of each."""
    return MappingProxyType(_paths)

"""Put one function in another's place wherever it is held, for as long as a graph is captured.

Authors import a library's functions by name, in a module or within a function, so rebinding the library's own
name for one reaches few of them. What is replaced is the function's code: whoever calls it, calls the other.
"""

from __future__ import annotations

import inspect
import itertools
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Function = Callable[..., Any]

_PLACE = "lockstep.exporters.standins.rebinding.place"
_places: dict[str, Function] = {}  # read by the code below, which can close over nothing
_numbers = itertools.count()


@contextmanager
def rebound(replacements: Mapping[Function, Function]) -> Iterator[None]:
    """Have every call of these functions, however decorated, call their replacements, and back afterwards.

    Not for a process with other threads at work.
    """
    kept = []
    try:
        for original, replacement in replacements.items():
            inner = _plain(original)
            place = f"{_PLACE}{next(_numbers)}"
            _places[place] = replacement
            kept.append((inner, inner.__code__, inner.__defaults__, inner.__kwdefaults__, place))
            code = _elsewhere.__code__
            constants = tuple(place if constant == _PLACE else constant for constant in code.co_consts)
            # Defaults first: code with fewer parameters than defaults must never be called.
            inner.__defaults__ = inner.__kwdefaults__ = None
            inner.__code__ = code.replace(co_consts=constants)
        yield
    finally:
        for inner, own, defaults, named, place in reversed(kept):
            inner.__code__, inner.__defaults__, inner.__kwdefaults__ = own, defaults, named
            del _places[place]


def copied(function: Function) -> Function:
    """Return a copy of a function, to call what it was while it is rebound."""
    inner = _plain(function)
    copy = types.FunctionType(inner.__code__, inner.__globals__, inner.__name__, inner.__defaults__)
    copy.__kwdefaults__ = inner.__kwdefaults__
    return copy


def _plain(function: Function) -> types.FunctionType:
    inner = inspect.unwrap(function)
    if not isinstance(inner, types.FunctionType) or inner.__code__.co_freevars:
        raise AssertionError(f"{function!r} is no plain function")
    return inner


def _elsewhere(*arguments: Any, **named: Any) -> Any:
    from lockstep.exporters.standins import rebinding

    return rebinding._places["lockstep.exporters.standins.rebinding.place"](*arguments, **named)

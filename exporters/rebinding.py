"""Put one function in another's place wherever it was imported, for as long as a graph is captured."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Function = Callable[..., Any]


@contextmanager
def rebound(replacements: Mapping[Function, Function]) -> Iterator[None]:
    """Rebind every global of every loaded module that is one of these functions, and back afterwards.

    Authors import functions by name, so the library's own name for one is not enough. Not for a process with
    other threads at work.
    """
    for original, replacement in replacements.items():
        _rebind(original, replacement)
    try:
        yield
    finally:
        for original, replacement in replacements.items():
            _rebind(replacement, original)


def _rebind(old: Function, new: Function) -> None:
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is old:
                setattr(module, name, new)

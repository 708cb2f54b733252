"""The author's own code: `package.module:function`, imported and called in a job process only."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lockstep.exporters.conversion import SourceError


def build_function(target: str | None, python_path: Sequence[Path]) -> Callable[..., Any]:
    """Import the function that builds the source; this runs the author's code.

    `python_path` is searched after everything installed, so that a stray file beside the model cannot
    stand in for a library. Raises `SourceError` naming what is missing.
    """
    if target is None:
        raise SourceError("the source needs `build`: package.module:function that returns the model")
    module_name, colon, function_name = target.partition(":")
    if not colon or not module_name or not function_name:
        raise SourceError(f"build {target!r}: write it as package.module:function")
    sys.path.extend(str(folder) for folder in python_path if str(folder) not in sys.path)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        folders = ", ".join(str(folder) for folder in python_path)
        raise SourceError(
            f"build {target!r}: no module {error.name!r}; searched the installed packages, {folders}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SourceError(f"build {target!r}: {module.__file__} has no function {function_name!r}")
    called: Callable[..., Any] = function
    return called

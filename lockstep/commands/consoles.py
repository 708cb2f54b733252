"""The terminal, as rich writes to it: one console for what a command answers, one for what it says meanwhile."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from typing import NoReturn

from rich.console import Console


class _Console(Console):
    """Tells a reader that has gone as any writer does; rich would end the command with 1, which is a code of ours."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def answers(width: int | None = None, *, highlight: bool = True) -> Console:
    """Return the console for standard output; `width`, in columns, is for a pipe, which has none of its own."""
    return _Console(width=None if sys.stdout.isatty() else width, highlight=highlight)


def drawn(draw: Callable[[Console], object], width: int) -> str:
    """Return what `draw` writes to the console for standard output, without writing it yet."""
    terminal = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if terminal else width
    buffer = io.StringIO()
    draw(Console(file=buffer, width=columns, force_terminal=terminal))
    return buffer.getvalue()


def messages() -> Console:
    """Return the console for standard error."""
    return _Console(stderr=True)

"""How our child processes are started, bound to their parent, and ended. Standard library only; knows no child's work.

Every Python process that we start runs a function of ours by `command`, so that neither the current folder nor, under
another interpreter, our own libraries are on its path.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

_ENTRY: Final = Path(__file__).with_name("child_entry.py")
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def command(function: str, *arguments: str, python: str = sys.executable) -> list[str]:
    """Return the command that runs `module:function` of ours with `arguments` in its `sys.argv`.

    `-P`: neither the current folder nor a script's is on the path, so no file there can stand in for a module.
    """
    return [python, "-P", str(_ENTRY), function, *arguments]


def environment(
    more: Mapping[str, str] = MappingProxyType({}), *, threads: int | None = None, python: str = sys.executable
) -> dict[str, str]:
    """Return our environment for a child: `threads` bounds those of its numeric libraries, `more` overrides.

    PYTHONPATH is kept without its empty entries, which mean the current folder. Under another interpreter it is
    left out: it holds libraries of this one.
    """
    child = dict(os.environ)
    path = os.pathsep.join(filter(None, child.pop("PYTHONPATH", "").split(os.pathsep)))
    if path and python == sys.executable:
        child["PYTHONPATH"] = path
    if threads is not None:
        child.update(dict.fromkeys(_THREADS, str(threads)))
    return {**child, **more}


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however it dies; to be called by the child first.

    `parent` is the parent's process id, to notice one that died before. Raises `SystemExit` if it has. Linux only;
    elsewhere it does nothing, and a child ends when its pipe does.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            raise SystemExit("the parent process has ended")


def stop_with_parent() -> Callable[[], None]:
    """Return a `preexec_fn` that has the kernel send the child SIGTERM when this process ends, on kill -9 too.

    For a child that drains before it ends. It runs between fork and exec, so it imports nothing.
    """
    return functools.partial(_stop_with_parent, ctypes.CDLL(None), os.getpid())


def _stop_with_parent(libc: ctypes.CDLL, parent: int) -> None:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


async def wait_through_cancellation(work: Coroutine[Any, Any, Result]) -> Result:
    """Return what `work` returns. If the caller is cancelled meanwhile, wait for `work` first, then be cancelled.

    For the start or the end of a process, which nobody else would finish. Raises what `work` raises.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


def stop(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Send SIGTERM, wait, and kill what has not ended after `patience_s` seconds. The process is reaped."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

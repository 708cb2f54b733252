"""Whether an interpreter has what a runtime's worker imports: known before one is started, and without importing it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from lockstep import child_processes
from lockstep.server.runtimes.registry import ADAPTERS

_TIMEOUT_S = 60.0
_OLDEST = (3, 11)
"""Of a worker's interpreter: the first Python with -P, which keeps the current folder off the module path."""
_NEEDS: Final[Mapping[str, str]] = {ADAPTERS[runtime]: runtime for runtime in ("onnxruntime", "tensorflow", "torch")}
"""Adapter -> the package that it imports, by the name under which it is installed too."""

# What is left of a package that was uninstalled is a folder, and found without an origin.
_LIST_MISSING = """\
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import importlib.util, json
found = {name: importlib.util.find_spec(name) for name in sys.argv[1:]}
missing = [name for name, spec in found.items() if spec is None or spec.origin is None]
print(json.dumps([list(sys.version_info[:2]), missing]))
"""


class Installed:
    """What interpreters have. What was there once is not looked for again."""

    def __init__(self, needs: Mapping[str, str] | None = None) -> None:
        """`needs` names the package that each adapter imports, by default ours; one that is not in it needs none."""
        self._needs = _NEEDS if needs is None else needs
        self._complete: set[tuple[str, str]] = set()

    def missing(self, python: str, adapter: str) -> str:
        """Say why an interpreter cannot run an adapter, and what to do; empty where nothing is missing.

        Another interpreter than ours is asked, which takes some hundredths of a second.
        """
        package = self._needs.get(adapter)
        if package is None or (python, package) in self._complete:
            return ""
        why = _missing_here(package) if python == sys.executable else _missing_there(python, package)
        if not why:
            self._complete.add((python, package))
        return why


def _missing_here(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        return ""
    return f"{package} is not installed: pip install 'lockstep[{package}]'"


def _missing_there(python: str, package: str) -> str:
    try:
        done = subprocess.run(
            [python, "-c", _LIST_MISSING, package, "numpy"],
            env=child_processes.environment(python=python),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the interpreter {python} cannot be run: {getattr(error, 'strerror', None) or error}"
    except ValueError:
        answer = None
    if answer is None:
        last_words = done.stderr.strip().rpartition("\n")[2]
        return f"{python} is not a Python interpreter that works: {last_words or f'exit code {done.returncode}'}"
    version, missing = answer
    if tuple(version) < _OLDEST:
        return (
            f"{python} is Python {'.'.join(map(str, version))}: a worker needs {'.'.join(map(str, _OLDEST))} or newer"
        )
    if missing:
        return f"{python} has no {' and no '.join(missing)}: {python} -m pip install {' '.join(missing)}"
    return ""

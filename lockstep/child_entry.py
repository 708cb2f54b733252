"""Run a function of ours in an interpreter that may not have us installed. See `lockstep.child_processes.command`.

`python -P child_entry.py MODULE:FUNCTION ARGUMENTS` makes the package `lockstep` importable from the folder of this
file, and adds nothing to `sys.path`. A worker under another interpreter finds that interpreter's libraries, never ours,
and no file of the folder that it was started in can stand in for a module.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path


def main() -> None:
    """Import the module named first on the command line, and call its function with the rest as `sys.argv`."""
    _find_package(Path(__file__).parent)
    target = sys.argv.pop(1)
    sys.argv[0] = "lockstep"
    module, _, function = target.partition(":")
    getattr(importlib.import_module(module), function)()


def _find_package(folder: Path) -> None:
    name = folder.name
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    main()

"""Where Python looks for modules in our process: a user's own `random.py` is not ours to run.

Python puts it there for `python -m`, and for an empty part of PYTHONPATH (`PYTHONPATH=$UNSET:/lib` has one). What
Python itself imports before it comes to us is out of our hands.
"""

from __future__ import annotations

import os
import sys

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def leave_current_folder_out(*, run_as_module: bool = False) -> None:
    """Take the current folder off the path, unless it holds this package or PYTHONPATH names it in words."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return  # it was removed: nothing can be imported from it
    if here == _OURS:
        return
    if run_as_module and not sys.flags.safe_path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if "" in named and here not in (os.path.abspath(folder) for folder in named if folder):
        sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]

"""The processes that this one started."""

import psutil


def children() -> set[int]:
    """Return the ids of the processes that this one started and that it has not reaped."""
    return {child.pid for child in psutil.Process().children()}

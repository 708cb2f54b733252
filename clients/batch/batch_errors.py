"""What stops a run: one tree. What is wrong with one row is that row's own error, and stops nothing.

::

    BatchError
    ├── PlanRefused           the plan cannot be carried out: names what is wrong and what to do
    │   ├── ColumnMissing     the input has no such column; lists those that it has
    │   ├── ColumnsCollide    the input has columns of the names that are to be added
    │   └── ResumeRefused     what was begun was begun with another input or other options
    ├── InputUnreadable       the input cannot be read any further, and why
    ├── OutputFailed          the output cannot be written: a full disk, a file that has no leave
    └── RowFailedStrictly     a row failed, and the plan says that none may
"""

from __future__ import annotations

from collections.abc import Sequence

from lockstep.clients.errors import ClientError


class BatchError(ClientError):
    """A run cannot begin, or cannot go on."""


class PlanRefused(BatchError):
    """The plan cannot be carried out as it is."""


class ColumnMissing(PlanRefused):
    """The input has no column of that name."""

    def __init__(self, name: str, found: Sequence[str]) -> None:
        listed = ", ".join(found) or "none"
        super().__init__(f"the input has no column {name!r} (--text-column); it has: {listed}")


class ColumnsCollide(PlanRefused):
    """The input has columns of the names that the answers would get."""

    def __init__(self, names: Sequence[str], where: str = "the input") -> None:
        listed = ", ".join(map(repr, names))
        super().__init__(
            f"{where} has a column of its own where one is to be added: {listed}; "
            "name the added ones otherwise: --prefix predicted_"
        )


class ResumeRefused(PlanRefused):
    """What was begun does not fit what is asked for now."""


class InputUnreadable(BatchError):
    """The input is not what its format says."""


class OutputFailed(BatchError):
    """The output cannot be written."""


class RowFailedStrictly(BatchError):
    """A row failed, and `strict` says that the run stops there."""

"""Batch inference: whole files through a server, in order, resumable (the extra `batch`).

`run_batch` carries out a `BatchPlan`. A file that is larger than memory is read in chunks, each a call; answers are
written in the order of the rows, and committed so that a run which was killed goes on where it was.
"""

from lockstep.clients.batch.batch_errors import (
    BatchError,
    ColumnMissing,
    ColumnsCollide,
    InputUnreadable,
    OutputFailed,
    PlanRefused,
    ResumeRefused,
    RowFailedStrictly,
)
from lockstep.clients.batch.earlier import rows_kept
from lockstep.clients.batch.plan import FORMATS, BatchPlan, Format, format_of
from lockstep.clients.batch.rows import ChunkLimits
from lockstep.clients.batch.run import NoServer, Progress, Summary, needs_server, run_batch

__all__ = [
    "FORMATS",
    "BatchError",
    "BatchPlan",
    "ChunkLimits",
    "ColumnMissing",
    "ColumnsCollide",
    "Format",
    "InputUnreadable",
    "NoServer",
    "OutputFailed",
    "PlanRefused",
    "Progress",
    "ResumeRefused",
    "RowFailedStrictly",
    "Summary",
    "format_of",
    "needs_server",
    "rows_kept",
    "run_batch",
]

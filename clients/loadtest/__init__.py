"""The load test: `run_loadtest(LoadPlan(model=...)) -> LoadReport`. Needs the extra `loadtest`.

Asks a server for every backend of a model in turns, open or closed loop, and reports what callers saw
beside what the server says. `docs/load-testing.md` tells how to read it.
"""

from clients.loadtest.document import DocumentInvalid
from clients.loadtest.plan import FREE, LoadPlan
from clients.loadtest.report import (
    BackendReport,
    LatencySummary,
    LengthReport,
    LoadReport,
    RoundReport,
    ServerView,
    read_reports,
    write_reports,
)
from clients.loadtest.run import LoadTestError, Progress, measure, run_loadtest
from clients.loadtest.texts import TextsUnreadable

__all__ = [
    "FREE",
    "BackendReport",
    "DocumentInvalid",
    "LatencySummary",
    "LengthReport",
    "LoadPlan",
    "LoadReport",
    "LoadTestError",
    "Progress",
    "RoundReport",
    "ServerView",
    "TextsUnreadable",
    "measure",
    "read_reports",
    "run_loadtest",
    "write_reports",
]

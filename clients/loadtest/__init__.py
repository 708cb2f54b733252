"""The load test: `run_loadtest(LoadPlan(model=...)) -> LoadReport`. Needs the extra `loadtest`.

Asks a server for every backend of a model in turns, open or closed loop, and reports what callers saw
beside what the server says. `docs/load-test-results.md` tells how to read it.
"""

from lockstep.clients.loadtest.ceiling import Ceiling, CeilingUnknown, measure_ceiling
from lockstep.clients.loadtest.document import DocumentInvalid
from lockstep.clients.loadtest.find import Found, run_search
from lockstep.clients.loadtest.plan import FREE, LoadPlan
from lockstep.clients.loadtest.record import LoadRun, read_run, write_run
from lockstep.clients.loadtest.report import (
    BackendReport,
    LatencySummary,
    LengthReport,
    LoadReport,
    RoundReport,
    ServerView,
)
from lockstep.clients.loadtest.run import Progress, Setting, loads_of, measure, run_loadtest, run_sweep
from lockstep.clients.loadtest.search import BackendSearch, SearchReport, Slo
from lockstep.clients.loadtest.session import CutShort, LoadTestError
from lockstep.clients.loadtest.texts import TextsUnreadable

__all__ = [
    "FREE",
    "BackendReport",
    "BackendSearch",
    "Ceiling",
    "CeilingUnknown",
    "CutShort",
    "DocumentInvalid",
    "Found",
    "LatencySummary",
    "LengthReport",
    "LoadPlan",
    "LoadReport",
    "LoadRun",
    "LoadTestError",
    "Progress",
    "RoundReport",
    "SearchReport",
    "ServerView",
    "Setting",
    "Slo",
    "TextsUnreadable",
    "loads_of",
    "measure",
    "measure_ceiling",
    "read_run",
    "run_loadtest",
    "run_search",
    "run_sweep",
    "write_run",
]

"""The JSON file of a load test: everything that one run of the command found. Knows no measuring."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lockstep.clients.loadtest.document import DocumentInvalid, from_document, to_document
from lockstep.clients.loadtest.report import FORMAT, LoadReport
from lockstep.clients.loadtest.search import SearchReport
from lockstep.clients.output_files import write_whole


@dataclass(frozen=True, slots=True)
class LoadRun:
    """Reports, one a model and load; and what was searched for, one a model."""

    reports: tuple[LoadReport, ...]
    searches: tuple[SearchReport, ...] = ()
    command: str | None = None  # that made it
    cut_short: str | None = None  # what is not in it, and why; None: it holds all that was asked for
    format: int = FORMAT

    @property
    def interrupted(self) -> bool:
        """Whether it was ended early."""
        return any(report.interrupted for report in self.reports) or any(one.interrupted for one in self.searches)

    def to_json(self) -> str:
        """Return the run as JSON."""
        return json.dumps(to_document(self), indent=2)


def write_run(path: Path, run: LoadRun) -> None:
    """Write a run as a JSON file, making its folder; what is there already stays whole until the new one is."""
    write_whole(path, run.to_json() + "\n")


def read_run(path: Path) -> LoadRun:
    """Read what `write_run` wrote; raises `DocumentInvalid` or `OSError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except ValueError as error:
        raise DocumentInvalid(f"{path}: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DocumentInvalid(f"{path}: not a load test of format {FORMAT}")
    try:
        return from_document(LoadRun, document)
    except DocumentInvalid as error:
        raise DocumentInvalid(f"{path}: {error}") from error


def _no_number(name: str) -> float:
    raise ValueError(f"holds {name}, which is no number: nothing can be told from it")

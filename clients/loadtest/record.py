"""The JSON file of a load test: everything that one run of the command found. Knows no measuring."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from clients.loadtest.document import DocumentInvalid, from_document, to_document
from clients.loadtest.report import FORMAT, LoadReport
from clients.loadtest.search import SearchReport


@dataclass(frozen=True, slots=True)
class LoadRun:
    """Reports, one a model and load; and what was searched for, one a model."""

    reports: tuple[LoadReport, ...]
    searches: tuple[SearchReport, ...] = ()
    command: str | None = None  # that made it
    format: int = FORMAT

    @property
    def interrupted(self) -> bool:
        """Whether it was ended early."""
        return any(report.interrupted for report in self.reports) or any(one.interrupted for one in self.searches)

    def to_json(self) -> str:
        """Return the run as JSON."""
        return json.dumps(to_document(self), indent=2)


def write_run(path: Path, run: LoadRun) -> None:
    """Write a run as a JSON file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(run.to_json() + "\n", encoding="utf-8")


def read_run(path: Path) -> LoadRun:
    """Read what `write_run` wrote; raises `DocumentInvalid` or `OSError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DocumentInvalid(f"{path}: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DocumentInvalid(f"{path}: not a load test of format {FORMAT}")
    try:
        return from_document(LoadRun, document)
    except DocumentInvalid as error:
        raise DocumentInvalid(f"{path}: {error}") from error

"""What is to be done: the plan of a run, checked as far as it can be without a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from lockstep.clients.batch.batch_errors import PlanRefused
from lockstep.clients.batch.compression import COMPRESSED
from lockstep.clients.batch.rows import ChunkLimits
from lockstep.clients.credentials import Credentials

Format: TypeAlias = Literal["jsonl", "csv", "parquet"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
_BY_SUFFIX: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Classify the texts of one file into another. `None` as a path is standard input or output."""

    input: Path | None
    output: Path | None
    address: str
    input_format: Format
    output_format: Format
    text_column: str = "text"
    model: str | None = None  # may be left out where the server has one
    backend: str | None = None
    truncate: bool = False
    prefix: str = ""  # of the added columns' names
    credentials: Credentials = field(default_factory=Credentials)
    limits: ChunkLimits = field(default_factory=ChunkLimits)
    calls: int = 8  # in flight at once
    timeout_s: float = 120.0  # of a call, retries included: how long a server may be away
    commit_s: float = 1.0  # how much of the work a kill may cost
    strict: bool = False  # the first row that fails stops the run
    overwrite: bool = False
    restart: bool = False

    @property
    def asked(self) -> dict[str, Any]:
        """What the answers depend on, by the name of its option. How fast they are to come is not in it."""
        return {
            "--input-format": self.input_format,
            "--output-format": self.output_format,
            "--text-column": self.text_column,
            "--prefix": self.prefix,
            "--truncate": self.truncate,
            "--backend": self.backend,
        }


def format_of(path: Path | None, wanted: Format | None, *, output: bool) -> Format:
    """Return a file's format: the one that is said, else by its name. Raises `PlanRefused`."""
    option = "--output-format" if output else "--input-format"
    if path is not None and path.suffix.lower() in COMPRESSED:
        if output:
            raise PlanRefused(f"{path}: the output is not compressed; write .parquet, or through a pipe: - | gzip")
        path = path.with_suffix("")
    found = wanted or (_BY_SUFFIX.get(path.suffix.lower()) if path is not None else None)
    if found is None:
        where = "standard " + ("output" if output else "input") if path is None else str(path)
        raise PlanRefused(f"which format has {where}? Say {option} {'|'.join(FORMATS)}")
    return found

"""What training and exporting left behind, by model of the zoo. Reads files; runs nothing.

A model that was not trained, or not exported, is in the result all the same, without the figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache as cache_calls
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from lockstep.export_matrix import Cell, read_rows
from lockstep.exporters.source import Description, Framework
from lockstep.framework_report.recorded import read_report
from lockstep.server.repository.catalog import PublishedModel, RefusedError, read_version
from lockstep.server.repository.manifest import Artifact, Manifest
from lockstep.zoo.registry import Entry
from lockstep.zoo.source_code import lines_of_code
from lockstep.zoo.train import DESCRIPTION, RECORD, Record

SIDES: Final = MappingProxyType(
    {
        Framework.TORCH: "PyTorch",
        Framework.KERAS: "Keras",
        Framework.TF2: "TensorFlow 2",
        Framework.TF1: "TensorFlow 1",
        Framework.HUGGINGFACE: "Hugging Face",
    }
)
"""Framework -> its name in the report, in the report's order."""

_LAYER: Final = re.compile(r"^(?:(?P<layers>\d) )?(?P<kind>.*?)(?P<bi>Bi)?(?P<cell>RNN|GRU|LSTM)(?P<single>Cell)?$")


@dataclass(frozen=True, slots=True)
class Layer:
    """What a model's layer is, as its entry's words say."""

    cell: str  # "RNN", "GRU", "LSTM" or "Transformer"
    layers: int
    bidirectional: bool
    single_cell: bool

    @classmethod
    def of(cls, words: str) -> Layer:
        """Read words such as "2 BiLSTM", "GRUCell" or "Peephole LSTM"; what is no recurrence is a Transformer."""
        found = _LAYER.match(words)
        if found is None:
            return cls("Transformer", 1, bidirectional=False, single_cell=False)
        return cls(found["cell"], int(found["layers"] or 1), bool(found["bi"]), bool(found["single"]))


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model of the zoo: what is known of it."""

    entry: Entry
    model_lines: int  # of code that make the model; see `lockstep.zoo.source_code.lines_of_code`
    training_lines: int  # that its training takes beside
    record: Record | None  # None: not trained
    trained_at: str | None  # date
    logged: bool  # TensorBoard's events are there
    cells: tuple[Cell, ...]  # of the export matrix, one an artifact; none: not exported
    earlier: bool  # they are of an earlier run's report
    loop: Cell | None  # what the model costs as a Loop or Scan; None: not measured
    methods: dict[str, str | None]  # artifact -> how it was converted
    published: PublishedModel | None  # None: nothing is in the repository

    @property
    def id(self) -> str:
        """The model's name."""
        return self.entry.id

    @property
    def framework(self) -> Framework:
        """The framework that it was trained in."""
        return self.entry.family.framework

    @property
    def side(self) -> str:
        """That framework's name in the report."""
        return SIDES[self.framework]

    @property
    def layer(self) -> Layer:
        """What its layer is."""
        return Layer.of(self.entry.layer)

    @property
    def accuracy(self) -> float | None:
        """The share of held-out sentences that it answers right, trained in this run or in an earlier one."""
        if self.record is not None:
            return self.record.accuracy_sentences
        known = [cell["source_accuracy_sentences"] for cell in self.cells]
        return next((float(value) for value in known if value is not None), None)

    def cell(self, artifact: str) -> Cell | None:
        """Return an artifact's figures in the export matrix."""
        return next((cell for cell in self.cells if cell["artifact"] == artifact), None)


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that was found, and where."""

    rows: tuple[ModelRow, ...]
    cache: Path
    repository: Path
    matrix: Path
    matrix_at: str | None  # date; None: there is no matrix
    recorded: Path  # the report of an earlier run

    def row(self, model: str) -> ModelRow:
        """Return one model's; raises `KeyError`."""
        for row in self.rows:
            if row.id == model:
                return row
        raise KeyError(model)


def gather(entries: Iterable[Entry], cache: Path, repository: Path, matrix: Path, recorded: Path) -> Gathered:
    """Read what is there of each entry.

    Where the matrix lacks one of them, `recorded` comes first, the report of an earlier run, if that is there: costs
    of two runs do not compare. Raises `ValueError` where a file is there and is not what it should be.
    """
    entries = tuple(entries)
    now, before = read_rows(matrix), read_report(recorded)
    if all(entry.id in now for entry in entries):
        before = {}
    rows = tuple(_row(entry, cache, repository, now.get(entry.id), before.get(entry.id)) for entry in entries)
    return Gathered(rows, cache, repository, matrix, _date(matrix) if matrix.is_file() else None, recorded)


def description(row: ModelRow, cache: Path) -> tuple[Description, Path]:
    """Return what a trained model's folder says of it, and the folder; raises `OSError`."""
    folder = cache / "zoo" / row.id
    return Description.read(folder / DESCRIPTION), folder


def plain_artifacts(manifest: Manifest) -> list[Artifact]:
    """Return the artifacts that answer as the source does; variants answer about as it does: no like for like."""
    return sorted((one for one in manifest.artifacts if "-" not in one.kind), key=lambda one: one.kind)


def _row(
    entry: Entry, cache: Path, repository: Path, now: dict[str, Any] | None, before: dict[str, Any] | None
) -> ModelRow:
    path = cache / "zoo" / entry.id / RECORD
    known = before or now or {}
    loop = known.get("loop")
    return ModelRow(
        entry=entry,
        model_lines=_lines(entry.build),
        training_lines=_lines(entry.build, f"{entry.family.training}:learn") - _lines(entry.build),
        record=Record.read(path) if path.is_file() else None,
        trained_at=_date(path) if path.is_file() else None,
        logged=any((cache / "tensorboard" / entry.id).rglob("*tfevents*")),
        cells=tuple(known.get("cells", ())),
        earlier=before is not None,
        loop=loop if loop and "error" not in loop else None,
        methods=known.get("methods", {}),
        published=_published(repository, entry.id),
    )


@cache_calls
def _lines(*targets: str) -> int:
    """Count lines once a process: the source is read anew for each count."""
    return lines_of_code(*targets)


def _published(repository: Path, model: str) -> PublishedModel | None:
    """Return a model's highest version, checked against its manifest; raises `ValueError` where it is not that."""
    versions = [int(one.name) for one in (repository / model).glob("[1-9]*") if one.name.isdecimal()]
    if not versions:
        return None
    try:
        return read_version(repository / model / str(max(versions)))
    except RefusedError as error:
        raise ValueError(f"{repository}: {error}") from error


def _date(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()

"""Reads the export matrix's report of an earlier run: its figures stand in, and are marked, where this run has none.

Knows the form that `lockstep.export_matrix.render` writes; a report of another form yields an error that says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lockstep.export_matrix import CELL_KEYS, Cell

_CELL_COLUMNS: Final = 14
_LOOP_HEADING: Final = "## Loop forms"
_NOTE: Final = re.compile(r"^- `(?P<row>[^`]+)` (?P<artifact>\S+): \w+: (?P<reason>.*)$", re.MULTILINE)


def read_report(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of a report, as `export_matrix.read_rows` gives them; none where the file is not there.

    Sources' hashes and methods are not in a report. Raises `ValueError` naming the file where it is something else.
    """
    if not path.is_file():
        return {}
    return parse(path.read_text(encoding="utf-8"), str(path))


def parse(text: str, name: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a report's text; raises `ValueError`."""
    main, _, after = text.partition("\n## ")
    _, _, loops = after.partition(_LOOP_HEADING.removeprefix("## "))
    reasons = {(found["row"], found["artifact"]): found["reason"] for found in _NOTE.finditer(text)}
    rows: dict[str, dict[str, Any]] = {}
    try:
        for columns in _table(main):
            cell = _cell(columns, reasons.get((columns[0], columns[1])))
            known = rows.setdefault(cell["row"], {"cells": [], "loop": None, "methods": {}})
            known["cells"].append(cell)
        for row, operators, *costs in _table(loops.partition("\n## ")[0]):
            alone, together = (_number(cost) for cost in costs)
            if alone is not None and together is not None:
                loop = {"recurrent_ops": _operators(operators), "cpu_ms_b1_t32": alone, "cpu_ms_b32_t64": together}
                rows[row]["loop"] = loop
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{name}: not a report of lockstep export matrix ({error})") from error
    if not rows:
        raise ValueError(f"{name}: not a report of lockstep export matrix: it holds no table of rows and artifacts")
    return rows


def _table(text: str) -> Iterator[list[str]]:
    """Yield the cells of each line of a table, its two head lines left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def _cell(columns: list[str], reason: str | None) -> Cell:
    if len(columns) != _CELL_COLUMNS:
        raise ValueError(f"a line of {len(columns)} cells, not {_CELL_COLUMNS}")
    row, artifact, status, operators, *numbers = columns
    difference, padding, accuracy, of_source, megabytes, seconds, alone, source_alone, together, source_together = (
        _number(number) for number in numbers
    )
    size = None if megabytes is None else round(megabytes * 1e6)
    values = (
        *(row, artifact, status, reason, _operators(operators), difference, padding, accuracy, of_source, size),
        *(seconds, alone, together, source_alone, source_together),
    )
    return dict(zip(CELL_KEYS, values, strict=True))


def _operators(words: str) -> dict[str, int]:
    parts = words.split()
    return {kind: int(count) for count, kind in zip(parts[::2], parts[1::2], strict=True)}


def _number(text: str) -> float | None:
    return float(text) if text else None

"""Static against dynamic lengths, in serving: the same texts through the same model, in batches of several makes.

    sorted      sorted by length, batches of a bounded padded area: the least padding that can be had
    arrival     32 rows as they come, padded to the longest of the batch
    fixed-N     32 rows as they come, each cut or padded to N tokens, its true length told beside
    blind-N     the same, and nobody told the length: what a graph of fixed shape without a mask computes

Costs are CPU time of the worker a text. Accuracies are of all held-out texts, through the model's first artifact.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lockstep.exporters.source import Framework
from lockstep.framework_report.gather import Gathered, ModelRow, plain_artifacts
from lockstep.framework_report.interleaved_benchmark import Contestant, Ids, Lengths, workers
from lockstep.framework_report.measurement import Measurement, MeasuringFailed, Say
from lockstep.framework_report.settings import Settings, fingerprint
from lockstep.framework_report.texts import HeldOutTexts, Row, held_out
from lockstep.server.core.errors import BackendUnavailable
from lockstep.server.runtimes.worker_process import BatchFailed

ROWS: Final = 32
AREA: Final = 2048
"""Padded tokens of a sorted batch."""
MOST_ROWS: Final = 64
"""Rows of a sorted batch."""
DYNAMIC: Final = "sorted"


@dataclass(frozen=True, slots=True)
class Padded:
    """One batch: int64[batch, length], int64[batch], and which rows of the texts it holds."""

    ids: Ids
    lengths: Lengths
    rows: NDArray[np.int64]


def measurements(gathered: Gathered, settings: Settings, verify_with: Path) -> list[Measurement]:
    """List one measurement for each model that stands for a framework, where it is published."""
    found = []
    for row in gathered.rows:
        if row.published is None or row.id not in settings.padding:
            continue
        of = fingerprint(
            "padding",
            row.published.manifest.source.sha256,
            {
                "artifacts": [artifact.kind for artifact in plain_artifacts(row.published.manifest)],
                "lengths": settings.fixed_lengths,
                "texts": [settings.padding_texts, settings.padding_rounds, ROWS, AREA, MOST_ROWS],
            },
        )
        found.append(Measurement(f"padding/{row.id}", of, partial(_measure_now, row, settings, verify_with)))
    return found


def batches(rows: Sequence[Row], pad_id: int, make: str) -> list[Padded]:
    """Put rows into batches of one make; see the module's own words."""
    name, _, length = make.partition("-")
    if name == DYNAMIC:
        return [_padded(rows, part, pad_id) for part in _by_area(rows)]
    parts = [list(range(start, min(start + ROWS, len(rows)))) for start in range(0, len(rows), ROWS)]
    if name == "arrival":
        return [_padded(rows, part, pad_id) for part in parts]
    fixed = [_padded(rows, part, pad_id, int(length)) for part in parts]
    if name == "fixed":
        return fixed
    return [Padded(batch.ids, np.full(len(batch.rows), int(length), dtype=np.int64), batch.rows) for batch in fixed]


def _measure_now(row: ModelRow, settings: Settings, verify_with: Path, say: Say) -> dict[str, Any]:
    return asyncio.run(_measure(row, settings, verify_with, say))


async def _measure(row: ModelRow, settings: Settings, verify_with: Path, say: Say) -> dict[str, Any]:
    """Return `cpu_ms` (backend -> make -> a text), `padding` (make -> padded tokens / tokens) and `accuracy`."""
    assert row.published is not None
    manifest = row.published.manifest
    artifacts = plain_artifacts(manifest)
    whole = held_out(row.published, verify_with)
    cut = {
        length: held_out(row.published, verify_with, length)
        for length in settings.fixed_lengths
        if length <= manifest.max_tokens
    }
    # A mask that is made of the ids cannot be left away: the model never reads the padding.
    blind = row.framework is not Framework.KERAS
    sampled = {"whole": whole.sample(settings.padding_texts)}
    sampled |= {str(length): texts.sample(settings.padding_texts) for length, texts in cut.items()}
    makes: dict[str, list[Padded]] = {
        make: batches(sampled["whole"].rows, manifest.pad_id, make) for make in (DYNAMIC, "arrival")
    }
    for length in cut:
        for name in ("fixed", "blind") if blind else ("fixed",):
            make = f"{name}-{length}"
            makes[make] = batches(sampled[str(length)].rows, manifest.pad_id, make)
    try:
        async with workers(row.published, artifacts) as backends:
            spent: dict[str, dict[str, list[float]]] = {name: {make: [] for make in makes} for name in backends}
            for number in range(settings.padding_rounds):
                say(f"batches of {len(makes)} makes, round {number + 1} of {settings.padding_rounds}")
                for name, backend in backends.items() if number % 2 == 0 else reversed(backends.items()):
                    for make, made in makes.items():
                        cost = await _cpu_ms(backend, made)
                        spent[name][make].append(cost / sum(len(batch.rows) for batch in made))
            say("accuracy at each fixed length")
            first = next(iter(backends.values()))
            accuracy = {"whole": await _accuracy(first, whole, manifest.pad_id, DYNAMIC)}
            for length, texts in cut.items():
                for name in ("fixed", "blind") if blind else ("fixed",):
                    accuracy[f"{name}-{length}"] = await _accuracy(first, texts, manifest.pad_id, f"{name}-{length}")
    except (BackendUnavailable, BatchFailed) as error:
        raise MeasuringFailed(str(error)) from error
    return {
        "cpu_ms": {
            name: {make: statistics.median(rounds) for make, rounds in found.items()} for name, found in spent.items()
        },
        "padding": {make: _padding(made, sampled["whole"]) for make, made in makes.items()},
        "accuracy": accuracy,
        "cut_share": {str(length): _cut_share(whole, length) for length in cut},
        "texts": len(sampled["whole"].rows),
        "accuracy_texts": len(whole.rows),
        "mean_tokens": float(np.mean([len(one) for one in sampled["whole"].rows])),
    }


async def _cpu_ms(backend: Contestant, made: Sequence[Padded]) -> float:
    return sum([(await backend.run(batch.ids, batch.lengths)).cpu_ms for batch in made])


async def _accuracy(backend: Contestant, texts: HeldOutTexts, pad_id: int, make: str) -> float:
    right = 0
    for batch in batches(texts.rows, pad_id, make):
        outputs = (await backend.run(batch.ids, batch.lengths)).outputs
        right += int((outputs.argmax(axis=1) == texts.labels[batch.rows]).sum())
    return right / len(texts.rows)


def _padding(made: Sequence[Padded], whole: HeldOutTexts) -> float:
    """Return padded tokens for each token of the texts as they are, uncut."""
    return sum(batch.ids.size for batch in made) / sum(len(row) for row in whole.rows)


def _cut_share(texts: HeldOutTexts, length: int) -> float:
    return sum(len(row) > length for row in texts.rows) / len(texts.rows)


def _by_area(rows: Sequence[Row]) -> list[list[int]]:
    parts: list[list[int]] = []
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index])):
        fits = parts and len(parts[-1]) < MOST_ROWS and (len(parts[-1]) + 1) * len(rows[index]) <= AREA
        if fits:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def _padded(rows: Sequence[Row], part: Sequence[int], pad_id: int, length: int | None = None) -> Padded:
    longest = length or max(len(rows[index]) for index in part)
    ids = np.full((len(part), longest), pad_id, dtype=np.int64)
    for place, index in enumerate(part):
        ids[place, : len(rows[index])] = rows[index]
    lengths = np.array([len(rows[index]) for index in part], dtype=np.int64)
    return Padded(ids, lengths, np.array(part, dtype=np.int64))

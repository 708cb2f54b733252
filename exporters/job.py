"""One piece of framework work in a process of its own: `lockstep.exporters.job FD PARENT`, a request on stdin.

A process makes at most one export, because exporters leave their framework altered: torch's `dynamo`
export of a recurrent net fails the second time, and the Keras backend is a process-wide switch. Writes
JSON lines to the inherited descriptor FD: {"say": text} while it works, then {"result": ...} or
{"error": text, "source": bool}. Standard output and error are the frameworks' own, kept by the parent
for the case that this process dies.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from typing import IO

import numpy as np
from pydantic import TypeAdapter

from lockstep.child_processes import die_with_parent
from lockstep.exporters.conversion import (
    CONVERTERS,
    OPENERS,
    VARIANTS,
    Conversion,
    ConversionError,
    ConvertJob,
    ExportError,
    Ids,
    Lengths,
    OpenedSource,
    Outputs,
    Reference,
    ReferenceJob,
    SourceError,
    artifact_of,
    resolve,
)
from lockstep.exporters.sources.loaded_config import DESCRIBER, DescribeJob, LoadedConfig
from lockstep.exporters.sources.source_probe import Probe, check_repeatable
from lockstep.exporters.standins.recurrence import UnsupportedRecurrence

Job = ConvertJob | ReferenceJob | DescribeJob

_BATCH_ROWS = 64
_BATCH_TOKENS = 8192
_TIMED_RUNS = 7
_OF_TRACEBACKS = ("Graph execution error", "Detected at node", "File ", "<stack traces", "[[{{node", "Traceback", "[[")
"""How lines begin that TensorFlow puts around what is wrong."""
_REPEATED_ROWS = 8
_SHOWN_IDS = 8
_PADDED_ROWS = 16  # of the check whether the source itself minds padding


def main() -> None:
    """Do the job on standard input and report on the descriptor named on the command line."""
    die_with_parent(int(sys.argv[2]))
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as channel:
        job: Job = TypeAdapter(Job).validate_json(sys.stdin.buffer.read())
        try:
            result = _do(job, channel)
        except Exception as error:
            known = _known_cause(error)
            if known is None:
                import traceback

                traceback.print_exc()  # the parent keeps it in the job's log
            text = str(known) if known else _root_cause(error)
            _write(channel, {"error": text, "source": isinstance(known, SourceError)})
        else:
            _write(channel, {"result": result.model_dump(mode="json")})


def _do(job: Job, channel: IO[str]) -> Conversion | Reference | LoadedConfig:
    if isinstance(job, DescribeJob):
        _write(channel, {"say": "loading its configuration"})
        found: LoadedConfig = resolve(DESCRIBER)(job)
        return found
    return _convert(job, channel) if isinstance(job, ConvertJob) else _refer(job, channel)


def _convert(job: ConvertJob, channel: IO[str]) -> Conversion:
    convert = resolve(CONVERTERS[job.source.framework, artifact_of(job.artifact)])
    more = {} if job.fused else {"fused": False}  # known to those converters that can leave a recurrence as it is
    conversion: Conversion = convert(job.source, job.folder, lambda text: _write(channel, {"say": text}), **more)
    if job.artifact in VARIANTS:
        _write(channel, {"say": f"making the variant {job.artifact}"})
        conversion = resolve(VARIANTS[job.artifact])(job.folder, conversion)
    return conversion


def _refer(job: ReferenceJob, channel: IO[str]) -> Reference:
    _write(channel, {"say": "opening the source"})
    source: OpenedSource = resolve(OPENERS[job.source.framework])(job.source)
    with np.load(job.rows, allow_pickle=False) as stored:
        lengths: Lengths = stored["lengths"]
        rows = np.split(stored["ids"], np.cumsum(lengths)[:-1])
    _write(channel, {"say": f"running the source on {len(rows)} rows"})
    outputs = _alone(source, rows, job)
    _check_repeatable(source, rows, outputs)
    np.savez(job.outputs, outputs=outputs)
    with np.load(job.timing, allow_pickle=False) as batches:
        costs = {name: _cpu_ms(source, batches[name]) for name in batches}
    return Reference(
        padding_invariance=_padding_invariance(source, rows, outputs, job.source.pad_id),
        cpu_ms_b1_t32=costs.get("b1_t32"),
        cpu_ms_b32_t64=costs.get("b32_t64"),
        versions=source.versions,
        ending=source.ending(rows[-1][None], np.array([len(rows[-1])], dtype=np.int64)),
    )


def _alone(source: OpenedSource, rows: list[Ids], job: ReferenceJob) -> Outputs:
    """Return float32[rows, labels], each row without padding: only rows of equal length share a batch."""
    answers: dict[int, Outputs] = {}
    for length, indices in sorted(_by_length(rows).items()):
        step = max(1, min(_BATCH_ROWS, _BATCH_TOKENS // length))
        for start in range(0, len(indices), step):
            part = indices[start : start + step]
            ids = np.stack([rows[index] for index in part])
            try:
                answer = source.outputs(ids, np.full(len(part), length, dtype=np.int64))
                if answer.ndim != 2 or answer.shape[0] != len(part):
                    raise SourceError(
                        f"the source answered {list(answer.shape)} for {len(part)} rows, not [rows, labels]"
                    )
            except Exception as error:
                raise _failed(source, ids, job, error) from error
            answers.update(zip(part, answer, strict=True))
    outputs: Outputs = np.stack([answers[index] for index in range(len(rows))]).astype(np.float32)
    return outputs


def _by_length(rows: list[Ids]) -> dict[int, list[int]]:
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_length[len(row)].append(index)
    return by_length


def _failed(source: OpenedSource, ids: Ids, job: ReferenceJob, error: Exception) -> SourceError:
    """Say why a source failed on a batch: the cause that probing establishes, or else its own words alone."""
    probe = Probe(source.outputs, ids, job.source.max_tokens, job.vocabulary)
    cause = probe.cause()
    own = str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {_first_lines(error)}"
    if cause is not None:
        return SourceError(f"the source cannot be run on every row: {cause}. Its own words: {own}")
    shown = " ".join(str(number) for number in ids[0][:_SHOWN_IDS])
    return SourceError(f"the source failed on {len(ids)} rows of {ids.shape[1]} tokens, the first {shown} …: {own}")


def _check_repeatable(source: OpenedSource, rows: list[Ids], outputs: Outputs) -> None:
    """Raise `SourceError` where the source answers some rows otherwise when it is asked again."""
    indices = max(_by_length(rows).values(), key=len)[:_REPEATED_ROWS]
    check_repeatable(source.outputs, np.stack([rows[index] for index in indices]), outputs[indices])


def _padding_invariance(source: OpenedSource, rows: list[Ids], alone: Outputs, pad_id: int) -> float | None:
    """Return the largest difference that padding makes to the source's own answers; None if it fails padded."""
    part = np.linspace(0, len(rows) - 1, min(_PADDED_ROWS, len(rows))).astype(int)
    lengths = np.array([len(rows[index]) for index in part], dtype=np.int64)
    ids = np.full((len(part), int(lengths.max())), pad_id, dtype=np.int64)
    for position, index in enumerate(part):
        ids[position, : len(rows[index])] = rows[index]
    # A source may insist on rows sorted by length (pack_padded_sequence's enforce_sorted).
    order = np.argsort(-lengths, kind="stable")
    try:
        padded = source.outputs(ids[order], lengths[order])
    except Exception:  # what it raises does not matter: its rows alone are the reference
        return None
    return float(np.max(np.abs(padded - alone[part[order]])))


def _cpu_ms(source: OpenedSource, ids: Ids) -> float:
    """Return the median CPU time of a full batch, ms of this process."""
    lengths = np.full(ids.shape[0], ids.shape[1], dtype=np.int64)
    source.outputs(ids, lengths)
    spent = []
    for _ in range(_TIMED_RUNS):
        started = time.process_time_ns()
        source.outputs(ids, lengths)
        spent.append(time.process_time_ns() - started)
    return float(np.median(spent)) / 1e6


def _known_cause(error: BaseException) -> ExportError | None:
    """Return the error of ours that began the chain, if one did: exporters wrap what a stand-in raises."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ExportError):
            return cause
        if isinstance(cause, UnsupportedRecurrence):
            return ConversionError(str(cause))
        cause = cause.__cause__ or cause.__context__
    return None


def _root_cause(error: BaseException) -> str:
    """Return the innermost error of the chain in words: converters wrap it in advice to their own authors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_first_lines(error)}"


def _first_lines(error: BaseException, lines: int = 4) -> str:
    said = [line.strip() for line in str(error).strip().splitlines()]
    return " / ".join([line for line in said if line and not line.startswith(_OF_TRACEBACKS)][:lines])


def _write(channel: IO[str], message: dict[str, object]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()

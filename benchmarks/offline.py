"""The offline bound: what the same artifact costs on the same cores where every text is known beforehand.

All texts are tokenised and sorted by length; batches of a given padded area are executed by the very adapter that a
worker uses, so that session options are equal. Padding is counted, as an offline job pads too; tokenising is counted
apart. `search` finds the best area and the best split of the cores.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Lock
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.core.errors import InvalidInput
from lockstep.server.core.lengths import LENGTH_BUCKETS
from lockstep.server.core.messages import Encoding, Ids
from lockstep.server.text.encoder import TextEncoder
from lockstep.server.text.padding import pad

if TYPE_CHECKING:
    from lockstep.server.runtimes.onnxruntime_adapter import OnnxRuntimeAdapter

AREAS: Final = (256, 512, 1_024, 2_048, 4_096, 8_192)
"""Padded tokens of a batch that the search tries."""

_ANSWER_TIMEOUT_S: Final = 300.0
_TOKENIZED_AT_ONCE: Final = 64


class OfflineFailed(Exception):
    """A process of the crew ended or did not answer; the message says which."""


@dataclass(frozen=True, slots=True)
class Split:
    """How the cores are divided."""

    processes: int
    threads: int  # of each process

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True, slots=True)
class ByLength:
    """CPU time of a row, ms, by the length buckets of the server's metrics; the mean of the rows in each.

    So a span of time in which more long texts were executed than in another is not held against it.
    """

    row_ms: tuple[float, ...]

    def ms(self, rows: Sequence[float]) -> float:
        """Return the CPU time of so many rows in each bucket, ms."""
        return float(np.dot(self.row_ms, rows))

    def __add__(self, other: ByLength) -> ByLength:
        return ByLength(tuple(mine + its for mine, its in zip(self.row_ms, other.row_ms, strict=True)))

    @classmethod
    def of(cls, lengths: Sequence[int], cpu_ms: Sequence[float]) -> ByLength:
        """Average each row's cost; a bucket without rows gets the mean of all."""
        bucket, costs = buckets_of(lengths), np.array(cpu_ms)
        means = [costs[bucket == one].mean() if (bucket == one).any() else costs.mean() for one in range(BUCKETS)]
        return cls(tuple(float(mean) for mean in means))


BUCKETS: Final = len(LENGTH_BUCKETS) + 1


def buckets_of(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Return the bucket of each length, as the server's metrics count them."""
    return np.searchsorted(LENGTH_BUCKETS, np.array(lengths)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class OfflineFigures:
    """One pass over the texts."""

    split: Split
    area: int  # padded tokens of a batch
    texts: int
    wall_s: float
    cpu_ms: float  # a text, all processes; tokenising not included
    cost: ByLength
    padding: float  # padded tokens / tokens

    @property
    def texts_per_s(self) -> float:
        """Texts executed a second."""
        return self.texts / self.wall_s


def encode(tokenizer: Path, max_tokens: int, texts: Sequence[str]) -> list[Ids]:
    """Tokenise texts as the server does, cut at `max_tokens`. Raises `ValueError` where one has no tokens."""
    encoder = TextEncoder.from_file(tokenizer, max_tokens)
    return [_ids(one) for one in encoder.encode(texts, truncate=True)]


def tokenizing_cost(tokenizer: Path, max_tokens: int, texts: Sequence[str]) -> tuple[float, ByLength]:
    """Return the CPU time of tokenising a text, ms, in batches on one thread, and the cost that it comes from."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads would cost CPU time, and save none
    encoder = TextEncoder.from_file(tokenizer, max_tokens)
    by_length = sorted(texts, key=len)
    encoder.encode(by_length[:_TOKENIZED_AT_ONCE], truncate=True)
    lengths: list[int] = []
    cpu_ms: list[float] = []
    for start in range(0, len(by_length), _TOKENIZED_AT_ONCE):
        part = by_length[start : start + _TOKENIZED_AT_ONCE]
        began_ns = time.process_time_ns()
        encoded = encoder.encode(part, truncate=True)
        cpu_ms += [(time.process_time_ns() - began_ns) / 1e6 / len(part)] * len(part)
        lengths += [len(_ids(one)) for one in encoded]
    return sum(cpu_ms) / len(texts), ByLength.of(lengths, cpu_ms)


def batches_of(lengths: Sequence[int], area: int) -> list[list[int]]:
    """Return indices of rows, grouped by length into batches of at most `area` padded tokens; the longest first.

    A row longer than `area` is a batch of its own.
    """
    ascending = sorted(range(len(lengths)), key=lambda row: lengths[row])
    batches: list[list[int]] = []
    for row in ascending:
        if batches and (len(batches[-1]) + 1) * lengths[row] <= area:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches[::-1]


class Crew:
    """Processes that hold the artifact and the tokenised rows, and execute batches when asked. A context manager."""

    def __init__(self, artifact: ArtifactSpec, rows: Sequence[Ids], pad_id: int, split: Split) -> None:
        self.split = split
        self._lengths = [len(row) for row in rows]
        spawning = multiprocessing.get_context("spawn")
        self._next = spawning.Value("q", 0)
        self._lock = spawning.Lock()
        self._processes, self._ends = [], []
        for _ in range(split.processes):
            ours, theirs = spawning.Pipe()
            arguments = (theirs, self._next, self._lock, artifact, list(rows), pad_id, split.threads)
            process = spawning.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._ends.append(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()

    def run(self, area: int) -> OfflineFigures:
        """Execute every row once in batches of `area` padded tokens; blocks. Raises `OfflineFailed`."""
        batches = batches_of(self._lengths, area)
        self._tell(batches)
        self._answers()  # each has executed a batch or two to warm up
        self._next.value = 0
        self._tell(None)
        answers = self._answers()
        padded = sum(len(batch) * max(self._lengths[row] for row in batch) for batch in batches)
        cpu_ms = [0.0] * len(self._lengths)
        for done, _, _ in answers:
            for number, cpu_ns in done:
                for row in batches[number]:
                    cpu_ms[row] = cpu_ns / 1e6 / len(batches[number])
        began_ns, ended_ns = min(answer[1] for answer in answers), max(answer[2] for answer in answers)
        return OfflineFigures(
            self.split,
            area,
            len(self._lengths),
            (ended_ns - began_ns) / 1e9,
            sum(cpu_ms) / len(self._lengths),
            ByLength.of(self._lengths, cpu_ms),
            padded / sum(self._lengths),
        )

    def _tell(self, message: list[list[int]] | None) -> None:
        for end in self._ends:
            end.send(message)

    def _answers(self) -> list[Any]:
        answers = []
        for number, end in enumerate(self._ends):
            try:
                if not end.poll(_ANSWER_TIMEOUT_S):
                    raise OfflineFailed(f"process {number} did not answer within {_ANSWER_TIMEOUT_S:.0f} s")
                answers.append(end.recv())
            except EOFError:
                raise OfflineFailed(f"process {number} ended") from None
        return answers


def search(
    crew: Callable[[Split], Crew], splits: Iterable[Split], areas: Iterable[int], passes: int = 1
) -> list[OfflineFigures]:
    """Return figures of every split and area, the one that costs the least CPU time first.

    CPU time, and not texts a second: neighbours on the machine change it less. Of several passes the middle one counts.
    """
    found = []
    for split in splits:
        with crew(split) as running:
            for area in areas:
                runs = sorted((running.run(area) for _ in range(passes)), key=lambda run: run.cpu_ms)
                found.append(runs[len(runs) // 2])
    return sorted(found, key=lambda run: run.cpu_ms)


def crew_of(artifact: ArtifactSpec, rows: Sequence[Ids], pad_id: int) -> Callable[[Split], Crew]:
    """Return what makes a crew of a split."""
    return partial(Crew, artifact, rows, pad_id)


def bare_ms(artifact: ArtifactSpec, tokenizer: Path, max_tokens: int, pad_id: int, texts: Sequence[str]) -> list[float]:
    """Return how long each text takes alone, tokenised and executed in this process by one thread, ms."""
    encoder = TextEncoder.from_file(tokenizer, max_tokens)
    adapter = _adapter(artifact, 1)

    def one(text: str) -> float:
        began_ns = time.perf_counter_ns()
        batch = pad([_ids(encoder.encode([text], truncate=True)[0])], pad_id)
        adapter.execute(batch.ids, batch.lengths)
        return (time.perf_counter_ns() - began_ns) / 1e6

    for text in texts[:20]:  # warms up
        one(text)
    return [one(text) for text in texts]


def _work(
    end: Connection, cursor: Any, lock: Lock, artifact: ArtifactSpec, rows: list[Ids], pad_id: int, threads: int
) -> None:
    """Execute batches as long as the other end asks: whoever is free takes the next."""
    adapter = _adapter(artifact, threads)
    while True:
        try:
            batches: list[list[int]] = end.recv()
        except EOFError:
            return

        def execute(batch: list[int]) -> None:
            padded = pad([rows[row] for row in batch], pad_id)
            adapter.execute(padded.ids, padded.lengths)

        for batch in (batches[0], batches[-1]):
            execute(batch)
        end.send("warm")
        end.recv()
        done = []
        began_ns = time.monotonic_ns()
        while True:
            with lock:
                number = cursor.value
                cursor.value += 1
            if number >= len(batches):
                break
            cpu_ns = time.process_time_ns()
            execute(batches[number])
            done.append((number, time.process_time_ns() - cpu_ns))
        end.send((done, began_ns, time.monotonic_ns()))


def _adapter(artifact: ArtifactSpec, threads: int) -> OnnxRuntimeAdapter:
    from lockstep.server.runtimes.onnxruntime_adapter import OnnxRuntimeAdapter

    return OnnxRuntimeAdapter.load(artifact, Budget(threads))


def _ids(encoding: Encoding | InvalidInput) -> Ids:
    if isinstance(encoding, InvalidInput):
        raise ValueError(f"a text of the workload cannot be tokenised: {encoding.message}")
    return encoding.ids

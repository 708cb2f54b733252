from collections.abc import Sequence

import numpy as np
import pytest

from lockstep.server.core.messages import Answer, BatchFacts, Encoding, Prediction
from lockstep.server.core.timing import BatchTimes
from lockstep.server.histogram import Summary
from lockstep.server.latency_window import LENGTHS, MOST_WINDOW_S, PHASES, SLOT_NS, Recent, Work

MS = 1_000_000


class Cpu:
    """The gateway's CPU time, as the test says."""

    ns = 0

    def __call__(self) -> int:
        return self.ns


def batch(at_ns: int, lengths: Sequence[int], *, backend: str = "onnxruntime", execute_ms: int = 5) -> BatchFacts:
    """A batch that was answered at an instant; its rows queued 1, 2, 3, ... ms."""
    execute_end = at_ns - MS
    execute_start = execute_end - execute_ms * MS
    dispatched = execute_start - 3 * MS
    return BatchFacts(
        backend=backend,
        rows=len(lengths),
        length=max(lengths),
        tokens=sum(lengths),
        lengths=lengths,
        arrivals_ns=[dispatched - (row + 1) * MS for row in range(len(lengths))],
        times=BatchTimes(dispatched, dispatched + MS, execute_start, execute_end, at_ns),
        cpu_ns=execute_ms * MS,
        predicted_ratio=None,
    )


def answer(recent: Recent, *batches: BatchFacts) -> None:
    """Have batches executed, all their rows of one call that took 1 ms to decode and 2 ms to tokenise."""
    arrival = batches[0].arrivals_ns[0]
    outcomes = []
    for one in batches:
        recent.batch_executed("m", 1, one)
        outcomes += [Answer(0, [0.5, 0.5], Encoding(np.zeros(length, np.int64)), one) for length in one.lengths]
    call = Prediction("m", 1, None, ("a", "b"), arrival - 3 * MS, arrival - 2 * MS, arrival, outcomes)
    last = call.last()
    assert last is not None
    recent.call_finished(call, last, call.phases(last))


def phases(work: Work, length: int | None = None) -> dict[str, Summary]:
    """The summaries of one length bucket, or over all."""
    onto = [phase for phase in range(len(PHASES)) for _ in range(LENGTHS)]
    found = (
        work.durations.summaries()[length::LENGTHS]
        if length is not None
        else work.durations.folded(onto, 8).summaries()
    )
    return {name: one for name, one in zip(PHASES, found, strict=True) if one is not None}


def test_every_row_counts_in_every_phase_and_its_length() -> None:
    recent = Recent(clock_ns=lambda: 0)
    answer(recent, batch(SLOT_NS, [4, 20, 20]), batch(SLOT_NS + 1, [600], backend="tensorflow", execute_ms=9))
    work = recent.since(0, "m", 1, "onnxruntime")
    assert (work.rows, work.batches, work.tokens, work.padded_tokens, work.cpu_ns) == (3, 1, 44, 60, 5 * MS)
    found = phases(work)
    assert list(found) == list(PHASES)
    assert {summary.count for summary in found.values()} == {3}
    means = {name: summary.mean / MS for name, summary in found.items()}
    assert means == pytest.approx(
        {"decode": 1, "tokenize": 2, "queue": 2, "pad": 1, "transfer": 2, "execute": 5, "respond": 1, "request": 13}
    )
    assert phases(work, 0)["queue"].count == 1
    assert phases(work, 1)["queue"].most == 3 * MS
    assert not phases(work, 2)
    other = recent.since(0, "m", 1, "tensorflow")
    assert phases(other, LENGTHS - 1)["execute"].mean == 9 * MS


def test_a_window_forgets_what_is_older() -> None:
    recent = Recent(clock_ns=lambda: 0)
    for slot in range(10):
        answer(recent, batch(slot * SLOT_NS + MS, [4], execute_ms=slot + 1))
    assert recent.since(0, "m", 1, "onnxruntime").rows == 10
    late = recent.since(8, "m", 1, "onnxruntime")
    assert late.rows == 2
    assert phases(late)["execute"].mean == 9.5 * MS
    assert recent.since(10, "m", 1, "onnxruntime").rows == 0


def test_what_is_beyond_the_longest_window_takes_no_memory() -> None:
    recent = Recent(clock_ns=lambda: 0)
    slots = int(MOST_WINDOW_S * 1e9) // SLOT_NS
    answer(recent, batch(MS, [4], backend="gone"))
    for slot in range(3 * slots):
        answer(recent, batch(slot * SLOT_NS + MS, [4]))
    assert [key[2] for key in recent._rings] == ["onnxruntime"]
    (ring,) = recent._rings.values()
    assert slots <= len(ring._slots) <= slots + 2
    assert len(recent._cpu_at) <= slots + 2


def test_thousands_of_rows_are_all_counted() -> None:
    recent = Recent(clock_ns=lambda: 0)
    for number in range(400):
        answer(recent, batch(SLOT_NS + number, [1 + (number + row) % 64 for row in range(32)]))
    found = phases(recent.since(0, "m", 1, "onnxruntime"))
    assert {summary.count for summary in found.values()} == {400 * 32}
    assert found["queue"].mean == 16.5 * MS


def test_a_late_batch_of_the_slot_before_counts_for_the_newest() -> None:
    recent = Recent(clock_ns=lambda: 0)
    answer(recent, batch(SLOT_NS + 1, [4]))
    answer(recent, batch(SLOT_NS - 1, [4]))
    assert recent.since(1, "m", 1, "onnxruntime").rows == 2


def test_the_gateways_cpu_time_is_told_from_the_windows_first_row_on() -> None:
    cpu = Cpu()
    recent = Recent(clock_ns=lambda: 0, gateway_cpu_ns=cpu)
    for slot, cpu.ns in ((3, 100), (5, 250)):
        answer(recent, batch(slot * SLOT_NS + 1, [4]))
    cpu.ns = 400
    assert [recent.gateway_cpu_since(slot) for slot in (0, 3, 4, 6)] == [300, 300, 150, 0]

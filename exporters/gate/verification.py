"""The parity gate: an artifact is executed by the worker that will serve it, and compared with its source.

Executes what `parity` plans and returns its judgement as the manifest's report, or a refusal. Knows no
exporter; opens no source: the source's outputs come from a process of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lockstep.exporters.conversion import Ids, Outputs, Say
from lockstep.exporters.gate.held_out import HeldOut, Row
from lockstep.exporters.gate.parity import (
    IGNORES_END,
    Accuracy,
    Batch,
    Bound,
    Describe,
    Failure,
    Measured,
    Refusal,
    VariantBound,
    accuracy,
    judge,
    judge_accuracy,
    judge_variant,
    plan,
)
from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.core.errors import BackendUnavailable
from lockstep.server.core.probabilities import Reader, fault
from lockstep.server.repository.manifest import Parity
from lockstep.server.runtimes.worker_process import BatchFailed, Launch, WorkerProcess
from lockstep.server.text.padding import pad

_EVALUATED_TOKENS = 8192  # padded tokens of a batch when accuracy is measured
_EVALUATED_ROWS = 64
_TIMED_RUNS = 9
_SHOWN_IDS = 8

TIMED_SHAPES = {"b1_t32": (1, 32), "b32_t64": (32, 64)}
"""Name -> rows x tokens of the batches whose CPU time is recorded."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the source answered, each row alone."""

    grid: Outputs  # float32[grid rows, labels]
    rows: Outputs  # float32[held-out rows, labels]
    padding_invariance: float | None  # of the source itself, to tell whose fault a difference is
    special: Outputs | None = None  # float32[rows with special ids, labels]; not finite where the source has no answer


@dataclass(frozen=True, slots=True)
class Passed:
    """The artifact may be published with this report."""

    parity: Parity


async def measure(
    artifact: ArtifactSpec, adapter: str, held_out: HeldOut, *, max_tokens: int, budget: Budget, say: Say
) -> dict[str, float]:
    """Return what an artifact costs, unverified: CPU ms of its worker by the name of the shape.

    Raises `BackendUnavailable` or `BatchFailed` where it cannot run.
    """
    worker = await WorkerProcess.start(Launch(adapter, artifact, budget))
    try:
        return await _Run(worker, artifact, 0, 0, max_tokens, Bound(), say).costs(held_out)
    finally:
        await worker.stop()


async def verify(
    artifact: ArtifactSpec,
    adapter: str,
    held_out: HeldOut,
    expected: Expected,
    *,
    pad_id: int,
    vocabulary: int,
    max_tokens: int,
    budget: Budget,
    say: Say,
    bound: Bound | None = None,
    variant: VariantBound | None = None,
    probabilities: Reader | None = None,
) -> Passed | Refusal:
    """Run the artifact through the worker of `adapter` and judge it, by the bounds of a variant where given.

    `probabilities` is what the server reads its outputs by: an artifact in whose answers it finds none is refused.
    Never raises for what the artifact does: one that cannot be loaded, kills its worker or is wrong is refused.
    """
    try:
        worker = await WorkerProcess.start(Launch(adapter, artifact, budget))
    except BackendUnavailable as error:
        return Refusal(f"the worker that would serve it cannot load it: {error}")
    try:
        run = _Run(worker, artifact, pad_id, vocabulary, max_tokens, bound or Bound(), say, probabilities)
        if variant is not None:
            return await run.verify_variant(held_out, expected, variant)
        return await run.verify(held_out, expected)
    except BackendUnavailable as error:
        return Refusal(f"it ended the worker that would serve it: {error}")
    finally:
        await worker.stop()


@dataclass(frozen=True, slots=True)
class _Run:
    """One artifact in one worker."""

    worker: WorkerProcess
    artifact: ArtifactSpec
    pad_id: int
    vocabulary: int
    max_tokens: int
    bound: Bound
    say: Say
    probabilities: Reader | None = None

    async def verify(self, held_out: HeldOut, expected: Expected) -> Passed | Refusal:
        pool, source = await self._pool(held_out, expected)
        grid = [row for row, _ in pool]
        lengths = [len(row) for row in grid]
        batches = plan(lengths, self.max_tokens, special=len(grid) - len(held_out.grid))
        self.say(f"comparing {len(grid)} rows alone and in {len(batches)} batches with the source")
        measured = await self._measure(grid, batches)
        verdict = judge(batches, lengths, source, measured, _describe(pool), self.bound)
        if isinstance(verdict, Refusal):
            return Refusal(verdict.reason + self._whose_fault(verdict, expected))
        self.say(f"classifying {len(held_out.rows)} held-out rows")
        rows = held_out.rows
        answered = await self._evaluate(rows)
        if isinstance(answered, Failure):
            return Refusal(f"the runtime refused a batch of held-out rows: {answered.message}")
        row_lengths = [len(row) for row in rows]
        whole = judge(
            (),
            row_lengths,
            expected.rows,
            Measured(answered, (), None),
            lambda index: f'"{held_out.texts[index]}" (in a batch)',
            self.bound,
        )
        if isinstance(whole, Refusal):
            return whole
        unserved = self._unserved([measured.alone, *measured.batched, *(measured.scrambled or ()), answered])
        if unserved is not None:
            return unserved
        of_source = accuracy(expected.rows, held_out.labels, held_out.sentences)
        of_artifact = accuracy(answered, held_out.labels, held_out.sentences)
        refusal = judge_accuracy(of_source, of_artifact)
        if refusal is not None:
            return refusal
        costs = await self.costs(held_out)
        compared = verdict.rows + whole.rows
        agreement = (verdict.label_agreement * verdict.rows + whole.label_agreement * whole.rows) / compared
        return Passed(
            _report(
                self.bound,
                rows=compared,
                batches=verdict.batches,
                max_abs_diff=max(verdict.max_abs_diff, whole.max_abs_diff),
                padding_invariance=verdict.padding_invariance,
                label_agreement=agreement,
                masks_beyond_end=measured.scrambled is not None,
                accuracies=(of_artifact, of_source),
                costs=costs,
            )
        )

    async def verify_variant(self, held_out: HeldOut, expected: Expected, bound: VariantBound) -> Passed | Refusal:
        """Hold labels and accuracy against the source's, in batches of like lengths and of any.

        One scale over a whole batch makes a row's answer depend on the rows beside it; how much is recorded.
        """
        rows = held_out.rows
        self.say(f"classifying {len(rows)} held-out rows, twice")
        answers = []
        for order in (None, np.random.default_rng(0)):
            answered = await self._evaluate(rows, order)
            if isinstance(answered, Failure):
                return Refusal(f"the runtime refused a batch of held-out rows: {answered.message}")
            answers.append(answered)
        agreement = judge_variant(expected.rows, answers, bound)
        if isinstance(agreement, Refusal):
            return agreement
        unserved = self._unserved(answers)
        if unserved is not None:
            return unserved
        of_source = accuracy(expected.rows, held_out.labels, held_out.sentences)
        for answered in answers:
            of_artifact = accuracy(answered, held_out.labels, held_out.sentences)
            refusal = judge_accuracy(of_source, of_artifact, bound.accuracy_points)
            if refusal is not None:
                return refusal
        first = accuracy(answers[0], held_out.labels, held_out.sentences)
        costs = await self.costs(held_out)
        return Passed(
            Parity(
                rows=len(rows) * len(answers),
                batches=0,
                max_abs_diff=max(float(np.abs(answered - expected.rows).max()) for answered in answers),
                padding_invariance=float(np.abs(answers[0] - answers[1]).max()),
                label_agreement=agreement,
                atol=None,
                rtol=None,
                min_label_agreement=bound.label_agreement,
                max_accuracy_points=bound.accuracy_points,
                masks_beyond_end=False,
                accuracy=first.all,
                source_accuracy=of_source.all,
                accuracy_sentences=first.sentences,
                cpu_ms_b1_t32=costs.get("b1_t32"),
                cpu_ms_b32_t64=costs.get("b32_t64"),
            )
        )

    async def costs(self, held_out: HeldOut) -> dict[str, float]:
        """Return the worker's CPU time of each timed shape, ms."""
        self.say("measuring its cost")
        return {
            name: await self._cpu_ms(held_out.batch(*shape))
            for name, shape in TIMED_SHAPES.items()
            if shape[1] <= self.max_tokens
        }

    async def _pool(self, held_out: HeldOut, expected: Expected) -> tuple[list[tuple[Row, str]], Outputs]:
        """Return the rows of the grid with notes for people, and the source's answers float32[rows, labels].

        Left out are rows with a special id to which there is no answer: the source's is not finite; or the row is that
        id alone, and the artifact's is not (a mean of no steps is 0 / 0). The server answers such a row with an error.
        """
        pool, answers = [(row, "") for row in held_out.grid], list(expected.grid)
        if expected.special is None:
            return pool, expected.grid
        for row, answer in zip(held_out.special, expected.special, strict=True):
            if not np.isfinite(answer).all():
                continue
            if row.alone:
                got = await self._execute([row.ids])
                if not isinstance(got, Failure) and not np.isfinite(got).all():
                    self.say(f"no answer to a row of nothing but {row.ids[0]}: a text of that id alone is an error")
                    continue
            pool.append((row.ids, f" ({row.note})"))
            answers.append(answer)
        return pool, np.stack(answers)

    async def _measure(self, grid: Sequence[Row], batches: Sequence[Batch]) -> Measured:
        alone: list[Outputs] = []
        batched: list[Outputs] = []
        scrambled: list[Outputs] = []
        masked = self.artifact.attention_mask is not None or self.artifact.lengths is not None
        failure: Failure | None = None
        for row in grid:
            answer = await self._execute([row])
            if isinstance(answer, Failure):
                return Measured(_stack(alone), (), None, answer)
            alone.append(answer)
        for number, batch in enumerate(batches):
            rows = [grid[index] for index in batch.rows]
            for scramble, answers in ((None, batched), (number, scrambled)):
                if scramble is not None and not masked:
                    continue
                answer = await self._execute(rows, scramble)
                if isinstance(answer, Failure):
                    failure = answer
                    return Measured(_stack(alone), batched, scrambled if masked else None, failure)
                answers.append(answer)
        return Measured(_stack(alone), batched, scrambled if masked else None)

    async def _evaluate(self, rows: Sequence[Row], shuffled: np.random.Generator | None = None) -> Outputs | Failure:
        """Return float32[rows, labels], executed in batches of like lengths, or of any where shuffled."""
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        if shuffled is not None:
            order = [int(index) for index in shuffled.permutation(len(rows))]
        answers: dict[int, Outputs] = {}
        while order:
            longest = max(len(rows[index]) for index in order[-_EVALUATED_ROWS:])
            size = max(1, min(_EVALUATED_ROWS, _EVALUATED_TOKENS // longest))
            part, order = order[-size:], order[:-size]
            answer = await self._execute([rows[index] for index in part])
            if isinstance(answer, Failure):
                return answer
            answers.update(zip(part, answer, strict=True))
        return _stack([answers[index][None] for index in range(len(rows))])

    async def _execute(self, rows: Sequence[Row], scramble: int | None = None) -> Outputs | Failure:
        """Execute rows as one batch; `scramble` seeds random valid ids in place of the padding."""
        batch = pad(rows, self.pad_id)
        ids = batch.ids
        if scramble is not None:
            beyond = np.arange(batch.length)[None, :] >= batch.lengths[:, None]
            noise = np.random.default_rng(scramble).integers(0, self.vocabulary, ids.shape, dtype=np.int64)
            ids = np.where(beyond, noise, ids)
        try:
            executed = await self.worker.execute(ids, batch.lengths)
        except BatchFailed as error:
            return Failure(batch.rows, batch.length, str(error))
        return executed.outputs

    def _unserved(self, answers: Sequence[Outputs]) -> Refusal | None:
        """Refuse an artifact of whose answers the server would make no probabilities."""
        if self.probabilities is None:
            return None
        for outputs in answers:
            bad = np.isnan(self.probabilities(outputs)).any(axis=1)
            if bad.any():
                return Refusal(f"answers {fault(outputs[int(np.argmax(bad))])}: the server would answer no such row")
        return None

    async def _cpu_ms(self, ids: Ids) -> float:
        """Return the median CPU time of a full batch, ms of the worker."""
        lengths = np.full(ids.shape[0], ids.shape[1], dtype=np.int64)
        for _ in range(2):
            await self.worker.execute(ids, lengths)
        spent = [(await self.worker.execute(ids, lengths)).cpu_ns for _ in range(_TIMED_RUNS)]
        return float(np.median(spent)) / 1e6

    def _whose_fault(self, refusal: Refusal, expected: Expected) -> str:
        invariance = expected.padding_invariance
        of_padding = refusal.reason.startswith(IGNORES_END)
        if of_padding and invariance is not None and invariance > 10 * self.bound.atol:
            return f". The source itself minds padding (its own answers move by {invariance:.2g})"
        return ""


def _report(
    bound: Bound,
    *,
    rows: int,
    batches: int,
    max_abs_diff: float,
    padding_invariance: float,
    label_agreement: float,
    masks_beyond_end: bool,
    accuracies: tuple[Accuracy, Accuracy],
    costs: dict[str, float],
) -> Parity:
    artifact, source = accuracies
    return Parity(
        rows=rows,
        batches=batches,
        max_abs_diff=max_abs_diff,
        padding_invariance=padding_invariance,
        label_agreement=label_agreement,
        atol=bound.atol,
        rtol=bound.rtol,
        masks_beyond_end=masks_beyond_end,
        accuracy=artifact.all,
        source_accuracy=source.all,
        accuracy_sentences=artifact.sentences,
        cpu_ms_b1_t32=costs.get("b1_t32"),
        cpu_ms_b32_t64=costs.get("b32_t64"),
    )


def _describe(pool: Sequence[tuple[Row, str]]) -> Describe:
    def describe(index: int) -> str:
        row, note = pool[index]
        shown = " ".join(str(number) for number in row[:_SHOWN_IDS])
        return f"row of {len(row)} ids {shown}{' …' if len(row) > _SHOWN_IDS else ''}{note}"

    return describe


def _stack(answers: Sequence[Outputs]) -> Outputs:
    if not answers:
        return np.empty((0, 0), dtype=np.float32)
    return np.concatenate(answers)

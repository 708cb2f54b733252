"""The gate through the real worker: what is right passes, and every way of being wrong is refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.exporters.gate import verification
from lockstep.exporters.gate.held_out import HeldOut, Row, grid_rows
from lockstep.exporters.gate.parity import Refusal, VariantBound
from lockstep.exporters.gate.verification import Expected, Passed
from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.core.probabilities import reader
from lockstep.server.runtimes.registry import ADAPTERS
from tests.tiny.bag_of_words import VOCABULARY, answer, write

MAX_TOKENS = 40


def held_out(rows: int = 40) -> HeldOut:
    random = np.random.default_rng(1)
    # No id 0: real text holds no padding, and its zero logits would let a dropped mask pass.
    texts = [random.integers(1, VOCABULARY, size, dtype=np.int64) for size in random.integers(1, MAX_TOKENS, rows)]
    stream = np.concatenate(texts)
    return HeldOut(
        rows=tuple(texts),
        texts=tuple(f"text {number}" for number in range(rows)),
        labels=np.array([int(answer(row).argmax()) for row in texts]),
        sentences=np.ones(rows, dtype=np.bool_),
        grid=grid_rows(texts, stream, MAX_TOKENS),
        stream=stream,
    )


def answers(rows: Sequence[Row]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.stack([answer(row) for row in rows])


async def verify(artifact: ArtifactSpec, adapter: str = ADAPTERS["onnxruntime"], **more: Any) -> Passed | Refusal:
    texts = held_out()
    return await verification.verify(
        artifact,
        adapter,
        texts,
        Expected(answers(texts.grid), answers(texts.rows), 0.0),
        pad_id=0,
        vocabulary=VOCABULARY,
        max_tokens=MAX_TOKENS,
        budget=Budget(),
        say=lambda text: None,
        **more,
    )


async def test_an_artifact_that_answers_as_its_source_passes(tmp_path: Path) -> None:
    verdict = await verify(write(tmp_path / "model.onnx"))
    assert isinstance(verdict, Passed), verdict
    parity = verdict.parity
    assert parity.max_abs_diff < 1e-6
    assert parity.padding_invariance < 1e-6
    assert parity.label_agreement == 1.0
    assert parity.masks_beyond_end
    assert parity.accuracy == parity.source_accuracy == 1.0
    assert parity.cpu_ms_b1_t32 is not None
    assert parity.cpu_ms_b1_t32 > 0
    assert parity.cpu_ms_b32_t64 is None  # longer than the model's maximum


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        # A zero embedding of the padding hides this one until random ids stand there.
        ({"masked": False}, "ignores where a row ends.*with random ids beyond its end"),
        ({"divisor": "axis"}, "ignores where a row ends.*with padding beside longer rows"),
        ({"length": 7}, "an axis is frozen: it refused batch 1, length 1"),
        ({"seed": 1}, "differs from the source: row of 1 ids .* alone .*: expected .*, got"),
        ({"poisoned": True}, "answers NaN or Inf: row of 1 ids"),
    ],
    ids=["mask dropped", "mean over the axis", "length axis frozen", "weights of another model", "NaN"],
)
async def test_a_broken_artifact_is_refused(tmp_path: Path, broken: dict[str, object], reason: str) -> None:
    verdict = await verify(write(tmp_path / "model.onnx", **broken))  # type: ignore[arg-type]
    assert isinstance(verdict, Refusal)
    assert re.search(reason, verdict.reason), verdict.reason


@pytest.mark.parametrize("variant", [None, VariantBound()])
async def test_an_artifact_of_whose_answers_the_server_would_make_no_probabilities_is_refused(
    tmp_path: Path, variant: VariantBound | None
) -> None:
    read = reader("probabilities", "softmax")  # of what are logits
    verdict = await verify(write(tmp_path / "model.onnx"), probabilities=read, variant=variant)
    assert isinstance(verdict, Refusal)
    assert re.search(r"answers (\S+ as a probability|probabilities that sum to).*: the server would", verdict.reason)


async def test_a_runtime_that_ignores_lengths_is_refused(tmp_path: Path) -> None:
    verdict = await verify(write(tmp_path / "model.onnx"), "tests.tiny.ignoring_adapter:IgnoringAdapter")
    assert isinstance(verdict, Refusal)
    assert "ignores where a row ends" in verdict.reason


async def test_an_artifact_that_ends_its_worker_is_refused(tmp_path: Path) -> None:
    verdict = await verify(write(tmp_path / "model.onnx"), "tests.tiny.dying_adapter:DyingAdapter")
    assert isinstance(verdict, Refusal)
    assert "it ended the worker that would serve it" in verdict.reason
    assert "SIGKILL" in verdict.reason


async def test_an_artifact_that_cannot_be_loaded_is_refused_with_the_reason(tmp_path: Path) -> None:
    artifact = write(tmp_path / "model.onnx")
    verdict = await verify(dataclasses.replace(artifact, path=str(tmp_path / "none.onnx")))
    assert isinstance(verdict, Refusal)
    assert "cannot load it" in verdict.reason

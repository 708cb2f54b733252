"""Real exported models of three frameworks behind real gRPC: the same answer, however batched, on every backend."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.repository.catalog import scan
from tests.serving import Served, eventually, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = 512
WORDS = [f"word{number}" for number in range(40)]


def texts(seed: int = 11) -> list[str]:
    """Texts of very different lengths: many short, some as long as the model takes."""
    generator = random.Random(seed)
    lengths = [min(60, int(generator.paretovariate(0.7))) for _ in range(ROWS)]
    return [" ".join(generator.choices(WORDS, k=length)) for length in lengths]


async def classify(served: Served, model: str, *rows: str) -> list[pb.Prediction]:
    response = await served.sentiment.Classify(pb.ClassifyRequest(model=model, texts=rows, truncate=True), timeout=120)
    for result in response.results:
        assert result.WhichOneof("outcome") == "prediction", result
    return [result.prediction for result in response.results]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tiny_repository: Path) -> AsyncIterator[Served]:
    async with serving(tiny_repository, measure_s=0.2) as one:
        yield one


async def test_512_rows_in_shuffled_order_answer_as_each_does_alone_on_every_backend(
    served: Served, tiny_repository: Path
) -> None:
    rows = texts()
    order = random.Random(5).sample(range(ROWS), ROWS)
    backends = [
        f"{name}@{artifact.runtime}"
        for name, published in scan(tiny_repository).models.items()
        for artifact in published.manifest.artifacts
    ]
    assert len(backends) >= 6
    await asyncio.gather(*(classify(served, pinned, rows[0]) for pinned in backends))  # they start side by side
    for pinned in backends:
        model, _, backend = pinned.partition("@")
        batcher = served.batcher(model)
        alone = [(await classify(served, pinned, row))[0] for row in rows[:64]]
        before = served.app.statistics.backend(model, 1, backend)
        rows_before, batches_before = before.rows, before.batches
        assert batches_before == 1 + 64
        batcher.hold()
        calls = {row: asyncio.ensure_future(classify(served, pinned, rows[row])) for row in order}
        await eventually(lambda batcher=batcher: batcher.queued_rows == ROWS)
        batcher.release()
        together = {row: (await call)[0] for row, call in calls.items()}
        after = served.app.statistics.backend(model, 1, backend)
        assert after.rows - rows_before == ROWS
        assert after.batches - batches_before <= ROWS // 8
        for row, answer in enumerate(alone):
            assert together[row].probabilities == pytest.approx(answer.probabilities, abs=5e-5), pinned
            assert together[row].label == answer.label
        assert {answer.backend for answer in together.values()} == {backend}
        assert max(answer.batch_rows for answer in together.values()) > 1


async def test_backends_of_a_model_agree(served: Served) -> None:
    rows = texts(seed=23)[:100]
    for model in ("tiny-bigru", "tiny-lstm"):
        onnx, tensorflow = [
            await classify(served, f"{model}@{backend}", *rows) for backend in ("onnxruntime", "tensorflow")
        ]
        for one, other in zip(onnx, tensorflow, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


@pytest.mark.parametrize(("model", "other"), [("tiny-bigru", "tensorflow"), ("tiny-bilstm", "torch")])
async def test_no_row_is_lost_or_wrong_while_every_worker_is_killed_in_turn(
    served: Served, model: str, other: str
) -> None:
    rows = texts(seed=37)[:240]
    expected = {row: (await classify(served, model, row))[0] for row in set(rows)}
    backends = {name: served.batcher(model).backend(name) for name in ("onnxruntime", other)}
    answered: list[tuple[str, pb.Prediction]] = []
    stop = asyncio.Event()

    async def client(pinned: str, start: int) -> None:
        turn = start
        while not stop.is_set() or turn < len(rows):
            row = rows[turn % len(rows)]
            answered.append((row, (await classify(served, pinned, row))[0]))
            turn += 6

    async def killer() -> None:
        for backend in backends.values():
            await eventually(lambda backend=backend: backend.ready)
            for worker in list(backend.workers):
                os.kill(worker.pid, signal.SIGKILL)
            await eventually(lambda backend=backend: not backend.ready)
        await eventually(lambda: all(backend.ready for backend in backends.values()))
        stop.set()

    pins = [model] * 4 + [f"{model}@onnxruntime", f"{model}@{other}"]
    await asyncio.gather(*(client(pin, start) for start, pin in enumerate(pins)), killer())
    assert len(answered) >= len(rows)
    for row, answer in answered:
        assert answer.probabilities == pytest.approx(expected[row].probabilities, abs=1e-4)
    assert all(backend.restarts >= 1 for backend in backends.values())

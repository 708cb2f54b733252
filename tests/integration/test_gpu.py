"""On a GPU: the same answers as on the CPU, in every batch. Skipped, with the reason, where there is none."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lockstep.server.core.artifact import Budget
from lockstep.server.repository.catalog import scan
from lockstep.server.runtimes.base import rounded_up
from lockstep.server.runtimes.registry import ADAPTERS
from lockstep.server.runtimes.worker_process import Launch, WorkerProcess
from lockstep.server.text.padding import pad

HAS_GPU = any(Path("/dev").glob("nvidia[0-9]*"))


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="no NVIDIA device on this machine")
@pytest.mark.parametrize(("model", "kind"), [("tiny-bilstm", "onnx"), ("tiny-transformer", "onnx")])
async def test_a_gpu_answers_as_the_cpu_does(tiny_repository: Path, model: str, kind: str) -> None:
    published = scan(tiny_repository).models[model]
    (artifact,) = (one for one in published.manifest.artifacts if one.kind == kind)
    launch = Launch(ADAPTERS[artifact.runtime], published.spec(artifact), Budget(threads=1, device="cuda:0"))
    random = np.random.default_rng(0)
    lengths = random.integers(1, published.manifest.max_tokens, 24, endpoint=True)
    rows = [random.integers(1, published.manifest.vocabulary, length) for length in lengths]
    answers = []
    for device in ("cuda:0", "cpu"):
        worker = await WorkerProcess.start(dataclasses.replace(launch, budget=Budget(threads=1, device=device)))
        for group in (rows, *[[row] for row in rows]):
            batch = pad(group, published.manifest.pad_id)
            answers.append((await worker.execute(batch.ids, batch.lengths)).outputs)
        await worker.stop()
    half = len(answers) // 2
    for on_gpu, on_cpu in zip(answers[:half], answers[half:], strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-4, rtol=1e-4)


def test_shapes_are_rounded_up_and_rows_keep_their_lengths() -> None:
    ids = np.arange(3 * 17).reshape(3, 17)
    wider, lengths = rounded_up(ids, np.array([17, 5, 1]))
    assert wider.shape == (4, 32)
    assert lengths.tolist() == [17, 5, 1, 1]
    np.testing.assert_array_equal(wider[:3, :17], ids)
    assert rounded_up(np.zeros((4, 32), dtype=np.int64), np.full(4, 32))[0].shape == (4, 32)

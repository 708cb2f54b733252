"""What every runtime must do, run by each of them on real artifacts, in the worker that will serve them."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.core.errors import BackendUnavailable
from lockstep.server.repository.catalog import PublishedModel, scan
from lockstep.server.repository.manifest import Artifact
from lockstep.server.runtimes.registry import ADAPTERS
from lockstep.server.runtimes.worker_process import BatchFailed, Launch, WorkerProcess
from lockstep.server.text.padding import pad

ARTIFACTS = (
    ("tiny-bilstm", "onnx"),
    ("tiny-bilstm", "torch"),
    ("tiny-transformer", "onnx"),
    ("tiny-transformer", "torch"),
    ("tiny-bigru", "onnx"),
    ("tiny-bigru", "saved_model"),
    ("tiny-lstm", "onnx"),
    ("tiny-lstm", "saved_model"),
    ("tiny-peephole", "saved_model"),
)
ONE_OF_EACH_RUNTIME = (("tiny-bilstm", "onnx"), ("tiny-bilstm", "torch"), ("tiny-bigru", "saved_model"))
HAS_GPU = any(Path("/dev").glob("nvidia[0-9]*"))
BOUND = {"atol": 5e-5, "rtol": 1e-5}


@dataclasses.dataclass(frozen=True)
class Subject:
    """An artifact under test, loaded."""

    worker: WorkerProcess
    launch: Launch
    vocabulary: int
    max_tokens: int
    masks_beyond_end: bool

    async def answer(self, rows: list[np.ndarray], *, beyond: int | np.random.Generator = 0) -> np.ndarray:
        """Execute rows as one batch; what lies beyond their ends is `beyond`, or random ids."""
        batch = pad(rows, 0)
        if isinstance(beyond, np.random.Generator):
            noise = beyond.integers(1, self.vocabulary, batch.ids.shape)
            past = np.arange(batch.length)[None, :] >= batch.lengths[:, None]
            batch.ids[past] = noise[past]
        return (await self.worker.execute(batch.ids, batch.lengths)).outputs


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(params=ARTIFACTS, ids=lambda one: "-".join(one), scope="module", loop_scope="module")
async def subject(request: pytest.FixtureRequest, tiny_repository: Path) -> AsyncIterator[Subject]:
    published, artifact, launch = to_launch(tiny_repository, *request.param)
    worker = await WorkerProcess.start(launch)
    manifest = published.manifest
    yield Subject(worker, launch, manifest.vocabulary, manifest.max_tokens, artifact.parity.masks_beyond_end)
    await worker.stop()


@pytest.fixture(params=ONE_OF_EACH_RUNTIME, ids=lambda one: "-".join(one))
def launch(request: pytest.FixtureRequest, tiny_repository: Path) -> Launch:
    """How to start a worker of each runtime: what is refused at the start is refused before the artifact matters."""
    return to_launch(tiny_repository, *request.param)[2]


def to_launch(repository: Path, model: str, kind: str) -> tuple[PublishedModel, Artifact, Launch]:
    published = scan(repository).models[model]
    (artifact,) = (one for one in published.manifest.artifacts if one.kind == kind)
    return published, artifact, Launch(ADAPTERS[artifact.runtime], published.spec(artifact), Budget(threads=1))


def random_rows(subject: Subject, count: int, seed: int = 3) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, subject.max_tokens, count, endpoint=True)
    return [generator.integers(1, subject.vocabulary, length) for length in lengths]


async def test_answers_float32_logits_for_every_row_and_tells_its_version(subject: Subject) -> None:
    outputs = await subject.answer(random_rows(subject, 5))
    assert outputs.dtype == np.float32
    assert outputs.shape == (5, subject.launch.artifact.labels)
    assert np.isfinite(outputs).all()
    assert subject.worker.versions


async def test_a_row_alone_answers_as_in_any_batch(subject: Subject) -> None:
    rows = random_rows(subject, 24)
    together = await subject.answer(rows)
    alone = np.concatenate([await subject.answer([row]) for row in rows])
    np.testing.assert_allclose(together, alone, **BOUND)


async def test_what_lies_beyond_a_rows_end_changes_nothing(subject: Subject) -> None:
    rows = random_rows(subject, 24)
    clean = await subject.answer(rows)
    if subject.masks_beyond_end:
        noisy = await subject.answer(rows, beyond=np.random.default_rng(5))
        np.testing.assert_allclose(noisy, clean, **BOUND)
    longest = max(rows, key=len)
    order = [longest, *rows]
    np.testing.assert_allclose((await subject.answer(order))[1:], clean, **BOUND)


async def test_both_axes_are_dynamic_from_one_token_to_the_maximum(subject: Subject) -> None:
    for count, length in ((1, 1), (64, 1), (1, subject.max_tokens), (3, subject.max_tokens)):
        outputs = await subject.answer([np.full(length, 4, dtype=np.int64)] * count)
        assert outputs.shape == (count, subject.launch.artifact.labels)


async def test_answers_do_not_depend_on_the_batch_before(subject: Subject) -> None:
    first, second = random_rows(subject, 2)
    before = await subject.answer([first])
    await subject.answer([second] * 7)
    np.testing.assert_array_equal(await subject.answer([first]), before)


async def test_a_batch_that_fails_is_told_and_the_worker_goes_on(subject: Subject) -> None:
    sound = np.array([4, 5], dtype=np.int64)
    before = await subject.answer([sound])
    with pytest.raises(BatchFailed, match=r"\w+: "):
        await subject.answer([np.array([1 << 30], dtype=np.int64)])
    np.testing.assert_array_equal(await subject.answer([sound]), before)


async def test_an_artifact_that_is_missing_or_damaged_cannot_be_loaded(launch: Launch, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"\x08\x07 this is no model")
    for path in (tmp_path / "nowhere", damaged):
        artifact: ArtifactSpec = dataclasses.replace(launch.artifact, path=str(path))
        with pytest.raises(BackendUnavailable, match=r"\w+: .+"):
            await WorkerProcess.start(dataclasses.replace(launch, artifact=artifact))


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
async def test_a_gpu_that_is_not_there_is_refused(launch: Launch) -> None:
    with pytest.raises(BackendUnavailable, match="device cuda:0"):
        await WorkerProcess.start(dataclasses.replace(launch, budget=Budget(threads=1, device="cuda:0")))

"""What was changed after it was published is never loaded: not at a restart, not at a backend's first start."""

import logging
import os
import signal
from collections.abc import AsyncIterator, Hashable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from lockstep.server.core.artifact import Budget
from lockstep.server.core.errors import BackendUnavailable
from lockstep.server.repository.catalog import ArtifactFiles, read_version
from lockstep.server.runtimes.worker_process import Launch, WorkerProcess
from tests import doubles
from tests.serving import Served, eventually, serving, text_request


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as one:
        yield one


def killed(served: Served, backend: str) -> int:
    """Kill the worker of a backend, and return its process id."""
    (worker,) = served.batcher("model").backend(backend).workers
    os.kill(worker.pid, signal.SIGKILL)
    return int(worker.pid)


async def test_a_worker_does_not_load_a_changed_artifact_again_and_the_other_backend_answers(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = served.batcher("model").backend("onnxruntime")
    artifact = tmp_path / "model/1/onnx/model"
    original = artifact.read_bytes()
    artifact.write_bytes(b"another model")
    with caplog.at_level(logging.INFO, logger="lockstep"):
        pid = killed(served, "onnxruntime")
        await eventually(lambda: backend.start_failed)
        assert "model/1: onnx/model has sha256" in backend.reason
        assert "it was changed after it was published" in backend.reason
        response = await served.inference.ModelInfer(text_request("model", "good"), timeout=60)
        assert response.parameters["backend"].string_param == "tensorflow"
        artifact.write_bytes(original)
        await eventually(lambda: backend.ready)
    mine = {"model": "model", "version": "1", "backend": "onnxruntime"}
    told = [
        (record.levelname, record.getMessage(), record.__dict__["fields"].get("pid"))
        for record in caplog.records
        if mine.items() <= record.__dict__.get("fields", {}).items()
    ]
    level, message, of = told[0]
    assert (level, of) == ("WARNING", pid)
    assert message.startswith("a worker ended: signal SIGKILL; ")
    level, message, _ = told[1]
    assert (level, message[:46]) == ("ERROR", "a worker cannot start: model/1: onnx/model has")
    (worker,) = backend.workers
    assert ("INFO", "restarted", worker.pid) in told


async def test_a_backend_that_had_not_started_does_not_load_a_changed_artifact(served: Served, tmp_path: Path) -> None:
    (tmp_path / "model/1/saved_model/model").write_bytes(b"another model")
    with pytest.raises(grpc.aio.AioRpcError, match="saved_model/model has sha256") as caught:
        await served.inference.ModelInfer(text_request("model@tensorflow", "good"), timeout=60)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert (await served.inference.ModelInfer(text_request("model@onnxruntime", "good"), timeout=60)).model_name


class _ChangedMeanwhile:
    """Files that are written to between their check and the end of the load."""

    def verify(self) -> Hashable:
        return 1

    def stamp(self) -> Hashable:
        return 2


async def test_what_is_written_to_while_it_is_loaded_is_not_served(tmp_path: Path) -> None:
    model = read_version(doubles.publish(tmp_path, "model"))
    (artifact, _) = model.manifest.artifacts
    launch = Launch("tests.doubles:SumAdapter", model.spec(artifact), Budget(), files=_ChangedMeanwhile())
    with pytest.raises(BackendUnavailable, match="was written to while it was loaded"):
        await WorkerProcess.start(launch)
    worker = await WorkerProcess.start(replace(launch, files=ArtifactFiles(model, artifact)))
    await worker.stop()


def test_a_file_written_to_has_another_stamp_even_with_its_old_size_and_time(tmp_path: Path) -> None:
    model = read_version(doubles.publish(tmp_path, "model"))
    files = ArtifactFiles(model, model.manifest.artifacts[0])
    before, path = files.verify(), tmp_path / "model/1/onnx/model"
    times = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert files.stamp() != before
    with pytest.raises(BackendUnavailable, match="has sha256"):
        files.verify()


def test_a_file_that_has_gone_or_has_come_is_named(tmp_path: Path) -> None:
    folder = doubles.publish(tmp_path, "model")
    path = folder / "onnx" / "model"
    model = read_version(folder)
    files = ArtifactFiles(model, model.manifest.artifacts[0])
    path.unlink()
    with pytest.raises(BackendUnavailable, match=r"model/1: model cannot be read: No such file"):
        files.verify()
    path.write_text("model onnx 1")
    in_a_folder = replace(files, artifact=files.artifact.model_copy(update={"path": "onnx"}))
    in_a_folder.verify()
    (folder / "onnx" / "variables").write_text("more")
    with pytest.raises(BackendUnavailable, match="onnx/variables is not in the manifest"):
        in_a_folder.verify()

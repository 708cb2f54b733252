"""Models are loaded and unloaded while the server serves, and no call notices."""

import asyncio
import functools
import itertools
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from lockstep.server import loading, watching
from lockstep.server.loading import Loader
from lockstep.server.repository.catalog import PublishedModel, read_latest
from lockstep.server.watching import Watcher
from tests import doubles
from tests.integration.test_operations import serve_doubles
from tests.serving import Served, eventually, serving, text_request

ONNX, TENSORFLOW = "onnxruntime", "tensorflow"
ADAPTERS = {**doubles.ADAPTERS, "torch": "tests.doubles:SumAdapter"}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, ADAPTERS, allow_load=True) as one:
        yield one


def load(served: Served, model: str = "model", **options: Any) -> Awaitable[oip.RepositoryModelLoadResponse]:
    """Ask for a load; the request is on its way at once."""
    call = served.inference.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name=model), **options)
    return asyncio.ensure_future(_answer(call))


def unload(served: Served, model: str = "model") -> Awaitable[oip.RepositoryModelUnloadResponse]:
    request = oip.RepositoryModelUnloadRequest(model_name=model)
    return asyncio.ensure_future(_answer(served.inference.RepositoryModelUnload(request)))


async def _answer(call: Any) -> Any:
    return await call


async def failure(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def version(served: Served, model: str = "model") -> int:
    """Ask which version answers."""
    return int((await served.inference.ModelInfer(text_request(model, "good film"))).model_version)


async def index(served: Served) -> dict[str, tuple[str, str, str]]:
    listed = await served.inference.RepositoryIndex(oip.RepositoryIndexRequest())
    return {one.name: (one.version, one.state, one.reason) for one in listed.models}


def workers() -> set[int]:
    """Return the processes that this one started and that live."""
    found = set()
    for child in psutil.Process().children():
        try:
            if child.status() != psutil.STATUS_ZOMBIE and "lockstep.server.runtimes.worker:main" in child.cmdline():
                found.add(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def held(repository: Path, number: int, kind: str = "onnx") -> Iterator[None]:
    """Keep workers of an artifact loading until the block ends."""
    hold, _ = doubles.directions(repository, number, kind)
    hold.touch()
    try:
        yield
    finally:
        hold.unlink()


async def settled(served: Served) -> None:
    """Wait until no version drains any more."""
    await eventually(lambda: not served.app.gateway.beside)


class Load:
    """Calls of a kind, one after the other, until told to end: the versions that answered, in order."""

    def __init__(self, call: Callable[[], Awaitable[int]]) -> None:
        self.versions: list[int] = []
        self._call = call
        self._ends = False
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while not self._ends:
            self.versions.append(await self._call())

    async def end(self) -> None:
        """Wait for the last call; raises what a call raised."""
        self._ends = True
        await self._task


@asynccontextmanager
async def under_load(served: Served) -> AsyncIterator[list[Load]]:
    """Call by every way there is until the block ends; every call must be answered, and right."""
    words = ("good", "bad", "film", "the", "a")
    numbers = itertools.count()
    answers: dict[str, asyncio.Future[int]] = {}
    stream, writing = served.sentiment.ClassifyStream(), asyncio.Lock()

    def text() -> str:
        number = next(numbers)
        return " ".join(words[: 1 + number % 5] * (1 + number % 12))

    def checked(text: str, response: pb.ClassifyResponse) -> int:
        exponentials = np.exp(doubles.row_logits(doubles.encode(text)))
        assert response.results[0].prediction.probabilities[1] == pytest.approx(
            float(exponentials[1] / exponentials.sum()), abs=1e-6
        )
        return response.version

    async def classify(model: str) -> int:
        asked = text()
        return checked(asked, await served.sentiment.Classify(pb.ClassifyRequest(model=model, texts=[asked])))

    async def infer() -> int:
        response = await served.inference.ModelInfer(text_request("model", text(), text()))
        return int(response.model_version)

    async def compare() -> int:
        response = await served.sentiment.Compare(pb.CompareRequest(model="model", texts=[text()]))
        assert not any(one.HasField("error") for one in response.backends)
        return response.version

    async def long_call() -> int:  # tokenised off the event loop: it begins on one version and queues later
        request = pb.ClassifyRequest(model="model", texts=["good film " * 30] * 64)
        response = await served.sentiment.Classify(request)
        assert all(result.prediction.label for result in response.results)
        return response.version

    async def message() -> int:
        asked, key = text(), str(next(numbers))
        answers[key] = asyncio.get_running_loop().create_future()
        async with writing:
            await stream.write(pb.StreamRequest(classify=pb.ClassifyRequest(model="model", texts=[asked], id=key)))
        return await answers[key]

    async def listen() -> None:
        async for answer in stream:
            answers.pop(answer.id).set_result(answer.response.version)

    listening = asyncio.ensure_future(listen())
    loads = [Load(lambda: classify("model")) for _ in range(4)] + [Load(infer), Load(compare), Load(long_call)]
    loads += [Load(lambda name=f"model@{backend}": classify(name)) for backend in (ONNX, TENSORFLOW)]
    loads += [Load(message) for _ in range(2)]
    try:
        yield loads
    finally:
        await asyncio.gather(*(one.end() for one in loads))
        await stream.done_writing()
        await listening


async def test_a_new_version_takes_over_under_load_and_no_call_fails(served: Served, tmp_path: Path) -> None:
    async with under_load(served) as loads:
        await eventually(lambda: all(one.versions for one in loads))
        before = workers()
        assert len(before) == 2
        for number in (2, 3):
            doubles.publish(tmp_path, "model", version=number)
            await load(served)
            await eventually(functools.partial(lambda newest: all(o.versions[-1] == newest for o in loads), number))
    for one in loads:
        assert one.versions == sorted(one.versions)  # nobody is answered by an old version after a new one
        assert set(one.versions) == {1, 2, 3}
    await settled(served)
    assert len(workers()) == 2
    assert not workers() & before


async def test_rows_of_the_old_version_are_answered_by_it_after_the_swap(served: Served, tmp_path: Path) -> None:
    old = served.batcher("model")
    old.hold()
    waiting = [asyncio.ensure_future(version(served)) for _ in range(5)]
    await eventually(lambda: old.queued_rows == 5)
    doubles.publish(tmp_path, "model", version=2)
    await load(served)
    assert await version(served) == 2
    assert (await index(served))["model"] == ("2", "READY", "")
    assert await metric(served, 'lockstep_queue_rows{model="model"}') == 5
    assert await metric(served, 'lockstep_backend_workers{backend="onnxruntime",model="model"}') == 2
    old.release()
    assert await asyncio.gather(*waiting) == [1] * 5
    await settled(served)
    assert await metric(served, 'lockstep_queue_rows{model="model"}') == 0
    assert await metric(served, 'lockstep_backend_workers{backend="onnxruntime",model="model"}') == 1
    error = await failure(served.inference.ModelInfer(text_request("model", "good", model_version="1")))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "served in version 2, not 1" in str(error.details())
    statistics = served.app.statistics
    assert (statistics.model("model", 1).rows, statistics.model("model", 2).rows) == (5, 1)


async def metric(served: Served, sample: str) -> float:
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{served.app.http_port}") as session,
        session.get("/metrics") as response,
    ):
        lines = (await response.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == sample)


async def test_a_call_that_is_tokenised_during_the_swap_is_answered_by_the_version_it_began_on(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = served.app.gateway.models["model"].encoder
    begun, go_on = threading.Event(), threading.Event()

    def slow(texts: list[str], *, truncate: bool = False) -> object:
        begun.set()
        go_on.wait()
        return type(encoder).encode(encoder, texts, truncate=truncate)

    monkeypatch.setattr(encoder, "encode", slow)
    request = text_request("model", *["good film " * 30] * 64)
    call = asyncio.ensure_future(_answer(served.inference.ModelInfer(request)))
    await eventually(begun.is_set)
    doubles.publish(tmp_path, "model", version=2)
    await load(served)
    assert len(served.app.gateway.beside) == 1
    go_on.set()
    assert (await call).model_version == "1"
    await settled(served)


@pytest.mark.parametrize("kind", ["onnx", "saved_model"])
async def test_a_version_that_cannot_start_fails_the_load_and_the_old_one_goes_on(
    served: Served, tmp_path: Path, kind: str
) -> None:
    await served.inference.ModelInfer(text_request(f"model@{TENSORFLOW}", "good"))  # both backends have workers now
    before = workers()
    doubles.publish(tmp_path, "model", version=2)
    doubles.directions(tmp_path, 2, kind)[1].touch()
    error = await failure(load(served))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    backend = {"onnx": ONNX, "saved_model": TENSORFLOW}[kind]
    assert f"model/2 cannot be served: backend {backend} of model cannot start" in str(error.details())
    assert "this version cannot be loaded; version 1 goes on" in str(error.details())
    assert await version(served) == 1
    await eventually(lambda: workers() == before)
    assert not served.app.gateway.beside


async def test_a_version_that_is_not_what_its_manifest_says_is_refused_and_the_old_one_goes_on(
    served: Served, tmp_path: Path
) -> None:
    (doubles.publish(tmp_path, "model", version=2) / "onnx/model").write_bytes(b"changed")
    error = await failure(load(served))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "model/2: onnx/model has sha256" in str(error.details())
    assert "version 1 goes on" in str(error.details())
    assert await version(served) == 1
    assert (await index(served))["model"] == ("1", "READY", "")
    doubles.publish(tmp_path, "model", version=3)
    await load(served)
    assert await version(served) == 3


async def test_a_worker_that_is_killed_while_it_warms_up_fails_the_load_and_the_next_one_succeeds(
    served: Served, tmp_path: Path
) -> None:
    before = workers()
    doubles.publish(tmp_path, "model", version=2)
    with held(tmp_path, 2):
        loading = load(served)
        await eventually(lambda: len(workers() - before) == 1)
        (fresh,) = workers() - before
        os.kill(fresh, signal.SIGKILL)
        error = await failure(loading)
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "signal SIGKILL" in str(error.details())
    assert await version(served) == 1
    await eventually(lambda: workers() == before)
    await load(served)
    assert await version(served) == 2


async def test_a_load_whose_caller_goes_away_has_not_happened(served: Served, tmp_path: Path) -> None:
    before = workers()
    doubles.publish(tmp_path, "model", version=2)
    with held(tmp_path, 2):
        call = served.inference.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="model"))
        await eventually(lambda: len(workers() - before) == 1)
        assert await metric(served, 'lockstep_backend_ready{backend="onnxruntime",model="model"}') == 1
        call.cancel()
        await eventually(lambda: workers() == before and not served.app.gateway.beside)
        late = load(served, timeout=1.0)
        assert (await failure(late)).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: workers() == before and not served.app.gateway.beside)
    assert await version(served) == 1
    await load(served)
    assert await version(served) == 2


async def test_loads_of_a_model_come_one_after_the_other_and_the_last_sees_what_was_published_last(
    served: Served, tmp_path: Path
) -> None:
    before = workers()
    doubles.publish(tmp_path, "model", version=2)
    with held(tmp_path, 2):
        first = load(served)
        await eventually(lambda: len(workers() - before) == 1)
        doubles.publish(tmp_path, "model", version=3)
        others = [load(served) for _ in range(3)]
        for _ in range(20):
            await served.inference.ServerLive(oip.ServerLiveRequest())
        assert len(workers()) == len(before) + 1
    await first
    await asyncio.gather(*others)
    assert await version(served) == 3
    await settled(served)
    assert len(workers()) == len(before)


async def test_what_is_served_already_is_left_alone(served: Served) -> None:
    before = workers()
    await load(served)
    assert workers() == before
    assert await version(served) == 1


async def test_calls_are_answered_while_a_version_is_read(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, go_on = threading.Event(), threading.Event()

    def slow(repository: Path, name: str) -> PublishedModel:
        reads.set()
        go_on.wait()
        return read_latest(repository, name)

    monkeypatch.setattr(loading, "read_latest", slow)
    doubles.publish(tmp_path, "model", version=2)
    begun = load(served)
    await eventually(reads.is_set)
    assert await version(served) == 1
    go_on.set()
    await begun
    assert await version(served) == 2


@pytest.mark.parametrize("max_workers", [1, 2])
async def test_a_new_version_needs_no_free_slot_and_takes_none_that_the_old_one_leaves(
    tmp_path: Path, max_workers: int
) -> None:
    for model in ("model", "other")[:max_workers]:
        doubles.publish(tmp_path, model)
    async with serving(tmp_path, ADAPTERS, allow_load=True, max_workers=max_workers) as served:
        busy = [Load(lambda name=name: version(served, name)) for name in served.app.gateway.models for _ in range(3)]
        await eventually(lambda: all(one.versions for one in busy))
        for number in (2, 3):
            doubles.publish(tmp_path, "model", version=number)
            await load(served)
            await settled(served)
            assert len(workers()) <= max_workers
        await asyncio.gather(*(one.end() for one in busy))


async def test_a_model_that_was_not_served_waits_for_a_slot_like_any_other(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, ADAPTERS, allow_load=True, max_workers=1) as served:
        doubles.publish(tmp_path, "other")
        await load(served, "other")  # the idle worker of the first leaves
        assert len(workers()) == 1
        assert await version(served, "other") == 1
        assert await version(served, "model") == 1


async def test_an_unloaded_model_answers_what_it_has_and_takes_no_call_until_it_is_loaded_again(
    served: Served,
) -> None:
    health = HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest(service="model"))
    assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
    batcher = served.batcher("model")
    batcher.hold()
    waiting = asyncio.ensure_future(version(served))
    await eventually(lambda: batcher.queued_rows == 1)
    unloading = unload(served)
    assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    error = await failure(served.inference.ModelInfer(text_request("model", "good")))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "was unloaded" in str(error.details())
    assert await index(served) == {"model": ("1", "UNAVAILABLE", "unloaded")}
    assert not (await served.inference.ServerReady(oip.ServerReadyRequest())).ready, "nothing is served"
    assert not (await served.inference.ModelReady(oip.ModelReadyRequest(name="model"))).ready
    batcher.release()
    assert await waiting == 1
    await unloading
    assert workers() == set()
    await unload(served)  # it is
    await load(served)
    assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
    assert (await served.inference.ServerReady(oip.ServerReadyRequest())).ready
    assert await version(served) == 1
    assert (await index(served))["model"] == ("1", "READY", "")


async def test_a_model_appears_and_one_that_was_refused_is_served_once_it_is_mended(
    served: Served, tmp_path: Path
) -> None:
    assert "there are: model" in str((await failure(load(served, "new"))).details())
    (doubles.publish(tmp_path, "new") / "onnx/model").write_bytes(b"changed")
    assert (await failure(load(served, "new"))).code() == grpc.StatusCode.FAILED_PRECONDITION
    state = (await index(served))["new"]
    assert state[:2] == ("1", "UNAVAILABLE")
    assert "sha256" in state[2]
    doubles.publish(tmp_path, "new", version=2)
    await load(served, "new")
    assert (await index(served))["new"] == ("2", "READY", "")
    assert await version(served, "new") == 2
    health = await HealthStub(served.channel).Check(health_pb2.HealthCheckRequest(service="new"))
    assert health.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({}, grpc.StatusCode.INVALID_ARGUMENT, "no model is named"),
        ({"model_name": "absent"}, grpc.StatusCode.NOT_FOUND, "absent"),
        ({"model_name": "../elsewhere"}, grpc.StatusCode.NOT_FOUND, "elsewhere"),
        ({"model_name": ".staging"}, grpc.StatusCode.NOT_FOUND, "staging"),
        ({"model_name": "model@onnxruntime"}, grpc.StatusCode.INVALID_ARGUMENT, "names a backend"),
        ({"model_name": "model", "repository_name": "a"}, grpc.StatusCode.INVALID_ARGUMENT, "no repository named 'a'"),
    ],
)
async def test_what_can_be_neither_loaded_nor_unloaded_is_named(
    served: Served, tmp_path: Path, fields: dict[str, str], code: grpc.StatusCode, message: str
) -> None:
    doubles.publish(tmp_path / "elsewhere", "elsewhere")
    for call, request in (
        (served.inference.RepositoryModelLoad, oip.RepositoryModelLoadRequest),
        (served.inference.RepositoryModelUnload, oip.RepositoryModelUnloadRequest),
    ):
        error = await failure(call(request(**fields)))
        assert error.code() == code
        assert message in str(error.details())
    assert await version(served) == 1


async def test_overrides_are_refused_by_name_and_dependents_are_none(served: Served) -> None:
    for name in ("config", "file:1/model.onnx"):
        request = oip.RepositoryModelLoadRequest(model_name="model")
        request.parameters[name].string_param = "{}"
        error = await failure(served.inference.RepositoryModelLoad(request))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert f"parameter '{name}' is not taken" in str(error.details())
    request = oip.RepositoryModelUnloadRequest(model_name="model")
    request.parameters["unload_dependents"].string_param = "yes"
    error = await failure(served.inference.RepositoryModelUnload(request))
    assert "unload_dependents must be a bool" in str(error.details())
    request.parameters["unload_dependents"].bool_param = True
    await served.inference.RepositoryModelUnload(request)
    assert (await index(served))["model"][2] == "unloaded"


async def test_nothing_is_loaded_by_call_unless_it_is_switched_on(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, ADAPTERS) as served:
        for call in (load(served), unload(served)):
            error = await failure(call)
            assert error.code() == grpc.StatusCode.PERMISSION_DENIED
            assert "--allow-load" in str(error.details())
        assert await version(served) == 1


async def test_twenty_reloads_leave_nothing_behind(served: Served, tmp_path: Path) -> None:
    def held_by_us() -> tuple[int, int, int]:
        return len(workers()), len(asyncio.all_tasks()), psutil.Process().num_fds()

    async def reload(number: int) -> None:
        doubles.publish(tmp_path, "model", version=number)
        await load(served)
        assert await version(served) == number
        await settled(served)

    await reload(2)  # what is made once is made now
    before = held_by_us()
    threads = threading.active_count()
    for number in range(3, 22):
        await reload(number)
    await eventually(lambda: held_by_us() == before)
    assert threading.active_count() <= threads + 2  # the event loop's own pool grows to its bound as it likes


async def test_a_client_that_stalls_holds_up_neither_a_load_nor_the_end_of_the_old_version(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, ADAPTERS, allow_load=True, max_stream_messages=8, drain_s=0.1) as served:
        stalled = served.sentiment.ClassifyStream()
        request = pb.ClassifyRequest(model="model", texts=["good"] * 512)  # its answer is 30 kB
        written = 0

        async def write() -> None:
            nonlocal written
            while True:
                await stalled.write(pb.StreamRequest(classify=request))
                written += 1

        writing = asyncio.ensure_future(write())
        seen = -1
        while seen != written:  # until flow control holds it up
            seen = written
            for _ in range(20):
                assert await version(served) == 1
        doubles.publish(tmp_path, "model", version=2)
        await load(served)
        await settled(served)
        assert await version(served) == 2
        writing.cancel()
        await served.app.stop()  # and not the end of the server: its drain is bounded
        assert workers() == set()


async def test_a_stopping_server_gives_up_its_loads(served: Served, tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model", version=2)
    before = workers()
    with held(tmp_path, 2):
        begun = load(served)
        await eventually(lambda: len(workers() - before) == 1)
        stopping = asyncio.ensure_future(served.app.stop())
        error = await failure(begun)
        await stopping
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "the server is stopping" in str(error.details())
    assert workers() == set()


async def test_sigterm_during_a_load_loses_no_call_and_leaves_no_worker(tmp_path: Path) -> None:
    repository, log = tmp_path / "models", tmp_path / "log"
    doubles.publish(repository, "model")
    with held(repository, 2), serve_doubles(repository, log, "--allow-load") as (process, address):
        async with grpc.aio.insecure_channel(address) as channel:
            classify = channel.unary_unary("/sentiment.v1.SentimentService/Classify")
            request = pb.ClassifyRequest(model="model", texts=["good film"] * 64).SerializeToString()
            await classify(request, wait_for_ready=True)
            gateway = psutil.Process(process.pid)
            doubles.publish(repository, "model", version=2)
            call = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
            begun = call(oip.RepositoryModelLoadRequest(model_name="model").SerializeToString())
            await eventually(lambda: len(gateway.children()) == 2)
            children = gateway.children()
            accepted = [classify(request) for _ in range(4)]
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            await live(b"")  # what was sent before is there
            process.send_signal(signal.SIGTERM)
            for answered in accepted:
                assert pb.ClassifyResponse.FromString(await answered).version == 1
            error = await failure(begun)
            assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert await asyncio.to_thread(process.wait, 30) == 0
        _, alive = psutil.wait_procs(children, timeout=30)
        assert alive == []
    assert "Traceback" not in log.read_text()


async def test_a_watched_repository_is_served_as_it_is_published(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doubles.publish(tmp_path / "staged", "model", version=2)
    doubles.publish(tmp_path / "staged", "new")
    repository = tmp_path / "models"
    doubles.publish(repository, "model")
    async with serving(repository, ADAPTERS, watch_repository=0.01) as served:
        busy = Load(lambda: version(served))
        await eventually(lambda: bool(busy.versions))
        os.rename(tmp_path / "staged/model/2", repository / "model/2")
        await eventually(lambda: busy.versions[-1] == 2)
        os.rename(tmp_path / "staged/new", repository / "new")
        await eventually(lambda: "new" in served.app.gateway.models)
        assert await version(served, "new") == 1
        with caplog.at_level(logging.ERROR):
            broken = doubles.publish(tmp_path / "staged", "model", version=3)
            (broken / "onnx/model").write_bytes(b"changed")
            os.rename(broken, repository / "model/3")
            await eventually(lambda: "model/3 was not loaded" in caplog.text)
        os.rename(doubles.publish(tmp_path / "staged", "model", version=4), repository / "model/4")
        await eventually(lambda: busy.versions[-1] == 4)
        await busy.end()
        assert busy.versions == sorted(busy.versions)
        assert caplog.text.count("was not loaded") == 1  # it was tried once


async def test_a_watched_model_that_was_unloaded_stays_so_until_it_has_a_new_version(tmp_path: Path) -> None:
    doubles.publish(tmp_path / "staged", "model", version=2)
    repository = tmp_path / "models"
    doubles.publish(repository, "model")
    async with serving(repository, ADAPTERS, allow_load=True, watch_repository=3600.0) as served:
        await unload(served)
        watcher = Watcher(repository, served.app.gateway, served.app.loader, 3600.0)
        await watcher.look()
        await watcher.settled()
        assert (await index(served))["model"][2] == "unloaded"
        os.rename(tmp_path / "staged/model/2", repository / "model/2")
        await watcher.look()
        await watcher.settled()
        assert await version(served) == 2


async def test_a_new_model_that_waits_holds_up_no_other_update(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    doubles.publish(repository, "model")
    hold, _ = doubles.directions(repository, 1, "onnx")
    async with serving(repository, ADAPTERS, watch_repository=0.01) as served:
        hold.touch()  # what is loaded in version 1 from now on waits
        os.rename(doubles.publish(tmp_path / "staged", "a-new", version=1).parent, repository / "a-new")
        await eventually(lambda: any(one.manifest.name == "a-new" for one in served.app.gateway.beside))
        os.rename(doubles.publish(tmp_path / "staged", "model", version=2), repository / "model/2")
        await eventually(lambda: served.app.gateway.models["model"].manifest.version == 2)
        assert "a-new" not in served.app.gateway.models
        hold.unlink()
        await eventually(lambda: "a-new" in served.app.gateway.models)


class _SlowAtFirst:
    """A loader whose first load never ends."""

    def __init__(self) -> None:
        self.loads: list[str] = []

    async def load(self, name: str) -> None:
        self.loads.append(name)
        if len(self.loads) == 1:
            await asyncio.Event().wait()


async def test_a_load_that_takes_too_long_is_given_up_and_tried_anew(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader = _SlowAtFirst()
    watcher = Watcher(tmp_path, served.app.gateway, loader, 3600.0, load_s=0.01)
    doubles.publish(tmp_path, "model", version=2)
    for _ in range(3):
        await watcher.look()
        await watcher.settled()
    assert "model/2 was not loaded within 0.01 s" in caplog.text
    assert loader.loads == ["model", "model"]  # the second load came to an end, so there was no third


async def test_watching_goes_on_whatever_goes_wrong_and_the_log_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubles.publish(tmp_path, "model")
    highest, load_model, failures = watching.highest_versions, Loader.load, iter(["look", "load"])

    def look(repository: Path) -> dict[str, int]:
        if next(failures, None) == "look":
            raise RuntimeError("a bug in looking")
        return highest(repository)

    async def load_or_fail(loader: Loader, name: str) -> None:
        if name == "broken":
            raise RuntimeError("a bug in loading")
        await load_model(loader, name)

    monkeypatch.setattr(watching, "highest_versions", look)
    monkeypatch.setattr(Loader, "load", load_or_fail)
    async with serving(tmp_path, ADAPTERS, watch_repository=0.01) as served:
        doubles.publish(tmp_path, "broken")
        await eventually(lambda: "broken/1 was not loaded" in caplog.text)
        doubles.publish(tmp_path, "new")
        await eventually(lambda: "new" in served.app.gateway.models)
    assert [str(one.exc_info[1]) for one in caplog.records if one.exc_info] == ["a bug in looking", "a bug in loading"]


async def test_health_is_published_again_where_it_failed_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, ADAPTERS, allow_load=True) as served:
        stub = HealthStub(served.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="model"))
        while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        tell, failures = served.app._tell_health, iter([RuntimeError("a bug in health")])

        async def fail_once() -> None:
            if (failure := next(failures, None)) is not None:
                raise failure
            await tell()

        monkeypatch.setattr(served.app, "_tell_health", fail_once)
        await unload(served)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert "a bug in health" in caplog.text


async def test_work_in_the_background_that_ends_is_shouted_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(_: Watcher) -> None:
        raise SystemError("a bug")

    monkeypatch.setattr(Watcher, "run", end)
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, ADAPTERS, watch_repository=3600.0):
        await eventually(lambda: "the watching of the repository has ended" in caplog.text)
    (record,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert isinstance(record.exc_info[1], SystemError)

"""The promise over real gRPC and real worker processes: every row its own answer, however it was batched."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import grpc
import numpy as np
import pytest

from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.scheduling import slots
from lockstep.server.scheduling.cost import Measurement
from tests import doubles
from tests.serving import Served, eventually, serving, text_request

CALLERS = 4
ONNX, SAVED_MODEL = "onnxruntime", "tensorflow"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as one:
        yield one


def expected(text: str) -> list[float]:
    exponentials = np.exp(doubles.row_logits(doubles.encode(text)))
    return list(exponentials / exponentials.sum())


def random_texts(count: int, seed: int = 7) -> list[str]:
    generator = random.Random(seed)
    return [
        " ".join(generator.choices(("good", "bad", "film", "the", "a"), k=generator.randint(1, 60)))
        for _ in range(count)
    ]


async def classify(served: Served, *texts: str, model: str = "model", **fields: object) -> list[pb.Result]:
    timeout = fields.pop("timeout", 60)
    request = pb.ClassifyRequest(model=model, texts=texts, **fields)
    response: pb.ClassifyResponse = await served.sentiment.Classify(request, timeout=timeout)
    return list(response.results)


def check(text: str, result: pb.Result) -> None:
    assert result.WhichOneof("outcome") == "prediction", result
    assert result.prediction.probabilities == pytest.approx(expected(text), abs=1e-6)


@pytest.mark.parametrize("backend", [ONNX, SAVED_MODEL])
async def test_512_single_rows_held_until_all_wait_are_answered_right_in_few_batches(
    served: Served, backend: str
) -> None:
    texts = random_texts(512)
    batcher = served.batcher("model")
    batcher.hold()
    calls = [asyncio.ensure_future(classify(served, text, model=f"model@{backend}")) for text in texts]
    await eventually(lambda: batcher.queued_rows == 512)
    batcher.release()
    for text, (result,) in zip(texts, await asyncio.gather(*calls), strict=True):
        check(text, result)
        assert result.prediction.backend == backend
    counts = served.app.statistics.backend("model", 1, backend)
    assert counts.rows == 512
    assert counts.batches < 128


async def test_phases_cover_the_call_and_the_batch_is_told(served: Served) -> None:
    (result,) = await classify(served, "good film")
    prediction = result.prediction
    assert (prediction.tokens, prediction.batch_rows, prediction.batch_tokens) == (4, 1, 4)
    phases = {field.name: getattr(prediction.phases, field.name) for field in prediction.phases.DESCRIPTOR.fields}
    assert len(phases) == 7
    assert all(duration_us >= 0 for duration_us in phases.values())
    assert sum(phases.values()) > 0


async def test_a_free_row_goes_to_the_cheapest_backend_and_a_pinned_one_to_its_own(served: Served) -> None:
    (free,) = await classify(served, "good")
    (pinned,) = await classify(served, "good", model=f"model@{SAVED_MODEL}")
    assert free.prediction.backend == ONNX
    assert pinned.prediction.backend == SAVED_MODEL


async def test_a_bad_row_has_its_error_and_its_neighbours_their_answers(served: Served) -> None:
    good, empty, long = await classify(served, "good", "", "bad " * 500)
    check("good", good)
    assert (empty.error.kind, empty.error.code) == ("InvalidInput", 3)
    assert (long.error.kind, long.error.code) == ("InputTooLong", 3)
    assert "maximum is 64" in long.error.message


async def test_truncation_is_asked_for_and_told(served: Served) -> None:
    (result,) = await classify(served, "bad " * 500, truncate=True)
    assert result.prediction.truncated
    assert result.prediction.tokens == doubles.MAX_TOKENS


async def test_a_row_that_kills_its_worker_fails_alone(served: Served) -> None:
    texts = ["good film", "the kill", "bad film", "a good film"]
    batcher = served.batcher("model")
    batcher.hold()
    calls = [asyncio.ensure_future(classify(served, text, model=f"model@{ONNX}")) for text in texts]
    await eventually(lambda: batcher.queued_rows == len(texts))
    batcher.release()
    results = [result for (result,) in await asyncio.gather(*calls)]
    for text, result in zip(texts, results, strict=True):
        if "kill" in text:
            assert result.error.kind == "RowFailed"
            assert result.error.code == grpc.StatusCode.INTERNAL.value[0]
        else:
            check(text, result)
    counts = served.app.statistics.backend("model", 1, ONNX)
    assert counts.rows == 3


async def test_a_batch_that_the_runtime_refuses_fails_only_the_guilty_row(served: Served) -> None:
    good, refused = await classify(served, "good", "refuse the film", model=f"model@{ONNX}")
    check("good", good)
    assert refused.error.kind == "RowFailed"
    assert "failed on this row alone" in refused.error.message


async def test_a_row_answered_with_nan_fails_and_its_neighbours_do_not(served: Served) -> None:
    good, nan = await classify(served, "good", "nan", model=f"model@{ONNX}")
    check("good", good)
    assert nan.error.kind == "RowFailed"


@pytest.mark.parametrize("prepare_ahead", [0, 2])
async def test_no_row_is_lost_or_wrong_while_workers_are_killed(tmp_path: Path, prepare_ahead: int) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, prepare_ahead=prepare_ahead) as served:
        await kill_workers_under_load(served)


async def kill_workers_under_load(served: Served) -> None:
    texts = random_texts(400)

    async def client(mine: list[str]) -> list[tuple[str, pb.Result]]:
        return [(text, (await classify(served, text))[0]) for text in mine]

    async def killer() -> None:
        (backend, _) = served.batcher("model").backends
        for _ in range(3):
            await eventually(lambda: backend.ready)
            for worker in list(backend.workers):
                os.kill(worker.pid, signal.SIGKILL)
            await eventually(lambda: not backend.ready)

    clients = [client(texts[start::8]) for start in range(8)]
    *answered, _ = await asyncio.gather(*clients, killer())
    rows = [row for one in answered for row in one]
    assert len(rows) == 400
    for text, result in rows:
        check(text, result)
    assert SAVED_MODEL in {result.prediction.backend for _, result in rows}


async def test_free_rows_fail_over_where_the_preferred_backend_cannot_start(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model", kinds=("torch", "onnx"))
    async with serving(tmp_path, doubles.ADAPTERS) as served:
        (result,) = await classify(served, "good")
        assert result.prediction.backend == ONNX
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await classify(served, "good", model="model@torch")
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "this artifact cannot be loaded" in str(caught.value.details())


async def test_an_expired_row_never_reaches_a_worker(served: Served) -> None:
    batcher = served.batcher("model")
    batcher.hold()
    request = text_request("model", "good")
    request.parameters["timeout"].int64_param = 50_000  # microseconds
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.inference.ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "while the row waited" in str(caught.value.details())
    await eventually(lambda: batcher.queued_rows == 0)
    batcher.release()
    check("bad", (await classify(served, "bad"))[0])
    assert served.app.statistics.model("model", 1).rows == 1


async def test_a_cancelled_call_leaves_the_queue_at_once(served: Served) -> None:
    batcher = served.batcher("model")
    batcher.hold()
    call = asyncio.ensure_future(classify(served, "good", "bad"))
    await eventually(lambda: batcher.queued_rows == 2)
    call.cancel()
    await eventually(lambda: batcher.queued_rows == 0)
    batcher.release()
    check("bad", (await classify(served, "bad"))[0])
    assert served.app.statistics.model("model", 1).rows == 1


async def test_a_full_queue_refuses_the_whole_call_at_once_with_pushback(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_queue_rows=4) as served:
        batcher = served.batcher("model")
        batcher.hold()
        waiting = asyncio.ensure_future(classify(served, "good", "bad", "film"))
        await eventually(lambda: batcher.queued_rows == 3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await classify(served, "good", "bad")
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "holds 3 rows, 2 more do not fit, at most 4 may wait (--max-queue-rows)" in str(caught.value.details())
        assert int(dict(caught.value.trailing_metadata() or ())["grpc-retry-pushback-ms"]) > 0
        assert batcher.queued_rows == 3
        batcher.release()
        assert len(await waiting) == 3


async def test_higher_priority_is_executed_first(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, policy="none") as served:
        batcher = served.batcher("model")
        batcher.hold()
        order: list[int] = []

        async def call(priority: int) -> None:
            await classify(served, "good", priority=priority)
            order.append(priority)

        calls = []
        for queued, priority in enumerate((0, 0, 9), start=1):
            calls.append(asyncio.ensure_future(call(priority)))
            await eventually(lambda queued=queued: batcher.queued_rows == queued)
        batcher.release()
        await asyncio.gather(*calls)
        assert order == [9, 0, 0]


async def test_rows_go_on_while_suspects_are_tried_and_the_guilty_one_kills_only_their_worker(served: Served) -> None:
    guilty = asyncio.ensure_future(classify(served, "the kill", model=f"model@{ONNX}"))
    batcher = served.batcher("model")
    await eventually(lambda: any(one.active for one in batcher._isolations))
    backend = batcher.backend(ONNX)
    await eventually(lambda: backend.restarts == 1 and backend.ready)
    for text in random_texts(30, seed=3):
        check(text, (await classify(served, text, model=f"model@{ONNX}"))[0])
    (result,) = await guilty
    assert result.error.kind == "RowFailed"
    assert backend.restarts == 1


async def test_a_row_that_could_not_make_its_deadline_is_refused_before_it_costs_anything(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as served:
        backend = served.batcher("model").backend(ONNX)
        backend.cost.fit([Measurement(rows, length, 60e9) for rows in (1, 64) for length in (1, 64)])  # a minute each
        request = text_request("model", "good")
        request.parameters["timeout"].int64_param = 10_000_000  # ten seconds
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.inference.ModelInfer(request)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "would pass before" in str(caught.value.details())
        assert served.app.statistics.model("model", 1).rows == 0


async def test_workers_that_idle_stop_and_start_again_when_rows_come(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, idle_stop_s=0.2) as served:
        batcher = served.batcher("model")
        for _ in range(2):
            (result,) = await classify(served, "good", model=f"model@{SAVED_MODEL}")
            check("good", result)
            await eventually(lambda: not batcher.backend(SAVED_MODEL).ready)
        assert batcher.backend(ONNX).ready


async def test_an_idle_worker_makes_room_where_there_may_be_no_more(tmp_path: Path) -> None:
    for model in ("one", "two"):
        doubles.publish(tmp_path, model)
    async with serving(tmp_path, doubles.ADAPTERS, max_workers=2) as served:
        for name in ("one@tensorflow", "two@tensorflow", "one", "two", "two@onnxruntime"):
            (result,) = await classify(served, "good film", model=name)
            check("good film", result)
            workers = [backend.workers for model in ("one", "two") for backend in served.batcher(model).backends]
            assert sum(map(len, workers)) <= 2


async def test_a_model_that_is_always_called_keeps_no_other_from_being_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "TURN_S", 0.2)
    for model in ("one", "two", "three"):
        doubles.publish(tmp_path, model, kinds=("onnx",))
    async with serving(tmp_path, doubles.ADAPTERS, max_workers=1) as served:
        answered = dict.fromkeys(("one", "two", "three"), 0)

        async def call_on_and_on(model: str) -> None:
            while min(answered.values()) < 2 * CALLERS:
                check("good film", *await classify(served, "good film", model=model))
                answered[model] += 1

        await asyncio.gather(*(call_on_and_on(model) for model in answered for _ in range(CALLERS)))


async def test_further_instances_start_when_rows_queue(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, instances=3, policy="none", max_queue_s=600) as served:
        backend = served.batcher("model").backend(ONNX)
        assert len(backend.workers) == 1
        calls = [asyncio.ensure_future(classify(served, text, timeout=600)) for text in random_texts(2000)]
        await eventually(lambda: len(backend.workers) == 3)
        await asyncio.gather(*calls)


async def test_stopping_answers_what_was_accepted(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as served:
        batcher = served.batcher("model")
        batcher.hold()
        calls = [asyncio.ensure_future(classify(served, text)) for text in ("good", "bad", "film")]
        await eventually(lambda: batcher.queued_rows == 3)
        stopping = asyncio.ensure_future(served.app.stop())
        await asyncio.sleep(0)
        batcher.release()
        for text, (result,) in zip(("good", "bad", "film"), await asyncio.gather(*calls), strict=True):
            check(text, result)
        await stopping


async def test_a_plan_that_fails_by_our_fault_fails_no_row_and_is_logged(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = served.batcher("model")
    sound = batcher.spec.policy

    def broken(*_: object) -> NoReturn:
        batcher.spec = replace(batcher.spec, policy=sound)
        raise IndexError("a bug of ours")

    batcher.spec = replace(batcher.spec, policy=broken)
    check("good", *await classify(served, "good"))
    assert "a plan failed: the oldest row goes alone" in caplog.text
    assert "a bug of ours" in caplog.text
    check("good", *await classify(served, "good"))


async def test_rows_of_a_batch_that_a_bug_of_ours_meets_after_its_execution_are_answered(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = served.batcher("model")
    backend = batcher.backend(ONNX)
    sound = backend.spec

    def broken(*_: object) -> NoReturn:
        backend.spec = sound
        raise IndexError("a bug of ours")

    backend.spec = replace(sound, probabilities=broken)
    results = await classify(served, "good", "bad")
    assert [one.error.kind for one in results] == ["RowFailed", "RowFailed"]
    assert "a bug of ours" not in results[0].error.message
    await eventually(lambda: "ended unexpectedly" in caplog.text)
    check("good", *await classify(served, "good"))


async def test_an_artifact_that_answers_in_another_shape_than_published_fails_row_by_row(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    adapters = doubles.ADAPTERS | {"onnxruntime": "tests.doubles:ShapelessAdapter"}
    async with serving(tmp_path, adapters, max_workers=1) as served:
        results = await classify(served, "good", "bad film")
        assert [one.error.kind for one in results] == ["RowFailed", "RowFailed"]
        (sound,) = await classify(served, "good", model=f"model@{SAVED_MODEL}")
        check("good", sound)

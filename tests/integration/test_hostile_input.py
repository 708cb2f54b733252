"""Bad input over real gRPC, every case on every method: its status, what it names, and nobody else is harmed.

Each case goes out while the queue is held and a sound call waits in it, so that what is sound of both is one batch.
"""

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import pytest_asyncio

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.rpc.status import STATUS
from tests import doubles
from tests.integration.hostile_cases import CLASSIFY, INFER, INVALID, NO_MESSAGES, SOUND_TEXTS, Classify
from tests.serving import Served, eventually, ids_request, outputs, serving, text_request

pytestmark = pytest.mark.asyncio(loop_scope="module")
METHODS = {
    "ModelInfer": "/inference.GRPCInferenceService/ModelInfer",
    "ModelStreamInfer": "/inference.GRPCInferenceService/ModelStreamInfer",
    "Classify": "/sentiment.v1.SentimentService/Classify",
    "ClassifyStream": "/sentiment.v1.SentimentService/ClassifyStream",
}
NEIGHBOUR = "the good film"
_BY_KIND = {kind.__name__: status for kind, status in STATUS.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    repository = tmp_path_factory.mktemp("models")
    for name in ("model", "other"):
        doubles.publish(repository, name)
    doubles.publish(repository, "broken").joinpath("tokenizer.json").write_text("{}")
    async with serving(repository, doubles.ADAPTERS) as one:
        yield one


def probability(text: str) -> float:
    """Return what the double answers for a text: the probability of its second label."""
    exponentials = np.exp(doubles.row_logits(doubles.encode(text)))
    return float((exponentials / exponentials.sum())[1])


async def beside_a_neighbour(served: Served, attack: Callable[[], asyncio.Future[Any]]) -> Any:
    """Send something while a sound call waits, let both be executed, and hold the neighbour's answer to be right."""
    batcher = served.batcher("model")
    batcher.hold()
    neighbour = asyncio.ensure_future(served.inference.ModelInfer(text_request("model", NEIGHBOUR)))
    await eventually(lambda: batcher.queued_rows == 1)
    attacked = attack()
    await served.inference.ServerLive(oip.ServerLiveRequest())  # the attack was sent before, and is there
    batcher.release()
    result = await attacked
    answer = outputs(await neighbour)
    assert answer["probabilities"][0, 1] == pytest.approx(probability(NEIGHBOUR), abs=1e-6)
    assert batcher.queued_rows == 0
    return result


async def failure(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code(), str(caught.value.details())


@pytest.mark.parametrize("name", INFER)
async def test_model_infer_refuses_bad_input_by_name_and_its_neighbour_is_answered(served: Served, name: str) -> None:
    case = INFER[name]
    code, details = await beside_a_neighbour(
        served, lambda: asyncio.ensure_future(failure(served.inference.ModelInfer(case.request)))
    )
    assert (code, case.message in details) == (case.status, True), details


@pytest.mark.parametrize("name", INFER)
async def test_model_stream_infer_refuses_it_alone_and_the_stream_goes_on(served: Served, name: str) -> None:
    case = INFER[name]
    stream = served.inference.ModelStreamInfer()

    async def exchange() -> list[oip.ModelStreamInferResponse]:
        await stream.write(case.request)
        await stream.write(text_request("model", "good", id="after"))
        await stream.done_writing()
        return [response async for response in stream]

    answers = await beside_a_neighbour(served, lambda: asyncio.ensure_future(exchange()))
    after, bad = sorted(answers, key=lambda one: one.infer_response.id != "after")
    assert case.message in bad.error_message
    assert not after.error_message
    assert outputs(after.infer_response)["probabilities"][0, 1] == pytest.approx(probability("good"), abs=1e-6)


def _check_rows(case: Classify, response: pb.ClassifyResponse) -> None:
    """The row at fault has its error, and every other its right answer."""
    for index, (text, result) in enumerate(zip(case.request.texts, response.results, strict=True)):
        if index == case.row:
            assert _BY_KIND[result.error.kind] == case.status
            assert result.error.code == case.status.value[0]
            assert case.message in result.error.message
        else:
            assert result.prediction.probabilities[1] == pytest.approx(probability(text), abs=1e-6)


@pytest.mark.parametrize("name", CLASSIFY)
async def test_classify_refuses_the_call_or_the_row_and_the_others_are_answered(served: Served, name: str) -> None:
    case = CLASSIFY[name]

    async def attack() -> pb.ClassifyResponse | tuple[grpc.StatusCode, str]:
        call = served.sentiment.Classify(case.request)
        return await failure(call) if case.row is None else await call

    result = await beside_a_neighbour(served, lambda: asyncio.ensure_future(attack()))
    if isinstance(result, tuple):
        code, details = result
        assert (code, case.message in details) == (case.status, True), details
    else:
        _check_rows(case, result)


@pytest.mark.parametrize("name", CLASSIFY)
async def test_classify_stream_refuses_the_message_or_the_row_and_goes_on(served: Served, name: str) -> None:
    case = CLASSIFY[name]
    stream = served.sentiment.ClassifyStream()

    async def exchange() -> list[pb.StreamResponse]:
        await stream.write(pb.StreamRequest(classify=case.request))
        after = pb.ClassifyRequest(model="model", texts=["good"], id="after")
        await stream.write(pb.StreamRequest(classify=after))
        await stream.done_writing()
        return [response async for response in stream]

    answers = await beside_a_neighbour(served, lambda: asyncio.ensure_future(exchange()))
    after, bad = sorted(answers, key=lambda one: one.id != "after")
    assert after.response.results[0].prediction.probabilities[1] == pytest.approx(probability("good"), abs=1e-6)
    if case.row is None:
        assert (_BY_KIND[bad.error.kind], case.message in bad.error.message) == (case.status, True), bad.error.message
    else:
        _check_rows(case, bad.response)


@pytest.mark.parametrize("text", SOUND_TEXTS)
async def test_text_that_is_only_unusual_is_answered(served: Served, text: str) -> None:
    answer = outputs(await served.inference.ModelInfer(text_request("model", text)))
    assert answer["probabilities"][0, 1] == pytest.approx(probability(text), abs=1e-6)
    response = await served.sentiment.Classify(pb.ClassifyRequest(model="model", texts=[text]))
    assert response.results[0].prediction.probabilities[1] == pytest.approx(probability(text), abs=1e-6)


@pytest.mark.parametrize("name", NO_MESSAGES)
@pytest.mark.parametrize("method", METHODS)
async def test_bytes_that_are_no_message_are_the_callers_error(served: Served, method: str, name: str) -> None:
    async def attack() -> tuple[grpc.StatusCode, str]:
        if "Stream" not in method:
            return await failure(served.channel.unary_unary(METHODS[method])(NO_MESSAGES[name]))
        stream = served.channel.stream_stream(METHODS[method])()
        await stream.write(NO_MESSAGES[name])
        return await failure(stream.read())

    code, details = await beside_a_neighbour(served, lambda: asyncio.ensure_future(attack()))
    assert code == INVALID
    assert "is not a valid " in details
    assert "its bytes end too soon, or are no protobuf, or hold a string that is not UTF-8" in details


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("method", METHODS)
async def test_a_small_message_that_inflates_beyond_the_limit_is_refused(
    served: Served, method: str, compression: grpc.Compression
) -> None:
    bomb = bytes(64 << 20)  # as some kilobytes

    async def attack() -> tuple[grpc.StatusCode, str]:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.app.grpc_port}", options=options) as channel:
            if "Stream" not in method:
                return await failure(channel.unary_unary(METHODS[method])(bomb, compression=compression))
            stream = channel.stream_stream(METHODS[method])(compression=compression)
            await stream.write(bomb)
            return await failure(stream.read())

    code, details = await beside_a_neighbour(served, lambda: asyncio.ensure_future(attack()))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED, details


async def test_a_deadline_that_has_passed_is_told_so_on_streams(served: Served) -> None:
    stream = served.sentiment.ClassifyStream()
    request = pb.ClassifyRequest(model="model", texts=["good"], id="late")
    await stream.write(pb.StreamRequest(classify=request, timeout_us=1))
    answer = await stream.read()
    error = answer.error if answer.HasField("error") else answer.response.results[0].error
    assert (error.kind, error.code) == ("DeadlineExceeded", grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
    await stream.write(pb.StreamRequest(classify=request, timeout_us=2**63 - 1))  # three hundred thousand years
    assert (await stream.read()).response.results[0].prediction.label
    await stream.done_writing()


# ---- going away, at every phase ---------------------------------------------------------------------------------


async def gone(served: Served) -> None:
    """Wait until nothing of a call is left: in the queue, in the counts of what is under way."""
    guard = served.app._guard
    await eventually(lambda: served.batcher("model").queued_rows == 0 and not guard.calls and not guard.streams)


@pytest.mark.parametrize("method", ["ModelInfer", "Classify"])
async def test_a_call_that_is_cancelled_while_it_is_tokenised_leaves_nothing(
    served: Served, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, began, go_on = served.app.gateway.models["model"].encoder, threading.Event(), threading.Event()

    def slowly(texts: list[str], *, truncate: bool = False) -> object:
        if len(texts[0]) > 1000:
            began.set()
            go_on.wait(60)
        return type(encoder).encode(encoder, texts, truncate=truncate)

    monkeypatch.setattr(encoder, "encode", slowly)
    if method == "ModelInfer":
        call = served.inference.ModelInfer(text_request("model", "good " * 5000))
    else:
        call = served.sentiment.Classify(pb.ClassifyRequest(model="model", texts=["good " * 5000], truncate=True))
    await eventually(began.is_set)
    call.cancel()
    answer = outputs(await served.inference.ModelInfer(text_request("model", NEIGHBOUR)))
    assert answer["probabilities"][0, 1] == pytest.approx(probability(NEIGHBOUR), abs=1e-6)
    await gone(served)
    go_on.set()
    await eventually(lambda: not served.batcher("model").queued_rows)


@pytest.mark.parametrize("method", METHODS)
async def test_a_call_that_is_cancelled_in_the_queue_leaves_it_and_its_neighbour_stays(
    served: Served, method: str
) -> None:
    batcher = served.batcher("model")
    before = served.app.statistics.model("model", 1).rows
    batcher.hold()
    neighbour = asyncio.ensure_future(served.inference.ModelInfer(text_request("model", NEIGHBOUR)))
    infer, classify = text_request("model", "good", "bad"), pb.ClassifyRequest(model="model", texts=["good", "bad"])
    match method:
        case "ModelInfer":
            call = served.inference.ModelInfer(infer)
        case "Classify":
            call = served.sentiment.Classify(classify)
        case "ModelStreamInfer":
            call = served.inference.ModelStreamInfer()
            await call.write(infer)
        case _:
            call = served.sentiment.ClassifyStream()
            await call.write(pb.StreamRequest(classify=classify))
    await eventually(lambda: batcher.queued_rows == 3)
    call.cancel()
    await eventually(lambda: batcher.queued_rows == 1)
    batcher.release()
    answer = outputs(await neighbour)
    assert answer["probabilities"][0, 1] == pytest.approx(probability(NEIGHBOUR), abs=1e-6)
    assert served.app.statistics.model("model", 1).rows == before + 1
    await gone(served)


async def test_a_call_that_is_cancelled_while_its_batch_executes_harms_nobody_in_the_batch(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    adapters = {**doubles.ADAPTERS, "onnxruntime": "tests.doubles:BurningAdapter"}
    async with serving(tmp_path, adapters) as served:
        batcher = served.batcher("model")
        batcher.hold()
        neighbour = asyncio.ensure_future(served.inference.ModelInfer(text_request("model", NEIGHBOUR)))
        call = served.inference.ModelInfer(text_request("model", *["good " * 60] * 20))  # 0.26 s of work
        await eventually(lambda: batcher.queued_rows == 21)
        batcher.release()
        await eventually(lambda: batcher.queued_rows == 0)  # it is in the worker
        call.cancel()
        answer = outputs(await neighbour)
        assert answer["probabilities"][0, 1] == pytest.approx(probability(NEIGHBOUR), abs=1e-6)
        await gone(served)


async def test_a_long_request_on_a_stream_can_be_cancelled_and_is_told_so(served: Served) -> None:
    batcher = served.batcher("model")
    batcher.hold()
    stream = served.sentiment.ClassifyStream()
    long = pb.ClassifyRequest(model="model", texts=["good " * 5000], truncate=True, id="long")
    await stream.write(pb.StreamRequest(classify=long))
    await eventually(lambda: batcher.queued_rows == 1)
    await stream.write(pb.StreamRequest(cancel="long"))
    answer = await stream.read()
    assert (answer.id, answer.error.kind) == ("long", "Cancelled")
    batcher.release()
    await stream.done_writing()
    assert await stream.code() == grpc.StatusCode.OK
    await gone(served)


# ---- and nothing is left ---------------------------------------------------------------------------------------------


def _held(served: Served) -> dict[str, int]:
    """Count what a leak would show in: tasks, files, waiting rows, series of metrics, objects."""
    gc.collect()
    series = sum(len(family.samples) for family in served.app.metrics.registry.collect())
    return {
        "tasks": len(asyncio.all_tasks()),
        "files": psutil.Process().num_fds(),
        "rows": served.batcher("model").queued_rows,
        "calls": served.app._guard.calls + served.app._guard.streams,
        "series": series,
        "objects": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
    }


async def _every_case_once(served: Served, number: int) -> int:
    """Send every case to its method, those of streams on one stream; names are new each time. Returns how many."""
    infer = served.inference.ModelStreamInfer()
    classify = served.sentiment.ClassifyStream()
    quick = [name for name in INFER if "0,000" not in name]  # those of many megabytes were sent above
    sent = 0
    for name in quick:
        await infer.write(INFER[name].request)
        with pytest.raises(grpc.aio.AioRpcError):
            await served.inference.ModelInfer(INFER[name].request)
        sent += 2
    for name in [name for name in CLASSIFY if "0,000" not in name]:
        await classify.write(pb.StreamRequest(classify=CLASSIFY[name].request))
        sent += 1
    for unknown in (f"made-up-{number}", f"model@made-up-{number}", f"made-up-{number}@onnxruntime"):
        request = text_request(unknown, "good", model_version=str(number + 2))
        await infer.write(request)
        for call in (
            served.inference.ModelInfer(request),
            served.sentiment.Classify(pb.ClassifyRequest(model=unknown, texts=["good"])),
            served.inference.ModelStatistics(oip.ModelStatisticsRequest(name=unknown)),
            served.channel.unary_unary(f"/made.up.Service/Method{number}")(b""),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        sent += 5
    await infer.done_writing()
    await classify.done_writing()
    async for _ in infer:
        pass
    async for _ in classify:
        pass
    return sent


async def test_thousands_of_bad_calls_leave_nothing_behind(served: Served) -> None:
    for number in range(3):
        await _every_case_once(served, number)
    await gone(served)
    before, sent = _held(served), 0
    for number in range(3, 18):
        sent += await _every_case_once(served, number)
    await gone(served)
    after = _held(served)
    assert sent > 2_000
    for what in ("tasks", "files", "rows", "calls", "series"):
        assert after[what] <= before[what], what
    for what in ("objects", "blocks"):
        assert after[what] - before[what] < sent, f"{what}: {before[what]} before, {after[what]} after {sent} calls"


# ---- real runtimes ---------------------------------------------------------------------------------------------------


async def test_ids_that_a_model_does_not_have_never_reach_a_real_runtime(tiny_repository: Path, tmp_path: Path) -> None:
    async with serving(tiny_repository, state=tmp_path) as served:
        for name, model in served.app.gateway.models.items():
            manifest = model.manifest
            bad = {
                "token id -1 is outside": [[1, -1]],
                f"token id {manifest.vocabulary} is outside": [[1, 2], [manifest.vocabulary]],
                f"token id {2**63 - 1} is outside": [[2**63 - 1]],
                f"has {manifest.max_tokens + 1} tokens": [[1] * (manifest.max_tokens + 1)],
            }
            for message, rows in bad.items():
                code, details = await failure(served.inference.ModelInfer(ids_request(rows, model=name)))
                assert (code, message in details) == (INVALID, True), details
            assert served.app.statistics.model(name, manifest.version).batches == 0
            edge = ids_request([[1], [manifest.vocabulary - 1], [1] * manifest.max_tokens], model=name)
            probabilities = outputs(await served.inference.ModelInfer(edge))["probabilities"]
            assert np.isfinite(probabilities).all()

"""Many requests over one call: each answered when it is ready, with its own error, and none lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from tests import doubles
from tests.serving import Served, eventually, outputs, serving, text_request


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_stream_messages=600) as one:
        yield one


def request(text: str, id: str = "", model: str = "model", **fields: object) -> pb.StreamRequest:
    return pb.StreamRequest(classify=pb.ClassifyRequest(model=model, texts=[text], id=id), **fields)


def probability(text: str) -> float:
    exponentials = np.exp(doubles.row_logits(doubles.encode(text)))
    return float((exponentials / exponentials.sum())[1])


async def read(call: grpc.aio.StreamStreamCall, count: int) -> list[pb.StreamResponse]:
    return [await call.read() for _ in range(count)]


async def test_five_hundred_messages_on_one_stream_are_each_answered_right(served: Served) -> None:
    words = ("good", "bad", "film", "the", "a")
    texts = {f"m{number}": " ".join(words[: 1 + number % 5] * (1 + number % 12)) for number in range(500)}
    call = served.sentiment.ClassifyStream()
    for key, text in texts.items():
        await call.write(request(text, key))
    await call.done_writing()
    answers = {response.id: response async for response in call}
    assert answers.keys() == texts.keys()
    for key, text in texts.items():
        (result,) = answers[key].response.results
        assert result.prediction.probabilities[1] == pytest.approx(probability(text), abs=1e-6)
    assert served.app.statistics.model("model", 1).batches < 500


async def test_answers_come_together_where_the_client_takes_that_and_none_is_lost(served: Served) -> None:
    texts = {f"m{number}": " ".join(["good", "film"] * (1 + number % 12)) for number in range(300)}
    batcher = served.batcher("model")
    batcher.hold()
    call = served.sentiment.ClassifyStream()
    for key, text in texts.items():
        await call.write(request(text, key, together=True))
    await call.write(request("", "wrong"))
    await call.done_writing()
    await eventually(lambda: batcher.queued_rows == 300)
    batcher.release()
    messages = [message async for message in call]
    answers = {one.id: one for message in messages for one in (message, *message.more)}
    assert len(messages) < 100
    assert sum(1 + len(message.more) for message in messages) == 301
    assert answers.pop("wrong").response.results[0].error.kind == "InvalidInput"
    assert answers.keys() == texts.keys()
    for key, text in texts.items():
        (result,) = answers[key].response.results
        assert result.prediction.probabilities[1] == pytest.approx(probability(text), abs=1e-6)


async def test_no_message_of_several_answers_is_larger_than_clients_take(served: Served) -> None:
    call = served.sentiment.ClassifyStream()
    batcher = served.batcher("model")
    batcher.hold()
    for number in range(4):
        message = pb.ClassifyRequest(model="model", texts=["good"] * 600, id=str(number))
        await call.write(pb.StreamRequest(classify=message, together=True))
    await eventually(lambda: batcher.queued_rows == 2_400)
    batcher.release()
    await call.done_writing()
    sizes = [message.ByteSize() async for message in call]
    assert len(sizes) > 1
    assert all(size < 131_072 for size in sizes)


async def test_answers_come_when_they_are_ready_and_without_ids_in_order(served: Served) -> None:
    batcher = served.batcher("model")
    batcher.hold()
    call = served.sentiment.ClassifyStream()
    await call.write(request("good"))
    await call.write(request(""))  # fails at once, but was second
    await call.write(request("", "early"))
    assert (await call.read()).id == "early"
    batcher.release()
    first, second = await read(call, 2)
    assert first.response.results[0].prediction.label
    assert second.response.results[0].error.kind == "InvalidInput"
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK


async def test_each_message_has_its_own_error_and_deadline(served: Served) -> None:
    batcher = served.batcher("model")
    batcher.hold()
    call = served.sentiment.ClassifyStream()
    await call.write(request("good", "late", timeout_us=30_000))
    await call.write(request("good", "lost", model="nowhere"))
    await call.write(request("good", "negative", timeout_us=-1))
    await call.write(pb.StreamRequest())
    await call.write(request("bad", "fine"))
    answers = {response.id: response for response in await read(call, 4)}
    assert answers["lost"].error.kind == "ModelNotFound"
    assert answers["negative"].error.kind == "InvalidInput"
    assert answers[""].error.message == "neither classify nor cancel is set"
    assert answers["late"].response.results[0].error.kind == "DeadlineExceeded"
    batcher.release()
    assert (await call.read()).id == "fine"
    assert served.app.statistics.model("model", 1).rows == 1


async def test_a_request_is_cancelled_by_its_id(served: Served) -> None:
    batcher = served.batcher("model")
    batcher.hold()
    call = served.sentiment.ClassifyStream()
    await call.write(request("good", "one"))
    await call.write(request("bad", "two"))
    await eventually(lambda: batcher.queued_rows == 2)
    await call.write(pb.StreamRequest(cancel="one"))
    await call.write(pb.StreamRequest(cancel="nobody"))
    assert (await call.read()).response.results[0].error.kind == "Cancelled"
    batcher.release()
    assert (await call.read()).id == "two"
    assert served.app.statistics.model("model", 1).rows == 1


async def test_a_client_that_goes_leaves_nothing_in_the_queue(served: Served) -> None:
    batcher = served.batcher("model")
    batcher.hold()
    call = served.sentiment.ClassifyStream()
    for number in range(20):
        await call.write(request("good", str(number)))
    await eventually(lambda: batcher.queued_rows == 20)
    call.cancel()
    await eventually(lambda: batcher.queued_rows == 0)


async def test_the_server_reads_no_further_than_it_may_have_in_flight(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_stream_messages=8) as served:
        batcher = served.batcher("model")
        batcher.hold()
        call = served.sentiment.ClassifyStream()
        for number in range(40):
            await call.write(request("good", str(number)))
        await call.done_writing()
        await eventually(lambda: batcher.queued_rows == 8)
        for _ in range(20):  # the loop has every chance to read on
            await served.inference.ServerLive(oip.ServerLiveRequest())
        assert batcher.queued_rows == 8
        batcher.release()
        assert len([response async for response in call]) == 40


async def test_a_long_text_does_not_hold_up_the_others(served: Served) -> None:
    call = served.sentiment.ClassifyStream()
    await call.write(request("bad " * 20_000, "long"))
    await call.write(request("good", "short"))
    answers = {response.id: response for response in await read(call, 2)}
    assert answers["long"].response.results[0].error.kind == "InputTooLong"
    assert answers["short"].response.results[0].prediction.label


async def test_a_stopping_server_answers_what_it_read_and_says_that_it_goes(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as served:
        batcher = served.batcher("model")
        batcher.hold()
        call = served.sentiment.ClassifyStream()
        await call.write(request("good", "read"))
        await eventually(lambda: batcher.queued_rows == 1)
        stopping = asyncio.ensure_future(served.app.stop())
        await asyncio.sleep(0)
        batcher.release()
        assert (await call.read()).id == "read"
        assert await call.code() == grpc.StatusCode.UNAVAILABLE
        assert "connect again" in str(await call.details())
        await stopping


async def test_bytes_that_are_no_message_end_the_stream(served: Served) -> None:
    call = served.channel.stream_stream("/sentiment.v1.SentimentService/ClassifyStream")()
    await call.write(b"\xff\xff")
    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_model_stream_infer_answers_each_request_or_says_why_not(served: Served) -> None:
    call = served.inference.ModelStreamInfer()
    await call.write(text_request("model", "good", "bad", id="two"))
    await call.write(text_request("model", "", id="empty"))
    await call.write(text_request("nowhere", "good", id="lost"))
    await call.write(oip.ModelInferRequest(model_name="model", id="none"))
    await call.done_writing()
    answers = {response.infer_response.id: response async for response in call}
    assert outputs(answers["two"].infer_response)["probabilities"].shape == (2, 2)
    assert answers["two"].error_message == ""
    assert "row 0: the text has no tokens" in answers["empty"].error_message
    assert "no model 'nowhere'" in answers["lost"].error_message
    assert "no inputs" in answers["none"].error_message


async def test_a_message_that_fails_by_our_fault_is_told_so_and_the_others_are_answered(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = served.app.gateway.models["model"].encoder

    def broken(texts: list[str], *, truncate: bool = False) -> object:
        if texts == ["break"]:
            raise RuntimeError("a secret of ours")
        return type(encoder).encode(encoder, texts, truncate=truncate)

    monkeypatch.setattr(encoder, "encode", broken)
    call = served.sentiment.ClassifyStream()
    await call.write(request("break", "broken"))
    await call.write(request("good", "fine"))
    answers = {response.id: response for response in await read(call, 2)}
    assert answers["broken"].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert "request id" in answers["broken"].error.message
    assert "secret" not in answers["broken"].error.message
    assert "a secret of ours" in caplog.text
    assert answers["fine"].response.results[0].prediction.label
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK

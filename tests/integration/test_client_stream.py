"""Calls that share a stream: each has its own answer, deadline and end; a stream that ends loses none."""

import asyncio
from pathlib import Path

import grpc
import pytest

from lockstep.clients import DeadlineExceeded, Prediction, RetryPolicy, SentimentClient, Unavailable, raise_for_errors
from lockstep.clients.stream_transport import LARGE_ROWS, MOST_IN_FLIGHT
from lockstep.protos import sentiment_pb2 as wire
from tests import doubles
from tests.serving import eventually, serving
from tests.wire_double import Fail, Hold, ServerDouble

pytestmark = pytest.mark.timeout(60)
SOON = RetryPolicy(initial_s=0.001, longest_s=0.002)


async def test_five_hundred_calls_share_one_stream_of_the_real_server_and_are_answered_right(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    words = ("good", "bad", "film", "the", "a")
    texts = [" ".join(words[: 1 + n % 5] * (1 + n % 7)) for n in range(500)]
    async with (
        serving(tmp_path, doubles.ADAPTERS) as served,
        SentimentClient(f"127.0.0.1:{served.app.grpc_port}") as client,
    ):
        together = await asyncio.gather(*(client.classify([text]) for text in texts))
        alone = {text: raise_for_errors(await client.classify([text]))[0] for text in set(texts)}
        batches = served.app.statistics.model("model", 1).batches
    for text, (result,) in zip(texts, together, strict=True):
        assert isinstance(result, Prediction)
        assert result.label == alone[text].label
        assert result.score == pytest.approx(alone[text].score, abs=1e-6)
    assert batches < 500


async def test_calls_share_a_stream_and_large_ones_do_not() -> None:
    async with ServerDouble() as server, SentimentClient(server.address) as client:
        await asyncio.gather(*(client.classify(["x"]) for _ in range(20)))
        await client.classify(["x"] * (LARGE_ROWS + 1))
        await client.classify(["long " * 20_000])
    assert server.streams == 1
    assert len(server.messages) == 20
    assert all(message.together and message.timeout_us > 0 for message in server.messages)
    assert len(server.calls) == 22


async def test_what_a_stream_had_not_answered_when_it_broke_is_sent_again_on_the_next() -> None:
    holds = [Hold(), Hold()]
    async with ServerDouble(*holds) as first:
        port = first.port
        async with SentimentClient(first.address, retry=SOON) as client:
            pending = [asyncio.create_task(client.classify([text])) for text in ("good a", "b")]
            await asyncio.gather(*(hold.arrived.wait() for hold in holds))
            await first.server.stop(None)
            async with ServerDouble(port=port) as second:
                (good,), (bad,) = await asyncio.gather(*pending)
                assert sorted(call.texts[0] for call in second.calls) == ["b", "good a"]
    assert isinstance(good, Prediction)
    assert isinstance(bad, Prediction)
    assert (good.label, bad.label) == ("positive", "negative")


async def test_a_server_that_drains_answers_what_it_read_and_the_rest_goes_elsewhere(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as served:
        address = f"127.0.0.1:{served.app.grpc_port}"
        async with SentimentClient(address, retry=RetryPolicy(attempts=1)) as client:
            batcher = served.batcher("model")
            batcher.hold()
            pending = [asyncio.create_task(client.classify(["good film"])) for _ in range(50)]
            await eventually(lambda: batcher.queued_rows == 50)
            stopping = asyncio.create_task(served.app.stop())
            await asyncio.sleep(0)
            batcher.release()
            for task in pending:
                assert isinstance((await task)[0], Prediction)
            with pytest.raises(Unavailable):
                await client.classify(["good film"])
            await stopping


async def test_no_more_calls_are_in_flight_than_the_bound_and_a_call_that_waits_keeps_its_deadline() -> None:
    holds = [Hold() for _ in range(MOST_IN_FLIGHT)]
    async with ServerDouble(*holds) as server, SentimentClient(server.address) as client:
        pending = [asyncio.create_task(client.classify(["x"])) for _ in holds]
        await asyncio.gather(*(hold.arrived.wait() for hold in holds))
        with pytest.raises(DeadlineExceeded):
            await client.classify(["one more"], timeout_s=0.02)
        last = asyncio.create_task(client.classify(["the last"]))
        for hold in holds:
            hold.release.set()
        await asyncio.gather(*pending, last)
    assert ["one more"] not in [list(call.texts) for call in server.calls]


async def test_a_deadline_and_a_cancellation_reach_the_server_as_messages() -> None:
    holds = [Hold(), Hold()]
    async with ServerDouble(*holds) as server, SentimentClient(server.address) as client:
        with pytest.raises(DeadlineExceeded):
            await client.classify(["late"], timeout_s=0.02)
        unwanted = asyncio.create_task(client.classify(["unwanted"]))
        await holds[1].arrived.wait()
        unwanted.cancel()
        await asyncio.gather(*(hold.cancelled.wait() for hold in holds))
        assert len(await client.classify(["x"])) == 1
    cancelled = [message.cancel for message in server.messages if message.WhichOneof("message") == "cancel"]
    assert len(cancelled) == 2
    assert server.streams == 1


async def test_an_answer_of_several_is_unpacked_and_one_without_a_listener_is_dropped() -> None:
    class Together(ServerDouble):
        async def ClassifyStream(self, _: object, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
            messages = [await context.read() for _ in range(3)]
            answers = [
                wire.StreamResponse(id=message.classify.id, response=await self.Classify(message.classify, context))
                for message in messages
            ]
            answers[0].more.extend([*answers[1:], wire.StreamResponse(id="nobody")])
            await context.write(answers[0])
            await context.read()

    async with Together() as server, SentimentClient(server.address) as client:
        results = await asyncio.gather(*(client.classify([text]) for text in ("good", "b", "c")))
    assert [result.label for (result,) in map(raise_for_errors, results)] == ["positive", "negative", "negative"]


@pytest.mark.parametrize("code", [grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED])
async def test_a_status_that_ends_the_stream_is_not_taken_for_that_of_its_calls(code: grpc.StatusCode) -> None:
    class EndsItsFirstStream(ServerDouble):
        async def ClassifyStream(self, request: object, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
            if self.streams == 0:
                self.streams += 1
                await context.read()
                await context.abort(code, "enough of this stream")
            await super().ClassifyStream(request, context)

    async with EndsItsFirstStream() as server, SentimentClient(server.address, retry=SOON) as client:
        assert len(await client.classify(["x"])) == 1
    assert server.streams == 2


async def test_a_message_that_is_refused_for_now_is_sent_again_when_the_server_says() -> None:
    refused = Fail(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback_ms="1")
    async with ServerDouble(refused) as server, SentimentClient(server.address) as client:
        assert len(await client.classify(["x"])) == 1
    assert server.streams == 1
    assert len(server.calls) == 2

import asyncio
import threading

import grpc
import pytest

from clients import (
    ClientNotOpen,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    Phases,
    Prediction,
    RetryPolicy,
    RowError,
    SentimentClient,
    ServerFailure,
    SyncSentimentClient,
    Unavailable,
    raise_for_errors,
)
from clients.client import Mode
from protos import sentiment_pb2 as wire
from tests.wire_double import LABELS, Fail, FailRows, Hold, Malformed, ServerDouble, double_in_a_thread

pytestmark = pytest.mark.timeout(60)
SOON = RetryPolicy(initial_s=0.001, longest_s=0.002)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(params=["stream", "unary"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """How calls travel: they behave alike."""
    travels: Mode = request.param
    return travels


async def test_each_text_is_answered_in_order_with_its_phases(mode: Mode) -> None:
    async with ServerDouble() as server, SentimentClient(server.address, mode=mode) as client:
        good, bad = raise_for_errors(await client.classify(["a good film", "no"], model="tiny"))
    assert good == Prediction(
        label="positive",
        score=0.875,
        probabilities={"negative": 0.125, "positive": 0.875},
        truncated=False,
        tokens=3,
        backend="onnxruntime",
        phases=Phases(0.1, 0.2, 0.3, 0.4, 0.5, 6.0, 0.7),
        batch_rows=2,
        batch_tokens=3,
    )
    assert bad.label == "negative"
    assert good.phases.total_ms == pytest.approx(8.2)


async def test_what_the_caller_asks_reaches_the_server(mode: Mode) -> None:
    async with ServerDouble() as server, SentimentClient(server.address, mode=mode) as client:
        await client.classify(["x"], model="tiny", backend="tensorflow", truncate=True, priority=3)
    (call,) = server.calls
    assert (call.model, call.truncate, call.priority) == ("tiny@tensorflow", True, 3)


async def test_no_texts_need_no_call(mode: Mode) -> None:
    async with ServerDouble() as server, SentimentClient(server.address, mode=mode) as client:
        assert await client.classify([]) == []
    assert server.calls == []


async def test_unavailable_is_sent_again_until_it_answers(mode: Mode) -> None:
    async with (
        ServerDouble(Fail(UNAVAILABLE), Fail(UNAVAILABLE), Fail(UNAVAILABLE)) as server,
        SentimentClient(server.address, retry=SOON, mode=mode) as client,
    ):
        assert len(await client.classify(["x"])) == 1
    assert len(server.calls) == 4


async def test_overload_is_sent_again_when_the_server_says_when(mode: Mode) -> None:
    async with (
        ServerDouble(Fail(EXHAUSTED, pushback_ms="1")) as server,
        SentimentClient(server.address, mode=mode) as client,
    ):
        assert len(await client.classify(["x"])) == 1
    assert len(server.calls) == 2


@pytest.mark.parametrize("pushback_ms", [None, "-1", "soon"])
async def test_overload_without_a_usable_pushback_is_raised_at_once(mode: Mode, pushback_ms: str | None) -> None:
    async with (
        ServerDouble(Fail(EXHAUSTED, "the queue is full", pushback_ms)) as server,
        SentimentClient(server.address, mode=mode) as client,
    ):
        with pytest.raises(Overloaded, match="the queue is full"):
            await client.classify(["x"])
    assert len(server.calls) == 1


async def test_a_pushback_beyond_the_deadline_is_not_waited_for(mode: Mode) -> None:
    async with (
        ServerDouble(Fail(EXHAUSTED, pushback_ms="60000")) as server,
        SentimentClient(server.address, timeout_s=30, mode=mode) as client,
    ):
        with pytest.raises(Overloaded) as caught:
            await client.classify(["x"])
    assert caught.value.pushback_s == 60


async def test_rows_that_fail_for_the_moment_are_sent_again_alone(mode: Mode) -> None:
    crash = ("BackendUnavailable", UNAVAILABLE, "the worker died")
    long = ("InputTooLong", grpc.StatusCode.INVALID_ARGUMENT, "too long")
    async with (
        ServerDouble(FailRows({0: crash, 1: long, 3: crash}), FailRows({1: crash})) as server,
        SentimentClient(server.address, retry=SOON, mode=mode) as client,
    ):
        results = await client.classify(["good a", "b", "c", "good d"])
    assert [list(call.texts) for call in server.calls] == [
        ["good a", "b", "c", "good d"],
        ["good a", "good d"],
        ["good d"],
    ]
    assert [type(result) for result in results] == [Prediction, RowError, Prediction, Prediction]
    assert results[1] == RowError("InputTooLong", grpc.StatusCode.INVALID_ARGUMENT, "too long")


async def test_rows_that_were_answered_survive_a_failed_retry_of_the_others(mode: Mode) -> None:
    crash = ("BackendUnavailable", UNAVAILABLE, "the worker died")
    async with (
        ServerDouble(FailRows({1: crash}), Fail(grpc.StatusCode.INTERNAL)) as server,
        SentimentClient(server.address, retry=SOON, mode=mode) as client,
    ):
        first, second = await client.classify(["a", "b"])
    assert isinstance(first, Prediction)
    assert second == RowError("BackendUnavailable", UNAVAILABLE, "the worker died")


async def test_the_deadline_reaches_the_server_and_ends_the_call(mode: Mode) -> None:
    hold = Hold()
    async with ServerDouble(hold) as server, SentimentClient(server.address, mode=mode) as client:
        with pytest.raises(DeadlineExceeded):
            await client.classify(["x"], timeout_s=0.05)
        await hold.cancelled.wait()


async def test_cancelling_the_task_cancels_the_call_at_the_server(mode: Mode) -> None:
    hold = Hold()
    async with ServerDouble(hold) as server, SentimentClient(server.address, mode=mode) as client:
        task = asyncio.create_task(client.classify(["x"]))
        await hold.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await hold.cancelled.wait()


async def test_many_calls_share_the_connection(mode: Mode) -> None:
    async with ServerDouble() as server, SentimentClient(server.address, mode=mode) as client:
        answers = await asyncio.gather(*(client.classify([f"good {n}"]) for n in range(64)))
    assert all(isinstance(result, Prediction) for (result,) in answers)


async def test_no_server_is_unavailable_and_says_where(mode: Mode) -> None:
    async with ServerDouble() as server:
        port = server.port
    async with SentimentClient(f"127.0.0.1:{port}", timeout_s=0.2, mode=mode) as client:
        with pytest.raises(Unavailable, match=str(port)):
            await client.classify(["x"])


async def test_a_client_finds_a_server_that_starts_late(mode: Mode) -> None:
    async with ServerDouble() as server:
        port = server.port
    async with SentimentClient(f"127.0.0.1:{port}", retry=RetryPolicy(initial_s=0.01), mode=mode) as client:
        pending = asyncio.create_task(client.classify(["x"]))
        async with ServerDouble(port=port):
            assert len(await pending) == 1


@pytest.mark.parametrize(
    "response",
    [
        wire.ClassifyResponse(labels=LABELS),
        wire.ClassifyResponse(labels=LABELS, results=[wire.Result()]),
        wire.ClassifyResponse(labels=LABELS, results=[wire.Result(prediction=wire.Prediction(label="no"))]),
    ],
)
async def test_a_malformed_answer_is_the_servers_failure(mode: Mode, response: wire.ClassifyResponse) -> None:
    async with ServerDouble(Malformed(response)) as server, SentimentClient(server.address, mode=mode) as client:
        with pytest.raises(ServerFailure, match="malformed answer"):
            await client.classify(["x"])


async def test_callers_mistakes_are_named(mode: Mode) -> None:
    async with ServerDouble() as server, SentimentClient(server.address, mode=mode) as client:
        with pytest.raises(TypeError, match=r"pass \[text\]"):
            await client.classify("one string")
        with pytest.raises(ValueError, match="Name the model"):
            await client.classify(["x"], backend="onnxruntime")
        with pytest.raises(ValueError, match="text 1 is not valid Unicode"):
            await client.classify(["x", "\ud800"])
        with pytest.raises(NotFound, match="other"):
            await client.classify(["x"], model="other")
    with pytest.raises(ClientNotOpen):
        await client.classify(["x"])


async def test_invalid_input_is_raised_with_the_servers_words(mode: Mode) -> None:
    reply = Fail(grpc.StatusCode.INVALID_ARGUMENT, "text 0 is not UTF-8")
    async with ServerDouble(reply) as server, SentimentClient(server.address, mode=mode) as client:
        with pytest.raises(InvalidInput, match="text 0 is not UTF-8"):
            await client.classify(["x"])


async def test_models_are_listed_with_their_backends(mode: Mode) -> None:
    served = {"a": ("onnxruntime",), "b": ("onnxruntime", "tensorflow")}
    async with ServerDouble(models=served) as server, SentimentClient(server.address, mode=mode) as client:
        models = await client.models()
    assert {model.name: tuple(b.name for b in model.backends) for model in models} == served
    assert all(model.ready and model.backends[0].ready for model in models)


async def test_the_server_describes_itself_and_its_models(mode: Mode) -> None:
    async with ServerDouble() as server, SentimentClient(server.address, mode=mode) as client:
        assert await client.live()
        assert await client.ready()
        assert await client.ready("tiny", "tensorflow")
        assert not await client.ready("tiny", "torch")
        assert (await client.server()).name == "double"
        metadata = await client.metadata("tiny")
        with pytest.raises(NotFound):
            await client.metadata("other")
    assert [tensor.name for tensor in metadata.inputs] == ["text"]


async def test_statistics_subtract(mode: Mode) -> None:
    async with ServerDouble() as server, SentimentClient(server.address, mode=mode) as client:
        await client.classify(["x"], model="tiny", backend="tensorflow")
        before = await client.statistics("tiny", "tensorflow")
        await client.classify(["x", "y"], model="tiny", backend="tensorflow")
        after = await client.statistics("tiny", "tensorflow")
        with pytest.raises(NotFound):
            await client.statistics("tiny", "torch")
    added = after.since(before)
    assert (added.rows, added.batches, added.success.count) == (2, 1, 1)
    assert added.success.mean_ms == pytest.approx(8.2)


def test_the_sync_face_answers_and_raises_what_the_async_one_does() -> None:
    with double_in_a_thread() as server:
        with SyncSentimentClient(server.address) as client:
            (good,) = raise_for_errors(client.classify(["good"], model="tiny"))
            assert good.label == "positive"
            assert client.live()
            assert client.ready("tiny")
            assert client.server().name == "double"
            assert [model.name for model in client.models()] == ["tiny"]
            assert client.metadata("tiny").name == "tiny"
            assert client.statistics("tiny").rows == 1
            with pytest.raises(NotFound):
                client.classify(["x"], model="other")
        with pytest.raises(ClientNotOpen):
            client.classify(["x"])
    assert not [thread for thread in threading.enumerate() if thread.name == "lockstep-client"]

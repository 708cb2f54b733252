import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import grpc
import pytest

from lockstep.clients import (
    Cancelled,
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
from lockstep.clients.client import Mode
from lockstep.protos import sentiment_pb2 as wire
from tests.serving import eventually
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


async def test_where_a_wait_outlasts_the_deadline_the_last_failure_is_told(mode: Mode) -> None:
    loop = asyncio.get_running_loop()

    def keep_the_loop_busy_until(when_s: float) -> None:
        while loop.time() < when_s:
            pass

    async with (
        ServerDouble(Fail(UNAVAILABLE, "why it failed")) as server,
        SentimentClient(server.address, mode=mode, retry=RetryPolicy(initial_s=1.0)) as client,
    ):
        until_s = loop.time() + 2.0
        pending = asyncio.create_task(client.classify(["x"], timeout_s=2.0))
        await eventually(lambda: bool(server.calls))
        loop.call_later(0.2, keep_the_loop_busy_until, until_s + 0.1)
        with pytest.raises(Unavailable, match="why it failed"):
            await pending
    assert len(server.calls) == 1


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


async def test_a_deadline_that_passed_here_is_told_from_one_that_the_server_speaks_of(mode: Mode) -> None:
    async with (
        ServerDouble(Fail(grpc.StatusCode.DEADLINE_EXCEEDED), Hold()) as server,
        SentimentClient(server.address, mode=mode) as client,
    ):
        told = []
        for timeout_s in (20.0, 0.05):
            with pytest.raises(DeadlineExceeded) as raised:
                await client.classify(["x"], timeout_s=timeout_s)
            told.append(raised.value.passed_here)
    assert told == [False, True]


async def test_a_call_that_the_server_cancels_is_an_error_and_does_not_cancel_its_caller(mode: Mode) -> None:
    async with (
        ServerDouble(Fail(grpc.StatusCode.CANCELLED)) as server,
        SentimentClient(server.address, mode=mode) as client,
    ):
        with pytest.raises(Cancelled):
            await client.classify(["x"])


async def test_texts_that_change_while_a_call_waits_are_sent_again_as_they_were(mode: Mode) -> None:
    texts, hold = ["good", "good"], Hold()
    async with (
        ServerDouble(Fail(UNAVAILABLE), hold) as server,
        SentimentClient(server.address, mode=mode, retry=SOON) as client,
    ):
        pending = asyncio.create_task(client.classify(texts))
        await hold.arrived.wait()
        texts.clear()
        hold.release.set()
        assert len(await pending) == 2


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


@pytest.mark.parametrize("addresses", [1, 2])
async def test_leaving_the_block_cancels_every_call_in_flight_and_refuses_new_ones(mode: Mode, addresses: int) -> None:
    holds = [Hold() for _ in range(300)]
    async with ServerDouble(*holds) as server, ServerDouble() as other:
        named = [server.address, other.address][:addresses]
        async with SentimentClient(named, mode=mode) as client:
            transport = client.transport
            pending = [asyncio.create_task(client.classify(["x"])) for _ in range(600)]
            others = [asyncio.create_task(client.live()) for _ in range(10)]
            await holds[0].arrived.wait()
            not_begun = asyncio.create_task(client.classify(["x"]))
        outcomes = await asyncio.gather(*pending, *others, return_exceptions=True)
        answered = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)} == {Cancelled}
        assert len(answered) < 600
        for late in (client.classify(["x"]), client.live(), not_begun):
            with pytest.raises(ClientNotOpen):
                await late
        with pytest.raises(ClientNotOpen):
            await transport.classify(wire.ClassifyRequest(texts=["x"]), timeout_s=1.0)
        server.replies.clear()


async def test_leaving_the_block_ends_a_wait_for_the_next_try(mode: Mode) -> None:
    slow = RetryPolicy(initial_s=20.0, longest_s=20.0)
    async with ServerDouble(Fail(UNAVAILABLE)) as server:
        async with SentimentClient(server.address, mode=mode, retry=slow, timeout_s=50.0) as client:
            waiting = asyncio.create_task(client.classify(["x"]))
            while not server.calls:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.001)
        with pytest.raises(Cancelled):
            await waiting


async def test_a_caller_that_is_cancelled_while_the_client_closes_is_cancelled(mode: Mode) -> None:
    hold = Hold()
    async with ServerDouble(hold) as server:
        async with SentimentClient(server.address, mode=mode) as client:
            pending = asyncio.create_task(client.classify(["x"]))
            await hold.arrived.wait()
            pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending


async def test_a_client_can_be_opened_again_but_not_twice_at_once(mode: Mode) -> None:
    async with ServerDouble() as server:
        client = SentimentClient(server.address, mode=mode)
        for _ in range(2):
            async with client:
                with pytest.raises(RuntimeError, match="open already"):
                    await client.__aenter__()
                assert len(await client.classify(["x"])) == 1


@pytest.mark.parametrize("reply", [Fail(UNAVAILABLE), Hold()], ids=["in-a-wait", "in-flight"])
def test_leaving_the_sync_block_in_one_thread_ends_the_calls_of_the_others(reply: Fail | Hold) -> None:
    slow = RetryPolicy(initial_s=20.0, longest_s=20.0)
    with double_in_a_thread(reply) as server, ThreadPoolExecutor() as threads:
        with SyncSentimentClient(server.address, retry=slow, timeout_s=50.0) as client:
            pending = threads.submit(client.classify, ["x"])
            while not server.calls:
                pass
        with pytest.raises(Cancelled):
            pending.result(timeout=15)
        with pytest.raises(ClientNotOpen):
            client.classify(["x"])


def test_threads_that_call_while_another_leaves_the_sync_block_are_all_told() -> None:
    def call_until_it_is_closed(client: SyncSentimentClient) -> type[Exception]:
        while True:
            try:
                client.classify(["x"])
            except (Cancelled, ClientNotOpen) as error:
                return type(error)

    with double_in_a_thread() as server, ThreadPoolExecutor(8) as threads:
        for _ in range(10):
            with SyncSentimentClient(server.address) as client:
                calling = [threads.submit(call_until_it_is_closed, client) for _ in range(8)]
                client.classify(["x"])
            for one in calling:
                one.result(timeout=15)
    assert not [thread for thread in threading.enumerate() if thread.name == "lockstep-client"]


async def test_the_sync_face_opens_and_closes_inside_a_running_event_loop() -> None:
    async with ServerDouble() as server:
        with SyncSentimentClient(server.address) as client:
            assert await asyncio.to_thread(client.live)


@asynccontextmanager
async def far_away(port: int, delay_s: float) -> AsyncIterator[str]:
    """Pass connections on to a port of this machine, what the server says first by so many seconds late."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # who hangs up may do so while something is on its way
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        there = asyncio.create_task(copy(reader, to_server))
        await asyncio.sleep(delay_s)
        await asyncio.gather(there, copy(from_server, writer))

    connections: list[asyncio.Task[None]] = []
    proxy = await asyncio.start_server(
        lambda *ends: connections.append(asyncio.create_task(serve(*ends))), "127.0.0.1", 0
    )
    async with proxy:
        yield f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    await asyncio.gather(*connections)


async def test_a_server_that_is_far_away_has_time_to_answer_the_first_attempt_to_connect(mode: Mode) -> None:
    async with (
        ServerDouble() as server,
        far_away(server.port, 0.3) as address,
        SentimentClient(address, mode=mode, retry=RetryPolicy(attempts=1)) as client,
    ):
        assert len(await client.classify(["x"])) == 1

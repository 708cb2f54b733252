"""What is written on a stream that calls share, and when, by a stream that the test drives."""

import asyncio
from collections import deque

import grpc
import pytest

from lockstep.clients import Cancelled, ClientNotOpen, DeadlineExceeded, Unavailable
from lockstep.clients.stream_transport import MOST_IN_FLIGHT, StreamTransport
from lockstep.clients.transport import GrpcTransport
from lockstep.protos import sentiment_pb2 as wire
from tests.serving import eventually

pytestmark = pytest.mark.timeout(30)
ASK = wire.ClassifyRequest(texts=["x"])


class PuppetStream:
    """Connects when `connected` is set, takes messages while `takes` is, and says what the test puts into `answers`."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.takes = asyncio.Event()
        self.takes.set()
        self.answers: asyncio.Queue[wire.StreamResponse | grpc.aio.AioRpcError] = asyncio.Queue()
        self.written: list[wire.StreamRequest] = []
        self.cancelled = False
        self.fails: grpc.aio.AioRpcError | None = (
            None  # what gRPC raises for the next message, here and where it is read
        )

    async def wait_for_connection(self) -> None:
        await self.connected.wait()

    async def write(self, message: wire.StreamRequest) -> None:
        await self.takes.wait()
        if self.fails is not None:
            self.answers.put_nowait(self.fails)
            raise self.fails
        self.written.append(message)

    async def read(self) -> wire.StreamResponse:
        answer = await self.answers.get()
        if isinstance(answer, grpc.aio.AioRpcError):
            raise answer
        return answer

    def cancel(self) -> None:
        self.cancelled = True

    def answer(self, message: wire.StreamRequest) -> None:
        """Answer a call that was written."""
        self.answers.put_nowait(wire.StreamResponse(id=message.classify.id, response=wire.ClassifyResponse(model="m")))

    @property
    def calls(self) -> list[wire.StreamRequest]:
        """What was written but cancellations."""
        return [message for message in self.written if message.WhichOneof("message") == "classify"]


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> deque[PuppetStream]:
    """The streams that the transport opens, one after the other."""
    made = deque([PuppetStream(), PuppetStream()])
    left = deque(made)
    monkeypatch.setattr(GrpcTransport, "classify_stream", lambda _: left.popleft())
    return made


async def test_a_call_whose_caller_left_before_it_was_written_is_neither_written_nor_cancelled(
    streams: deque[PuppetStream],
) -> None:
    transport = StreamTransport("127.0.0.1:1")
    late = [transport.classify(ASK, timeout_s=0.02) for _ in range(2 * MOST_IN_FLIGHT)]
    outcomes = await asyncio.gather(*late, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {DeadlineExceeded}
    fresh = asyncio.create_task(transport.classify(ASK, timeout_s=20.0))
    stream = streams[0]
    stream.connected.set()
    await eventually(lambda: bool(stream.written))
    stream.answer(stream.written[0])
    assert (await fresh).model == "m"
    assert len(stream.written) == 1
    await transport.close()


async def test_the_server_hears_what_is_left_of_the_deadline_when_a_call_is_written(
    streams: deque[PuppetStream],
) -> None:
    transport = StreamTransport("127.0.0.1:1")
    stream, now = streams[0], asyncio.get_running_loop().time
    waiting = asyncio.create_task(transport.classify(ASK, timeout_s=20.0))
    await asyncio.sleep(0)
    until_s = now() + 20.0  # the call has begun
    await eventually(lambda: now() > until_s - 19.9)
    at_most_us = (until_s - now()) * 1e6
    stream.connected.set()
    await eventually(lambda: bool(stream.written))
    assert 0 < stream.written[0].timeout_us <= at_most_us
    stream.answer(stream.written[0])
    await waiting
    await transport.close()


async def test_a_call_that_was_written_takes_its_room_until_the_server_has_answered_it(
    streams: deque[PuppetStream],
) -> None:
    transport, stream = StreamTransport("127.0.0.1:1"), streams[0]
    stream.connected.set()
    late = [asyncio.create_task(transport.classify(ASK, timeout_s=0.5)) for _ in range(MOST_IN_FLIGHT)]
    await eventually(lambda: len(stream.calls) == MOST_IN_FLIGHT)
    await asyncio.gather(*late, return_exceptions=True)
    await eventually(lambda: len(stream.written) == 2 * MOST_IN_FLIGHT)  # each was cancelled
    with pytest.raises(DeadlineExceeded):
        await transport.classify(ASK, timeout_s=0.02)
    fresh = asyncio.create_task(transport.classify(ASK, timeout_s=20.0))
    stream.answer(stream.calls[0])
    await eventually(lambda: len(stream.calls) == MOST_IN_FLIGHT + 1)
    stream.answer(stream.calls[-1])
    assert (await fresh).model == "m"
    await transport.close()


async def test_a_stream_that_takes_no_message_is_ended_and_the_next_call_opens_another(
    streams: deque[PuppetStream],
) -> None:
    transport = StreamTransport("127.0.0.1:1", stuck_s=0.02)
    stuck, following = streams
    stuck.connected.set()
    stuck.takes.clear()
    with pytest.raises(Unavailable, match="took no message"):
        await transport.classify(ASK, timeout_s=20.0)
    assert stuck.cancelled
    following.connected.set()
    fresh = asyncio.create_task(transport.classify(ASK, timeout_s=20.0))
    await eventually(lambda: bool(following.written))
    following.answer(following.written[0])
    assert (await fresh).model == "m"
    await transport.close()


async def test_a_stream_that_ends_while_a_message_is_written_is_unavailable_and_no_bug_of_the_server(
    streams: deque[PuppetStream],
) -> None:
    transport, stream, none = StreamTransport("127.0.0.1:1"), streams[0], grpc.aio.Metadata()
    stream.connected.set()
    stream.fails = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, none, none, details="Internal error from Core")
    with pytest.raises(Unavailable):
        await transport.classify(ASK, timeout_s=20.0)
    await transport.close()


async def test_a_stream_is_not_stuck_while_it_connects(streams: deque[PuppetStream]) -> None:
    transport, stream = StreamTransport("127.0.0.1:1", stuck_s=0.01), streams[0]
    with pytest.raises(DeadlineExceeded):
        await transport.classify(ASK, timeout_s=0.1)
    assert not stream.cancelled
    await transport.close()


async def test_a_stream_on_which_cancelled_calls_stay_unanswered_is_ended_before_it_takes_all_room(
    streams: deque[PuppetStream],
) -> None:
    transport, stream = StreamTransport("127.0.0.1:1", stuck_s=0.02), streams[0]
    stream.connected.set()
    late = [asyncio.create_task(transport.classify(ASK, timeout_s=0.5)) for _ in range(MOST_IN_FLIGHT)]
    await asyncio.gather(*late, return_exceptions=True)
    await eventually(lambda: stream.cancelled)
    fresh = asyncio.create_task(transport.classify(ASK, timeout_s=20.0))
    streams[1].connected.set()
    await eventually(lambda: bool(streams[1].written))
    streams[1].answer(streams[1].written[0])
    assert (await fresh).model == "m"
    await transport.close()


async def test_a_call_that_is_cancelled_just_before_it_is_written_leaves_its_room(streams: deque[PuppetStream]) -> None:
    transport, stream = StreamTransport("127.0.0.1:1"), streams[0]
    stream.connected.set()
    for _ in range(2 * MOST_IN_FLIGHT):
        leaving = asyncio.create_task(transport.classify(ASK, timeout_s=20.0))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        for message in stream.calls:
            stream.answer(message)
    fresh = asyncio.create_task(transport.classify(ASK, timeout_s=20.0))
    await eventually(lambda: bool(stream.calls))
    stream.answer(stream.calls[-1])
    assert (await fresh).model == "m"
    await transport.close()


async def test_closing_ends_calls_that_wait_for_the_connection(streams: deque[PuppetStream]) -> None:
    transport = StreamTransport("127.0.0.1:1")
    waiting = asyncio.create_task(transport.classify(ASK, timeout_s=20.0))
    await asyncio.sleep(0)
    await transport.close()
    with pytest.raises(Cancelled, match="the client was closed"):
        await waiting
    with pytest.raises(ClientNotOpen):
        await transport.classify(ASK, timeout_s=20.0)

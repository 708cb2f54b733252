"""A server that hangs: its process is stopped, its connections stay. What that costs callers, then and later."""

import asyncio
import functools
from typing import Any, Literal

import pytest

from lockstep.clients import DeadlineExceeded, RetryPolicy, SentimentClient, Unavailable, raise_for_errors, transport
from lockstep.clients.stream_transport import MOST_IN_FLIGHT, StreamTransport
from lockstep.server.config import ServerConfig
from tests.serving import eventually
from tests.stopped_double import stoppable_server
from tests.wire_double import Hold, ServerDouble

pytestmark = pytest.mark.timeout(120)
MODES: tuple[Literal["stream", "unary"], ...] = ("stream", "unary")


async def backend_of(client: SentimentClient, *, timeout_s: float = 10.0) -> str:
    """Ask for one text, and tell whose answer it is."""
    (prediction,) = raise_for_errors(await client.classify(["x"], timeout_s=timeout_s))
    return prediction.backend


async def until_it_fails(client: SentimentClient) -> None:
    """Ask one call after the other, with a short deadline."""
    while True:
        await backend_of(client, timeout_s=1.0)


@pytest.mark.parametrize("mode", MODES)
async def test_one_of_two_servers_that_hangs_costs_one_deadline_until_it_wakes(
    mode: Literal["stream", "unary"],
) -> None:
    with stoppable_server("onnxruntime") as hanging, stoppable_server("tensorflow") as living:
        async with SentimentClient([hanging.address, living.address], mode=mode) as client:
            asked: set[str] = set()
            while asked != {"onnxruntime", "tensorflow"}:
                asked.add(await backend_of(client))
            hanging.stop()
            with pytest.raises(DeadlineExceeded):
                await until_it_fails(client)
            for _ in range(200):
                assert await backend_of(client) == "tensorflow"
            hanging.wake()
            while await backend_of(client) != "onnxruntime":
                pass


@pytest.mark.parametrize("mode", MODES)
async def test_a_server_that_is_slow_is_asked_whether_it_lives_and_keeps_its_calls(
    mode: Literal["stream", "unary"],
) -> None:
    slow = [Hold() for _ in range(2)]
    async with (
        ServerDouble(slow[0], models={"tiny": ("onnxruntime",)}) as one,
        ServerDouble(slow[1], models={"tiny": ("tensorflow",)}) as two,
        SentimentClient([one.address, two.address], mode=mode) as client,
    ):
        late = [asyncio.create_task(backend_of(client, timeout_s=0.2)) for _ in slow]
        for task in late:
            with pytest.raises(DeadlineExceeded):
                await task
        asked: set[str] = set()
        while asked != {"onnxruntime", "tensorflow"}:
            asked.add(await backend_of(client))


async def test_a_connection_that_says_nothing_is_given_up_before_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "KEEPALIVE_S", 1)
    monkeypatch.setattr(transport, "KEEPALIVE_ANSWER_S", 1)
    with stoppable_server() as server:
        async with SentimentClient(server.address, mode="unary", retry=RetryPolicy(attempts=1)) as client:
            await backend_of(client)
            server.stop()
            with pytest.raises(Unavailable):
                await backend_of(client, timeout_s=60.0)


def test_clients_probe_less_often_than_servers_allow() -> None:
    assert ServerConfig.model_fields["min_ping_s"].default < transport.KEEPALIVE_S


async def test_a_server_that_wakes_is_not_given_what_nobody_waits_for() -> None:
    with stoppable_server() as server:
        async with SentimentClient(server.address) as client:
            await backend_of(client)
            before = (await client.statistics("tiny")).rows
            server.stop()
            stale = [
                asyncio.create_task(client.classify([f"{number} " * 6_000], timeout_s=0.5))
                for number in range(10_000, 11_000)
            ]
            outcomes = await asyncio.gather(*stale, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {DeadlineExceeded}
            server.wake()
            assert await backend_of(client, timeout_s=30.0) == "onnxruntime"
            rows = (await client.statistics("tiny")).rows - before
            assert rows <= MOST_IN_FLIGHT + 1


async def test_calls_that_a_stuck_stream_holds_go_over_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[Any] = []
    open_one = transport.GrpcTransport.classify_stream

    def count_and_open(one: transport.GrpcTransport) -> Any:
        streams.append(open_one(one))
        return streams[-1]

    monkeypatch.setattr(transport.GrpcTransport, "classify_stream", count_and_open)
    with stoppable_server() as server:
        connect = functools.partial(StreamTransport, stuck_s=0.3)
        async with SentimentClient(server.address, connect=connect, timeout_s=60.0) as client:
            await backend_of(client)
            server.stop()
            pending = [asyncio.create_task(client.classify(["word " * 6_000])) for _ in range(200)]
            await eventually(lambda: len(streams) > 1)
            server.wake()
            assert len(await asyncio.gather(*pending)) == 200

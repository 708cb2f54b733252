"""Several servers behind one client: calls are spread, and what one cannot answer another does."""

import asyncio
from typing import Literal

import grpc
import pytest

from lockstep.clients import Overloaded, Prediction, RetryPolicy, SentimentClient, SyncSentimentClient, Unavailable
from tests.wire_double import Fail, Hold, ServerDouble, double_in_a_thread

pytestmark = pytest.mark.timeout(60)
MODES: tuple[Literal["stream", "unary"], ...] = ("stream", "unary")
FULL = Fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", pushback_ms="60000")


@pytest.mark.parametrize("mode", MODES)
async def test_calls_are_spread_over_the_addresses(mode: Literal["stream", "unary"]) -> None:
    holds = [Hold() for _ in range(4)]
    async with (
        ServerDouble(*holds[:2]) as one,
        ServerDouble(*holds[2:]) as two,
        SentimentClient([one.address, two.address], mode=mode) as client,
    ):
        pending = [asyncio.create_task(client.classify(["x"])) for _ in range(4)]
        await asyncio.gather(*(hold.arrived.wait() for hold in holds))
        for hold in holds:
            hold.release.set()
        await asyncio.gather(*pending)
    assert (len(one.calls), len(two.calls)) == (2, 2)


@pytest.mark.parametrize("mode", MODES)
async def test_a_server_that_goes_away_under_load_loses_no_call(mode: Literal["stream", "unary"]) -> None:
    holds = [Hold() for _ in range(5)]
    async with (
        ServerDouble(*holds) as leaving,
        ServerDouble() as staying,
        SentimentClient(f"{leaving.address},{staying.address}", mode=mode) as client,
    ):
        pending = [asyncio.create_task(client.classify([f"good {n}"])) for n in range(10)]
        await asyncio.gather(*(hold.arrived.wait() for hold in holds))
        await leaving.server.stop(None)
        answers = await asyncio.gather(*pending)
        assert all(isinstance(result, Prediction) for (result,) in answers)
        await client.classify(["after"])
    assert len(staying.calls) == 11


async def test_a_full_server_s_calls_go_to_the_other_at_once_whatever_its_pushback() -> None:
    async with (
        ServerDouble() as one,
        ServerDouble() as two,
        SentimentClient([one.address, two.address], timeout_s=30) as client,
    ):
        one.replies.append(FULL)
        two.replies.append(FULL)
        with pytest.raises(Overloaded):  # both are full: an hour's wait is past the deadline
            await client.classify(["x"], timeout_s=1)
        assert (len(one.calls), len(two.calls)) == (1, 1)
    async with (
        ServerDouble(FULL) as one,
        ServerDouble() as two,
        SentimentClient([one.address, two.address], timeout_s=30) as client,
    ):
        await asyncio.gather(client.classify(["x"]), client.classify(["x"]))  # one each; the full one's comes over
        for _ in range(4):
            await client.classify(["x"])
        assert (len(one.calls), len(two.calls)) == (1, 6)


async def test_where_no_address_answers_the_error_says_so() -> None:
    addresses = ["127.0.0.1:1", "127.0.0.1:2"]
    async with SentimentClient(addresses, retry=RetryPolicy(attempts=3), timeout_s=10) as client:
        with pytest.raises(Unavailable):
            await client.classify(["x"])


def test_the_sync_face_takes_several_addresses() -> None:
    with double_in_a_thread() as server, SyncSentimentClient(["127.0.0.1:1", server.address]) as client:
        (result,) = client.classify(["good"])
        assert isinstance(result, Prediction)
        assert client.live()

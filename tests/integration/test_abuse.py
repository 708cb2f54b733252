"""Clients that mean harm, below the level of messages: each is bounded or shown the door, and the others are served."""

import asyncio
import resource
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import grpc
import h2.errors
import h2.events
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from tests import doubles
from tests.raw_http2 import raw_http2
from tests.serving import Served, eventually, outputs, serving, text_request

INFER, LIVE = "/inference.GRPCInferenceService/ModelInfer", "/inference.GRPCInferenceService/ServerLive"
CLASSIFY_STREAM = "/sentiment.v1.SentimentService/ClassifyStream"
INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
EMPTY = struct.pack(">BI", 0, 0)  # a gRPC message of no bytes


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as one:
        yield one


async def others_are_served(served: Served) -> None:
    response = await served.inference.ModelInfer(text_request("model", "good"))
    assert outputs(response)["probabilities"].shape == (1, 2)


async def nothing_is_left(served: Served) -> None:
    guard = served.app._guard
    await eventually(lambda: not (guard.calls or guard.streams or guard.watches))
    await others_are_served(served)


# ---- HTTP/2 --------------------------------------------------------------------------------------------------------


async def test_a_client_that_pings_too_often_is_shown_the_door(served: Served) -> None:
    async with raw_http2(served.app.grpc_port) as client:
        while not client.closed and not any(isinstance(e, h2.events.ConnectionTerminated) for e in client.events):
            client.h2.ping(b"12345678")
            await client.send()
            await client.read()
        ended = await client.until(h2.events.ConnectionTerminated)
        assert isinstance(ended, h2.events.ConnectionTerminated)
        assert ended.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
        assert ended.additional_data == b"too_many_pings"
    await nothing_is_left(served)


async def test_calls_that_are_opened_and_reset_at_once_leave_nothing(served: Served) -> None:
    async with raw_http2(served.app.grpc_port) as client:
        for number in range(2_000):
            if client.closed:
                break
            stream = await client.call(INFER if number % 2 else CLASSIFY_STREAM)
            client.h2.reset_stream(stream)
            await client.send()
    await nothing_is_left(served)


async def test_a_message_that_claims_a_gigabyte_is_refused_before_it_comes(served: Served) -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with raw_http2(served.app.grpc_port) as client:
        for path in (INFER, CLASSIFY_STREAM):
            stream = await client.call(path)
            client.h2.send_data(stream, struct.pack(">BI", 0, 1 << 30) + b"x" * 1000)
            await client.send()
            code, message = await client.status(stream)
            assert code == EXHAUSTED
            assert "larger than max" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 256 << 10
    await nothing_is_left(served)


async def test_a_call_that_ends_without_or_within_its_message_leaves_nothing(served: Served) -> None:
    async with raw_http2(served.app.grpc_port) as client:
        for data in (b"", b"\0\0\0", struct.pack(">BI", 0, 100) + b"half"):
            stream = await client.call(INFER)
            client.h2.send_data(stream, data, end_stream=True)
            await client.send()
        # gRPC hands us no message, and ends such a call with its connection only
        live = await client.call(LIVE)
        client.h2.send_data(live, EMPTY, end_stream=True)
        await client.send()
        assert (await client.status(live))[0] == grpc.StatusCode.OK.value[0]
    await nothing_is_left(served)


@pytest.mark.parametrize("deadline", [b"99999999H", b"1n", b"0S", b"-1S", b"soon", b""])
async def test_deadlines_without_sense_end_the_call_or_are_honoured(served: Served, deadline: bytes) -> None:
    async with raw_http2(served.app.grpc_port) as client:
        stream = await client.call(LIVE, (b"grpc-timeout", deadline))
        client.h2.send_data(stream, EMPTY, end_stream=True)
        await client.send()
        await client.status(stream)
    await nothing_is_left(served)


async def test_metadata_that_is_no_text_harms_nobody(served: Served) -> None:
    async with raw_http2(served.app.grpc_port) as client:
        for value in (b"\xff\xfe", b"x" * 4000, b"%00%0a", "é".encode()):
            stream = await client.call(LIVE, (b"x-request-id", value), (b"authorization", b"Bearer " + value))
            client.h2.send_data(stream, EMPTY, end_stream=True)
            await client.send()
            while not any(
                isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)) and event.stream_id == stream
                for event in client.events
            ):
                assert not client.closed
                await client.read()
    await nothing_is_left(served)


async def test_a_flood_of_headers_is_refused_and_the_others_are_served(served: Served) -> None:
    call = served.channel.unary_unary(LIVE)
    for metadata in ((("x-much", "y" * 20_000),), tuple((f"x-{number}", "y" * 100) for number in range(500))):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", metadata=metadata)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await call(b"", metadata=(("x-much", "y" * 7_000),)) is not None
    await nothing_is_left(served)


async def test_connections_that_say_nothing_and_bytes_that_are_no_http_hold_up_nobody(served: Served) -> None:
    async with AsyncExitStack() as stack:
        for number in range(200):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.app.grpc_port)
            stack.callback(writer.close)
            if number % 4 == 0:
                writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
                await others_are_served(served)
                while await reader.read(1024):
                    pass  # until it is closed
        await others_are_served(served)
    await nothing_is_left(served)


async def test_streams_that_are_opened_and_say_nothing_are_bounded_and_end_with_their_connection(
    tmp_path: Path,
) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_streams=20) as served:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.app.grpc_port}", options=options) as silent:
            streams = [silent.stream_stream(CLASSIFY_STREAM)() for _ in range(20)]
            watches = [HealthStub(silent).Watch(health_pb2.HealthCheckRequest(service=f"{n}")) for n in range(20)]
            guard = served.app._guard
            await eventually(lambda: guard.streams == 20 and guard.watches == 20)
            for refused in (
                served.sentiment.ClassifyStream(),
                served.inference.ModelStreamInfer(),
                HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest()),
            ):
                assert await refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "at most 20 at once (--max-streams)" in str(await refused.details())
            health = await HealthStub(served.channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            await others_are_served(served)
            assert len(streams) == len(watches)
        await nothing_is_left(served)


async def test_an_answer_whose_client_has_gone_is_counted_and_logged_nowhere(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    metrics, batcher = served.app.metrics, served.batcher("model")

    def undelivered() -> float:
        return sum(
            sample.value
            for family in metrics.registry.collect()
            for sample in family.samples
            if sample.name == "lockstep_undelivered_answers_total"
        )

    loop = asyncio.get_running_loop()
    before = undelivered()
    # what gRPC leaves to the loop when a status cannot be sent any more
    loop.call_exception_handler({"message": "x", "exception": grpc.aio.InternalError("the client has gone")})
    assert undelivered() == before + 1
    assert "Traceback" not in caplog.text
    batcher.hold()
    async with raw_http2(served.app.grpc_port) as client:
        request = text_request("model", "good").SerializeToString()
        stream = await client.call(INFER)
        client.h2.send_data(stream, struct.pack(">BI", 0, len(request)) + request, end_stream=True)
        await client.send()
        await eventually(lambda: batcher.queued_rows == 1)
        client.writer.transport.abort()  # no goodbye
        await eventually(lambda: batcher.queued_rows == 0)
    batcher.release()
    await nothing_is_left(served)
    assert "Traceback" not in caplog.text


async def test_what_an_adapter_raises_stays_in_the_log_and_the_caller_gets_an_id(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "the runtime refuses this batch"  # what the adapter raises
    request = pb.ClassifyRequest(model="model", texts=["refuse", "good"])
    response = await served.sentiment.Classify(request, metadata=(("x-request-id", "find-me-9"),))
    bad, good = response.results
    assert good.prediction.label
    assert bad.error.code == grpc.StatusCode.INTERNAL.value[0]
    call = served.inference.ModelInfer(text_request("model", "refuse"), metadata=(("x-request-id", "find-me-10"),))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert dict(caught.value.trailing_metadata() or ())["x-request-id"] == "find-me-10"
    for told in (bad.error.message, str(caught.value.details()), str(caught.value.trailing_metadata())):
        assert secret not in told
        assert "RuntimeError" not in told
    assert secret in caplog.text


# ---- HTTP port -------------------------------------------------------------------------------------------------


async def talk(port: int, *parts: bytes) -> bytes:
    """Send bytes to a port and return all that comes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


HEAD = b"Host: localhost\r\nConnection: close\r\n"
HTTP_CASES: dict[str, tuple[bytes, set[bytes]]] = {
    "traversal": (b"GET /../../etc/passwd HTTP/1.1\r\n" + HEAD + b"\r\n", {b"400", b"404"}),
    "encoded traversal": (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n" + HEAD + b"\r\n", {b"400", b"404"}),
    "double slash": (b"GET //etc/passwd HTTP/1.1\r\n" + HEAD + b"\r\n", {b"400", b"404"}),
    "NUL in the path": (b"GET /metrics%00 HTTP/1.1\r\n" + HEAD + b"\r\n", {b"400", b"404"}),
    "unknown method": (b"BREW /metrics HTTP/1.1\r\n" + HEAD + b"\r\n", {b"400", b"405"}),
    "method that is not here": (b"DELETE /metrics HTTP/1.1\r\n" + HEAD + b"\r\n", {b"405"}),
    "huge header": (b"GET /metrics HTTP/1.1\r\n" + HEAD + b"X-A: " + b"y" * 100_000 + b"\r\n\r\n", {b"400", b"431"}),
    "flood of headers": (
        b"GET /healthz HTTP/1.1\r\n" + HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(50_000)) + b"\r\n",
        {b"200", b"400", b"431"},
    ),
    "huge line": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", {b"400", b"414"}),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {b"400"}),
    "two lengths": (
        b"POST /metrics HTTP/1.1\r\n" + HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", {b"400", b"405"},
    ),
    "length and chunks": (
        b"POST /metrics HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {b"400", b"405"},
    ),
    "negative length": (b"POST /metrics HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n", {b"400", b"405"}),
}  # fmt: skip


@pytest.mark.parametrize("name", HTTP_CASES)
async def test_the_http_port_refuses_what_is_no_request_of_its_own(served: Served, name: str) -> None:
    payload, statuses = HTTP_CASES[name]
    answer = await talk(served.app.http_port, payload)
    if answer:  # else it was closed before all of it was read
        assert answer.split(b" ", 2)[1] in statuses, answer[:200]
    assert b"root:" not in answer
    assert b"Traceback" not in answer
    assert (await talk(served.app.http_port, b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\n")).endswith(b"ok\n")


async def test_a_token_that_is_no_text_is_no_token(tmp_path: Path) -> None:
    doubles.publish(tmp_path / "models", "model")
    (tmp_path / "tokens").write_text(f"infer alice sha256:{'0' * 64}\n")
    async with serving(tmp_path / "models", doubles.ADAPTERS, tokens=tmp_path / "tokens") as served:
        for value in (b"Bearer \xff\xfe", b"Basic \xff\xfe", b"Basic " + b"A" * 4000, b"Bearer", b"\xc3\xa9"):
            request = b"GET /metrics HTTP/1.1\r\n" + HEAD + b"Authorization: " + value + b"\r\n\r\n"
            assert (await talk(served.app.http_port, request)).split(b" ", 2)[1] == b"401", value


async def test_a_client_that_never_ends_its_request_is_closed(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, keepalive_s=1) as served:
        for begun in (b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: "):
            assert await talk(served.app.http_port, begun) == b""  # ends when the server closes it


async def test_http_connections_over_the_limit_are_closed_and_the_others_stay(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_connections=5) as served:
        url = f"http://127.0.0.1:{served.app.http_port}/healthz"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert await response.text() == "ok\n"
            silent = [await asyncio.open_connection("127.0.0.1", served.app.http_port) for _ in range(4)]
            assert await talk(served.app.http_port, b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\n") == b""
            for _ in range(3):
                async with session.get(url) as again:  # on the connection that it has
                    assert again.status == 200
            for _, writer in silent:
                writer.close()
                await writer.wait_closed()
        server = served.app._web.server
        assert server is not None
        await eventually(lambda: len(server.connections) == 0)
        assert (await talk(served.app.http_port, b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\n")).endswith(b"ok\n")


async def test_three_hundred_connections_at_once_are_served(served: Served) -> None:
    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", served.app.http_port))

    idle = [await asyncio.to_thread(connect) for _ in range(200)]
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(f"127.0.0.1:{served.app.grpc_port}", options=options)
            )
            for _ in range(100)
        ]
        live = oip.ServerLiveRequest().SerializeToString()
        answers = await asyncio.gather(*(channel.unary_unary(LIVE)(live) for channel in channels))
        assert all(oip.ServerLiveResponse.FromString(answer).live for answer in answers)
    for one in idle:
        one.close()
    await nothing_is_left(served)

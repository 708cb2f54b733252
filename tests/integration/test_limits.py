"""Every limit: its status, a message that names the limit and the value, its counter; and the server goes on."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import grpc
import pytest
from click.testing import CliRunner

from lockstep.commands.serve import serve
from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from lockstep.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from lockstep.server.config import ServerConfig
from lockstep.server.core.errors import InvalidInput
from lockstep.server.core.messages import Encoding
from lockstep.server.rpc.status import PUSHBACK_KEY, REQUEST_ID_KEY
from lockstep.server.text.encoder import TextEncoder
from lockstep.server.text.long_texts import LongTexts
from tests import doubles
from tests.serving import Served, eventually, serving, text_request

LONG_TEXT = "good " * 4_000
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


async def rejected(served: Served, limit: str) -> float:
    """Return what /metrics counts for a limit."""
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{served.app.http_port}") as session,
        session.get("/metrics") as response,
    ):
        found = re.search(rf'^lockstep_rejected_total\{{limit="{limit}"\}} (\S+)$', await response.text(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def classify(served: Served, *texts: str, **fields: object) -> Awaitable[pb.ClassifyResponse]:
    return served.sentiment.Classify(pb.ClassifyRequest(model="model", texts=texts, **fields), timeout=60)


async def failure(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@asynccontextmanager
async def held(served: Served, rows: int) -> AsyncIterator[None]:
    """Keep so many calls of one row waiting for the length of the block."""
    batcher = served.batcher("model")
    batcher.hold()
    calls = [asyncio.ensure_future(classify(served, "good")) for _ in range(rows)]
    await eventually(lambda: batcher.queued_rows == rows)
    yield
    batcher.release()
    await asyncio.gather(*calls)


async def too_many_rows(served: Served) -> grpc.aio.AioRpcError:
    return await failure(classify(served, "good", "bad", "film"))


async def too_long_a_text(served: Served) -> grpc.aio.AioRpcError:
    return await failure(served.inference.ModelInfer(text_request("model", "good" * 30)))


async def too_large_a_message(served: Served) -> grpc.aio.AioRpcError:
    return await failure(classify(served, "good " * 120))


async def too_large_a_message_on_a_stream(served: Served) -> grpc.aio.AioRpcError:
    stream = served.sentiment.ClassifyStream()
    request = pb.ClassifyRequest(model="model", texts=["good " * 120])
    await stream.write(pb.StreamRequest(classify=request))
    return await failure(stream.read())


async def too_many_calls(served: Served) -> grpc.aio.AioRpcError:
    async with held(served, 2):
        return await failure(classify(served, "bad"))


async def too_many_waiting_rows(served: Served) -> grpc.aio.AioRpcError:
    async with held(served, 3):
        return await failure(classify(served, "bad", "film"))


async def too_many_streams(served: Served) -> grpc.aio.AioRpcError:
    first = served.sentiment.ClassifyStream()
    await first.write(pb.StreamRequest(classify=pb.ClassifyRequest(model="model", texts=["good"])))
    await first.read()
    error = await failure(served.inference.ModelStreamInfer().read())
    await first.done_writing()
    return error


@contextmanager
def tokenizing_held(served: Served) -> Iterator[LongTexts]:
    """Keep long texts waiting for the length of the block."""
    long_texts, release = served.app.gateway._long_texts, threading.Event()
    long_texts._thread.submit(release.wait)
    try:
        yield long_texts
    finally:
        release.set()


async def too_much_to_tokenize(served: Served) -> grpc.aio.AioRpcError:
    with tokenizing_held(served) as long_texts:
        first = asyncio.ensure_future(classify(served, LONG_TEXT, truncate=True))
        await eventually(lambda: long_texts.characters == len(LONG_TEXT))
        error = await failure(classify(served, LONG_TEXT, truncate=True))
    assert (await first).results[0].prediction.truncated
    return error


INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
Provoke = Callable[[Served], Awaitable[grpc.aio.AioRpcError]]
LIMITS: dict[str, tuple[str, int, Provoke, grpc.StatusCode, str]] = {
    "rows of a call": ("max_call_rows", 2, too_many_rows, INVALID, "holds 3 rows, at most 2 are taken"),
    "bytes of a text": ("max_text_bytes", 100, too_long_a_text, INVALID, "has 120 bytes, at most 100 are taken"),
    "bytes of a message": ("max_message_bytes", 500, too_large_a_message, EXHAUSTED, "bytes, at most 500 are taken"),
    "bytes of a message on a stream": (
        "max_message_bytes", 500, too_large_a_message_on_a_stream, EXHAUSTED, "bytes, at most 500 are taken",
    ),
    "calls at once": ("max_calls", 2, too_many_calls, EXHAUSTED, "answers 2 calls, at most 2 at once"),
    "streams at once": ("max_streams", 1, too_many_streams, EXHAUSTED, "answers 1 streams, at most 1 at once"),
    "characters to tokenise": (
        "max_tokenize_characters", 30_000, too_much_to_tokenize, EXHAUSTED, "20000 more do not fit, at most 30000 may",
    ),
    "rows in the queue": ("max_queue_rows", 4, too_many_waiting_rows, EXHAUSTED, "holds 3 rows, 2 more do not fit"),
}  # fmt: skip
TEMPORARY = {"max_calls", "max_streams", "max_queue_rows", "max_tokenize_characters"}


@pytest.mark.parametrize("name", LIMITS)
async def test_a_limit_is_a_contract(tmp_path: Path, name: str) -> None:
    limit, value, provoke, status, message = LIMITS[name]
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, **{limit: value}) as served:
        before = await rejected(served, limit)
        error = await provoke(served)
        assert error.code() == status
        assert message in str(error.details())
        assert f"--{limit.replace('_', '-')}" in str(error.details())
        trailing = dict(error.trailing_metadata() or ())
        assert (PUSHBACK_KEY in trailing) == (limit in TEMPORARY)
        assert trailing[REQUEST_ID_KEY]
        assert await rejected(served, limit) == before + 1
        response = await classify(served, "good")  # the server goes on
        assert response.results[0].prediction.label


async def test_long_texts_that_nobody_waits_for_are_not_tokenised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as served:
        encoded: list[str] = []

        def encode(self: TextEncoder, texts: Sequence[str], *, truncate: bool) -> list[Encoding | InvalidInput]:
            encoded.extend(texts)
            return sound(self, texts, truncate=truncate)

        sound = TextEncoder.encode
        monkeypatch.setattr(TextEncoder, "encode", encode)
        with tokenizing_held(served) as long_texts:
            request = pb.ClassifyRequest(model="model", texts=[LONG_TEXT + "late"], truncate=True)
            late = served.sentiment.Classify(request, timeout=0.3)
            gone = served.sentiment.Classify(
                pb.ClassifyRequest(model="model", texts=[LONG_TEXT + "gone"], truncate=True)
            )
            await eventually(lambda: long_texts.characters > 2 * len(LONG_TEXT))
            gone.cancel()
            assert (await failure(late)).code() == grpc.StatusCode.DEADLINE_EXCEEDED
            await eventually(lambda: long_texts.characters <= len(LONG_TEXT) + 4)
            last = asyncio.ensure_future(classify(served, LONG_TEXT + "last", truncate=True))
            await eventually(lambda: long_texts.characters > len(LONG_TEXT))
        assert (await last).results[0].prediction.label
        assert encoded == [LONG_TEXT + "last"]
        assert long_texts.characters == 0


async def test_one_call_may_hold_more_long_text_than_may_wait(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_tokenize_characters=1) as served:
        assert (await classify(served, LONG_TEXT, truncate=True)).results[0].prediction.truncated


async def test_a_message_far_over_the_limit_never_reaches_us(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_message_bytes=500) as served:
        error = await failure(classify(served, "good " * 1000))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_connections_over_the_limit_are_closed_and_the_others_stay(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_connections=1) as served:
        await classify(served, "good")
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.app.grpc_port}", options=options) as second:
            call = second.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert (await failure(call(b""))).code() == grpc.StatusCode.UNAVAILABLE
        await classify(served, "good")


async def test_http_connections_over_the_limit_are_closed_and_counted(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_connections=1) as served:
        _, first = await asyncio.open_connection("127.0.0.1", served.app.http_port)
        first.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        reader, second = await asyncio.open_connection("127.0.0.1", served.app.http_port)
        assert await reader.read() == b""
        counted = served.app.metrics.registry.get_sample_value  # a scrape would want a connection
        assert counted("lockstep_rejected_total", {"limit": "max_connections"}) == 1
        for writer in (first, second):
            writer.close()
            await writer.wait_closed()


async def test_calls_over_the_limit_of_the_http_port_are_refused_and_probes_are_not(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with (
        serving(tmp_path, doubles.ADAPTERS, max_http_calls=1) as served,
        aiohttp.ClientSession(f"http://127.0.0.1:{served.app.http_port}") as http,
    ):
        batcher = served.batcher("model")
        batcher.hold()
        call = {"model": "model", "text": "good"}
        answered = asyncio.ensure_future(http.post("/api/compare", json=call))
        await eventually(lambda: batcher.queued_rows > 0)
        for path in ("/api/models", "/"):
            async with http.get(path) as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
                assert "at most 1 at once (--max-http-calls)" in await refused.text()
        async with http.get("/healthz") as probe:
            assert probe.status == 200
        assert await rejected(served, "max_http_calls") == 2
        batcher.release()
        async with await answered as response:
            assert response.status == 200
        async with http.get("/api/models") as response:
            assert response.status == 200


async def test_a_body_over_what_a_text_may_need_names_the_limit_of_texts_and_counts_for_it(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with (
        serving(tmp_path, doubles.ADAPTERS, max_text_bytes=100) as served,
        aiohttp.ClientSession(f"http://127.0.0.1:{served.app.http_port}") as http,
        http.post("/api/compare", json={"text": "x" * 5_000}) as refused,
    ):
        assert refused.status == 413
        assert "4696 bytes that --max-text-bytes 100 needs" in (await refused.json())["error"]["message"]
        assert await rejected(served, "max_text_bytes") == 1


async def test_calls_over_a_connections_limit_wait_in_the_client_or_are_sent_again(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")

    async def answered(served: Served) -> None:
        """Classify; a call that crossed an answer on its way is refused by HTTP/2, unprocessed, and is sent again."""
        while True:
            try:
                await classify(served, "good")
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
            else:
                return

    async with serving(tmp_path, doubles.ADAPTERS, max_connection_calls=2) as served:
        await classify(served, "good")  # the client has heard of the limit
        batcher = served.batcher("model")
        batcher.hold()
        calls = [asyncio.ensure_future(answered(served)) for _ in range(6)]
        await eventually(lambda: batcher.queued_rows == 2)
        own_connection = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.app.grpc_port}", own_connection) as another:
            await GRPCInferenceServiceStub(another).ServerLive(oip.ServerLiveRequest())
        assert batcher.queued_rows <= 2
        batcher.release()
        await asyncio.gather(*calls)


def test_every_limit_has_a_row_in_the_guide_with_its_default() -> None:
    defaults = {name: field.default for name, field in ServerConfig.model_fields.items() if name.startswith("max_")}
    planning = {"max_wait_ms", "max_batch_rows", "max_padded_tokens", "max_workers"}  # bounds of ours, not of callers
    table = dict(re.findall(r"^\| `--(max-[a-z-]+)` \| ([\d,.]+)", OPERATIONS.read_text(), flags=re.MULTILINE))
    documented = {flag.replace("-", "_"): float(value.replace(",", "")) for flag, value in table.items()}
    assert documented == {name: float(value) for name, value in defaults.items() if name not in planning}


async def test_a_client_that_writes_and_never_reads_is_read_no_further(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_stream_messages=8) as served:
        stalled = served.sentiment.ClassifyStream()
        request = pb.ClassifyRequest(model="model", texts=["good " * 50] * 64)  # 16 kB, and as much of an answer
        written = 0

        async def write() -> None:
            nonlocal written
            while True:
                await stalled.write(pb.StreamRequest(classify=request))
                written += 1

        writing = asyncio.ensure_future(write())
        seen = -1
        while seen != written:  # until flow control holds it up, while others are answered as ever
            seen = written
            for _ in range(20):
                assert (await classify(served, "good")).results[0].prediction.label
        assert written > 8
        writing.cancel()
        stalled.cancel()
        await eventually(lambda: served.batcher("model").queued_rows == 0)


@asynccontextmanager
async def queueing(tmp_path: Path, **config: object) -> AsyncIterator[Served]:
    """Serve a model whose pace is known, and whose queue holds 600 tokens: 0.12 s of work."""
    doubles.publish(tmp_path, "model")
    adapters = {**doubles.ADAPTERS, "onnxruntime": "tests.doubles:BurningAdapter"}
    async with serving(tmp_path, adapters, max_batch_rows=4, **config) as served:
        batcher = served.batcher("model")
        while not batcher.backends[0].throughput.ns_per_token:
            await classify(served, *["good"] * 32)
        batcher.hold()
        waiting = asyncio.ensure_future(classify(served, *["good " * 58] * 10, priority=1))
        await eventually(lambda: batcher.queued_rows == 10)
        yield served
        batcher.release()
        await waiting


async def test_a_call_that_would_wait_longer_than_the_bound_is_refused_with_the_wait_as_pushback(
    tmp_path: Path,
) -> None:
    async with queueing(tmp_path, max_queue_s=0.02) as served:
        error = await failure(classify(served, "good"))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "more than 0.02 s (--max-queue-s)" in str(error.details())
        pushback_ms = int(dict(error.trailing_metadata() or ())[PUSHBACK_KEY])
        assert pushback_ms >= served.batcher("model").expected_wait_s() * 900
        assert await rejected(served, "max_queue_s") == 1


async def test_a_call_that_would_wait_too_long_for_its_deadline_is_refused_and_others_are_not(tmp_path: Path) -> None:
    async with queueing(tmp_path) as served:
        request = text_request("model", "good")
        request.parameters["timeout"].int64_param = 50_000  # microseconds
        error = await failure(served.inference.ModelInfer(request))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "more than half of the 0.0" in str(error.details())
        assert await rejected(served, "deadline") == 1
        batcher = served.batcher("model")
        patient = asyncio.ensure_future(classify(served, "good"))  # 60 s
        first = asyncio.ensure_future(classify(served, "good", priority=2))
        pinned = asyncio.ensure_future(
            served.sentiment.Classify(pb.ClassifyRequest(model="model@tensorflow", texts=["good"]), timeout=60)
        )
        await eventually(lambda: batcher.queued_rows == 13)
        assert batcher.expected_wait_s(None, 2) < batcher.expected_wait_s(None, 0)
        batcher.release()
        await asyncio.gather(patient, first, pinned)


def test_every_limit_has_a_flag() -> None:
    told = CliRunner().invoke(serve, ["--help"]).output
    flags = re.findall(r"^\| `(--max-[a-z-]+)` \|", OPERATIONS.read_text(), flags=re.MULTILINE)
    assert flags
    assert [flag for flag in flags if f"{flag} " not in told] == []

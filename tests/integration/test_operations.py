"""Running it: request ids, the access log, no internals in errors, drain and stop of the real process, --check."""

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.rpc.status import REQUEST_ID_KEY
from tests import doubles
from tests.integration.test_security import tokens_text
from tests.serving import Served, eventually, serving, text_request

CLASSIFY = "/sentiment.v1.SentimentService/Classify"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, access_log=True) as one:
        yield one


async def failure(call: grpc.aio.UnaryUnaryCall) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_callers_request_id_comes_back_with_answers_and_errors_and_is_made_for_errors_without_one(
    served: Served,
) -> None:
    mine = ((REQUEST_ID_KEY, "mine-7"),)
    call = served.inference.ModelInfer(text_request("model", "good"), metadata=mine)
    await call
    assert dict(await call.trailing_metadata())[REQUEST_ID_KEY] == "mine-7"
    error = await failure(served.inference.ModelInfer(text_request("nowhere", "good"), metadata=mine))
    assert dict(error.trailing_metadata() or ())[REQUEST_ID_KEY] == "mine-7"
    made = [await failure(served.inference.ModelInfer(text_request("nowhere", "good"))) for _ in range(2)]
    first, second = (dict(error.trailing_metadata() or ())[REQUEST_ID_KEY] for error in made)
    assert len(first) == 16
    assert first != second


async def test_a_bug_of_ours_shows_no_internals_and_is_found_by_its_request_id(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(ref: object) -> bool:
        raise RuntimeError("an internal name")

    monkeypatch.setattr(served.app.gateway, "is_ready", fail)
    call = served.inference.ModelReady(oip.ModelReadyRequest(name="model"), metadata=((REQUEST_ID_KEY, "find-me"),))
    error = await failure(call)
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "find-me" in str(error.details())
    assert "internal name" not in f"{error.details()} {error.trailing_metadata()}"
    (record,) = [record for record in caplog.records if record.name == "lockstep.rpc"]
    assert "an internal name" in str(record.exc_info)


async def test_the_access_log_has_a_line_for_every_call_and_one_for_a_stream(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lockstep.access"):
        await served.inference.ModelInfer(text_request("model", "good", "bad"))
        await failure(served.inference.ModelInfer(text_request("model", "")))
        await failure(served.channel.unary_unary(CLASSIFY)(b"\xff"))
        stream = served.sentiment.ClassifyStream()
        for _ in range(3):
            await stream.write(pb.StreamRequest(classify=pb.ClassifyRequest(model="model", texts=["good"])))
        await stream.done_writing()
        assert len([answer async for answer in stream]) == 3
        await eventually(lambda: len(caplog.records) == 4)
    lines = [record.__dict__["fields"] for record in caplog.records]
    assert [(line["method"].rpartition("/")[2], line["model"], line["rows"], line["status"]) for line in lines] == [
        ("ModelInfer", "model", 2, "OK"),
        ("ModelInfer", "model", 0, "INVALID_ARGUMENT"),
        ("Classify", "", 0, "INVALID_ARGUMENT"),
        ("ClassifyStream", "model", 3, "OK"),
    ]
    for line in lines:
        assert line["ms"] > 0
        assert line["peer"].startswith("ipv4:127.0.0.1:")
        assert line["request_id"]


async def test_the_line_of_a_stream_has_its_models_and_counts_its_messages_and_their_errors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for model in ("one", "two"):
        doubles.publish(tmp_path, model)
    async with serving(tmp_path, doubles.ADAPTERS, access_log=True) as served:
        with caplog.at_level(logging.INFO, logger="lockstep.access"):
            stream = served.sentiment.ClassifyStream()
            good = {"id": "1", "texts": ["good", ""]}  # the second row is at fault
            for fields in ({**good, "model": "one"}, {**good, "model": "two"}, {**good, "model": "nowhere"}):
                await stream.write(pb.StreamRequest(classify=pb.ClassifyRequest(**fields)))
                await stream.read()
            wrong = pb.ClassifyRequest(model="two", texts=["good"])
            await stream.write(pb.StreamRequest(classify=wrong, timeout_us=-1))
            await stream.read()
            stream.cancel()
            await eventually(lambda: bool(caplog.records))
    (line,) = (record.__dict__["fields"] for record in caplog.records if record.name == "lockstep.access")
    assert (line["model"], line["messages"], line["rows"]) == ("one,two", 4, 2)
    assert line["status"] in {"CANCELLED", "OK"}  # gRPC may show a cancellation as the end of what is to be read
    assert line["errors"] == {"InvalidInput": 3, "ModelNotFound": 1}


async def test_a_stopping_server_says_so_refuses_what_is_new_and_answers_what_it_has(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as served:
        batcher = served.batcher("model")
        batcher.hold()
        accepted = served.inference.ModelInfer(text_request("model", "good"))
        await eventually(lambda: batcher.queued_rows == 1)
        watch = HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.ensure_future(served.app.stop())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{served.app.http_port}") as session,
            session.get("/readyz") as response,
        ):
            assert response.status == 503
        refused = await failure(served.inference.ModelInfer(text_request("model", "bad")))
        assert refused.code() == grpc.StatusCode.UNAVAILABLE
        assert "connect again" in str(refused.details())
        batcher.release()
        assert (await accepted).model_name == "model"
        await stopping


@contextmanager
def serve_doubles(repository: Path, log: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run the real command over the doubles; yields the process and its gRPC address. Its log goes to a file."""
    command = [sys.executable, "-m", "tests.serve_doubles", "serve", "--repository", str(repository)]
    command += ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--measure-s", "0", "--instances", "1"]
    command += ["--state", str(repository / ".state"), *flags]
    with log.open("wb") as stream, subprocess.Popen(command, stderr=stream) as process:
        try:
            while "serving model on " not in log.read_text():
                assert process.poll() is None, log.read_text()
            yield process, log.read_text().split("serving model on ")[1].split(" ")[0]
        finally:
            process.kill()


async def call_until_it_is_gone(address: str, answered: asyncio.Event) -> tuple[int, list[grpc.aio.AioRpcError]]:
    """Call over and over on a connection of its own; returns how many were answered, and what failed at the end."""
    answers, failures = 0, []
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(CLASSIFY)
        request = pb.ClassifyRequest(model="model", texts=["good film"]).SerializeToString()
        await call(request, wait_for_ready=True)
        while not failures:
            try:
                await call(request)
                answers += 1
                answered.set()
            except grpc.aio.AioRpcError as error:
                failures.append(error)
    return answers + 1, failures


async def test_sigterm_under_load_loses_nothing(tmp_path: Path) -> None:
    doubles.publish(tmp_path / "models", "model")
    log = tmp_path / "log"
    with serve_doubles(tmp_path / "models", log, "--access-log", "--log-format", "json") as (process, address):
        begun = [asyncio.Event() for _ in range(24)]
        clients = [asyncio.ensure_future(call_until_it_is_gone(address, one)) for one in begun]
        await asyncio.gather(*(one.wait() for one in begun))
        process.send_signal(signal.SIGTERM)
        ended = await asyncio.gather(*clients)
        assert await asyncio.to_thread(process.wait, 30) == 0
    # whoever was not answered may send again, and nothing that the server answered was lost
    assert {error.code() for _, failures in ended for error in failures} == {grpc.StatusCode.UNAVAILABLE}
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    answered = [line for line in lines if line["logger"] == "lockstep.access" and line["status"] == "OK"]
    assert len(answered) == sum(answers for answers, _ in ended)
    assert "Traceback" not in log.read_text()


async def test_sighup_has_the_process_read_its_tokens_again_and_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    doubles.publish(tmp_path / "models", "model")
    log, tokens = tmp_path / "log", tmp_path / "tokens"
    tokens.write_text(tokens_text(alice="infer"))
    with serve_doubles(tmp_path / "models", log, "--tokens", str(tokens)) as (process, address):

        async def status(name: str) -> grpc.StatusCode:
            metadata = (("authorization", f"Bearer {name}-secret"),)
            request = pb.ClassifyRequest(model="model", texts=["good"]).SerializeToString()
            async with grpc.aio.insecure_channel(address) as channel:
                call = channel.unary_unary(CLASSIFY)(request, metadata=metadata, wait_for_ready=True)
                return await call.code()

        async def hang_up_until_logged(words: str) -> None:
            process.send_signal(signal.SIGHUP)
            await eventually(lambda: words in log.read_text())

        assert await status("alice") is grpc.StatusCode.OK
        assert await status("bob") is grpc.StatusCode.UNAUTHENTICATED
        tokens.write_text(tokens_text(bob="infer"))
        await hang_up_until_logged("tokens read again")
        assert await status("alice") is grpc.StatusCode.UNAUTHENTICATED
        assert await status("bob") is grpc.StatusCode.OK
        tokens.write_text("nonsense\n")
        await hang_up_until_logged("tokens not read again, those from before hold")
        assert await status("bob") is grpc.StatusCode.OK


async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    doubles.publish(tmp_path / "models", "model")
    log = tmp_path / "log"
    with serve_doubles(tmp_path / "models", log, "--drain-s", "600") as (process, address):
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary(CLASSIFY)
            await call(pb.ClassifyRequest(model="model", texts=["good"]).SerializeToString(), wait_for_ready=True)
            stream = channel.stream_stream("/sentiment.v1.SentimentService/ClassifyStream")()
            long = pb.ClassifyRequest(model="model", texts=["good film " * 30] * 2000)  # minutes of work
            await stream.write(pb.StreamRequest(classify=long).SerializeToString())
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            await live(b"")  # what was written before is there
            process.send_signal(signal.SIGTERM)
            await eventually(lambda: "draining" in log.read_text())
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) == 0
            assert await stream.code() != grpc.StatusCode.OK
    assert "Traceback" not in log.read_text()


def check(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lockstep", "serve", "--check", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_check_holds_configuration_and_repository_against_each_other(tmp_path: Path) -> None:
    for model in ("one", "two"):
        doubles.publish(tmp_path / "models", model)
    flags = ("--repository", str(tmp_path / "models"), "--grpc", "192.0.2.1:1")  # an address that cannot be bound
    sound = check(*flags)
    assert sound.returncode == 0, sound.stderr
    assert "sound" in sound.stdout
    (tmp_path / "models/two/1/onnx/model").write_bytes(b"changed")
    refused = check(*flags)
    assert refused.returncode == 1
    assert "two" in refused.stdout
    assert "sha256" in refused.stdout.replace("\n", "")
    assert check(*flags, "--require-auth").returncode == 2
    assert check(*flags, "--tokens", str(tmp_path / "nowhere")).returncode == 2
    file = tmp_path / "lockstep.toml"
    file.write_text("max_calls = 0\n")
    wrong = check(*flags, "--config", str(file))
    assert wrong.returncode == 2
    assert "max_calls" in wrong.stderr


async def test_the_grpc_port_may_be_a_socket_of_this_machine(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    socket = f"unix:{tmp_path}/s"
    async with serving(
        tmp_path, doubles.ADAPTERS, channel_to=lambda _: grpc.aio.insecure_channel(socket), grpc=socket
    ) as served:
        assert (await served.inference.ServerLive(oip.ServerLiveRequest())).live


async def test_a_json_log_is_an_object_a_line_from_the_start_to_the_end(tmp_path: Path) -> None:
    doubles.publish(tmp_path / "models", "model")
    log = tmp_path / "log"
    with serve_doubles(tmp_path / "models", log, "--log-format", "json") as (process, address):
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) == 0
    by_message = {line["message"]: line for line in map(json.loads, log.read_text().splitlines())}
    (serving_line,) = (line for message, line in by_message.items() if message.startswith("serving model on "))
    assert (serving_line["models"], serving_line["grpc"]) == (["model"], address)
    assert "draining; a second signal stops at once" in by_message


def test_what_cannot_be_started_is_an_object_of_the_json_log(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lockstep", "serve", "--log-format", "json", "--repository", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["level"] == "CRITICAL"
    assert "nothing to serve" in last["message"]

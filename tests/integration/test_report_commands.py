"""The client's compare, list_models and latency_report, and the commands that print them, against a real server."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from lockstep.cli import main
from lockstep.clients import (
    InvalidInput,
    NotFound,
    Prediction,
    RowError,
    SentimentClient,
    ServerFailure,
    SyncSentimentClient,
)
from lockstep.clients.reports import Comparison, LatencyReport, ListedModel
from lockstep.protos import sentiment_pb2 as wire
from tests.doubles import ADAPTERS, publish, rewrite_manifest
from tests.serving import Served, serving


def address(served: Served) -> str:
    return f"127.0.0.1:{served.app.grpc_port}"


async def run(served: Served, *arguments: str) -> Result:
    """Run a command in a thread: the server is in this one."""
    return await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--server", address(served)])


async def test_the_client_compares_backends_and_one_that_fails_hides_no_other(tmp_path: Path) -> None:
    publish(tmp_path, "film", ("onnx", "saved_model", "torch"))
    async with serving(tmp_path, ADAPTERS) as served, SentimentClient(address(served)) as client:
        found = await client.compare(["good film", "nan"], model="film")
        chosen = await client.compare(["good"], backends=["tensorflow"])
        with pytest.raises(NotFound, match="no backend 'jax'"):
            await client.compare(["good"], backends=["jax"])
        with pytest.raises(InvalidInput, match="holds no rows"):
            await client.compare([])
        with pytest.raises(TypeError, match=r"pass \[text\]"):
            await client.compare("good")
        with pytest.raises(ValueError, match="text 0 is not valid Unicode"):
            await client.compare(["\ud800"])
    onnx, tensorflow, torch = found.backends
    assert (found.model, found.version, found.labels, found.reference) == (
        "film",
        1,
        ("negative", "positive"),
        onnx.backend,
    )
    assert [type(result) for result in onnx.results] == [Prediction, RowError]
    assert [type(result) for result in tensorflow.results] == [Prediction, Prediction]
    assert torch.results == ()
    assert torch.error is not None
    assert (torch.error.kind, torch.error.code) == ("BackendUnavailable", grpc.StatusCode.UNAVAILABLE)
    assert (found.agreement.texts, found.agreement.largest_difference, found.agreement.labels_differ) == (1, 0.0, 0)
    assert [one.backend for one in chosen.backends] == ["tensorflow"]


async def test_the_client_lists_models_and_reports_latencies_on_both_faces(tmp_path: Path) -> None:
    publish(tmp_path, "film")
    publish(tmp_path, "broken", version=2)
    rewrite_manifest(tmp_path / "broken" / "2", surprise=1)

    def blocking(server: str) -> tuple[Comparison, ListedModel, LatencyReport]:
        with SyncSentimentClient(server) as client:
            comparison = client.compare(["good", "bad film"])
            return (
                comparison,
                client.list_models("film").models[0],
                client.latency_report("film", "tensorflow", window_s=9),
            )

    async with serving(tmp_path, ADAPTERS) as served, SentimentClient(address(served)) as client:
        comparison, film, of_one = await asyncio.to_thread(blocking, address(served))
        listed = await client.list_models()
        report = await client.latency_report()
    assert [one.error for one in comparison.backends] == [None, None]
    assert [model.name for model in listed.models] == ["film"]
    assert (film.name, film.labels) == (listed.models[0].name, listed.models[0].labels)
    assert [one.parity for one in film.backends] == [one.parity for one in listed.models[0].backends]
    assert film.backends[0].worker_cpu_s > 0
    assert film.backends[0].resident_bytes > 1_000_000
    assert [backend.name for backend in listed.models[0].backends] == ["onnxruntime", "tensorflow"]
    assert listed.models[0].backends[0].parity.atol == 5e-5
    assert listed.models[0].backends[0].parity.accuracy is None
    assert [(one.name, one.version) for one in listed.refused] == [("broken", 2)]
    assert report.backends[1].rows == 2
    assert [*report.backends[1].phases][-1] == "request"
    assert report.backends[1].lengths[0].up_to == 16
    assert [one.backend for one in of_one.backends] == ["tensorflow"]


@pytest.mark.parametrize(
    "answers",
    [
        wire.BackendAnswers(backend="torch", results=[wire.Result()]),
        wire.BackendAnswers(backend="torch"),
        wire.BackendAnswers(backend="torch", error=wire.Error(kind="X", code=14), results=[wire.Result()]),
    ],
)
def test_a_malformed_comparison_is_the_servers_failure(answers: wire.BackendAnswers) -> None:
    with pytest.raises(ServerFailure, match="malformed answer"):
        Comparison.from_wire(wire.CompareResponse(labels=["a", "b"], backends=[answers]), texts=1)


async def test_models_are_printed_with_their_backends_and_what_was_refused(tmp_path: Path) -> None:
    publish(tmp_path, "film", ("onnx", "onnx-int8", "saved_model"))
    publish(tmp_path, "broken", version=2)
    rewrite_manifest(tmp_path / "broken" / "2", surprise=1)
    async with serving(tmp_path, ADAPTERS) as served:
        table = await run(served, "models")
        document = json.loads((await run(served, "models", "--json", "--model", "film")).stdout)
        unknown = await run(served, "models", "--model", "play")
    assert table.exit_code == 0, table.output
    for part in (
        "film version 1",
        "onnxruntime *",
        "onnxruntime-int8",
        "stopped",
        "tensorflow",
        "cpu x 1",
        "saved_model",
    ):
        assert part in table.output
    assert "broken is not served" in table.output
    assert document["models"][0]["backends"][0]["parity"]["padding_invariance"] == 0.0
    assert (unknown.exit_code, "no model 'play'" in unknown.output) == (2, True)


async def test_an_unloaded_model_is_printed_with_its_version_and_the_reason(tmp_path: Path) -> None:
    publish(tmp_path, "film", version=4)
    async with serving(tmp_path, ADAPTERS, allow_load=True) as served:
        assert (await run(served, "unload", "film")).exit_code == 0
        table = await run(served, "models")
        document = json.loads((await run(served, "models", "--json", "--model", "film")).stdout)
    reason = "unloaded; it takes no calls until it is loaded again"
    assert (table.exit_code, table.output) == (0, f"film version 4 is not served: {reason}\n")
    assert document["unloaded"] == [{"name": "film", "version": 4, "reason": reason}]
    assert document["models"] == []


async def test_latencies_are_printed_by_backend_and_phase(tmp_path: Path) -> None:
    publish(tmp_path, "film")
    async with serving(tmp_path, ADAPTERS) as served:
        async with SentimentClient(address(served)) as client:
            await client.classify(["good", "a bad film"], model="film", backend="tensorflow")
        table = await run(served, "latency")
        document = json.loads((await run(served, "latency", "--json", "--model", "film", "--by-length")).stdout)
        no_model = await run(served, "latency", "--backend", "tensorflow")
        unknown = await run(served, "latency", "--model", "film", "--backend", "jax")
        too_long = await run(served, "latency", "--window", "601")
    assert table.exit_code == 0, table.output
    for part in ("film@tensorflow", "execute", "request", "No rows: film@onnxruntime"):
        assert part in table.output
    (busy,) = [one for one in document["backends"] if one["rows"]]
    assert (busy["rows"], busy["phases"]["execute"]["count"], busy["lengths"][0]["up_to"]) == (2, 2, 16)
    assert [result.exit_code for result in (no_model, unknown, too_long)] == [2, 2, 2]
    assert "Name the --model too" in no_model.output
    assert "no backend 'jax'" in unknown.output


def test_no_server_exits_with_4() -> None:
    for command in ("models", "latency"):
        result = CliRunner().invoke(main, [command, "--server", "127.0.0.1:1", "--timeout", "0.2"])
        assert result.exit_code == 4
        assert "lockstep serve" in result.output

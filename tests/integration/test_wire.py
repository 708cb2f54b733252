"""Open Inference and its neighbours over real gRPC: every field, and every mistake a caller can make."""

import asyncio
import re
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from protos import open_inference_pb2 as oip
from protos import sentiment_pb2 as pb
from tests import doubles
from tests.serving import Served, outputs, serving, text_request

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    doubles.publish(tmp_path, "broken").joinpath("tokenizer.json").write_text("{}")
    async with serving(tmp_path, doubles.ADAPTERS) as one:
        yield one


def ids_request(rows: list[list[int]], *, mask: bool = False, model: str = "model") -> oip.ModelInferRequest:
    """Build a ModelInfer request of ids, padded, with raw contents."""
    length = max(map(len, rows))
    ids = np.array([row + [0] * (length - len(row)) for row in rows], dtype="<i8")
    lengths = np.array([len(row) for row in rows], dtype="<i8")
    request = oip.ModelInferRequest(model_name=model)
    request.inputs.add(name="input_ids", datatype="INT64", shape=ids.shape)
    request.raw_input_contents.append(ids.tobytes())
    if mask:
        request.inputs.add(name="attention_mask", datatype="INT64", shape=ids.shape)
        ones = (np.arange(length)[None, :] < lengths[:, None]).astype("<i8")
        request.raw_input_contents.append(ones.tobytes())
    else:
        request.inputs.add(name="lengths", datatype="INT64", shape=lengths.shape)
        request.raw_input_contents.append(lengths.tobytes())
    return request


async def test_text_and_ids_raw_and_typed_give_the_same_answer(served: Served) -> None:
    texts = ["good film", "bad", "the good film"]
    typed = text_request("model", *texts)
    raw = oip.ModelInferRequest(model_name="model")
    raw.inputs.add(name="text", datatype="BYTES", shape=[3, 1])
    raw.raw_input_contents.append(b"".join(struct.pack("<I", len(text)) + text.encode() for text in texts))
    rows = [doubles.encode(text) for text in texts]
    column = ids_request(rows)
    column.inputs[1].shape.append(1)
    requests = [typed, raw, ids_request(rows), column, ids_request(rows, mask=True)]
    answers = [outputs(await served.inference.ModelInfer(request)) for request in requests]
    for answer in answers:
        np.testing.assert_array_equal(answer["probabilities"], answers[0]["probabilities"])
        assert answer["label"] == answers[0]["label"]
        assert answer["truncated"] == [False] * 3
    assert answers[0]["probabilities"].shape == (3, 2)


async def test_id_version_parameters_and_requested_outputs_are_honoured(served: Served) -> None:
    request = text_request("model@tensorflow", "good " * 100, id="call-7", model_version="1")
    request.parameters["truncate"].bool_param = True
    request.parameters["priority"].uint64_param = 3
    request.parameters["unknown"].string_param = "ignored"
    request.outputs.add(name="truncated")
    request.outputs.add(name="label")
    response = await served.inference.ModelInfer(request)
    assert (response.id, response.model_name, response.model_version) == ("call-7", "model@tensorflow", "1")
    assert [tensor.name for tensor in response.outputs] == ["truncated", "label"]
    assert outputs(response)["truncated"] == [True]
    assert response.parameters["backend"].string_param == "tensorflow"
    phases = {"decode", "tokenize", "queue", "pad", "transfer", "execute", "respond"}
    assert {f"{phase}_us" for phase in phases} == set(response.parameters) - {"backend"}


async def test_metadata_readiness_and_index(served: Served) -> None:
    inference = served.inference
    assert (await inference.ServerLive(oip.ServerLiveRequest())).live
    assert (await inference.ServerReady(oip.ServerReadyRequest())).ready
    assert "statistics" in (await inference.ServerMetadata(oip.ServerMetadataRequest())).extensions
    assert (await inference.ModelReady(oip.ModelReadyRequest(name="model"))).ready
    assert not (await inference.ModelReady(oip.ModelReadyRequest(name="model@tensorflow"))).ready
    metadata = await inference.ModelMetadata(oip.ModelMetadataRequest(name="model"))
    assert [tensor.name for tensor in metadata.inputs] == ["text", "input_ids", "attention_mask", "lengths"]
    assert [list(tensor.shape) for tensor in metadata.inputs] == [[-1, 1], [-1, -1], [-1, -1], [-1, 1]]
    assert [list(tensor.shape) for tensor in metadata.outputs] == [[-1, 2], [-1], [-1]]
    index = (await inference.RepositoryIndex(oip.RepositoryIndexRequest())).models
    states = {model.name: model.state for model in index}
    assert states == {
        "model": "READY", "model@onnxruntime": "READY", "model@tensorflow": "UNAVAILABLE", "broken": "UNAVAILABLE",
    }  # fmt: skip
    reasons = {model.name: model.reason for model in index}
    assert "tokenizer.json has sha256" in reasons["broken"]
    assert reasons["model@tensorflow"] == "stopped"
    ready = (await inference.RepositoryIndex(oip.RepositoryIndexRequest(ready=True))).models
    assert {model.name for model in ready} == {"model", "model@onnxruntime"}


async def test_statistics_agree_with_the_clients_own_count(served: Served) -> None:
    for texts in (["good"], ["bad", "film"], ["the", "a", "good"]):
        await served.inference.ModelInfer(text_request("model", *texts))
    await served.inference.ModelInfer(text_request("model@tensorflow", "good", "bad"))
    with pytest.raises(grpc.aio.AioRpcError):
        await served.inference.ModelInfer(text_request("model", ""))

    async def statistics(name: str) -> oip.ModelStatistics:
        response = await served.inference.ModelStatistics(oip.ModelStatisticsRequest(name=name))
        return response.model_stats[0]

    whole, onnx, tensorflow = [await statistics(name) for name in ("model", "model@onnxruntime", "model@tensorflow")]
    assert (whole.inference_count, whole.execution_count, whole.inference_stats.success.count) == (8, 4, 4)
    assert (onnx.inference_count, onnx.inference_stats.success.count) == (6, 3)
    assert (tensorflow.inference_count, tensorflow.inference_stats.success.count) == (2, 1)
    assert whole.inference_stats.fail.count == 1
    assert [(size.batch_size, size.compute_infer.count) for size in whole.batch_stats] == [(1, 1), (2, 2), (3, 1)]
    assert whole.inference_stats.success.ns == onnx.inference_stats.success.ns + tensorflow.inference_stats.success.ns
    parts = whole.inference_stats
    inner = parts.queue.ns + parts.compute_input.ns + parts.compute_infer.ns + parts.compute_output.ns
    assert 0 < inner <= parts.success.ns
    everything = (await served.inference.ModelStatistics(oip.ModelStatisticsRequest())).model_stats
    assert [one.name for one in everything] == ["model", "model@onnxruntime", "model@tensorflow"]


async def test_health_follows_models_and_services(served: Served) -> None:
    stub = HealthStub(served.channel)
    for service in ("", "sentiment.v1.SentimentService", "inference.GRPCInferenceService", "model"):
        status = (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status
        assert status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_both_services(served: Served) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = ServerReflectionStub(served.channel).ServerReflectionInfo(iter([request]))
    response = await call.read()
    names = {service.name for service in response.list_services_response.service}
    assert {"sentiment.v1.SentimentService", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names


async def test_http_port_answers_and_metrics_are_those_that_are_documented(served: Served) -> None:
    await served.inference.ModelInfer(text_request("model", "good", "bad"))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.app.http_port}") as session:
        pages = {}
        for path in ("/healthz", "/readyz", "/metrics"):
            async with session.get(path) as response:
                assert response.status == 200
                pages[path] = await response.text()
    assert "model@tensorflow: stopped" in pages["/readyz"]
    assert "broken: refused" in pages["/readyz"]
    exposed = set(re.findall(r"^# TYPE (\w+) ", pages["/metrics"], flags=re.MULTILINE))
    documented = set(re.findall(r"^\| `(lockstep_\w+)`", METRICS.read_text(), flags=re.MULTILINE))
    assert exposed == documented
    assert 'lockstep_rows_total{backend="onnxruntime",model="model"} 2.0' in pages["/metrics"]
    assert 'lockstep_execute_seconds_count{backend="onnxruntime",length="<=16",model="model"} 2.0' in pages["/metrics"]


def edited(change: Callable[[oip.ModelInferRequest], object], *, ids: bool = False) -> oip.ModelInferRequest:
    request = ids_request([[2, 4, 3], [2, 3]]) if ids else text_request("model", "good", "bad")
    change(request)
    return request


def shaped(shape: list[int], *, ids: bool = False) -> oip.ModelInferRequest:
    def change(request: oip.ModelInferRequest) -> None:
        del request.inputs[0].shape[:]
        request.inputs[0].shape.extend(shape)

    return edited(change, ids=ids)


def with_contents(index: int, values: list[int]) -> oip.ModelInferRequest:
    def change(request: oip.ModelInferRequest) -> None:
        request.raw_input_contents[index] = np.array(values, dtype="<i8").tobytes()

    return edited(change, ids=True)


MISTAKES: dict[str, tuple[oip.ModelInferRequest, grpc.StatusCode, str]] = {
    "no model": (text_request("", "good"), grpc.StatusCode.INVALID_ARGUMENT, "no model is named"),
    "unknown model": (text_request("nope", "good"), grpc.StatusCode.NOT_FOUND, "served are: model"),
    "refused model": (text_request("broken", "good"), grpc.StatusCode.NOT_FOUND, "refused"),
    "unknown backend": (text_request("model@nope", "good"), grpc.StatusCode.NOT_FOUND, "no backend 'nope'"),
    "unknown version": (text_request("model", "good", model_version="9"), grpc.StatusCode.NOT_FOUND, "not 9"),
    "no version": (text_request("model", "good", model_version="x"), grpc.StatusCode.INVALID_ARGUMENT, "'x'"),
    "no inputs": (oip.ModelInferRequest(model_name="model"), grpc.StatusCode.INVALID_ARGUMENT, "no inputs"),
    "no rows": (text_request("model"), grpc.StatusCode.INVALID_ARGUMENT, "no rows"),
    "empty text": (text_request("model", "good", ""), grpc.StatusCode.INVALID_ARGUMENT, "row 1: the text has no"),
    "too long": (text_request("model", "bad " * 99), grpc.StatusCode.INVALID_ARGUMENT, "row 0: the text has 101"),
    "megabyte": (text_request("model", "x" * (1 << 20)), grpc.StatusCode.INVALID_ARGUMENT, "1048576 bytes"),
    "not UTF-8": (text_request("model", "ok", b"\xff\xfe"), grpc.StatusCode.INVALID_ARGUMENT, "row 1: the text is not"),
    "wrong name": (
        edited(lambda r: setattr(r.inputs[0], "name", "txt")), grpc.StatusCode.INVALID_ARGUMENT, "no input named 'txt'",
    ),
    "wrong datatype": (
        edited(lambda r: setattr(r.inputs[0], "datatype", "FP32")), grpc.StatusCode.INVALID_ARGUMENT, "must be BYTES",
    ),
    "no datatype": (
        edited(lambda r: setattr(r.inputs[0], "datatype", "")), grpc.StatusCode.INVALID_ARGUMENT, "without a datatype",
    ),
    "more rows claimed": (shaped([3]), grpc.StatusCode.INVALID_ARGUMENT, "holds 2 texts"),
    "absurd rows claimed": (shaped([1 << 62]), grpc.StatusCode.INVALID_ARGUMENT, "holds 2 texts"),
    "negative size": (shaped([-2]), grpc.StatusCode.INVALID_ARGUMENT, "negative size"),
    "three dimensions": (shaped([2, 1, 1]), grpc.StatusCode.INVALID_ARGUMENT, "shape [n] or [n, 1]"),
    "ids flat": (shaped([6], ids=True), grpc.StatusCode.INVALID_ARGUMENT, "2 dimensions"),
    "ids overflow": (shaped([1 << 62, 1 << 62], ids=True), grpc.StatusCode.INVALID_ARGUMENT, "but 48 bytes came"),
    "ids short": (with_contents(0, [2, 3]), grpc.StatusCode.INVALID_ARGUMENT, "48 bytes, but 16 bytes came"),
    "id negative": (with_contents(0, [2, -1, 3, 2, 3, 0]), grpc.StatusCode.INVALID_ARGUMENT, "token id -1"),
    "id too large": (with_contents(0, [2, 4, 3, 2, 99, 0]), grpc.StatusCode.INVALID_ARGUMENT, "row 1: token id 99"),
    "length zero": (with_contents(1, [3, 0]), grpc.StatusCode.INVALID_ARGUMENT, "row 1: its length is 0"),
    "length beyond": (with_contents(1, [4, 2]), grpc.StatusCode.INVALID_ARGUMENT, "row 0: its length is 4"),
    "duplicated input": (
        edited(lambda r: r.inputs.append(r.inputs[0])), grpc.StatusCode.INVALID_ARGUMENT, "is there twice",
    ),
    "raw and typed": (
        edited(lambda r: r.raw_input_contents.append(b"")), grpc.StatusCode.INVALID_ARGUMENT, "raw and typed",
    ),
    "raw missing": (
        edited(lambda r: r.raw_input_contents.pop(), ids=True), grpc.StatusCode.INVALID_ARGUMENT, "1 raw contents",
    ),
    "mask with holes": (
        edited(
            lambda r: (
                setattr(r.inputs[1], "name", "attention_mask"), r.inputs[1].shape.append(3),
                r.raw_input_contents.pop(),
                r.raw_input_contents.append(np.array([1, 0, 1, 1, 1, 0], dtype="<i8").tobytes()),
            ),
            ids=True,
        ),
        grpc.StatusCode.INVALID_ARGUMENT, "padded on the right",
    ),
    "input in shared memory": (
        edited(
            lambda r: (
                r.inputs[0].parameters["shared_memory_region"].MergeFrom(oip.InferParameter(string_param="region")),
                r.inputs[0].ClearField("contents"),
            )
        ),
        grpc.StatusCode.INVALID_ARGUMENT, "input 'text' lies in shared memory",
    ),
    "output to shared memory": (
        edited(
            lambda r: r.outputs.add(name="label").parameters["shared_memory_region"].MergeFrom(
                oip.InferParameter(string_param="region")
            )
        ),
        grpc.StatusCode.INVALID_ARGUMENT, "output 'label' is to be written to shared memory",
    ),
    "output as classes": (
        edited(
            lambda r: r.outputs.add(name="probabilities").parameters["classification"].MergeFrom(
                oip.InferParameter(int64_param=1)
            )
        ),
        grpc.StatusCode.INVALID_ARGUMENT, "asked for as classes",
    ),
    "unknown output": (
        edited(lambda r: r.outputs.add(name="colour")), grpc.StatusCode.INVALID_ARGUMENT, "no output named 'colour'",
    ),
    "parameter of a wrong type": (
        edited(lambda r: r.parameters["truncate"].MergeFrom(oip.InferParameter(string_param="yes"))),
        grpc.StatusCode.INVALID_ARGUMENT, "parameter truncate must be a bool",
    ),
    "negative timeout": (
        edited(lambda r: r.parameters["timeout"].MergeFrom(oip.InferParameter(int64_param=-1))),
        grpc.StatusCode.INVALID_ARGUMENT, "must not be negative",
    ),
}  # fmt: skip


async def test_every_mistake_has_its_status_and_says_what_is_wrong_and_the_server_goes_on(served: Served) -> None:
    for name, (request, code, message) in MISTAKES.items():
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.inference.ModelInfer(request)
        assert caught.value.code() == code, name
        assert message in str(caught.value.details()), name
    response = await served.inference.ModelInfer(text_request("model", "good"))
    assert outputs(response)["probabilities"].shape == (1, 2)
    assert served.app.statistics.model("model", 1).rows == 1


async def test_bytes_that_are_no_message_are_the_callers_error(served: Served) -> None:
    for method in ("/inference.GRPCInferenceService/ModelInfer", "/sentiment.v1.SentimentService/Classify"):
        call = served.channel.unary_unary(method)
        for payload in (b"\xff\xff\xff", pb.ClassifyRequest(texts=["good"]).SerializeToString()[:-2]):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(payload)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_too_many_rows_are_refused_with_the_limit(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_call_rows=8) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.inference.ModelInfer(text_request("model", *["good"] * 9))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "9 rows, at most 8" in str(caught.value.details())


async def test_a_message_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_message_bytes=1000) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.inference.ModelInfer(text_request("model", "x" * 2000))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_methods_that_are_not_there_are_unimplemented(served: Served) -> None:
    missing = {
        "SystemSharedMemoryStatus": "send them in the request",
        "CudaSharedMemoryRegister": "send them in the request",
        "RepositoryModelLoad": "not loaded on demand",
        "TraceSetting": "phases",
        "NoSuchMethod": "",
    }
    for method, why in missing.items():
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert why in str(caught.value.details())


async def test_the_configuration_describes_a_model_and_a_backend(served: Served) -> None:
    config = (await served.inference.ModelConfig(oip.ModelConfigRequest(name="model"))).config
    metadata = await served.inference.ModelMetadata(oip.ModelMetadataRequest(name="model"))
    assert (config.name, config.platform) == ("model", metadata.platform)
    assert config.max_batch_size > 0
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert config.version_policy.latest.num_versions == 1
    assert config.HasField("model_transaction_policy")
    assert not config.model_transaction_policy.decoupled
    assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [
        (tensor.name, list(tensor.shape)[1:]) for tensor in metadata.inputs
    ]
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [
        (tensor.name, list(tensor.shape)[1:]) for tensor in metadata.outputs
    ]
    assert config.parameters["labels"].string_value == "negative,positive"
    names = [backend.name for backend in served.batcher("model").backends]
    assert [group.name for group in config.instance_group] == names
    pinned = (await served.inference.ModelConfig(oip.ModelConfigRequest(name=f"model@{names[0]}"))).config
    assert [group.name for group in pinned.instance_group] == names[:1]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.inference.ModelConfig(oip.ModelConfigRequest(name="other"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_neighbours_of_a_mistake_in_flight_are_not_harmed(served: Served) -> None:
    good = [served.inference.ModelInfer(text_request("model", "good film")) for _ in range(20)]
    bad = [served.inference.ModelInfer(text_request("model", "")) for _ in range(20)]
    answers = await asyncio.gather(*good, *bad, return_exceptions=True)
    assert [outputs(answer)["label"] for answer in answers[:20]] == [outputs(answers[0])["label"]] * 20
    assert all(isinstance(answer, grpc.aio.AioRpcError) for answer in answers[20:])

"""Open Inference and its neighbours over real gRPC: every field. Bad input is in test_hostile_input."""

import re
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from lockstep.protos import open_inference_pb2 as oip
from tests import doubles
from tests.serving import Served, ids_request, outputs, serving, text_request

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    doubles.publish(tmp_path, "broken").joinpath("tokenizer.json").write_text("{}")
    async with serving(tmp_path, doubles.ADAPTERS) as one:
        yield one


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


async def test_methods_that_are_not_there_are_unimplemented(served: Served) -> None:
    missing = {
        "SystemSharedMemoryStatus": "send them in the request",
        "CudaSharedMemoryRegister": "send them in the request",
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

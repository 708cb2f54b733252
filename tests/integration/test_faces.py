"""gRPC and the page's JSON tell one and the same of models and latencies: both write what the use cases describe."""

import json
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import ParseDict

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from lockstep.server import latency_report as reports
from lockstep.server import listing
from lockstep.server.latency_report import LatencyReport, latency_report
from lockstep.server.latency_window import Recent
from lockstep.server.listing import ModelList, list_models
from lockstep.server.rpc.reports import latency_response, models_response
from lockstep.server.web import documents
from tests.doubles import ADAPTERS, publish, rewrite_manifest
from tests.serving import Served, serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """Serve one model that has answered, beside one that is refused and one that is unloaded."""
    rewrite_manifest(
        publish(tmp_path, "film", ("onnx", "onnx-int8", "torch")), refused={"saved_model": "a frozen axis"}
    )
    rewrite_manifest(publish(tmp_path, "broken", version=3), surprise=1)
    publish(tmp_path, "play")
    async with serving(tmp_path, ADAPTERS, allow_load=True) as one:
        await one.inference.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="play"))
        await one.sentiment.Compare(pb.CompareRequest(model="film", texts=["good", "a bad film " * 9]))
        yield one


async def report(served: Served, *, by_length: bool) -> LatencyReport:
    gateway, recent = served.app.gateway, recent_of(served)
    return await latency_report(gateway, recent, model="", backend="", window_s=60, by_length=by_length)


def recent_of(served: Served) -> Recent:
    (recent,) = [one for one in vars(served.app).values() if isinstance(one, Recent)]
    return recent


def as_json(described: object) -> Any:
    """What HTTP's callers read."""
    return json.loads(documents.response(described).text or "")


async def test_a_list_of_models_is_the_same_by_grpc_and_by_http(served: Served) -> None:
    found = list_models(served.app.gateway)
    assert [len(part) for part in (found.models, found.refused, found.unloaded)] == [1, 1, 1]
    assert ParseDict(as_json(found), pb.ListModelsResponse()) == models_response(found)


async def test_a_latency_report_is_the_same_by_grpc_and_by_http(served: Served) -> None:
    found = await report(served, by_length=True)
    assert [len(one.lengths or ()) for one in found.backends] == [2, 2, 0]
    assert ParseDict(as_json(found), pb.LatencyReportResponse()) == latency_response(found)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (ModelList, pb.ListModelsResponse),
        (listing.ListedModel, pb.ListedModel),
        (listing.ListedBackend, pb.ListedBackend),
        (listing.Parity, pb.Parity),
        (listing.NotServed, pb.RefusedModel),
        (listing.NotServed, pb.UnloadedModel),
        (LatencyReport, pb.LatencyReportResponse),
        (reports.BackendLatency, pb.BackendLatency),
        (reports.LengthLatency, pb.LengthLatency),
        (reports.PhaseLatency, pb.PhaseLatency),
        (reports.GatewayLoad, pb.GatewayLoad),
    ],
)
def test_a_description_has_the_fields_of_its_message(described: type, message: Any) -> None:
    descriptor: Descriptor = message.DESCRIPTOR
    assert {field.name for field in fields(described)} == set(descriptor.fields_by_name)


async def test_lengths_are_told_apart_for_who_asks_and_change_no_other_figure(served: Served) -> None:
    apart, together = await report(served, by_length=True), await report(served, by_length=False)
    assert [one.lengths for one in together.backends] == [None] * 3
    assert [one.phases for one in together.backends] == [one.phases for one in apart.backends]


async def test_the_pages_poll_asks_for_no_lengths_and_the_latency_call_for_all(served: Served) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.app.http_port}") as http:
        live = await (await http.get("/api/live?model=film")).json()
        whole = await (await http.get("/api/latency?model=film")).json()
    assert [one["lengths"] for one in live["latency"]["backends"]] == [None] * 3
    assert [len(one["lengths"]) for one in whole["backends"]] == [2, 2, 0]
    assert [one["rows"] for one in live["latency"]["backends"]] == [2, 2, 0]

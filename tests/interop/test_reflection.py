"""A client that knows none of the messages finds them by reflection, and calls with them."""

from pathlib import Path

from lockstep.protos import open_inference_pb2, sentiment_pb2
from tests.interop.environments import told_by
from tests.interop.expected import outputs
from tests.serving import Served


async def test_a_client_of_reflection_alone_finds_and_calls_every_service(served: Served, triton_python: Path) -> None:
    told = await told_by(triton_python, "reflection.py", f"127.0.0.1:{served.app.grpc_port}", "model")
    for file in (open_inference_pb2, sentiment_pb2):
        (service,) = file.DESCRIPTOR.services_by_name.values()
        assert told["methods"][service.full_name] == [method.name for method in service.methods]
    assert set(told["methods"]["grpc.health.v1.Health"]) >= {"Check", "Watch"}

    good, empty = told["classify"]["results"]
    expected = outputs(["good film"])
    assert good["prediction"]["probabilities"] == expected["probabilities"][0]
    assert empty["error"]["kind"] == "InvalidInput"
    assert told["infer"]["id"] == "mine"
    assert [output["name"] for output in told["infer"]["outputs"]] == ["probabilities", "label", "truncated"]
    assert told["config"]["config"]["max_batch_size"] == served.batcher("model").backends[0].limits.max_rows
    (statistics,) = told["statistics"]["model_stats"]
    assert (statistics["inference_count"], statistics["inference_stats"]["success"]["count"]) == ("2", "2")
    assert told["health"] == {"status": "SERVING"}

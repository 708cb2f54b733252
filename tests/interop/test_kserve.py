"""kserve's gRPC client works unchanged, from an environment and a process of its own."""

from pathlib import Path

import pytest

from tests.interop.environments import environment, told_by
from tests.interop.expected import outputs
from tests.serving import Served


@pytest.fixture(scope="session")
def kserve_python() -> Path:
    """The interpreter of an environment with kserve."""
    return environment("kserve")


async def test_its_grpc_client_works_unchanged(served: Served, kserve_python: Path) -> None:
    told = await told_by(kserve_python, "kserve_grpc.py", f"127.0.0.1:{served.app.grpc_port}", "model")
    assert told["live"]
    assert told["ready"]
    assert told["model_ready"]
    for name in ("typed", "raw", "pinned"):
        assert told[name]["outputs"] == outputs(), name
    for name in ("typed ids", "raw ids"):
        assert told[name]["outputs"] == outputs(["good film", "bad"]), name
    assert told["chosen"]["outputs"] == {"label": outputs()["label"]}
    assert (told["pinned"]["model"], told["pinned"]["version"], told["pinned"]["id"]) == (
        "model@onnxruntime", "1", "mine",
    )  # fmt: skip
    assert told["parameters"]["outputs"]["truncated"] == [True]
    for name in ("unknown", "unknown's readiness"):
        assert told[name]["status"] == "StatusCode.NOT_FOUND"
        assert "no model 'nope' is served" in told[name]["message"]
    assert told["too long"]["status"] == "StatusCode.INVALID_ARGUMENT"
    assert "row 0: the text has 102 tokens" in told["too long"]["message"]
    assert served.app.statistics.model("model", 1).success.count == 7

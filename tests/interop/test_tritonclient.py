"""tritonclient works unchanged: it runs in an environment and a process of its own, and sees only the port."""

from pathlib import Path
from typing import Any

import pytest

from tests import doubles
from tests.integration.test_security import Pki, tokens_text
from tests.interop.environments import told_by
from tests.interop.expected import outputs
from tests.serving import Served, serving

PHASES = {f"{phase}_us" for phase in ("decode", "tokenize", "queue", "pad", "transfer", "execute", "respond")}
ERRORS = {
    "unknown model": ("NOT_FOUND", "no model 'nope' is served"),
    "unknown backend": ("NOT_FOUND", "no backend 'nope'"),
    "unknown version": ("NOT_FOUND", "served in version 1, not 9"),
    "unknown model's metadata": ("NOT_FOUND", "no model 'nope' is served"),
    "unknown model's config": ("NOT_FOUND", "no model 'nope' is served"),
    "unknown model's statistics": ("NOT_FOUND", "no model 'nope' is served"),
    "unknown model's readiness": ("NOT_FOUND", "no model 'nope' is served"),
    "wrong datatype": ("INVALID_ARGUMENT", "input text must be BYTES, not FP32"),
    "too long": ("INVALID_ARGUMENT", "row 0: the text has 102 tokens"),
    "empty": ("INVALID_ARGUMENT", "row 1: the text has no tokens"),
    "unknown output": ("INVALID_ARGUMENT", "no output named 'colour'"),
    "input in shared memory": ("INVALID_ARGUMENT", "input 'text' lies in shared memory"),
    "one of two in shared memory": ("INVALID_ARGUMENT", "input 'text' lies in shared memory"),
    "output to shared memory": ("INVALID_ARGUMENT", "output 'probabilities' is to be written to shared memory"),
    "as classes": ("INVALID_ARGUMENT", "asked for as classes"),
    "client's timeout": ("DEADLINE_EXCEEDED", ""),
}


@pytest.fixture
def address(served: Served) -> str:
    return f"127.0.0.1:{served.app.grpc_port}"


async def test_the_synchronous_client_works_unchanged(served: Served, triton_python: Path, address: str) -> None:
    told = await told_by(triton_python, "triton_sync.py", address, "model")

    assert all(told[one] for one in ("live", "ready", "model_ready", "version_ready", "backend_ready"))
    assert told["server"]["name"] == "lockstep"
    assert {"statistics", "model_repository", "model_configuration"} <= set(told["server"]["extensions"])
    assert described(told["metadata"]["inputs"]) == {
        "text": ("BYTES", [-1, 1]),
        "input_ids": ("INT64", [-1, -1]),
        "attention_mask": ("INT64", [-1, -1]),
        "lengths": ("INT64", [-1, 1]),
    }
    assert described(told["metadata"]["outputs"]) == {
        "probabilities": ("FP32", [-1, 2]),
        "label": ("BYTES", [-1]),
        "truncated": ("BOOL", [-1]),
    }
    assert told["metadata"]["versions"] == ["1"]
    assert told["max_batch_size"] > 0
    assert not told["decoupled"]
    assert told["config"]["config"]["input"][0] == {
        "name": "text", "data_type": "TYPE_STRING", "dims": ["1"], "optional": True,
    }  # fmt: skip
    states = {one["name"]: one["state"] for one in told["index"]["models"]}
    assert states == {
        "model": "READY", "model@onnxruntime": "READY", "model@tensorflow": "UNAVAILABLE",
        "other": "READY", "other@onnxruntime": "READY",
    }  # fmt: skip

    answers = told["answers"]
    for name in ("texts", "column", "pinned", "gzip", "deflate", "sequence", "headers"):
        assert answers[name]["outputs"] == outputs(), name
        assert set(answers[name]["parameters"]) == {"backend", *PHASES}
    for name in ("lengths", "mask"):
        assert answers[name]["outputs"] == outputs(["good film", "bad"])
    assert answers["pinned"]["model"] == "model@onnxruntime"
    assert answers["chosen"]["id"] == "call-7"
    assert list(answers["chosen"]["outputs"]) == ["label", "probabilities"]
    assert answers["parameters"]["outputs"]["truncated"] == [True]
    assert sorted(one["id"] for one in told["async"]) == [str(number) for number in range(8)]
    assert all(one["outputs"] == outputs() for one in told["async"])
    assert told["cancelled"] is None or told["cancelled"]["status"] == "StatusCode.CANCELLED"

    assert set(told["errors"]) == set(ERRORS)
    for name, (status, message) in ERRORS.items():
        assert told["errors"][name]["status"] == f"StatusCode.{status}", name
        assert message in told["errors"][name]["message"], name
    for name, error in told["unimplemented"].items():
        assert error["status"] == "StatusCode.UNIMPLEMENTED", name
        assert len(error["message"].split()) > 5, f"{name} must say why"

    (whole,) = told["statistics"]["model_stats"]
    answered = len(answers) + len(told["async"])
    # The cancelled call and the one that was given a microsecond may have been answered all the same.
    assert int(whole["inference_stats"]["success"]["count"]) - answered in (0, 1, 2)
    rows = sum(len(one["outputs"]["label"]) for one in [*answers.values(), *told["async"]])
    assert int(whole["inference_count"]) - rows in (0, 3, 6)
    assert [one["name"] for one in told["all_statistics"]["model_stats"]] == list(states)


async def test_the_asynchronous_client_works_unchanged(triton_python: Path, address: str) -> None:
    told = await told_by(triton_python, "triton_aio.py", address, "model")
    assert told["live"]
    assert told["ready"]
    assert told["model_ready"]
    assert told["metadata"]["name"] == told["config"]["config"]["name"] == "model"
    assert len(told["index"]["models"]) == 5
    assert (told["text"]["id"], told["text"]["outputs"]) == ("mine", outputs())
    assert told["ids"]["outputs"] == outputs(["good film", "bad"])
    assert len(told["together"]) == 50
    assert all(one["outputs"] == outputs() for one in told["together"])
    failed = [one for one in told["stream"] if "status" in one]
    assert [one["message"] for one in failed] == ["request 7: no model 'nope' is served; served are: model, other"]
    answered = [one for one in told["stream"] if "status" not in one]
    assert sorted(int(one["id"]) for one in answered) == [number for number in range(50) if number != 7]
    assert all(one["outputs"] == outputs() for one in answered)
    assert told["unknown"]["status"] == "StatusCode.NOT_FOUND"
    assert told["late"]["status"] == "StatusCode.DEADLINE_EXCEEDED"
    assert told["shared memory"]["status"] == "StatusCode.UNIMPLEMENTED"
    (whole,) = told["statistics"]["model_stats"]
    assert int(whole["inference_stats"]["success"]["count"]) == 1 + 1 + 50 + 49
    assert int(whole["inference_count"]) == 3 + 2 + 3 * 50 + 3 * 49


async def test_streams_of_the_client_work_unchanged(triton_python: Path, address: str) -> None:
    told = await told_by(triton_python, "triton_stream.py", address, "model")
    assert all(one["outputs"] == outputs() for one in told["ordered"])
    assert len(told["ordered"]) == 50
    assert {one["id"] for one in told["named"]} == {str(number) for number in range(50)}
    assert all(one["outputs"] == outputs() for one in told["named"])
    (last,) = told["last"]
    assert last["parameters"]["triton_final_response"] is True
    assert "triton_final_response" not in told["ordered"][0]["parameters"]
    first, nowhere, pinned, empty, long, ids = told["mixed"]  # without ids, answers keep the order of their requests
    assert first["outputs"] == pinned["outputs"] == outputs()
    assert pinned["parameters"]["backend"] == "tensorflow"
    assert "no model 'nope'" in nowhere["message"]
    assert "no tokens" in empty["message"]
    assert "102 tokens" in long["message"]
    assert ids["outputs"] == outputs(["good film", "bad"])
    assert [one["status"] for one in told["cancelled"]] == ["StatusCode.CANCELLED"]
    assert told["after"]["outputs"] == outputs()


async def test_the_client_speaks_tls_and_shows_a_certificate_and_a_token(tmp_path: Path, triton_python: Path) -> None:
    doubles.publish(tmp_path / "models", "model")
    pki = Pki.write(tmp_path / "pki")
    tokens = tmp_path / "tokens"
    tokens.write_text(tokens_text(alice="infer"))
    security: dict[str, Any] = {
        "tls_cert": pki.cert, "tls_key": pki.key, "tls_client_ca": pki.ca, "tokens": tokens,
    }  # fmt: skip
    channel = pki.channel(with_client=True)
    async with serving(tmp_path / "models", doubles.ADAPTERS, channel, **security) as served:
        address = f"localhost:{served.app.grpc_port}"
        told = await told_by(triton_python, "triton_secure.py", address, "model", pki.ca.parent, "alice-secret")
    assert told["ready"]
    for name in ("answer", "stream", "aio"):
        assert told[name]["outputs"] == outputs(), name
    statuses = {name: told[name]["status"] for name in ("no token", "wrong token", "not an admin", "no TLS")}
    assert statuses == {
        "no token": "StatusCode.UNAUTHENTICATED",
        "wrong token": "StatusCode.UNAUTHENTICATED",
        "not an admin": "StatusCode.PERMISSION_DENIED",
        "no TLS": "StatusCode.UNAVAILABLE",
    }


def described(tensors: list[dict[str, Any]]) -> dict[str, tuple[str, list[int]]]:
    return {one["name"]: (one["datatype"], [int(size) for size in one["shape"]]) for one in tensors}

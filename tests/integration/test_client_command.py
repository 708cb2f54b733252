"""`lockstep classify` against a real gRPC server."""

import json

import grpc
import pytest
from click.testing import CliRunner, Result

from lockstep.commands.classify import classify
from tests.wire_double import Fail, FailRows, double_in_a_thread

TWO = {"a": ("onnxruntime", "tensorflow"), "b": ("onnxruntime",)}


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(classify, arguments, input=text)


def test_the_only_model_is_asked_and_shown_with_its_phases() -> None:
    with double_in_a_thread() as server:
        result = run("a good film", "--server", server.address)
    assert result.exit_code == 0
    for part in ("tiny", "a good film", "onnxruntime", "positive", "0.8750", "execute", "6.00", "8.20"):
        assert part in result.output


def test_json_holds_everything() -> None:
    with double_in_a_thread() as server:
        result = run("a good film", "--json", "--server", server.address)
    (document,) = json.loads(result.stdout)
    assert document["probabilities"] == {"negative": 0.125, "positive": 0.875}
    assert document["phases_ms"]["execute"] == 6.0
    assert (document["text"], document["model"], document["backend"]) == ("a good film", "tiny", "onnxruntime")


def test_all_backends_are_asked_and_compared() -> None:
    with double_in_a_thread() as server:
        result = run("good", "bad", "--all-backends", "--server", server.address)
    assert result.exit_code == 0
    assert "2 backends agree on every label" in result.output
    assert {call.model for call in server.calls} == {"tiny@onnxruntime", "tiny@tensorflow"}


def test_a_dash_reads_lines() -> None:
    with double_in_a_thread() as server:
        result = run("-", "--server", server.address, "--truncate", text="good\n\nbad\r\n")
    assert result.exit_code == 0
    assert [list(call.texts) for call in server.calls] == [["good", "bad"]]
    assert server.calls[0].truncate


def test_a_row_that_failed_is_shown_and_the_exit_code_says_so() -> None:
    long = FailRows({1: ("InputTooLong", grpc.StatusCode.INVALID_ARGUMENT, "600 tokens, at most 512")})
    with double_in_a_thread(long, long) as server:
        table = run("good", "long", "--server", server.address)
        as_json = run("good", "long", "--json", "--server", server.address)
    assert (table.exit_code, as_json.exit_code) == (1, 1)
    assert "text 2: 600 tokens, at most 512" in table.output
    assert json.loads(as_json.stdout)[1]["error"]["kind"] == "InputTooLong"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("x",), "which model? The server serves: a, b"),
        (("x", "--model", "c"), "no model 'c'"),
        (("x", "--model", "b", "--backend", "torch"), "no backend torch; it has: onnxruntime"),
        (("x", "--model", "a", "--backend", "torch", "--all-backends"), "exclude each other"),
        (("-",), "holds no text"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_there_is(arguments: tuple[str, ...], says: str) -> None:
    with double_in_a_thread(models=TWO) as server:
        result = run(*arguments, "--server", server.address, text="")
    assert result.exit_code == 2
    assert says in result.output


def test_a_call_that_failed_exits_with_3() -> None:
    with double_in_a_thread(Fail(grpc.StatusCode.INTERNAL, "request 42 failed")) as server:
        result = run("x", "--server", server.address)
    assert result.exit_code == 3
    assert "INTERNAL: request 42 failed" in result.output


def test_no_server_exits_with_4_and_says_how_to_start_one() -> None:
    with double_in_a_thread() as server:
        address = server.address
    result = run("x", "--server", address, "--timeout", "0.2")
    assert result.exit_code == 4
    assert address in result.output
    assert "lockstep serve" in result.output

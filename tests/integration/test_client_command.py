"""`lockstep classify` against a real gRPC server; all backends of a model, against Lockstep's own."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from lockstep.commands.classify import classify
from tests.doubles import ADAPTERS, directions, encode, publish, row_logits
from tests.integration.test_reports import rewrite_parity
from tests.serving import Served, serving
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


# ---- all backends --------------------------------------------------------------------------------


async def run_all(served: Served, *arguments: str) -> Result:
    """Run in a thread: the server is in this one."""
    server = ("--server", f"127.0.0.1:{served.app.grpc_port}")
    return await asyncio.to_thread(run, "--all-backends", *arguments, *server)


async def test_all_backends_are_compared_and_those_that_do_not_run_are_waited_for(tmp_path: Path) -> None:
    publish(tmp_path, "film")
    async with serving(tmp_path, ADAPTERS) as served:
        first = await run_all(served, "good", "a bad film")
        again = await run_all(served, "good", "a bad film", "--json")
    assert first.exit_code == 0, first.output
    assert "2 backends agree on every label; their probabilities differ by 0.0e+00 at most." in first.stdout
    assert first.stderr == "Waiting for tensorflow to start, 120 s at most (--timeout)\n"
    assert (again.exit_code, again.stderr) == (0, "")
    found = [(one["text"], one["backend"]) for one in json.loads(again.stdout)]
    assert found == [(text, backend) for text in ("good", "a bad film") for backend in ("onnxruntime", "tensorflow")]


async def test_a_variant_is_compared_with_its_reference_and_not_held_against_the_others(tmp_path: Path) -> None:
    rewrite_parity(publish(tmp_path, "film", ("onnx", "onnx-int8")), "onnx-int8", atol=None, rtol=None)
    async with serving(tmp_path, ADAPTERS) as served:
        result = await run_all(served, "good")
    assert result.exit_code == 0, result.output
    assert "onnxruntime-int8, a variant, gives the same labels as onnxruntime; probabilities differ" in result.stdout
    assert "agree on every label" not in result.stdout


async def test_a_backend_that_fails_is_shown_in_its_rows_and_told_of_once(tmp_path: Path) -> None:
    publish(tmp_path, "film", ("onnx", "saved_model", "torch"))
    async with serving(tmp_path, ADAPTERS) as served:
        table = await run_all(served, "good", "a bad film")
        documents = json.loads((await run_all(served, "good", "--json")).stdout)
    assert table.exit_code == 1
    assert table.stdout.count("BackendUnavailable") == 2
    assert table.stdout.count("torch: ") == 1
    assert "this artifact cannot be loaded" in table.stdout
    assert "2 backends agree on every label" in table.stdout
    assert [one["backend"] for one in documents] == ["onnxruntime", "tensorflow", "torch"]
    assert [one.get("error", {}).get("kind") for one in documents] == [None, None, "BackendUnavailable"]


async def test_a_backend_that_starts_for_too_long_does_not_take_the_others_answers_with_it(tmp_path: Path) -> None:
    publish(tmp_path, "film")
    hold, _ = directions(tmp_path, 1, "saved_model")
    hold.touch()
    async with serving(tmp_path, ADAPTERS) as served:
        result = await run_all(served, "good", "--timeout", "8")
        hold.unlink()
    assert result.exit_code == 1, result.output
    assert "tensorflow: the backend was still starting when the time was over" in result.stdout
    negative, positive = row_logits(encode("good"))
    assert f"onnxruntime {'positive' if positive > negative else 'negative'}" in " ".join(result.stdout.split())
    assert "No text was answered by two backends." in result.stdout

"""ModelStatistics against a count that the client keeps of its own: to the row, and to the microsecond it was told."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from tests import doubles
from tests.serving import Served, eventually, serving, text_request

MODEL, ONNX, TENSORFLOW = "model", "model@onnxruntime", "model@tensorflow"
PHASES = ("decode", "tokenize", "queue", "pad", "transfer", "execute", "respond")
WORDS = ("good", "bad", "film", "the", "a")
DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, MODEL)
    async with serving(tmp_path, doubles.ADAPTERS) as one:
        yield one


@dataclass
class Ledger:
    """What the client knows of its calls, by nothing but their answers and its clock."""

    answered: Counter[str] = field(default_factory=Counter)  # calls, by the backend that they say answered
    failed: Counter[str] = field(default_factory=Counter)  # calls, by what they were pinned to
    executed: Counter[str] = field(default_factory=Counter)  # rows that were, by backend
    told_us: Counter[tuple[str, str]] = field(default_factory=Counter)  # by backend and phase, of the calls
    elapsed_ns: Counter[str] = field(default_factory=Counter)  # by backend, as the client's clock has it

    def answer(self, rows: int, backend: str, phases_us: Mapping[str, int], elapsed_ns: int) -> None:
        """Note a call that was answered."""
        self.answered[backend] += 1
        self.executed[backend] += rows
        self.elapsed_ns[backend] += elapsed_ns
        for phase in PHASES:
            self.told_us[backend, phase] += phases_us[phase]

    def infer_response(self, response: oip.ModelInferResponse, rows: int, elapsed_ns: int) -> None:
        """Note the answer to a ModelInfer or to a message of a stream."""
        parameters = response.parameters
        phases = {phase: parameters[f"{phase}_us"].int64_param for phase in PHASES}
        self.answer(rows, f"{MODEL}@{parameters['backend'].string_param}", phases, elapsed_ns)


async def statistics(served: Served) -> dict[str, oip.ModelStatistics]:
    response = await served.inference.ModelStatistics(oip.ModelStatisticsRequest())
    return {one.name: one for one in response.model_stats}


async def infer(served: Served, ledger: Ledger, request: oip.ModelInferRequest) -> None:
    began_ns = time.monotonic_ns()
    try:
        response = await served.inference.ModelInfer(request, timeout=60)
    except grpc.aio.AioRpcError:
        ledger.failed[request.model_name] += 1
    else:
        ledger.infer_response(response, request.inputs[0].shape[0], time.monotonic_ns() - began_ns)


async def stream(served: Served, ledger: Ledger, requests: dict[str, oip.ModelInferRequest]) -> None:
    began_ns = time.monotonic_ns()
    call = served.inference.ModelStreamInfer(timeout=60)
    for key, request in requests.items():
        request.id = key
        await call.write(request)
    await call.done_writing()
    async for message in call:
        request = requests.pop(message.infer_response.id)
        if message.error_message:
            ledger.failed[request.model_name] += 1
        else:
            ledger.infer_response(message.infer_response, request.inputs[0].shape[0], time.monotonic_ns() - began_ns)
    assert not requests


async def classify(served: Served, ledger: Ledger, texts: list[str], model: str) -> None:
    """Call Classify: a call is answered if one of its rows is, and its phases are those of its last row."""
    began_ns = time.monotonic_ns()
    response = await served.sentiment.Classify(pb.ClassifyRequest(model=model, texts=texts), timeout=60)
    elapsed_ns = time.monotonic_ns() - began_ns
    rows = [result.prediction for result in response.results if result.HasField("prediction")]
    if not rows:
        ledger.failed[model] += 1
        return
    last = max(rows, key=lambda row: sum(getattr(row.phases, f"{phase}_us") for phase in PHASES))
    phases = {phase: getattr(last.phases, f"{phase}_us") for phase in PHASES}
    ledger.answer(0, f"{MODEL}@{last.backend}", phases, elapsed_ns)
    for row in rows:
        ledger.executed[f"{MODEL}@{row.backend}"] += 1


def some_request(generator: random.Random) -> oip.ModelInferRequest:
    """Return a call of one to six rows; one in four has a mistake in it."""
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(1, 50))) for _ in range(generator.randint(1, 6))]
    request = text_request(generator.choice((MODEL, ONNX, TENSORFLOW)), *texts)
    mistake = generator.randrange(16)
    if mistake == 0:
        request.inputs[0].contents.bytes_contents[0] = b""
    elif mistake == 1:
        request.outputs.add(name="colour")
    elif mistake == 2:
        request.model_version = "9"
    elif mistake == 3:
        request.parameters["truncate"].string_param = "yes"
    return request


async def test_statistics_agree_with_the_clients_count_to_the_row_and_times_add_up(served: Served) -> None:
    generator, ledger = random.Random(5), Ledger()
    async with asyncio.TaskGroup() as group:
        for _ in range(150):
            group.create_task(infer(served, ledger, some_request(generator)))
        for _ in range(3):
            group.create_task(stream(served, ledger, {str(key): some_request(generator) for key in range(60)}))
        for number in range(60):
            texts = ["good film", "", "the bad film"][number % 2 :] if number % 10 else [""]
            group.create_task(classify(served, ledger, texts, generator.choice((MODEL, ONNX, TENSORFLOW))))

    stats = await statistics(served)
    assert stats.keys() == {MODEL, ONNX, TENSORFLOW}
    for name in (ONNX, TENSORFLOW):
        one, inference = stats[name], stats[name].inference_stats
        assert inference.success.count == ledger.answered[name] > 0
        assert inference.fail.count == ledger.failed[name] > 0
        assert one.inference_count == ledger.executed[name]
        assert {getattr(inference, what).count for what in DURATIONS if what != "fail"} == {ledger.answered[name]}
        assert one.memory_usage[0].byte_size > 1_000_000

        # microseconds are cut in what each call is told, of each of its phases
        told_ns = {phase: 1000 * ledger.told_us[name, phase] for phase in PHASES}
        cut_ns = 1000 * ledger.answered[name]
        sums = {
            "queue": ("queue",),
            "compute_input": ("pad", "transfer"),
            "compute_infer": ("execute",),
            "compute_output": ("respond",),
            "success": PHASES,
        }
        for what, phases in sums.items():
            told = sum(told_ns[phase] for phase in phases)
            assert told <= getattr(inference, what).ns <= told + len(phases) * cut_ns, what
        assert inference.success.ns <= ledger.elapsed_ns[name]

    whole = stats[MODEL]
    assert whole.inference_stats.fail.count == ledger.failed.total()
    assert whole.inference_stats.success.count == ledger.answered.total()
    assert whole.inference_count == ledger.executed.total()
    for one in stats.values():
        sizes = {size.batch_size: size for size in one.batch_stats}
        assert sum(size.compute_infer.count for size in sizes.values()) == one.execution_count
        assert sum(rows * size.compute_infer.count for rows, size in sizes.items()) == one.inference_count
    for what in DURATIONS:
        parts = [getattr(stats[name].inference_stats, what) for name in (ONNX, TENSORFLOW)]
        total = getattr(whole.inference_stats, what)
        if what != "fail":  # what failed before it had a backend is the model's alone
            assert (total.count, total.ns) == (sum(one.count for one in parts), sum(one.ns for one in parts))
    assert whole.execution_count == stats[ONNX].execution_count + stats[TENSORFLOW].execution_count
    assert whole.last_inference == max(stats[ONNX].last_inference, stats[TENSORFLOW].last_inference)
    assert whole.execution_count < whole.inference_count


async def test_calls_whose_client_goes_are_failures_and_their_rows_are_never_counted(served: Served) -> None:
    batcher = served.batcher(MODEL)
    batcher.hold()
    calls = [served.inference.ModelInfer(text_request(MODEL, "good", "bad")) for _ in range(4)]
    streams = [served.inference.ModelStreamInfer(), served.sentiment.ClassifyStream()]
    for _ in range(3):
        await streams[0].write(text_request(MODEL, "good"))
        await streams[1].write(pb.StreamRequest(classify=pb.ClassifyRequest(model=MODEL, texts=["good"])))
    late = served.inference.ModelInfer(text_request(MODEL, "good"), timeout=0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await late
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: batcher.queued_rows == 4 * 2 + 3 + 3)
    for call in (*calls, *streams):
        call.cancel()
    await eventually(lambda: batcher.queued_rows == 0)
    batcher.release()
    await served.inference.ModelInfer(text_request(MODEL, "good", "bad", "film"))
    whole = (await statistics(served))[MODEL]
    assert whole.inference_stats.fail.count == 4 + 3 + 3 + 1
    assert whole.inference_stats.success.count == 1
    assert (whole.inference_count, whole.execution_count) == (3, 1)


@pytest.mark.parametrize("method", ["ModelStreamInfer", "ClassifyStream", "ModelInfer"])
async def test_a_call_whose_client_goes_while_its_rows_execute_has_failed_though_they_were_executed(
    served: Served, method: str
) -> None:
    backend = served.batcher(MODEL).preferred
    (worker,) = backend.workers
    os.kill(worker.pid, signal.SIGSTOP)
    call: grpc.aio.Call
    if method == "ModelInfer":
        call = served.inference.ModelInfer(text_request(MODEL, "good"))
    elif method == "ModelStreamInfer":
        call = served.inference.ModelStreamInfer()
        await call.write(text_request(MODEL, "good"))
    else:
        call = served.sentiment.ClassifyStream()
        await call.write(pb.StreamRequest(classify=pb.ClassifyRequest(model=MODEL, texts=["good"])))
    await eventually(lambda: not backend.idle_workers)
    call.cancel()
    await eventually(lambda: served.app._guard.streams == served.app._guard.calls == 0)
    os.kill(worker.pid, signal.SIGCONT)
    await served.inference.ModelInfer(text_request(MODEL, "good", "bad"))
    whole = (await statistics(served))[MODEL]
    assert (whole.inference_stats.fail.count, whole.inference_stats.success.count) == (1, 1)
    assert (whole.inference_count, whole.execution_count) == (3, 2)


async def test_rows_that_the_runtime_refuses_were_not_executed_and_rows_without_an_answer_were(served: Served) -> None:
    results = {}
    for text in ("refuse film", "nan film"):
        response = await served.sentiment.Classify(pb.ClassifyRequest(model=ONNX, texts=["good", text, "bad"]))
        results[text] = [result.error.kind or "answered" for result in response.results]
    assert results == {text: ["answered", "RowFailed", "answered"] for text in results}
    one = (await statistics(served))[ONNX]
    assert one.inference_count == 2 + 3  # rows of batches that completed: of the first call, each row went alone
    assert sum(size.batch_size * size.compute_infer.count for size in one.batch_stats) == 5
    assert one.inference_stats.success.count == 2
    assert one.inference_stats.fail.count == 0

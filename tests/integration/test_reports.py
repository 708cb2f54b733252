"""Compare, ListModels and LatencyReport over real gRPC: what the server says of its backends."""

import asyncio
import random
import shutil
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import grpc
import pytest

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.histogram import RELATIVE_ERROR
from lockstep.server.repository.manifest import MANIFEST_FILE, Manifest
from tests.doubles import ADAPTERS, encode, publish, rewrite_manifest
from tests.serving import Served, serving

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


def rewrite_parity(folder: Path, kind: str, **figures: Any) -> None:
    """Change what the manifest says of one artifact's parity."""
    artifacts = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes()).model_dump(mode="json")["artifacts"]
    for artifact in artifacts:
        if artifact["kind"] == kind:
            artifact["parity"] |= figures
    rewrite_manifest(folder, artifacts=artifacts)


# ---- Compare -------------------------------------------------------------------------------------


async def test_every_backend_answers_the_same_texts_and_a_variant_is_measured_but_not_held(tmp_path: Path) -> None:
    folder = publish(tmp_path, "film", ("onnx", "onnx-int8", "saved_model"))
    rewrite_parity(folder, "onnx-int8", atol=None, rtol=None)
    async with serving(tmp_path, ADAPTERS) as served:
        response = await served.sentiment.Compare(pb.CompareRequest(model="film", texts=["good film", "a bad film"]))
    assert (response.model, response.version, response.labels) == ("film", 1, ["negative", "positive"])
    assert [(one.backend, one.held_to_float32) for one in response.backends] == [
        ("onnxruntime", True),
        ("onnxruntime-int8", False),
        ("tensorflow", True),
    ]
    assert response.reference == "onnxruntime"
    for one in response.backends:
        assert not one.HasField("error")
        assert [result.prediction.backend for result in one.results] == [one.backend] * 2
        assert [result.prediction.tokens for result in one.results] == [4, 5]
        assert all(result.prediction.phases.execute_us > 0 for result in one.results)
        assert one.agreement == pb.Agreement(texts=2)
    assert response.agreement == pb.Agreement(texts=2)


async def test_a_backend_that_fails_has_its_error_and_hides_no_other(tmp_path: Path) -> None:
    publish(tmp_path, "film", ("onnx", "saved_model", "torch"))
    async with serving(tmp_path, ADAPTERS) as served:
        response = await served.sentiment.Compare(pb.CompareRequest(texts=["good", "refuse", "nan film"]))
    found = {one.backend: one for one in response.backends}
    assert found["torch"].error.kind == "BackendUnavailable"
    assert "cannot be loaded" in found["torch"].error.message
    assert not found["torch"].results
    assert not found["torch"].agreement.texts
    outcomes = [result.WhichOneof("outcome") for result in found["onnxruntime"].results]
    assert outcomes == ["prediction", "error", "error"]
    assert [result.WhichOneof("outcome") for result in found["tensorflow"].results] == ["prediction"] * 3
    assert response.agreement.texts == found["tensorflow"].agreement.texts == 1


async def test_backends_are_asked_at_the_same_time(tmp_path: Path) -> None:
    publish(tmp_path, "film")
    async with serving(tmp_path, ADAPTERS) as served:
        served.batcher("film").hold()
        call = asyncio.ensure_future(served.sentiment.Compare(pb.CompareRequest(texts=["good", "bad"])))
        while served.batcher("film").queued_rows < 4:  # noqa: ASYNC110 - all four rows, before any is answered
            await asyncio.sleep(0.002)
        served.batcher("film").release()
        response = await call
    assert [len(one.results) for one in response.backends] == [2, 2]


async def test_chosen_backends_are_asked_in_the_order_of_the_request(tmp_path: Path) -> None:
    publish(tmp_path, "film")
    async with serving(tmp_path, ADAPTERS) as served:
        request = pb.CompareRequest(model="film", texts=["good"], backends=["tensorflow", "onnxruntime"])
        response = await served.sentiment.Compare(request)
        alone = await served.sentiment.Compare(pb.CompareRequest(model="film", texts=["good"], backends=["tensorflow"]))
    assert [one.backend for one in response.backends] == ["tensorflow", "onnxruntime"]
    assert response.reference == "onnxruntime"
    assert [one.backend for one in alone.backends] == ["tensorflow"]
    assert alone.reference == "tensorflow"
    assert alone.agreement == pb.Agreement()


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (pb.CompareRequest(model="film", texts=[]), INVALID, "holds no rows"),
        (pb.CompareRequest(model="film", texts=["x"] * 5), INVALID, "10 rows (5 texts x 2 backends), at most 8"),
        (pb.CompareRequest(model="film@onnxruntime", texts=["x"]), INVALID, "name the model alone"),
        (pb.CompareRequest(model="play", texts=["x"]), NOT_FOUND, "no model 'play'"),
        (pb.CompareRequest(model="film", texts=["x"], backends=["torch"]), NOT_FOUND, "no backend 'torch'"),
        (pb.CompareRequest(model="film", texts=["x"], backends=["tensorflow"] * 2), INVALID, "named twice"),
        (pb.LatencyReportRequest(window_s=-1), INVALID, "a window of -1 s"),
        (pb.LatencyReportRequest(window_s=float("nan")), INVALID, "a window of nan s"),
        (pb.LatencyReportRequest(window_s=601), INVALID, "at most 600"),
        (pb.LatencyReportRequest(backend="tensorflow"), INVALID, "Name the model too"),
        (pb.LatencyReportRequest(model="play"), NOT_FOUND, "no model 'play'"),
        (pb.LatencyReportRequest(model="film", backend="torch"), NOT_FOUND, "no backend 'torch'"),
        (pb.ListModelsRequest(model="play"), NOT_FOUND, "no model 'play'"),
    ],
)
async def test_what_cannot_be_answered_is_refused_by_name(
    tmp_path: Path, request_: Any, code: grpc.StatusCode, says: str
) -> None:
    publish(tmp_path, "film")
    async with serving(tmp_path, ADAPTERS, max_call_rows=8) as served:
        method = getattr(served.sentiment, type(request_).__name__.removesuffix("Request"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request_)
    assert caught.value.code() is code
    assert says in (caught.value.details() or "")


async def test_real_backends_of_two_frameworks_agree_within_the_gates_bound(tiny_repository: Path) -> None:
    generator = random.Random(3)
    texts = [" ".join(generator.choices(["word1", "word7", "word30"], k=1 + row)) for row in range(24)]
    async with serving(tiny_repository) as served:
        requests = [
            pb.CompareRequest(model=model, texts=texts, truncate=True) for model in ("tiny-bigru", "tiny-transformer")
        ]
        for response in await asyncio.gather(*map(served.sentiment.Compare, requests)):
            assert len(response.backends) == 2
            assert response.agreement.texts == len(texts)
            assert response.agreement.largest_difference <= 5e-5
            assert {len(one.results) for one in response.backends} == {len(texts)}


# ---- ListModels ----------------------------------------------------------------------------------


async def test_models_are_listed_as_they_are(tmp_path: Path) -> None:
    folder = publish(tmp_path, "film", ("onnx", "onnx-int8", "torch"))
    rewrite_parity(folder, "onnx", max_abs_diff=1e-6, padding_invariance=2e-6, accuracy=0.9, source_accuracy=0.91)
    rewrite_parity(folder, "onnx-int8", atol=None, rtol=None, min_label_agreement=0.98, label_agreement=0.99)
    rewrite_manifest(folder, refused={"saved_model": "a frozen axis"})
    publish(tmp_path, "broken", version=3)
    rewrite_manifest(tmp_path / "broken" / "3", surprise=1)
    async with serving(tmp_path, ADAPTERS, threads=2) as served:
        (row,) = (await served.sentiment.Classify(pb.ClassifyRequest(model="film@torch", texts=["good"]))).results
        assert row.error.kind == "BackendUnavailable"
        response = await served.sentiment.ListModels(pb.ListModelsRequest())
        one = await served.sentiment.ListModels(pb.ListModelsRequest(model="film"))
    (film,) = response.models
    assert (film.name, film.version, film.labels, film.max_tokens) == ("film", 1, ["negative", "positive"], 64)
    assert (film.framework, film.layer, film.ready, film.queued_rows) == ("torch", "double", True, 0)
    assert dict(film.refused_artifacts) == {"saved_model": "a frozen axis"}
    onnx, int8, torch = film.backends
    assert (onnx.name, onnx.runtime, onnx.artifact, onnx.method) == ("onnxruntime", "onnxruntime", "onnx", "fused")
    assert (onnx.device, onnx.threads, onnx.instances, onnx.workers) == ("cpu", 2, 1, 1)
    assert (onnx.state, onnx.reason, onnx.preferred, onnx.takes_free_rows) == ("ready", "", True, True)
    assert onnx.artifact_bytes == (folder / "onnx" / "model").stat().st_size
    assert (onnx.parity.largest_difference, onnx.parity.padding_invariance) == (1e-6, 2e-6)
    assert (onnx.parity.accuracy, onnx.parity.source_accuracy, onnx.parity.atol) == (0.9, 0.91, 5e-5)
    assert not onnx.parity.HasField("min_label_agreement")
    assert (int8.name, int8.state, int8.preferred, int8.takes_free_rows) == (
        "onnxruntime-int8",
        "stopped",
        False,
        False,
    )
    assert (int8.parity.min_label_agreement, int8.parity.label_agreement) == (0.98, 0.99)
    assert not int8.parity.HasField("atol")
    assert torch.state in ("down", "starting")
    assert "cannot be loaded" in torch.reason
    (refused,) = response.refused
    assert (refused.name, refused.version) == ("broken", 3)
    assert "surprise" in refused.reason
    assert [model.name for model in one.models] == ["film"]
    assert not one.refused


async def test_what_is_not_served_is_found_by_its_name_and_says_why(tmp_path: Path) -> None:
    publish(tmp_path, "film", version=2)
    publish(tmp_path, "play")
    rewrite_manifest(publish(tmp_path, "broken", version=3), surprise=1)
    async with serving(tmp_path, ADAPTERS, allow_load=True) as served:
        await served.inference.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="film"))
        everything = await served.sentiment.ListModels(pb.ListModelsRequest())
        film = await served.sentiment.ListModels(pb.ListModelsRequest(model="film"))
        broken = await served.sentiment.ListModels(pb.ListModelsRequest(model="broken"))
        with pytest.raises(grpc.aio.AioRpcError, match="no model 'opera'"):
            await served.sentiment.ListModels(pb.ListModelsRequest(model="opera"))
        await served.inference.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="film"))
        again = await served.sentiment.ListModels(pb.ListModelsRequest())
    unloaded = pb.UnloadedModel(name="film", version=2, reason="unloaded; it takes no calls until it is loaded again")
    assert [model.name for model in everything.models] == ["play"]
    assert list(everything.unloaded) == [unloaded]
    assert film == pb.ListModelsResponse(unloaded=[unloaded])
    assert broken == pb.ListModelsResponse(refused=everything.refused)
    assert [model.name for model in again.models] == ["film", "play"]
    assert not again.unloaded


async def test_a_version_whose_files_were_removed_is_listed_as_long_as_it_is_served(tmp_path: Path) -> None:
    folder = publish(tmp_path, "film")
    size = (folder / "onnx" / "model").stat().st_size
    async with serving(tmp_path, ADAPTERS) as served:
        shutil.rmtree(folder)
        (film,) = (await served.sentiment.ListModels(pb.ListModelsRequest())).models
    assert film.backends[0].artifact_bytes == size


async def test_what_workers_use_is_listed(tmp_path: Path) -> None:
    publish(tmp_path, "film")
    async with serving(tmp_path, ADAPTERS) as served:
        await classify(served, "onnxruntime", "good")
        (film,) = (await served.sentiment.ListModels(pb.ListModelsRequest())).models
    running, stopped = film.backends
    assert running.worker_cpu_us > 0
    assert running.resident_bytes > 1_000_000
    assert (stopped.state, stopped.worker_cpu_us, stopped.resident_bytes) == ("stopped", 0, 0)


async def test_rows_that_wait_are_listed(tmp_path: Path) -> None:
    publish(tmp_path, "film")
    async with serving(tmp_path, ADAPTERS) as served:
        served.batcher("film").hold()
        call = asyncio.ensure_future(served.sentiment.Classify(pb.ClassifyRequest(texts=["good", "bad"])))
        while not (found := (await served.sentiment.ListModels(pb.ListModelsRequest())).models[0].queued_rows):
            pass
        served.batcher("film").release()
        await call
    assert found == 2


# ---- LatencyReport -------------------------------------------------------------------------------

PHASES = ["decode", "tokenize", "queue", "pad", "transfer", "execute", "respond"]


async def classify(served: Served, backend: str, *texts: str) -> list[pb.Prediction]:
    request = pb.ClassifyRequest(model=f"film@{backend}", texts=texts)
    return [result.prediction for result in (await served.sentiment.Classify(request)).results]


async def test_the_report_agrees_with_an_independent_count_by_the_client(tmp_path: Path) -> None:
    publish(tmp_path, "film")
    generator = random.Random(11)
    texts = [" ".join(generator.choices(["good", "bad", "film", "the"], k=1 + row % 40)) for row in range(60)]
    async with serving(tmp_path, ADAPTERS) as served:
        calls = [classify(served, "onnxruntime", *texts[row : row + 1 + row % 5]) for row in range(0, 60, 3)]
        calls += [classify(served, "tensorflow", text) for text in texts[:7]]
        answered: dict[str, list[pb.Prediction]] = defaultdict(list)
        for rows in await asyncio.gather(*calls):
            answered[rows[0].backend] += rows
        report = await served.sentiment.LatencyReport(pb.LatencyReportRequest(window_s=600))
    assert report.relative_error == RELATIVE_ERROR
    assert [one.backend for one in report.backends] == ["onnxruntime", "tensorflow"]
    for one in report.backends:
        rows = answered[one.backend]
        assert (one.model, one.version, one.rows) == ("film", 1, len(rows))
        assert one.tokens == sum(row.tokens for row in rows)
        assert one.padded_tokens == sum(row.batch_tokens for row in rows)
        assert one.batches == pytest.approx(sum(1 / row.batch_rows for row in rows))
        assert one.padding_ratio == pytest.approx(one.padded_tokens / one.tokens)
        assert one.mean_batch_rows == pytest.approx(one.rows / one.batches)
        assert one.rows_per_s == pytest.approx(one.rows / report.window_s)
        assert one.tokens_per_s == pytest.approx(one.tokens / report.window_s)
        assert one.cpu_us_per_row == pytest.approx(one.execute_cpu_us / one.rows, abs=1)
        assert one.worker_cpu_us >= one.execute_cpu_us > 0
        assert one.resident_bytes > 1_000_000
        assert_phases(one.phases, rows)
        shorter = 0
        for length in one.lengths:
            of_length = [row for row in rows if length.longer_than < row.tokens <= length.up_to]
            assert length.longer_than >= shorter
            assert_phases(length.phases, of_length)
            shorter = length.up_to
        assert sum(length.phases[0].count for length in one.lengths) == len(rows)
    assert report.gateway.cpu_us >= report.gateway.window_cpu_us > 0
    assert report.gateway.resident_bytes > 1_000_000


def assert_phases(phases: Any, rows: list[pb.Prediction]) -> None:
    """Hold the report's phases against the phases that the rows were answered with, which are whole microseconds."""
    assert [phase.phase for phase in phases] == [*PHASES, "request"]
    seen = {name: sorted(getattr(row.phases, f"{name}_us") for row in rows) for name in PHASES}
    for phase in phases[:-1]:
        values = seen[phase.phase]
        assert phase.count == len(values)
        assert mean(values) <= phase.mean_us < mean(values) + 1
        assert values[-1] <= phase.max_us < values[-1] + 1
        for percentile, percent in ((phase.p50_us, 50), (phase.p90_us, 90), (phase.p99_us, 99)):
            exact = values[-(-len(values) * percent // 100) - 1]
            assert exact * (1 - RELATIVE_ERROR) - 0.2 <= percentile <= (exact + 1) * (1 + RELATIVE_ERROR) + 0.2
    request = phases[-1]
    assert request.mean_us == pytest.approx(sum(phase.mean_us for phase in phases[:-1]), rel=1e-9)


async def test_backends_without_rows_are_there_and_one_can_be_asked_for_alone(tmp_path: Path) -> None:
    publish(tmp_path, "film")
    publish(tmp_path, "play", ("onnx",))
    async with serving(tmp_path, ADAPTERS) as served:
        everything = await served.sentiment.LatencyReport(pb.LatencyReportRequest())
        film = await served.sentiment.LatencyReport(pb.LatencyReportRequest(model="film"))
        request = pb.LatencyReportRequest(model="film", backend="tensorflow", window_s=5)
        alone = await served.sentiment.LatencyReport(request)
    names = [(one.model, one.backend) for one in everything.backends]
    assert names == [("film", "onnxruntime"), ("film", "tensorflow"), ("play", "onnxruntime")]
    for one in everything.backends:
        assert (one.rows, one.rows_per_s, one.padding_ratio, one.mean_batch_rows, list(one.phases)) == (0, 0, 0, 0, [])
    assert [one.backend for one in film.backends] == ["onnxruntime", "tensorflow"]
    assert [one.backend for one in alone.backends] == ["tensorflow"]
    assert everything.gateway.window_cpu_us == 0


async def test_a_row_that_fails_is_no_answer_but_its_batch_was_executed(tmp_path: Path) -> None:
    publish(tmp_path, "film", ("onnx",))
    async with serving(tmp_path, ADAPTERS) as served:
        response = await served.sentiment.Classify(pb.ClassifyRequest(texts=["nan film", "good"]))
        assert [result.WhichOneof("outcome") for result in response.results] == ["error", "prediction"]
        (one,) = (await served.sentiment.LatencyReport(pb.LatencyReportRequest())).backends
    counts = {phase.phase: phase.count for phase in one.phases}
    assert (counts["execute"], counts["decode"], counts["request"]) == (2, 1, 1)
    assert one.tokens == len(encode("nan film")) + len(encode("good"))

"""The client and the load test against the real server, its workers and the tiny models."""

import asyncio
from pathlib import Path

import pytest

from lockstep.clients import InvalidInput, Prediction, RowError, SentimentClient, raise_for_errors
from lockstep.clients.loadtest import LoadPlan, measure
from tests.serving import serving

TEXTS = ["a good film", "bad", "a long and rather dull evening that would not end " * 3]


async def test_every_backend_answers_alike_and_says_where_the_time_went(tiny_repository: Path) -> None:
    async with serving(tiny_repository) as served, SentimentClient(f"127.0.0.1:{served.app.grpc_port}") as client:
        models = await client.models()
        assert {model.name for model in models} >= {"tiny-bilstm", "tiny-bigru"}
        pinned = [(model.name, backend.name) for model in models for backend in model.backends]
        calls = (client.classify(TEXTS, model=model, backend=backend, timeout_s=120) for model, backend in pinned)
        answered = dict(zip(pinned, await asyncio.gather(*calls), strict=True))  # they start side by side
        for model in models:
            answers = [raise_for_errors(answered[model.name, backend.name]) for backend in model.backends]
            for backend, predictions in zip(model.backends, answers, strict=True):
                assert {prediction.backend for prediction in predictions} == {backend.name}
                for prediction, reference in zip(predictions, answers[0], strict=True):
                    assert prediction.label == reference.label
                    assert prediction.probabilities == pytest.approx(reference.probabilities, abs=1e-4)
                    assert prediction.phases.execute_ms > 0
                    assert 0 < prediction.tokens <= prediction.batch_tokens
                    assert prediction.batch_rows >= 1


async def test_a_row_without_tokens_fails_alone(tiny_repository: Path) -> None:
    async with serving(tiny_repository) as served, SentimentClient(f"127.0.0.1:{served.app.grpc_port}") as client:
        good, empty = await client.classify(["good", ""], model="tiny-bilstm")
    assert isinstance(good, Prediction)
    assert isinstance(empty, RowError)
    assert isinstance(empty.as_exception(), InvalidInput)


async def test_a_load_test_loses_no_row_and_the_server_counts_the_same(tiny_repository: Path) -> None:
    async with serving(tiny_repository) as served:
        report = await measure(
            LoadPlan(
                model="tiny-bigru",
                address=f"127.0.0.1:{served.app.grpc_port}",
                http=f"127.0.0.1:{served.app.http_port}",
                mode="open",
                rate=200.0,
                rows=60,
                rounds=2,
                warmup_s=0.0,
            )
        )
    assert {backend.backend for backend in report.backends} == {"onnxruntime", "tensorflow"}
    for backend in report.backends:
        assert (backend.rows, backend.errors, backend.threads) == (60, {}, 1)
        assert backend.server is not None
        assert backend.server.rows == 60
        assert backend.server.mean_batch_rows == pytest.approx(backend.mean_batch_rows)
        assert backend.padding_ratio is not None
        assert backend.padding_ratio >= 1

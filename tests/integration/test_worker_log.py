"""The log tells of every start that failed and every death, with model, backend, process and reason."""

import logging
import os
import signal
from pathlib import Path

import pytest

from tests import doubles
from tests.serving import eventually, serving


def told(caplog: pytest.LogCaptureFixture, backend: str) -> list[tuple[str, str]]:
    """Return what was logged of a backend's workers: level and message."""
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.__dict__.get("fields", {}).get("backend") == backend
    ]


@pytest.mark.parametrize(
    ("adapter", "reason"),
    [
        ("UnloadableAdapter", "a worker cannot start: RuntimeError: this artifact cannot be loaded"),
        ("ShapelessAdapter", "a worker's costs cannot be measured: ValueError: the artifact answered [1, 1] for"),
    ],
)
async def test_a_start_that_fails_is_an_error_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, adapter: str, reason: str
) -> None:
    doubles.publish(tmp_path, "model")
    adapters = {"onnxruntime": "tests.doubles:SumAdapter", "tensorflow": f"tests.doubles:{adapter}"}
    with caplog.at_level(logging.INFO, logger="lockstep"):
        async with serving(tmp_path, adapters, start="all", measure_s=0.05) as served:
            await eventually(lambda: served.batcher("model").backend("tensorflow").start_failed)
    errors = [message for level, message in told(caplog, "tensorflow") if level == "ERROR"]
    assert errors[0].startswith(reason)


async def test_a_worker_that_dies_idle_is_told_with_its_signal_and_one_that_is_stopped_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doubles.publish(tmp_path, "model")
    with caplog.at_level(logging.INFO, logger="lockstep"):
        async with serving(tmp_path, doubles.ADAPTERS) as served:
            backend = served.batcher("model").backend("onnxruntime")
            (worker,) = backend.workers
            os.kill(worker.pid, signal.SIGTERM)
            await eventually(lambda: backend.down)
            assert backend.reason == "the worker ended (signal SIGTERM) while it was idle"
            await eventually(lambda: backend.ready)
    assert [(level, message.partition(", loaded")[0]) for level, message in told(caplog, "onnxruntime")] == [
        ("INFO", "a worker is ready"),
        ("WARNING", "a worker ended: signal SIGTERM"),
        ("INFO", "a worker is ready"),
        ("INFO", "restarted"),
    ]

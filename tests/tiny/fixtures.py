"""Session-wide fixtures: tiny sources, and a repository of them made by the real exporters and gate.

What a session asks for is made once; independent models are exported two processes at a time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lockstep.exporters.export import ExportReport, export_model_async
from tests.tiny.descriptions import DESCRIPTIONS, TENSORFLOW, TENSORFLOW_1, TORCH
from tests.tiny.texts import write_texts

REPOSITORY = {
    "tiny-bigru": ("onnx", "saved_model"),
    "tiny-lstm": ("onnx", "saved_model"),
    "tiny-peephole": ("onnx", "saved_model"),
    "tiny-bilstm": ("onnx", "torch"),
    "tiny-transformer": ("onnx", "torch"),
}
"""Models of the tiny repository and their artifacts."""

_ROOT = Path(__file__).resolve().parents[2]
_PROCESSES = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let whoever changes the server, and no exporter, skip a minute of exports."""
    parser.addoption(
        "--tiny-repository",
        type=Path,
        help="keep the exported tiny models in this folder, and use those that are there (stale once exporters change)",
    )


@dataclass(frozen=True, slots=True)
class TinySources:
    """Every tiny source's folder by name, and synthetic texts to verify with."""

    folders: dict[str, Path]
    texts: Path


@pytest.fixture(scope="session")
def tiny_sources(tmp_path_factory: pytest.TempPathFactory) -> TinySources:
    """All tiny sources, written by their frameworks in processes of their own."""
    root = tmp_path_factory.mktemp("tiny-sources")
    writers = []
    for module in (TORCH, TENSORFLOW, TENSORFLOW_1):
        names = [name for name in DESCRIPTIONS if _module_of(name) == module]
        writers.append(
            subprocess.Popen(
                [sys.executable, "-m", module, str(root), *names],
                cwd=_ROOT,
                env=framework_environment() | ({"TF_USE_LEGACY_KERAS": "1"} if module == TENSORFLOW_1 else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    for writer in writers:
        output, _ = writer.communicate()
        assert writer.returncode == 0, output.decode()
    return TinySources({name: root / name for name in DESCRIPTIONS}, write_texts(root / "texts.jsonl"))


@pytest.fixture(scope="session")
def tiny_exports(
    tiny_sources: TinySources, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, ExportReport]]:
    """The repository, and the report of each model's export."""
    repository = tmp_path_factory.mktemp("tiny-repository")

    async def export_all() -> list[ExportReport]:
        slots = asyncio.Semaphore(_PROCESSES)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    export_model_async(
                        DESCRIPTIONS[name],
                        tiny_sources.folders[name],
                        artifacts=artifacts,
                        verify_with=tiny_sources.texts,
                        repository=repository,
                        slots=slots,
                    )
                )
                for name, artifacts in REPOSITORY.items()
            ]
        return [task.result() for task in tasks]

    reports = {report.model: report for report in asyncio.run(export_all())}
    refused = {name: report.refused for name, report in reports.items() if report.refused}
    assert not refused, f"the tiny models must pass the gate: {refused}"
    return repository, reports


@pytest.fixture(scope="session")
def tiny_repository(request: pytest.FixtureRequest) -> Path:
    """A repository of the models of `REPOSITORY`. Do not change it."""
    kept: Path | None = request.config.getoption("--tiny-repository")
    if kept is not None and all((kept / name).is_dir() for name in REPOSITORY):
        return kept
    repository: Path = request.getfixturevalue("tiny_exports")[0]
    if kept is not None:
        shutil.copytree(repository, kept)
    return repository


def _module_of(name: str) -> str:
    return {"torch": TORCH, "tf1": TENSORFLOW_1}.get(DESCRIPTIONS[name].framework, TENSORFLOW)


def framework_environment() -> dict[str, str]:
    """Return the environment of a test's process that imports a framework: on the CPU, and quiet."""
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }

"""Whole exports through the command, and sources that are hostile, damaged or wrong."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lockstep.commands.export import export
from lockstep.exporters.conversion import SourceError
from lockstep.exporters.export import export_model
from lockstep.server.repository.catalog import scan
from tests.tiny.descriptions import DESCRIPTIONS
from tests.tiny.fixtures import TinySources, framework_environment


@pytest.fixture(scope="module")
def command(tiny_sources: TinySources, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], Path]:
    """Exit code, report and repository of one export of a model that is right and one that is not."""
    repository = tmp_path_factory.mktemp("repository")
    folders = [str(tiny_sources.folders[name]) for name in ("tiny-stacked-gru", "tiny-unmasked-rnn", "tiny-bare-loop")]
    options = ["--to", "onnx", "--repository", str(repository), "--verify-with", str(tiny_sources.texts), "--json"]
    result = CliRunner().invoke(export, ["folder", *folders, *options], catch_exceptions=False)
    return result.exit_code, json.loads(result.stdout), repository


Command = tuple[int, dict[str, Any], Path]


def test_a_refused_artifact_is_reported_by_the_exit_code_and_leaves_nothing(command: Command) -> None:
    status, report, repository = command
    assert status == 3
    refused = report["models"][1]
    assert refused["outcome"] == "refused"
    (artifact,) = refused["artifacts"]
    assert artifact["status"] == "refused"
    assert artifact["reason"].startswith("ignores where a row ends")
    assert "The source itself minds padding" in artifact["reason"]
    assert sorted(path.name for path in repository.iterdir()) == [".staging", "tiny-stacked-gru"]


def test_a_bare_loop_over_a_cell_is_refused_with_advice(command: Command) -> None:
    (artifact,) = command[1]["models"][2]["artifacts"]
    assert artifact["status"] == "refused"
    assert "a Python loop over the steps" in artifact["reason"]
    assert "lockstep.exporters.standins.recurrent_loop.run_cell" in artifact["reason"]


def test_two_packed_bidirectional_layers_become_two_fused_operators(command: Command) -> None:
    (artifact,) = command[1]["models"][0]["artifacts"]
    assert artifact["status"] == "fused"
    assert artifact["recurrent_ops"] == {"GRU": 2}
    assert artifact["padding_invariance"] < 1e-6


def test_a_single_sigmoid_column_becomes_two_labels(command: Command) -> None:
    manifest = scan(command[2]).models["tiny-stacked-gru"].manifest
    assert len(manifest.labels) == 2
    assert manifest.artifacts[0].output == "logits"
    assert manifest.artifacts[0].activation == "softmax"


def test_an_unchanged_source_makes_no_new_version(command: Command, tiny_sources: TinySources) -> None:
    name = "tiny-stacked-gru"
    report = export_model(
        DESCRIPTIONS[name],
        tiny_sources.folders[name],
        artifacts=("onnx",),
        verify_with=tiny_sources.texts,
        repository=command[2],
    )
    assert (report.outcome, report.version) == ("unchanged", 1)
    assert report.artifacts[0].max_abs_diff == command[1]["models"][0]["artifacts"][0]["max_abs_diff"]


def refused_source(tiny_sources: TinySources, folder: Path, repository: Path, **changed: str) -> str:
    """Export a changed tiny BiLSTM, which must fail; return the message."""
    with pytest.raises(SourceError) as raised:
        export_model(
            DESCRIPTIONS["tiny-bilstm"].model_copy(update=changed),
            folder,
            artifacts=("onnx",),
            verify_with=tiny_sources.texts,
            repository=repository,
        )
    assert [path.name for path in repository.iterdir()] == [".staging"]
    return str(raised.value)


@pytest.fixture
def folder(tiny_sources: TinySources, tmp_path: Path) -> Path:
    copied = tmp_path / "source"
    shutil.copytree(tiny_sources.folders["tiny-bilstm"], copied)
    return copied


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "repository"
    made.mkdir()
    return made


class Payload:
    """What a hostile weights file would hold."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_payload_is_refused_and_not_run(tiny_sources: TinySources, folder: Path, repository: Path) -> None:
    mark = folder / "the-payload-ran"
    (folder / "weights.pt").write_bytes(pickle.dumps({"weight": Payload(mark)}))
    message = refused_source(tiny_sources, folder, repository, weights="weights.pt")
    assert "weights.pt: refused" in message
    assert not mark.exists()


def test_a_truncated_weights_file_is_named(tiny_sources: TinySources, folder: Path, repository: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "weights.safetensors: not a whole safetensors file" in refused_source(tiny_sources, folder, repository)


def test_weights_of_another_model_are_named(tiny_sources: TinySources, folder: Path, repository: Path) -> None:
    shutil.copy(tiny_sources.folders["tiny-transformer"] / "weights.safetensors", folder)
    message = refused_source(tiny_sources, folder, repository)
    assert "does not fit tests.tiny.torch_sources:bilstm" in message
    assert "Missing key(s)" in message


def test_tied_weights_that_safetensors_wrote_once_are_loaded_under_every_name(tmp_path: Path) -> None:
    opened = f"from tests.tiny.torch_sources import *; open_tied(Path({str(tmp_path / 'tied.safetensors')!r}))"
    finished = subprocess.run(
        [sys.executable, "-c", opened],
        cwd=Path(__file__).resolve().parents[2],
        env=framework_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def test_a_crash_of_the_source_is_reported_with_its_last_words(
    tiny_sources: TinySources, folder: Path, repository: Path
) -> None:
    message = refused_source(tiny_sources, folder, repository, build="tests.tiny.torch_sources:crashing")
    assert "signal SIGABRT" in message
    assert "about to crash" in message


def test_building_code_that_is_not_there_is_named_with_where_it_was_sought(
    tiny_sources: TinySources, folder: Path, repository: Path
) -> None:
    message = refused_source(tiny_sources, folder, repository, build="no_such_module:build")
    assert "no module 'no_such_module'" in message
    assert str(folder) in message

"""Model files made elsewhere: mapped, verified against themselves, published; or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from lockstep.commands.export import import_group
from lockstep.exporters.conversion import SourceError
from lockstep.exporters.export import ExportReport, export_model
from lockstep.exporters.source import Description
from lockstep.server.repository.catalog import scan
from tests.tiny.bag_of_words import write
from tests.tiny.texts import LABELS, write_texts, write_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path / "tokenizer.json")
    write_texts(tmp_path / "texts.jsonl", texts=24)
    return tmp_path


def imported(folder: Path, weights: str, framework: str = "onnx", *artifacts: str, **more: object) -> ExportReport:
    described = {
        "name": "elsewhere",
        "framework": framework,
        "layer": "bag of words",
        "labels": LABELS,
        "tokenizer": "tokenizer.json",
        "weights": weights,
        "max_tokens": 16,
        **more,
    }
    return export_model(
        Description.model_validate(described),
        folder,
        artifacts=artifacts or ("onnx",),
        verify_with=folder / "texts.jsonl",
        repository=folder / "models",
    )


def test_an_onnx_file_is_mapped_verified_and_published_by_the_command(folder: Path) -> None:
    write(folder / "original.onnx")
    model = onnx.load(folder / "original.onnx")
    for node in model.graph.node:  # names of its own
        node.input[:] = [{"input_ids": "words", "lengths": "n"}.get(name, name) for name in node.input]
        node.output[:] = ["scores" if name == "logits" else name for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = {"input_ids": "words", "lengths": "n", "logits": "scores"}[value.name]
    onnx.save_model(model, str(folder / "model.onnx"))
    options = ["--name", "elsewhere", "--labels", "negative,positive", "--tokenizer", f"{folder}/tokenizer.json"]
    options += ["--verify-with", f"{folder}/texts.jsonl", "--repository", f"{folder}/models", "--max-tokens", "16"]
    result = CliRunner().invoke(import_group, ["onnx", str(folder / "model.onnx"), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (artifact,) = scan(folder / "models").models["elsewhere"].manifest.artifacts
    assert (artifact.inputs.lengths and artifact.inputs.lengths.name, artifact.method) == ("lengths", "imported")
    assert artifact.parity.padding_invariance < 1e-5


def test_an_onnx_file_that_minds_padding_is_refused(folder: Path) -> None:
    write(folder / "model.onnx", divisor="axis")
    report = imported(folder, "model.onnx")
    assert report.outcome == "refused"
    assert "ignores where a row ends" in str(report.artifacts[0].reason)


def test_a_variant_of_a_graph_with_nothing_to_quantise_is_refused(folder: Path) -> None:
    write(folder / "model.onnx")
    report = imported(folder, "model.onnx", "onnx", "onnx", "onnx-int8")
    assert [one.status for one in report.artifacts] == ["exact", "refused"]
    assert "quantises no operator of this graph" in str(report.artifacts[1].reason)


def test_weights_in_another_file_are_refused(folder: Path) -> None:
    write(folder / "original.onnx")
    onnx.save_model(
        onnx.load(folder / "original.onnx"),
        str(folder / "model.onnx"),
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    with pytest.raises(SourceError, match="is in another file"):
        imported(folder, "model.onnx")


def test_what_is_no_model_is_named(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(np.random.default_rng(0).bytes(400))
    with pytest.raises(SourceError, match=r"model\.onnx: not a valid ONNX file"):
        imported(folder, "model.onnx")


def test_a_saved_model_that_would_reach_for_files_is_refused(folder: Path) -> None:
    from tests.tiny.saved_models import write_graph_with

    write_graph_with("ReadFile", folder / "hostile")
    with pytest.raises(SourceError, match="refused: its graph has the operator ReadFile"):
        imported(folder, "hostile", "saved_model", "saved_model")


def test_a_saved_model_with_a_link_is_refused(folder: Path) -> None:
    (folder / "linked").mkdir()
    (folder / "linked" / "saved_model.pb").symlink_to("/etc/hostname")
    with pytest.raises(SourceError, match="a link; a SavedModel holds its own files"):
        imported(folder, "linked", "saved_model", "saved_model")


def test_a_tensorflow_1_saved_model_is_served_as_it_is_and_as_a_loop(
    tiny_exports: tuple[Path, object], folder: Path
) -> None:
    made = tiny_exports[0] / "tiny-peephole" / "1" / "saved_model"
    report = imported(folder, str(made), "saved_model", "onnx", "saved_model")
    onnx_report, saved_model = report.artifacts
    assert (onnx_report.status, saved_model.status, saved_model.method) == ("loop", "exact", "saved_model")
    assert "only their loop" in str(onnx_report.reason)

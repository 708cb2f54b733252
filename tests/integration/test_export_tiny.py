"""What the tiny repository's exports came out as."""

from __future__ import annotations

from pathlib import Path

from lockstep.exporters.conversion import Status
from lockstep.exporters.export import ExportReport
from lockstep.server.repository.catalog import scan

Exports = tuple[Path, dict[str, ExportReport]]


def test_every_tiny_model_is_published_and_whole(tiny_exports: Exports) -> None:
    repository, reports = tiny_exports
    catalog = scan(repository)
    assert catalog.refused == {}
    assert set(catalog.models) == set(reports)
    assert {report.version for report in reports.values()} == {1}


def test_a_packed_bilstm_becomes_one_fused_operator(tiny_exports: Exports) -> None:
    onnx, _ = tiny_exports[1]["tiny-bilstm"].artifacts
    assert onnx.status is Status.FUSED
    assert onnx.recurrent_ops == {"LSTM": 1}


def test_a_packed_bilstm_stays_pytorch_s_own_operator_in_an_exported_program(tiny_exports: Exports) -> None:
    _, torch = tiny_exports[1]["tiny-bilstm"].artifacts
    assert (torch.artifact, torch.status, torch.recurrent_ops) == ("torch", Status.EXACT, {"LSTM": 1})


def test_a_keras_stack_becomes_fused_operators_and_its_own_graph(tiny_exports: Exports) -> None:
    onnx, saved_model = tiny_exports[1]["tiny-bigru"].artifacts
    assert (onnx.status, onnx.recurrent_ops) == (Status.FUSED, {"GRU": 1, "LSTM": 1})
    assert (saved_model.status, saved_model.recurrent_ops) == (Status.EXACT, {})


def test_a_cell_written_by_hand_becomes_a_loop_and_says_so(tiny_exports: Exports) -> None:
    onnx, saved_model = tiny_exports[1]["tiny-lstm"].artifacts
    assert (onnx.status, onnx.recurrent_ops) == (Status.LOOP, {"Loop": 1})
    assert onnx.reason is not None
    assert "does not declare its gates" in onnx.reason
    assert saved_model.status is Status.EXACT


def test_tensorflow_1_cells_become_fused_operators(tiny_exports: Exports) -> None:
    onnx, saved_model = tiny_exports[1]["tiny-peephole"].artifacts
    assert (onnx.status, onnx.recurrent_ops) == (Status.FUSED, {"GRU": 1, "LSTM": 2})
    assert saved_model.status is Status.EXACT


def test_no_artifact_depends_on_what_stands_beyond_a_row_s_end(tiny_exports: Exports) -> None:
    for model in scan(tiny_exports[0]).models.values():
        for artifact in model.manifest.artifacts:
            assert artifact.parity.masks_beyond_end
            assert artifact.parity.padding_invariance < 1e-6


def test_a_manifest_names_no_path_of_the_machine_that_wrote_it(tiny_exports: Exports) -> None:
    for folder in tiny_exports[0].glob("tiny-*/1"):
        for file in folder.rglob("*"):
            assert not file.is_file() or str(Path.cwd()).encode() not in file.read_bytes(), file

"""What the tiny repository's exports came out as."""

from __future__ import annotations

from pathlib import Path

from exporters.conversion import Status
from exporters.export import ExportReport
from server.repository.catalog import scan

Exports = tuple[Path, dict[str, ExportReport]]


def test_every_tiny_model_is_published_and_whole(tiny_exports: Exports) -> None:
    repository, reports = tiny_exports
    catalog = scan(repository)
    assert catalog.refused == {}
    assert set(catalog.models) == set(reports)
    assert {report.version for report in reports.values()} == {1}


def test_a_packed_bilstm_becomes_one_fused_operator(tiny_exports: Exports) -> None:
    (onnx,) = tiny_exports[1]["tiny-bilstm"].artifacts
    assert onnx.status is Status.FUSED
    assert onnx.recurrent_ops == {"LSTM": 1}

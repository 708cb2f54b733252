"""SavedModel files written by hand: a graph of one operator, without TensorFlow."""

from __future__ import annotations

from pathlib import Path


def write_graph_with(operator: str, folder: Path) -> None:
    """Write a SavedModel whose function library holds this operator.

    The bytes are protobuf's: SavedModel.meta_graphs[0].graph_def.library.function[0].node_def[0].op.
    """
    node = _field(1, b"reach") + _field(2, operator.encode())
    function = _field(3, node)
    graph = _field(2, _field(1, function))
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(_field(2, _field(2, graph)))


def _field(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content

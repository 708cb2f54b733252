"""An ONNX file that keeps tensors elsewhere is found out, and served only where they are in files of its manifest."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lockstep.server.repository.catalog import RefusedError, read_version
from lockstep.server.repository.manifest import MANIFEST_FILE
from lockstep.server.repository.onnx_references import external_files
from tests import doubles


def outside(name: str, location: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value="0")
    return tensor


def model(tmp_path: Path, *tensors: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> Path:
    inside = numpy_helper.from_array(np.zeros(2, np.float32), "inside")
    graph = helper.make_graph(list(nodes), "g", [], [], [inside, *tensors])
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_a_file_that_keeps_all_inside_refers_to_none(tmp_path: Path) -> None:
    assert external_files(model(tmp_path)) == set()


def test_references_are_found_in_weights_attributes_and_subgraphs(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["a"], value=outside("a", "attribute.bin"))
    branch = helper.make_graph([constant], "branch", [], [], [outside("b", "subgraph.bin")])
    choice = helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch)
    path = model(tmp_path, outside("w", "../weights.bin"), nodes=(choice,))
    assert external_files(path) == {"../weights.bin", "attribute.bin", "subgraph.bin"}


@pytest.mark.parametrize("content", [b"not a model", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x7f"])
def test_what_is_no_model_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="not an ONNX model"):
        external_files(tmp_path / "model.onnx")


def test_graphs_within_graphs_without_end_are_refused(tmp_path: Path) -> None:
    content = b""
    for _ in range(200):  # Graph.node (1) > Node.attribute (5) > Attribute.g (6)
        for tag in (6, 5, 1):
            content = bytes([tag << 3 | 2]) + _length(content) + content
    (tmp_path / "model.onnx").write_bytes(b"\x3a" + _length(content) + content)
    with pytest.raises(ValueError, match="not an ONNX model"):
        external_files(tmp_path / "model.onnx")


def _length(content: bytes) -> bytes:
    number, encoded = len(content), bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


@pytest.mark.parametrize("location", ["../../../secret", "/etc/passwd", "weights.bin", "sub/../../x"])
def test_a_version_whose_model_keeps_tensors_in_files_of_others_is_refused_by_name(
    tmp_path: Path, location: str
) -> None:
    folder = published(tmp_path, location)
    with pytest.raises(RefusedError, match="keeps tensors in") as caught:
        read_version(folder)
    assert repr(location) in str(caught.value)


def test_tensors_in_a_file_of_the_artifact_are_allowed(tmp_path: Path) -> None:
    folder = published(tmp_path, "weights.bin", "weights.bin")
    assert read_version(folder).manifest.name == "model"


def published(tmp_path: Path, location: str, *files: str) -> Path:
    """Publish a model whose ONNX file refers to `location`; `files` are listed and there."""
    folder = doubles.publish(tmp_path / "repository", "model", kinds=("onnx",))
    content = model(tmp_path, outside("w", location)).read_bytes()
    (folder / "onnx" / "model").unlink()
    (folder / "onnx" / "model.onnx").write_bytes(content)
    listed = {"onnx/model.onnx": hashlib.sha256(content).hexdigest()}
    for file in files:
        (folder / "onnx" / file).write_bytes(b"12345678")
        listed[f"onnx/{file}"] = hashlib.sha256(b"12345678").hexdigest()
    artifacts = json.loads((folder / MANIFEST_FILE).read_text())["artifacts"]
    artifacts[0] |= {"path": "onnx/model.onnx", "files": listed}
    doubles.rewrite_manifest(folder, artifacts=artifacts)
    return folder

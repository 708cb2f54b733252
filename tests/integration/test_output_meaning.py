"""What a model answers is served as what it is: no softmax or sigmoid twice, and no logit as a probability."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from lockstep.exporters.conversion import SourceError
from lockstep.exporters.export import ExportReport, export_model, export_model_async
from lockstep.exporters.gate.onnx_ending import ending_of
from lockstep.exporters.publish import fingerprint
from lockstep.exporters.source import Description
from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.repository.catalog import scan
from lockstep.server.repository.manifest import Artifact
from tests import doubles
from tests.serving import serving
from tests.tiny import bag_of_words
from tests.tiny.fixtures import framework_environment
from tests.tiny.texts import LABELS, write_texts, write_tokenizer

TEXTS = ("word1 word2 word3", "word9")
ROOT = Path(__file__).resolve().parents[2]


def description(weights: str, framework: str, **more: object) -> Description:
    described = {"name": Path(weights).stem, "layer": "tiny", "labels": LABELS, "tokenizer": "tokenizer.json"}
    return Description.model_validate(
        {**described, "framework": framework, "weights": weights, "max_tokens": 16, **more}
    )


async def exported(folder: Path, one: Description, slots: asyncio.Semaphore) -> ExportReport | str:
    """Return the report of an export, or why the source was refused."""
    try:
        return await export_model_async(
            one,
            folder,
            artifacts=("onnx",),
            verify_with=folder / "texts.jsonl",
            repository=folder / "models",
            slots=slots,
        )
    except SourceError as error:
        return str(error)


def run(module: str, *arguments: str) -> Any:
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=framework_environment() | {"TF_USE_LEGACY_KERAS": "1" if "tf1" in arguments else "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.parametrize(("framework", "cases"), [("torch", 14), ("tensorflow", 16), ("tf1", 1)])
def test_the_operator_that_a_source_ends_in_is_seen(framework: str, cases: int, tmp_path: Path) -> None:
    results = run("tests.tiny.endings", framework, str(tmp_path))
    assert len(results) == cases
    assert {case: found for case, (found, there) in results.items() if found != there} == {}


async def test_keras_models_that_end_in_softmax_or_sigmoid_are_served_as_keras_answers(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer.json")
    write_texts(tmp_path / "texts.jsonl", texts=24)
    predicted = run("tests.tiny.keras_endings", str(tmp_path), *TEXTS)
    slots = asyncio.Semaphore(2)
    softmax, sigmoid, twice, unbounded = await asyncio.gather(
        exported(tmp_path, description("softmax.keras", "keras"), slots),
        exported(tmp_path, description("sigmoid.keras", "keras"), slots),
        exported(tmp_path, description("softmax.keras", "keras", name="twice", output="logits"), slots),
        exported(tmp_path, description("logit.keras", "keras", output="probabilities", activation="sigmoid"), slots),
    )
    assert isinstance(softmax, ExportReport)
    assert isinstance(sigmoid, ExportReport)
    assert "probabilities of a softmax: it ends in Softmax" in str(softmax.output)
    assert "probabilities of a sigmoid: it ends in Sigmoid" in str(sigmoid.output)
    assert "--output logits (`output` in description.json) is wrong" in str(twice)
    assert "which are not probabilities: --output probabilities" in str(unbounded)
    async with serving(tmp_path / "models") as served:
        assert set(served.app.gateway.models) == {"softmax", "sigmoid"}
        for model, expected in predicted.items():
            response = await served.sentiment.Classify(pb.ClassifyRequest(model=model, texts=TEXTS), timeout=60)
            got = [list(result.prediction.probabilities) for result in response.results]
            np.testing.assert_allclose(got, expected, atol=1e-5)


def ending_in(folder: Path, *operators: str, columns: Sequence[int | str] = ("batch", 2)) -> Path:
    """Write an ONNX bag of words whose logits go through more operators."""
    bag_of_words.write(folder / "original.onnx")
    model = onnx.load(folder / "original.onnx")
    graph = model.graph
    graph.node[-1].output[0] = "before 0"
    for place, operator in enumerate(operators):
        after = "logits" if place == len(operators) - 1 else f"before {place + 1}"
        graph.node.append(helper.make_node(operator, [f"before {place}"], [after], name=f"last {place}"))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, columns))
    path = folder / "model.onnx"
    onnx.save_model(model, str(path))
    return path


@pytest.mark.parametrize(
    ("operators", "kind"),
    [
        (("Softmax",), "softmax"),
        (("Softmax", "Identity", "Flatten"), "softmax"),
        (("Sigmoid",), "sigmoid"),
        (("LogSoftmax",), "log_softmax"),
        (("Softmax", "Log"), "log_softmax"),
        (("Sigmoid", "Log"), "log_sigmoid"),
        (("Tanh",), None),
    ],
)
def test_the_node_that_an_onnx_file_ends_in_is_seen(
    tmp_path: Path, operators: tuple[str, ...], kind: str | None
) -> None:
    ending = ending_of(onnx.load(ending_in(tmp_path, *operators)), "logits")
    assert (ending and ending.kind) == kind


def imported(folder: Path, **declared: object) -> tuple[ExportReport, Artifact]:
    write_tokenizer(folder / "tokenizer.json")
    write_texts(folder / "texts.jsonl", texts=24)
    report = export_model(
        description("model.onnx", "onnx", **declared),
        folder,
        artifacts=("onnx",),
        verify_with=folder / "texts.jsonl",
        repository=folder / "models",
    )
    return report, scan(folder / "models").models["model"].manifest.artifacts[0]


def test_an_onnx_file_that_ends_in_a_softmax_is_published_as_probabilities(tmp_path: Path) -> None:
    ending_in(tmp_path, "Softmax", columns=("batch", "labels"))
    report, artifact = imported(tmp_path)
    assert "it ends in Softmax (last 0)" in str(report.output)
    assert (artifact.output, artifact.activation) == ("probabilities", "softmax")
    with pytest.raises(SourceError, match="would be turned into probabilities a second time"):
        imported(tmp_path, output="logits")


def test_what_was_published_before_declarations_were_checked_is_not_taken_as_unchanged(tmp_path: Path) -> None:
    weights = ending_in(tmp_path, "Softmax")
    _, artifact = imported(tmp_path)
    declared = description("model.onnx", "onnx", output="logits")
    stated = declared.model_dump(mode="json", exclude={"name", "tokenizer", "weights"})
    files = {"tokenizer": tmp_path / "tokenizer.json", "weights/model.onnx": weights}
    folder = tmp_path / "models" / "model" / "1"
    source = json.loads((folder / "manifest.json").read_text())["source"]
    before = fingerprint(files, [json.dumps(stated, sort_keys=True)])
    wrong = artifact.model_copy(update={"output": "logits"}).model_dump(mode="json")
    doubles.rewrite_manifest(folder, source=source | {"sha256": before}, artifacts=[wrong])
    assert scan(tmp_path / "models").refused == {}
    with pytest.raises(SourceError, match="would be turned into probabilities a second time"):
        imported(tmp_path, output="logits")


def test_a_single_column_that_the_graph_does_not_declare_becomes_two_labels(tmp_path: Path) -> None:
    path = ending_in(tmp_path, "MatMul", "Sigmoid", columns=("batch", "columns"))
    model = onnx.load(path)
    next(node for node in model.graph.node if node.op_type == "MatMul").input.append("to one")
    model.graph.initializer.append(numpy_helper.from_array(np.array([[-2], [1]], dtype=np.float32), "to one"))
    onnx.save_model(model, str(path))
    _, artifact = imported(tmp_path)
    assert (artifact.output, artifact.activation) == ("probabilities", "softmax")


def test_labels_with_a_sigmoid_each_are_published_as_such(tmp_path: Path) -> None:
    ending_in(tmp_path, "Sigmoid")
    _, artifact = imported(tmp_path)
    assert (artifact.output, artifact.activation) == ("probabilities", "sigmoid")
    with pytest.raises(SourceError, match="the source answers 2 columns for 3 labels: name 2 labels"):
        imported(tmp_path, labels=("a", "b", "c"))


async def test_a_row_that_an_artifact_answers_with_no_probabilities_fails_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = doubles.publish(tmp_path, "model", kinds=("onnx",))
    artifacts = json.loads((folder / "manifest.json").read_text())["artifacts"]
    artifacts[0]["output"] = "probabilities"  # as was published before declarations were checked
    doubles.rewrite_manifest(folder, artifacts=artifacts)
    adapters = doubles.ADAPTERS | {"onnxruntime": "tests.doubles:UnboundedAdapter"}
    async with serving(tmp_path, adapters) as served:
        response = await served.sentiment.Classify(pb.ClassifyRequest(model="model", texts=["good", "nan", "bad"]))
    good, wrong, bad = response.results
    assert list(good.prediction.probabilities) == list(bad.prediction.probabilities) == [0.25, 0.75]
    assert wrong.error.kind == "RowFailed"
    assert wrong.error.message == (
        "model model: backend onnxruntime answered this row with 2.3 as a probability, which is outside 0 to 1"
    )
    assert "export the model again" in caplog.text

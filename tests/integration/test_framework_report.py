"""The measuring of the report, on tiny models: every figure comes from the model's real workers and its real source."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lockstep.exporters.source import Framework
from lockstep.framework_report import backend_latency, epochs, load, padding
from lockstep.framework_report.gather import Gathered, gather
from lockstep.framework_report.measure import run
from lockstep.framework_report.measurement_store import Kept
from lockstep.framework_report.settings import Settings
from lockstep.zoo import tokenizer as tokenizers
from lockstep.zoo.corpus import SPLITS, STAMP, open_corpus
from lockstep.zoo.registry import ENTRIES, Entry, Family, Recipe
from tests.tiny.descriptions import TORCH, write_folder
from tests.tiny.fixtures import framework_environment
from tests.tiny.texts import write_texts

MODEL = "tiny-bilstm"
FAMILY = Family(Framework.TORCH, "lockstep.zoo.torch_training", ("torch",))
SETTINGS = Settings(
    lengths_alone=(8,),
    lengths_together=(4,),
    rounds=3,
    padding=(MODEL,),
    fixed_lengths=(8, 64),
    padding_texts=48,
    padding_rounds=1,
    epochs=("torch-rnn",),
    epoch_lengths=(16,),
    epoch_texts=130,
    load=(MODEL,),
    load_seconds=0.4,
    load_rounds=1,
    load_callers=4,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny source where a trained model of the zoo would be, and a small corpus."""
    root = tmp_path_factory.mktemp("cache")
    for folder in (root / "zoo" / MODEL, root / "zoo" / "torch-rnn"):
        write_folder(folder, MODEL)
        # Only that something was trained is asked here.
        figures = dict.fromkeys(("parameters", "epochs", "train_s", "cpu_s", "seed", "lines_of_code", "model_lines"), 1)
        shares = dict.fromkeys(("accuracy_sentences", "accuracy_documents", "validation_accuracy"), 0.5)
        words = {"model": MODEL, "framework": "torch", "layer": "BiLSTM", "versions": {}, "fingerprint": "tiny"}
        (folder / "training.json").write_text(json.dumps(words | figures | shares))
    subprocess.run(
        [sys.executable, "-m", TORCH, str(root / "zoo"), MODEL], env=framework_environment(), check=True, timeout=120
    )
    corpus = root / "corpus"
    corpus.mkdir()
    write_texts(root / "held-out.jsonl")
    for split in SPLITS:
        lines = [
            {
                "id": str(number),
                "text": "a fine film " * (1 + number % 9),
                "label": number % 2,
                "kind": "sentence",
                "source": "test",
            }
            for number in range(160)
        ]
        (corpus / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (corpus / STAMP).write_text(json.dumps({"fingerprint": "tiny", "examples": dict.fromkeys(SPLITS, 160)}))
    return root


@pytest.fixture(scope="module")
def gathered(cache: Path, tiny_repository: Path) -> Gathered:
    tiny = Entry(MODEL, FAMILY, "BiLSTM", f"{TORCH}:bilstm", Recipe(1, 1e-3))
    return gather((tiny, ENTRIES["torch-rnn"]), cache, tiny_repository, cache / "matrix.json", cache / "none.md")


def test_artifacts_and_the_source_s_modes_are_timed_and_give_the_same_answer(
    gathered: Gathered, cache: Path, tmp_path: Path
) -> None:
    kept = Kept.read(tmp_path / "kept.json")
    listed = backend_latency.measurements(gathered, SETTINGS, cache / "held-out.jsonl")
    assert [one.key for one in listed] == [f"latency/{MODEL}"]  # nothing is published of the other
    assert run(listed, kept, "", lambda _: None) == {}
    value = kept.value(f"latency/{MODEL}")
    assert value is not None
    assert {name: set(shapes) for name, shapes in value["lengths"].items()} == {
        "onnxruntime": {"b1_t8", "b32_t4"},
        "torch": {"b1_t8", "b32_t4"},
    }
    assert set(value["modes"]) == {"eager", "onnxruntime", "torch"}
    for shapes in value["modes"].values():
        for figures in shapes.values():
            assert figures["difference"] < 5e-5
            assert figures["wall_ms"] > 0
            assert figures["rounds"] >= 3


def test_padding_is_measured_on_every_backend_and_shows_in_the_answers_where_nobody_is_told(
    gathered: Gathered, cache: Path, tmp_path: Path
) -> None:
    kept = Kept.read(tmp_path / "kept.json")
    listed = padding.measurements(gathered, SETTINGS, cache / "held-out.jsonl")
    assert run(listed, kept, "", lambda _: None) == {}
    value = kept.value(f"padding/{MODEL}")
    assert value is not None
    makes = {"sorted", "arrival", "fixed-8", "fixed-64", "blind-8", "blind-64"}
    assert {name: set(costs) for name, costs in value["cpu_ms"].items()} == {"onnxruntime": makes, "torch": makes}
    assert all(cost > 0 for costs in value["cpu_ms"].values() for cost in costs.values())
    assert value["padding"]["sorted"] < value["padding"]["fixed-64"]
    # Padding to the maximum, with the lengths told, is another batch and the same answer.
    assert value["accuracy"]["fixed-64"] == value["accuracy"]["whole"]


def test_a_part_of_an_epoch_is_timed_at_dynamic_and_at_fixed_lengths(
    gathered: Gathered, cache: Path, tmp_path: Path
) -> None:
    kept = Kept.read(tmp_path / "kept.json")
    corpus = open_corpus(cache / "corpus")
    listed = epochs.measurements(gathered, SETTINGS, corpus, tokenizers.fit(corpus, cache / "tokenizer.json"))
    assert [one.key for one in listed] == ["epochs/torch-rnn/dynamic", "epochs/torch-rnn/fixed-16"]
    assert run(listed, kept, "", lambda _: None) == {}
    dynamic, fixed = (kept.value(one.key) for one in listed)
    assert dynamic is not None
    assert fixed is not None
    assert dynamic["all_steps"] == fixed["all_steps"] == 3
    assert fixed["padded_tokens"] == 130 * 16
    assert dynamic["steps"] == fixed["steps"] == 2
    assert min(dynamic["cpu_s"], fixed["cpu_s"]) > 0


def test_a_training_that_fails_says_what_it_said(gathered: Gathered, cache: Path, tmp_path: Path) -> None:
    kept = Kept.read(tmp_path / "kept.json")
    corpus = open_corpus(cache / "corpus")
    tokenizer = tokenizers.fit(corpus, cache / "tokenizer.json")
    moved = replace(corpus, folder=cache / "nowhere")
    listed = epochs.measurements(gathered, SETTINGS, moved, tokenizer)[:1]
    failed = run(listed, kept, "", lambda _: None)
    assert "there is no corpus in" in failed["epochs/torch-rnn/dynamic"]
    assert kept.entries == {}


def test_a_source_that_cannot_be_opened_says_why(gathered: Gathered, cache: Path, tmp_path: Path) -> None:
    weights = cache / "zoo" / MODEL / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    try:
        listed = backend_latency.measurements(gathered, SETTINGS, cache / "held-out.jsonl")
        failed = run(listed, Kept.read(tmp_path / "kept.json"), "", lambda _: None)
    finally:
        weights.write_bytes(whole)
    assert "not a whole safetensors file" in failed[f"latency/{MODEL}"]


def test_backends_are_measured_under_load_on_a_server_of_their_own(
    gathered: Gathered, cache: Path, tmp_path: Path
) -> None:
    kept = Kept.read(tmp_path / "kept.json")
    listed = load.measurements(gathered, SETTINGS, cache / "held-out.jsonl")
    assert run(listed, kept, "", lambda _: None) == {}
    value = kept.value(f"load/{MODEL}")
    assert value is not None
    assert set(value["closed"]) == set(value["open"]) == {"onnxruntime", "torch"}
    assert all(one["failed_rows"] == 0 and one["rows_per_s"] > 0 for one in value["closed"].values())
    weakest = min(one["rows_per_s"] for one in value["closed"].values())
    assert value["rate"] == max(1.0, round(weakest / 2))

"""The registry, and when a model is trained and when not. Nothing here imports a framework."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from lockstep.commands import zoo as commands
from lockstep.exporters.source import Description, Framework
from lockstep.zoo import tokenizer as tokenizers
from lockstep.zoo import train as module
from lockstep.zoo.batches import Batch
from lockstep.zoo.corpus import LABELS, SPLITS, Corpus, CorpusError
from lockstep.zoo.learning import Learned, Task
from lockstep.zoo.registry import ENTRIES, MINILM, Entry, Family, Recipe, UnknownModel, select
from lockstep.zoo.train import (
    Materials,
    Record,
    Trained,
    TrainingFailed,
    fingerprint,
    in_child,
    keep,
    learn_here,
    train_all,
)

FAMILY = Family(Framework.TORCH, "zoo_test_training", ("numpy",))
ENTRY = Entry("small", FAMILY, "Majority", "lockstep.zoo.corpus:open_corpus", Recipe(epochs=1, learning_rate=0.1))


def learn(task: Task) -> Learned:
    """Learn to say "positive"."""
    task.log.mkdir(parents=True)
    task.report.step(1, 1, 1, 0.5)
    task.report.epoch(1, 0.5, 0.5)

    def scores(batch: Batch) -> NDArray[np.float32]:
        return np.tile(np.array([0, 1], dtype=np.float32), (len(batch.labels), 1))

    def save(folder: Path) -> str:
        (folder / "weights").write_bytes(b"weights")
        return "weights"

    return Learned(2, 0.5, scores, save)


def not_again(*_: object) -> None:
    pytest.fail("it was up to date, and was trained again")


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make FAMILY's training module, with a file of its own to take the fingerprint of."""
    training = ModuleType(FAMILY.training)
    training.learn = learn  # type: ignore[attr-defined]
    source = tmp_path / "training.py"
    source.write_text("def learn(task):\n    return task\n")
    training.__spec__ = importlib.util.spec_from_file_location(FAMILY.training, source)
    monkeypatch.setitem(sys.modules, FAMILY.training, training)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    corpus = Corpus(tmp_path / "cache" / "corpus", "fingerprint", dict.fromkeys(SPLITS, 8))
    corpus.folder.mkdir(parents=True)
    for split in SPLITS:
        with corpus.path(split).open("w") as lines:
            for number in range(8):
                kind = "document" if number < 4 else "sentence"
                example = {"id": str(number), "text": "a film", "label": int(number > 4), "kind": kind}
                lines.write(json.dumps(example | {"source": "test"}) + "\n")
    return corpus


@pytest.fixture
def tokenizer(corpus: Corpus, tmp_path: Path) -> Path:
    return tokenizers.fit(corpus, tmp_path / "cache" / "tokenizer.json")


@pytest.mark.usefixtures("family")
def test_folder_holds_all_that_an_exporter_needs(corpus: Corpus, tokenizer: Path, tmp_path: Path) -> None:
    trained = keep(ENTRY, Materials(corpus, tokenizer), tmp_path / "cache", run=learn_here)
    description = Description.read(trained.folder / "description.json")
    assert (description.name, description.labels, description.build) == ("small", LABELS, ENTRY.build)
    assert (trained.folder / description.weights).read_bytes() == b"weights"
    assert (trained.folder / description.tokenizer).read_bytes() == tokenizer.read_bytes()
    assert (trained.record.accuracy_sentences, trained.record.accuracy_documents) == (0.75, 0.0)
    assert 0 < trained.record.model_lines < trained.record.lines_of_code
    assert trained.record == Record.read(trained.folder / "training.json")


@pytest.mark.usefixtures("family")
def test_up_to_date_model_is_not_trained_again(corpus: Corpus, tokenizer: Path, tmp_path: Path) -> None:
    first = keep(ENTRY, Materials(corpus, tokenizer), tmp_path / "cache", run=learn_here)
    second = keep(ENTRY, Materials(corpus, tokenizer), tmp_path / "cache", run=not_again)
    assert (first.cached, second.cached) == (False, True)
    assert second.record == first.record
    longer = replace(ENTRY, recipe=replace(ENTRY.recipe, epochs=2))
    assert keep(longer, Materials(corpus, tokenizer), tmp_path / "cache", run=learn_here).record.epochs == 2


@pytest.mark.usefixtures("family")
def test_interrupted_training_keeps_the_model_of_before(corpus: Corpus, tokenizer: Path, tmp_path: Path) -> None:
    def interrupted(entry: Entry, given: Materials, out: Path, log: Path) -> None:
        (out / "weights").write_bytes(b"half")
        raise KeyboardInterrupt

    first = keep(ENTRY, Materials(corpus, tokenizer), tmp_path / "cache", run=learn_here)
    other = replace(ENTRY, layer="Other")
    with pytest.raises(KeyboardInterrupt):
        keep(other, Materials(corpus, tokenizer), tmp_path / "cache", run=interrupted)
    assert keep(ENTRY, Materials(corpus, tokenizer), tmp_path / "cache", run=not_again).record == first.record
    assert {path.name for path in first.folder.parent.iterdir()} == {"small", ".small.lock"}


@pytest.mark.usefixtures("family")
def test_fingerprint_follows_all_that_a_model_is_made_of(corpus: Corpus, tokenizer: Path, tmp_path: Path) -> None:
    given = Materials(corpus, tokenizer)
    base = fingerprint(ENTRY, given)
    assert fingerprint(ENTRY, given) == base
    others = [
        fingerprint(replace(ENTRY, recipe=replace(ENTRY.recipe, seed=1)), given),
        fingerprint(replace(ENTRY, build="lockstep.zoo.folders:sha256"), given),
        fingerprint(replace(ENTRY, family=replace(FAMILY, packages=("click",))), given),
        fingerprint(replace(ENTRY, family=replace(FAMILY, environment=(("THREADS", "1"),))), given),
        fingerprint(replace(ENTRY, output="probabilities"), given),
        fingerprint(replace(ENTRY, pretrained=MINILM), given),
        fingerprint(ENTRY, replace(given, corpus=replace(corpus, fingerprint="other"))),
    ]
    tokenizer.write_bytes(tokenizer.read_bytes() + b" ")
    others.append(fingerprint(ENTRY, given))
    (tmp_path / "training.py").write_text("def learn(task):\n    return None\n")
    others.append(fingerprint(ENTRY, given))
    assert len({base, *others}) == 1 + len(others)


def test_child_that_fails_is_an_error_that_names_the_model(tmp_path: Path) -> None:
    nowhere = Corpus(tmp_path / "nowhere", "", {})
    with pytest.raises(TrainingFailed, match="torch-bilstm ended with status 1"):
        in_child(ENTRIES["torch-bilstm"], Materials(nowhere, tmp_path / "none"), tmp_path / "out", tmp_path / "log")


def test_killed_child_is_named_by_its_signal() -> None:
    assert "was killed by SIGKILL" in str(TrainingFailed("small", -9))


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=str)
def test_entry_is_whole(entry: Entry) -> None:
    for name in (entry.module, entry.family.training):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text()
        function = entry.function if name == entry.module else "learn"
        assert f"\ndef {function}(" in source
    described = Description(
        name=entry.id,
        framework=entry.family.framework,
        layer=entry.layer,
        labels=LABELS,
        tokenizer="tokenizer.json",
        weights="weights",
    )
    framework = "hf" if described.framework is Framework.HUGGINGFACE else described.framework.value
    assert entry.id.startswith(f"{framework}-")


def test_select_keeps_the_order_and_names_what_is_unknown() -> None:
    assert [entry.id for entry in select(["tf2-lstm", "torch-bilstm", "tf2-lstm"])] == [
        "tf2-lstm",
        "torch-bilstm",
    ]
    assert len(select([])) == len(ENTRIES)
    with pytest.raises(UnknownModel, match="'lstm' in the zoo; it holds torch-rnn, "):
        select(["lstm"])


def test_unknown_model_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel):
        train_all(["lstm"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_importing_the_zoo_imports_no_framework() -> None:
    code = "import sys, zoo.train, lockstep.commands.zoo\nprint(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "tensorflow", "keras", "jax", "transformers", "tokenizers"} & set(modules.split())


@pytest.mark.usefixtures("family")
def test_commands_show_what_was_made(
    corpus: Corpus, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = keep(ENTRY, Materials(corpus, tokenizer), tmp_path / "cache", run=learn_here)

    def made(ids: tuple[str, ...], cache: Path) -> list[Trained]:
        assert (ids, cache) == (("small",), tmp_path / "cache")
        return [trained, replace(trained, cached=True)]

    monkeypatch.setattr(module, "train_all", made)
    shown = CliRunner().invoke(commands.train, ["small", "--cache", str(tmp_path / "cache")])
    assert shown.exit_code == 0
    assert "75.0%" in shown.output
    assert "cached" in shown.output


def test_commands_say_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(folder: Path) -> Corpus:
        raise CorpusError("no network")

    monkeypatch.setattr("lockstep.zoo.corpus.fetch", offline)
    failed = CliRunner().invoke(commands.corpus, ["--cache", str(tmp_path)])
    assert (failed.exit_code, failed.output) == (1, "Error: no network\n")
    unknown = CliRunner().invoke(commands.train, ["lstm", "--cache", str(tmp_path)])
    assert unknown.exit_code == 2
    assert "no model 'lstm' in the zoo" in unknown.output

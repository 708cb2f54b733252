"""Train models of the zoo, each in a process of its own, and keep what was trained.

Owns the folder of a trained model, when it is out of date, and the child process. Knows no framework: the
family's training module does, and only the child imports it.

A trained model's folder:

    description.json    `lockstep.exporters.source.Description`: what an exporter is told
    tokenizer.json      a copy, so that the folder stands alone
    training.json       `Record`: what was reached, with what, and the fingerprint
    ...                 the weights, in the form of the framework

    python -m lockstep.zoo.train ID --corpus DIR --tokenizer FILE [--pretrained DIR] --out DIR --log DIR
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lockstep import child_processes
from lockstep.exporters.source import Description
from lockstep.zoo import pretrained as checkpoints
from lockstep.zoo import tokenizer as tokenizers
from lockstep.zoo.batches import accuracy, encode
from lockstep.zoo.corpus import LABELS, Corpus, fetch, open_corpus
from lockstep.zoo.folders import exclusive, replacing, sha256
from lockstep.zoo.learning import Learn, Task, sentences
from lockstep.zoo.registry import ENTRIES, Entry, select
from lockstep.zoo.source_code import lines_of_code, modules, source_file

DESCRIPTION = "description.json"
RECORD = "training.json"
TOKENIZER = "tokenizer.json"

FORM = 2
"""Raise it when a model's folder changes its form, so that the folders of before are made anew."""

CHILD_GRACE_S = 10.0
"""How long an interrupted child may take to end by itself."""


class TrainingFailed(Exception):
    """A training process ended with an error, which it has printed."""

    def __init__(self, name: str, status: int) -> None:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        super().__init__(f"training {name} {how}; nothing was kept of it, models trained before it are kept")
        self.name = name
        self.status = status


@dataclass(frozen=True, slots=True)
class Record:
    """`training.json`. Accuracies are shares of the held-out test texts; `train_s` is wall time.

    `lines_of_code` are those that the model and its training take together, what both use counted once; of
    them `model_lines` make the model. See `lockstep.zoo.source_code.lines_of_code` for what counts.
    """

    model: str
    framework: str
    layer: str
    parameters: int
    epochs: int
    train_s: float
    cpu_s: float
    accuracy_sentences: float
    accuracy_documents: float
    validation_accuracy: float
    seed: int
    lines_of_code: int
    model_lines: int
    versions: Mapping[str, str]
    fingerprint: str

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a `training.json`."""
        return cls(**json.loads(path.read_bytes()))


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model on disk. `cached`: it was there already."""

    id: str
    folder: Path
    record: Record
    cached: bool


@dataclass(frozen=True, slots=True)
class Materials:
    """What a training reads: the corpus, the tokenizer, and the checkpoint that it starts from, if any."""

    corpus: Corpus
    tokenizer: Path
    pretrained: Path | None = None


Run = Callable[[Entry, Materials, Path, Path], object]
"""Trains an entry on its materials, into a folder, with TensorBoard's events in another."""


def train_all(ids: Iterable[str], cache: Path) -> list[Trained]:
    """Train the models of `ids` (all of them for none), one after the other; blocks for minutes.

    Fetches the corpus and what is pretrained, and trains the tokenizer first, if need be. A model whose
    folder was made of the same corpus, tokenizer, code and framework version is not trained again. A model's
    folder appears whole or not at all, so an interrupted call is taken up where it was by the next.

    Raises `UnknownModel`, `lockstep.zoo.corpus.CorpusError`, `lockstep.zoo.pretrained.PretrainedError` or
    `TrainingFailed`.
    """
    entries = select(ids)
    corpus = fetch(cache / "corpus")
    tokenizer = tokenizers.fit(corpus, cache / TOKENIZER)
    return [keep(entry, materials(entry, corpus, tokenizer, cache), cache) for entry in entries]


def materials(entry: Entry, corpus: Corpus, tokenizer: Path, cache: Path) -> Materials:
    """Return what an entry is trained on; fetches its pretrained checkpoint. Raises `PretrainedError`."""
    if entry.pretrained is None:
        return Materials(corpus, tokenizer)
    folder = checkpoints.fetch(entry.pretrained, cache / "pretrained" / entry.pretrained.project)
    return Materials(corpus, folder / TOKENIZER, folder)


def keep(entry: Entry, given: Materials, cache: Path, *, run: Run | None = None) -> Trained:
    """Return one trained model, from its folder if that is up to date; `run` (a child) trains it if not."""
    folder = cache / "zoo" / entry.id
    with exclusive(folder):
        if (folder / RECORD).is_file() and _made_of(folder) == fingerprint(entry, given):
            return Trained(entry.id, folder, Record.read(folder / RECORD), cached=True)
        log = cache / "tensorboard" / entry.id
        if log.exists():
            shutil.rmtree(log)  # events of an older training would be drawn over the new ones
        with replacing(folder) as staging:
            (run or in_child)(entry, given, staging, log)
        return Trained(entry.id, folder, Record.read(folder / RECORD), cached=False)


def fingerprint(entry: Entry, given: Materials) -> str:
    """Hash all that a trained model was made of: the text of no module counts that it does not use."""
    parts = {
        "form": FORM,
        "entry": [entry.id, entry.layer, entry.build, entry.output, entry.activation, asdict(entry.recipe)],
        "environment": entry.family.environment,
        "pretrained": entry.pretrained and asdict(entry.pretrained),
        "corpus": given.corpus.fingerprint,
        "tokenizer": [sha256(given.tokenizer), tokenizers.PAD_ID, tokenizers.MAX_TOKENS, tokenizers.VOCABULARY_TOKENS],
        "code": {module: sha256(source_file(module)) for module in modules([entry.module, entry.family.training])},
        "versions": {package: version(package) for package in entry.family.packages},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def learn_here(entry: Entry, given: Materials, out: Path, log: Path) -> Record:
    """Train one model in this process, which imports its framework, and write its folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    # Now: the code on disk may change meanwhile.
    made_of = fingerprint(entry, given)
    training = f"{entry.family.training}:learn"
    lines, model_lines = lines_of_code(entry.build, training), lines_of_code(entry.build)
    # A tokenizer of the zoo's own must fit the models that embed its ids; a checkpoint's has its own size.
    texts = encode(given.corpus, given.tokenizer, tokenizers.VOCABULARY_TOKENS if given.pretrained is None else None)
    learn: Learn = import_module(entry.family.training).learn
    started_s, started_cpu_s = time.monotonic(), time.process_time()
    with Bar(entry) as report:
        learned = learn(Task(entry, texts, report, log, given.pretrained))
    record = Record(
        model=entry.id,
        framework=entry.family.framework.value,
        layer=entry.layer,
        parameters=learned.parameters,
        epochs=entry.recipe.epochs,
        train_s=round(time.monotonic() - started_s, 2),
        cpu_s=round(time.process_time() - started_cpu_s, 2),
        accuracy_sentences=accuracy(sentences(texts.test), learned.scores),
        accuracy_documents=accuracy(tuple(row for row in texts.test if row.kind == "document"), learned.scores),
        validation_accuracy=learned.validation_accuracy,
        seed=entry.recipe.seed,
        lines_of_code=lines,
        model_lines=model_lines,
        versions={"python": platform.python_version()}
        | {package: version(package) for package in entry.family.packages},
        fingerprint=made_of,
    )
    description = Description(
        name=entry.id,
        framework=entry.family.framework,
        layer=entry.layer,
        labels=LABELS,
        tokenizer=TOKENIZER,
        weights=learned.save(out),
        build=entry.build if entry.family.needs_build else None,
        max_tokens=tokenizers.MAX_TOKENS,
        output=entry.output,
        activation=entry.activation,
    )
    shutil.copyfile(given.tokenizer, out / TOKENIZER)
    (out / DESCRIPTION).write_text(description.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (out / RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    return record


class Bar:
    """Shows one training: a bar where a person watches, a line an epoch everywhere."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}  loss {task.fields[loss]:.3f}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        self._progress.start()
        self._task = self._progress.add_task(
            f"{self._entry.id:<20}", total=None, epoch=1, epochs=self._entry.recipe.epochs, loss=0.0
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the bar; see `lockstep.zoo.learning.Report`."""
        assert self._task is not None
        self._progress.update(self._task, total=steps * self._entry.recipe.epochs, completed=(epoch - 1) * steps + step)
        self._progress.update(self._task, epoch=epoch, loss=loss)

    def epoch(self, epoch: int, loss: float, accuracy: float) -> None:
        """Print an epoch's line; see `lockstep.zoo.learning.Report`."""
        self._progress.console.print(
            f"{self._entry.id:<20} epoch {epoch}/{self._entry.recipe.epochs}  "
            f"loss {loss:.3f}  validation accuracy {accuracy:.3f}",
            highlight=False,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a child process: train one model into a folder that `train_all` then moves into place."""
    parser = argparse.ArgumentParser("python -m lockstep.zoo.train", description="Train one model of the zoo.")
    parser.add_argument("id", choices=list(ENTRIES))
    parser.add_argument("--corpus", type=Path, required=True, help="a folder made by `lockstep corpus`")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json")
    parser.add_argument("--pretrained", type=Path, help="the folder of the checkpoint to start from")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write the model into")
    parser.add_argument("--log", type=Path, required=True, help="the folder for TensorBoard's events")
    given = parser.parse_args(arguments)
    try:
        made_of = Materials(open_corpus(given.corpus), given.tokenizer, given.pretrained)
        learn_here(ENTRIES[given.id], made_of, given.out, given.log)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)  # the parent was interrupted too, and is the one to say so


def in_child(entry: Entry, given: Materials, out: Path, log: Path) -> None:
    """Run `main` in a child, which is gone when this returns or raises."""
    command = child_processes.command("lockstep.zoo.train:main", entry.id, "--corpus", str(given.corpus.folder))
    command += ["--tokenizer", str(given.tokenizer), "--out", str(out), "--log", str(log)]
    if given.pretrained is not None:
        command += ["--pretrained", str(given.pretrained)]
    child = subprocess.Popen(command, env=child_processes.environment(dict(entry.family.environment)))
    try:
        status = child.wait()
    except BaseException:
        # A terminal's Ctrl-C reaches the child too; a signal to this process alone does not.
        child_processes.stop(child, CHILD_GRACE_S)
        raise
    if status != 0:
        raise TrainingFailed(entry.id, status)


def _made_of(folder: Path) -> str | None:
    """Return the fingerprint of a trained model's folder, of whatever form its record is."""
    found: str | None = json.loads((folder / RECORD).read_bytes()).get("fingerprint")
    return found


if __name__ == "__main__":
    main()

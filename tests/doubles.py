"""Doubles: adapters with answers that can be worked out by hand, and a repository that holds them.

The adapters run in real worker processes; only the framework is replaced.
"""

import hashlib
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.repository.manifest import MANIFEST_FILE, Artifact, Inputs, Manifest, Parity, Source, Tensor
from lockstep.server.runtimes.base import Ids, Lengths, Outputs

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "the", "a", "kill", "refuse", "nan")
KILL, REFUSE, NAN = (WORDS.index(word) for word in ("kill", "refuse", "nan"))
MAX_TOKENS = 64


def row_logits(ids: Sequence[int]) -> tuple[float, float]:
    """Return what `SumAdapter` answers for a row: it depends on every id, its place and the length."""
    weighted = sum((place + 1) * token for place, token in enumerate(ids))
    return (weighted % 97) / 97.0, len(ids) / MAX_TOKENS


def directions(repository: Path, version: int, kind: str) -> tuple[Path, Path]:
    """Return two files: while the first exists, workers of that artifact go on loading; with the second, they fail."""
    return repository / f".hold-{version}-{kind}", repository / f".break-{version}-{kind}"


class SumAdapter:
    """Answers `row_logits` of each row, whatever lies beyond its end. Loads as `directions` say."""

    versions: dict[str, str] = {}  # noqa: RUF012

    @classmethod
    def load(cls, artifact: ArtifactSpec, budget: Budget) -> "SumAdapter":
        kind, version, _, repository = list(Path(artifact.path).parents)[:4]
        hold, broken = directions(repository, int(version.name), kind.name)
        while hold.exists():
            time.sleep(0.002)
        if broken.exists():
            raise RuntimeError("this version cannot be loaded")
        return cls()

    def execute(self, ids: Ids, lengths: Lengths) -> Outputs:
        rows = [row_logits(row[:length].tolist()) for row, length in zip(ids, lengths, strict=True)]
        return np.array(rows, dtype=np.float32)


class HostileAdapter(SumAdapter):
    """As `SumAdapter`, but some ids kill the process, fail the whole batch, or yield NaN for their row."""

    def execute(self, ids: Ids, lengths: Lengths) -> Outputs:
        real = [row[:length] for row, length in zip(ids, lengths, strict=True)]
        if any((row == KILL).any() for row in real):
            os.kill(os.getpid(), signal.SIGKILL)
        if any((row == REFUSE).any() for row in real):
            raise RuntimeError("the runtime refuses this batch")
        outputs = super().execute(ids, lengths)
        outputs[[bool((row == NAN).any()) for row in real]] = np.nan
        return outputs


class UnboundedAdapter(SumAdapter):
    """Answers probabilities, 0.25 and 0.75; to some ids two numbers that sum to 1 and are none."""

    def execute(self, ids: Ids, lengths: Lengths) -> Outputs:
        wrong = [bool((row[:length] == NAN).any()) for row, length in zip(ids, lengths, strict=True)]
        return np.array([(2.30, -1.30) if one else (0.25, 0.75) for one in wrong], dtype=np.float32)


class BurningAdapter(SumAdapter):
    """As `SumAdapter`, but every padded token costs 0.2 ms of CPU time: a Transformer of a kind."""

    def execute(self, ids: Ids, lengths: Lengths) -> Outputs:
        until_s = time.thread_time() + 2e-4 * ids.size
        while time.thread_time() < until_s:
            pass
        return super().execute(ids, lengths)


class ShapelessAdapter(SumAdapter):
    """Answers one column less than the model has labels."""

    def execute(self, ids: Ids, lengths: Lengths) -> Outputs:
        return super().execute(ids, lengths)[:, :1]


class UnloadableAdapter(SumAdapter):
    """Cannot load anything."""

    @classmethod
    def load(cls, artifact: ArtifactSpec, budget: Budget) -> "SumAdapter":
        raise RuntimeError("this artifact cannot be loaded")


ADAPTERS = {
    "onnxruntime": "tests.doubles:HostileAdapter",
    "tensorflow": "tests.doubles:SumAdapter",
    "torch": "tests.doubles:UnloadableAdapter",
}


def tokenizer() -> Tokenizer:
    """Return a tokenizer of whole words: `[CLS] words [SEP]`."""
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def encode(text: str) -> list[int]:
    """Return the ids of a text."""
    return tokenizer().encode(text).ids


def publish(repository: Path, name: str, kinds: Sequence[str] = ("onnx", "saved_model"), version: int = 1) -> Path:
    """Write a version whose artifacts the doubles load, and return its folder. The first kind is the cheapest."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(tokenizer().to_str())
    artifacts = []
    for cost, kind in enumerate(kinds):
        path = f"{kind}/model"
        (folder / kind).mkdir()
        (folder / path).write_bytes(f"{name} {kind} {version}".encode())
        artifacts.append(
            Artifact(
                kind=kind,
                runtime={"onnx": "onnxruntime", "saved_model": "tensorflow", "torch": "torch"}[kind.partition("-")[0]],
                path=path,
                files={path: sha256(folder / path)},
                inputs=Inputs(
                    input_ids=Tensor(name="input_ids", dtype="int64"), lengths=Tensor(name="lengths", dtype="int64")
                ),
                logits=Tensor(name="logits", dtype="float32"),
                output="logits",
                activation="softmax",
                method="fused",
                parity=Parity(
                    rows=1,
                    batches=1,
                    max_abs_diff=0.0,
                    padding_invariance=0.0,
                    label_agreement=1.0,
                    atol=5e-5,
                    rtol=1e-5,
                    masks_beyond_end=True,
                    cpu_ms_b32_t64=float(cost + 1),
                ),
            )
        )
    manifest = Manifest(
        name=name,
        version=version,
        labels=["negative", "positive"],
        pad_id=0,
        vocabulary=len(WORDS),
        max_tokens=MAX_TOKENS,
        tokenizer={"tokenizer.json": sha256(folder / "tokenizer.json")},
        source=Source(framework="torch", layer="double", sha256="0" * 64, versions={}),
        artifacts=artifacts,
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1))
    return folder


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """Change top-level fields of a published manifest."""
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

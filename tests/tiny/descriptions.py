"""The tiny sources by name: what `description.json` says of each. Imports no framework."""

from __future__ import annotations

from pathlib import Path

from lockstep.exporters.source import Description, Framework
from tests.tiny.texts import LABELS, MAX_TOKENS, write_tokenizer

TORCH = "tests.tiny.torch_sources"
TENSORFLOW = "tests.tiny.tensorflow_sources"
TENSORFLOW_1 = "tests.tiny.tf1_sources"


def _describe(name: str, framework: Framework, layer: str, weights: str, build: str | None, **more: str) -> Description:
    return Description.model_validate(
        {
            "name": name,
            "framework": framework,
            "layer": layer,
            "labels": LABELS,
            "tokenizer": "tokenizer.json",
            "weights": weights,
            "build": build,
            "max_tokens": MAX_TOKENS,
            **more,
        }
    )


_TORCH = Framework.TORCH
_SAFE = "weights.safetensors"
DESCRIPTIONS = {
    description.name: description
    for description in (
        _describe("tiny-bilstm", _TORCH, "BiLSTM", _SAFE, f"{TORCH}:bilstm"),
        _describe("tiny-transformer", _TORCH, "Transformer", _SAFE, f"{TORCH}:transformer"),
        _describe("tiny-stacked-gru", _TORCH, "BiGRU", "weights.pt", f"{TORCH}:stacked_gru", activation="sigmoid"),
        _describe("tiny-unmasked-rnn", _TORCH, "RNN", _SAFE, f"{TORCH}:unmasked_rnn"),
        _describe("tiny-bare-loop", _TORCH, "GRUCell", _SAFE, f"{TORCH}:bare_loop"),
        _describe("tiny-bigru", Framework.KERAS, "BiGRU", "model.keras", None),
        _describe("tiny-peephole", Framework.TF1, "LSTM, GRU, BiLSTM", "model", f"{TENSORFLOW_1}:peephole"),
        _describe("tiny-lstm", Framework.TF2, "LSTM", "checkpoint", f"{TENSORFLOW}:lstm"),
    )
}


def write_folder(folder: Path, name: str) -> Description:
    """Make the source's folder with everything but its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    description = DESCRIPTIONS[name]
    write_tokenizer(folder / description.tokenizer)
    (folder / "description.json").write_text(description.model_dump_json())
    return description

"""A tiny tokenizer and synthetic labelled texts: everything that an export needs beside a model."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

LABELS = ("negative", "positive")
MAX_TOKENS = 64
PAD_ID = 0
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = tuple(f"word{number}" for number in range(40))
VOCABULARY = len(_SPECIAL) + len(_WORDS)


def write_tokenizer(path: Path) -> Path:
    """A whitespace tokenizer of forty words, `word0` to `word39`, wrapped in [CLS] and [SEP]."""
    ids = {token: number for number, token in enumerate([*_SPECIAL, *_WORDS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    tokenizer.save(str(path))
    return path


def write_texts(path: Path, texts: int = 96, seed: int = 0) -> Path:
    """Labelled sentences and some documents that are longer than the models' maximum."""
    random = Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(texts):
            document = number % 8 == 0
            words = random.randint(20, 80) if document else random.randint(1, 20)
            line = {
                "id": f"t{number}",
                "text": " ".join(random.choice(_WORDS) for _ in range(words)),
                "label": random.randint(0, 1),
                "kind": "document" if document else "sentence",
            }
            file.write(json.dumps(line) + "\n")
    return path

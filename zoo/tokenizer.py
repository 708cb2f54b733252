"""The WordPiece tokenizer that every model of the zoo shares.

Owns the vocabulary's size, the special tokens and their ids. Knows no padding and no truncation: those
belong to whoever makes a batch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lockstep.zoo.corpus import Corpus
from lockstep.zoo.folders import exclusive, sha256

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID = 0
VOCABULARY_TOKENS = 8000
"""The embedding's rows; a tokenizer may use fewer, never more."""
MAX_TOKENS = 256
"""What the models of the zoo are trained for: a longer text is cut."""
REVISION = 2
"""Raise it when `train` makes another tokenizer of the same texts."""


def fit(corpus: Corpus, path: Path) -> Path:
    """Return `path`, a `tokenizer.json` trained on the corpus's training split, making it if need be."""
    fingerprint = f"{corpus.fingerprint} {VOCABULARY_TOKENS} {REVISION}"
    stamp = path.with_suffix(".stamp.json")
    with exclusive(path):
        if path.is_file() and stamp.is_file():
            known = json.loads(stamp.read_bytes())
            if known == {"fingerprint": fingerprint, "sha256": sha256(path)}:
                return path
        tokenizer = train(example.text for example in corpus.read("train") if example.kind == "sentence")
        partial = path.with_suffix(".partial")
        tokenizer.save(str(partial))
        os.replace(partial, path)
        stamp.write_text(json.dumps({"fingerprint": fingerprint, "sha256": sha256(path)}))
    return path


def train(texts: Iterable[str], vocabulary_tokens: int = VOCABULARY_TOKENS) -> Tokenizer:
    """Train an uncased WordPiece tokenizer that wraps a text in [CLS] and [SEP].

    The same texts give the same bytes. The trainer alone does not promise that: it numbers the characters in
    the order of a randomly seeded hash table, and their numbers decide between merges of equal frequency.
    So they are handed to it numbered, as if they were special; the tokenizer returned knows nothing of it.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    normalizer = normalizers.BertNormalizer(lowercase=True)
    normal = [normalizer.normalize_str(text) for text in texts]
    characters = sorted({character for text in normal for character in text if not character.isspace()})
    numbered = [*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters)]
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary_tokens, special_tokens=numbered, show_progress=False)
    learner.train_from_iterator(normal, trainer)

    ids = learner.get_vocab()
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = learner.pre_tokenizer
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer

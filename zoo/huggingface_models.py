"""The Hugging Face models, as any user would make them.

Owns their configurations. Knows nothing of training and nothing of export.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoModelForSequenceClassification, DistilBertConfig, PreTrainedModel

from lockstep.zoo.corpus import LABELS
from lockstep.zoo.tokenizer import MAX_TOKENS, PAD_ID, VOCABULARY_TOKENS

NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {label: place for place, label in enumerate(LABELS)}}


def minilm(pretrained: Path) -> PreTrainedModel:
    """Build `hf-minilm`: the checkpoint in the folder `pretrained`, with a new head."""
    return AutoModelForSequenceClassification.from_pretrained(pretrained, **NAMES)


def distilbert_tiny() -> PreTrainedModel:
    """Build `hf-distilbert-tiny`: two layers, random weights."""
    config = DistilBertConfig(
        vocab_size=VOCABULARY_TOKENS,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=PAD_ID,
        dim=64,
        hidden_dim=128,
        n_layers=2,
        n_heads=4,
        attention_dropout=0.0,
        **NAMES,
    )
    return AutoModelForSequenceClassification.from_config(config)

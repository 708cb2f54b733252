"""A small BERT whose config names three labels, with eager attention."""

import sys

import torch
from transformers import BertConfig, BertForSequenceClassification

if __name__ == "__main__":
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=44,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        attn_implementation="eager",
        initializer_range=0.5,
        id2label={0: "bad", 1: "so-so", 2: "good"},
        label2id={"bad": 0, "so-so": 1, "good": 2},
    )
    BertForSequenceClassification(config).save_pretrained(sys.argv[1])

"""The PyTorch models, as any user would write them.

Owns their architectures. Knows nothing of training and nothing of export. Each `build` function takes no
argument and returns an untrained module whose `forward` takes `input_ids` with `lengths` or
`attention_mask`, and returns logits float32[batch, labels].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo.corpus import LABELS
from zoo.tokenizer import MAX_TOKENS, PAD_ID, VOCABULARY_TOKENS

EMBEDDING = 64
HIDDEN = 64
DROPOUT = 0.3

TRANSFORMER_WIDTH = 64
TRANSFORMER_HEADS = 4
TRANSFORMER_FEEDFORWARD = 128
TRANSFORMER_LAYERS = 2
TRANSFORMER_DROPOUT = 0.2


class BiLstm(nn.Module):  # type: ignore[misc]
    """One bidirectional LSTM over packed rows, the mean of its states, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = embedding(EMBEDDING)
        self.lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(2 * HIDDEN, len(LABELS))

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Map int64[batch, length] and int64[batch] to logits float32[batch, labels]."""
        embedded = self.dropout(self.embedding(input_ids))
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=input_ids.shape[1])
        mask = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths.unsqueeze(1)
        return self.head(self.dropout(masked_mean(states, mask)))


class Transformer(nn.Module):  # type: ignore[misc]
    """Token and position embeddings, a two-layer encoder with a key-padding mask, a masked mean, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = embedding(TRANSFORMER_WIDTH)
        self.position = nn.Embedding(MAX_TOKENS, TRANSFORMER_WIDTH)
        self.dropout = nn.Dropout(TRANSFORMER_DROPOUT)
        layer = nn.TransformerEncoderLayer(
            TRANSFORMER_WIDTH,
            TRANSFORMER_HEADS,
            TRANSFORMER_FEEDFORWARD,
            dropout=TRANSFORMER_DROPOUT,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        # Dropout of the attention's weights keeps torch from its fused kernel: half the time of a step.
        layer.self_attn.dropout = 0.0
        # Nested tensors drop the padding from the output's length, which has to stay the input's.
        self.encoder = nn.TransformerEncoder(
            layer, TRANSFORMER_LAYERS, norm=nn.LayerNorm(TRANSFORMER_WIDTH), enable_nested_tensor=False
        )
        self.head = nn.Linear(TRANSFORMER_WIDTH, len(LABELS))
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64[batch, length] and its mask (1 = token) to logits float32[batch, labels]."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        embedded = self.dropout(self.embedding(input_ids) + self.position(places))
        states = self.encoder(embedded, src_key_padding_mask=attention_mask == 0)
        return self.head(self.dropout(masked_mean(states, attention_mask != 0)))


def embedding(width: int) -> nn.Embedding:
    """Build the table of token vectors. It starts smaller than the default N(0, 1), and so learns faster."""
    table = nn.Embedding(VOCABULARY_TOKENS, width, padding_idx=PAD_ID)
    with torch.no_grad():
        table.weight.mul_(0.1)
    return table


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Average float32[batch, length, width] over the places where bool[batch, length] holds."""
    weights = mask.unsqueeze(2).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def bilstm() -> nn.Module:
    """Build `torch-bilstm`."""
    return BiLstm()


def transformer() -> nn.Module:
    """Build `torch-transformer`."""
    return Transformer()

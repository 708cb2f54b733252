"""The benchmark's models, as a user would write them; their weights are random, and seeded by who makes them.

`bilstm` is small, so that the gateway's own work shows beside it. `minilm` has MiniLM-L6's sizes, and stands in for
the real checkpoint where that is not there: what a batch costs does not depend on the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

BILSTM_VOCABULARY = 12_000
MINILM_VOCABULARY = 30_522
MINILM_POSITIONS = 256


class BiLstm(nn.Module):  # type: ignore[misc]
    """Embedding 128, one bidirectional LSTM of 128, masked mean, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BILSTM_VOCABULARY, 128, padding_idx=0)
        self.recurrent = nn.LSTM(128, 128, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, 2)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Map int64[batch, length] and int64[batch] to logits float32[batch, 2]."""
        packed = pack_padded_sequence(self.embedding(input_ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, total_length=input_ids.shape[1])
        inside = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths.unsqueeze(1)
        return self.head(_masked_mean(states, inside))


class MiniLm(nn.Module):  # type: ignore[misc]
    """Six layers of 384, twelve heads, feed-forward 1,536, learned positions, masked mean, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(MINILM_VOCABULARY, 384, padding_idx=0)
        self.position = nn.Embedding(MINILM_POSITIONS, 384)
        self.norm = nn.LayerNorm(384)
        layer = nn.TransformerEncoderLayer(384, 12, 1_536, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(384, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64[batch, length] and its mask (1 = token) to logits float32[batch, 2]."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        embedded = self.norm(self.embedding(input_ids) + self.position(places))
        states = self.encoder(embedded, src_key_padding_mask=attention_mask == 0)
        return self.head(_masked_mean(states, attention_mask != 0))


def bilstm() -> nn.Module:
    """Build `bench-bilstm`."""
    return BiLstm()


def minilm() -> nn.Module:
    """Build the stand-in of `bench-minilm`."""
    return MiniLm()


def _masked_mean(states: Tensor, inside: Tensor) -> Tensor:
    weights = inside.unsqueeze(2).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)

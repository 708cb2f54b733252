"""The recurrent PyTorch models, as any user would write them.

Owns their architectures. Knows nothing of training and nothing of export. Each `build` function takes no
argument and returns an untrained module whose `forward` takes `input_ids` with `lengths`, and returns
logits float32[batch, labels].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from lockstep.zoo.corpus import LABELS
from lockstep.zoo.torch_layers import embedding, masked_mean, orthogonal

EMBEDDING = 64
HIDDEN = 64
DROPOUT = 0.3


class Packed(nn.Module):  # type: ignore[misc]
    """What both kinds of model share: an embedding, a recurrent layer over packed rows, a linear head."""

    def __init__(self, recurrent: nn.RNNBase) -> None:
        super().__init__()
        self.directions = 2 if recurrent.bidirectional else 1
        self.embedding = embedding(recurrent.input_size)
        self.dropout = nn.Dropout(DROPOUT)
        self.recurrent = recurrent
        self.head = nn.Linear(self.directions * recurrent.hidden_size, len(LABELS))

    def packed(self, input_ids: Tensor, lengths: Tensor) -> PackedSequence:
        """Embed int64[batch, length] and pack the rows, in their order."""
        embedded = self.dropout(self.embedding(input_ids))
        return pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)


class FinalStates(Packed):
    """A head on the last layer's final states, of both directions where there are two."""

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Map int64[batch, length] and int64[batch] to logits float32[batch, labels]."""
        _, state = self.recurrent(self.packed(input_ids, lengths))
        h = state[0] if isinstance(state, tuple) else state  # [layers * directions, batch, hidden]
        last = h[-self.directions :].transpose(0, 1).flatten(1)
        return self.head(self.dropout(last))


class MaskedMean(Packed):
    """A head on the mean of the last layer's states, padding left out."""

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Map int64[batch, length] and int64[batch] to logits float32[batch, labels]."""
        packed, _ = self.recurrent(self.packed(input_ids, lengths))
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=input_ids.shape[1])
        mask = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths.unsqueeze(1)
        return self.head(self.dropout(masked_mean(states, mask)))


def rnn() -> nn.Module:
    """Build `torch-rnn`."""
    return FinalStates(orthogonal(nn.RNN(EMBEDDING, HIDDEN, batch_first=True)))


def gru() -> nn.Module:
    """Build `torch-gru`."""
    return FinalStates(nn.GRU(EMBEDDING, HIDDEN, batch_first=True))


def lstm() -> nn.Module:
    """Build `torch-lstm`."""
    return FinalStates(nn.LSTM(EMBEDDING, HIDDEN, batch_first=True))


def birnn_2() -> nn.Module:
    """Build `torch-birnn-2`."""
    return FinalStates(orthogonal(nn.RNN(EMBEDDING, HIDDEN, num_layers=2, batch_first=True, bidirectional=True)))


def bigru_2() -> nn.Module:
    """Build `torch-bigru-2`."""
    return MaskedMean(nn.GRU(EMBEDDING, HIDDEN, num_layers=2, batch_first=True, bidirectional=True))


def bilstm() -> nn.Module:
    """Build `torch-bilstm`."""
    return MaskedMean(nn.LSTM(EMBEDDING, HIDDEN, batch_first=True, bidirectional=True))


def bilstm_2() -> nn.Module:
    """Build `torch-bilstm-2`."""
    return FinalStates(nn.LSTM(EMBEDDING, HIDDEN, num_layers=2, dropout=DROPOUT, batch_first=True, bidirectional=True))

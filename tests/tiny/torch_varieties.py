"""PyTorch models of many shapes: what users write round recurrent layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.utils.rnn as rnn_utils
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lockstep.exporters.standins.recurrent_loop import run_cell
from tests.tiny.texts import VOCABULARY
from tests.tiny.torch_sources import seeded

__all__ = ["CASES", "seeded"]

WIDTH, HIDDEN = 6, 4


class Base(nn.Module):
    """An embedding, a recurrent layer, a head."""

    def __init__(self, kind: Any, head: int, **more: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.rnn = kind(WIDTH, HIDDEN, **more)
        self.head = nn.Linear(head, 2)


class FinalState(Base):
    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        packed = rnn_utils.pack_padded_sequence(
            self.embedding(input_ids), lengths, batch_first=True, enforce_sorted=False
        )
        final = self.rnn(packed)[1]
        final = final[0] if isinstance(final, tuple) else final
        return self.head(final.transpose(0, 1).flatten(1))


class CellState(Base):
    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(
            self.embedding(input_ids).transpose(0, 1), lengths.to("cpu"), enforce_sorted=False
        )
        _, (hidden, cell) = self.rnn(packed)
        return self.head(torch.cat([hidden[-1], cell[-1]], dim=1))


class Attention(Base):
    """Attention pooling over all steps, with a mask of its own and dropout on the packed data."""

    def __init__(self) -> None:
        super().__init__(nn.LSTM, 2 * HIDDEN, num_layers=2, bidirectional=True, batch_first=True, dropout=0.3)
        self.score = nn.Linear(2 * HIDDEN, 1)
        self.dropout = nn.Dropout(0.3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embedding(input_ids), lengths.cpu(), True, False)
        packed = packed._replace(data=self.dropout(torch.tanh(packed.data)))
        states, same = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, padding_value=-7.0)
        scores = self.score(states).squeeze(2).masked_fill(attention_mask == 0, float("-inf"))
        pooled = (scores.softmax(dim=1).unsqueeze(2) * states).sum(dim=1)
        return self.head(pooled) + same.unsqueeze(1) * 1e-3


class SortedByHand(Base):
    """As tutorials did before `enforce_sorted`: sort, pack, unsort."""

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        ordered, order = lengths.sort(descending=True)
        packed = pack_padded_sequence(self.embedding(input_ids)[order], ordered.cpu(), batch_first=True)
        states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        states = states[order.argsort()]
        last = states[torch.arange(states.shape[0]), lengths - 1]
        return self.head(last)


class InitialState(Base):
    """The second layer's initial state is made of the mean embedding."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(2).float()
        embedded = self.embedding(input_ids)
        mean = (embedded * mask).sum(1) / mask.sum(1)
        initial = mean[:, :HIDDEN].unsqueeze(0).repeat(2, 1, 1)
        packed = pack_padded_sequence(embedded, attention_mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        _, final = self.rnn(packed, initial)
        return self.head(final.transpose(0, 1).flatten(1))


class Unpacked(Base):
    """No packing: forward only, so the steps within a row never see its padding."""

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.rnn(self.embedding(input_ids))
        return self.head(states[torch.arange(states.shape[0]), lengths - 1])


class OneLogit(Base):
    def __init__(self) -> None:
        super().__init__(nn.GRU, HIDDEN, batch_first=True, bias=False)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embedding(input_ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.head(self.rnn(packed)[1][-1])


class CellLoop(nn.Module):
    """A cell under `run_cell`, its steps and its final state; one more step by hand."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.cell = cell
        self.head = nn.Linear(3 * HIDDEN, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, lengths: Tensor) -> Tensor:
        embedded = self.embedding(input_ids)
        outputs, state = run_cell(self.cell, embedded, lengths)
        again = self.cell(embedded[:, 0], state)
        state, again = (one[1] if isinstance(one, tuple) else one for one in (state, again))
        return self.head(torch.cat([outputs.sum(1) / lengths.unsqueeze(1), state, again], dim=1))


def rnn_cell() -> nn.Module:
    return CellLoop(nn.RNNCell(WIDTH, HIDDEN, nonlinearity="relu"))


def gru_cell() -> nn.Module:
    return CellLoop(nn.GRUCell(WIDTH, HIDDEN))


def lstm_cell() -> nn.Module:
    return CellLoop(nn.LSTMCell(WIDTH, HIDDEN, bias=False))


def relu_rnn() -> nn.Module:
    return FinalState(nn.RNN, 3 * HIDDEN, num_layers=3, nonlinearity="relu")


def birnn_two_layers() -> nn.Module:
    return FinalState(nn.RNN, 4 * HIDDEN, num_layers=2, bidirectional=True)


def lstm_cell_state() -> nn.Module:
    return CellState(nn.LSTM, 2 * HIDDEN)


def attention_pooling() -> nn.Module:
    return Attention()


def sorted_by_hand() -> nn.Module:
    return SortedByHand(nn.LSTM, 2 * HIDDEN, bidirectional=True)


def initial_state() -> nn.Module:
    return InitialState(nn.GRU, 2 * HIDDEN, bidirectional=True)


def unpacked_last_step() -> nn.Module:
    return Unpacked(nn.LSTM, HIDDEN, batch_first=True)


def no_biases() -> nn.Module:
    return OneLogit()


CASES = (
    "relu_rnn",
    "birnn_two_layers",
    "lstm_cell_state",
    "attention_pooling",
    "sorted_by_hand",
    "initial_state",
    "unpacked_last_step",
    "no_biases",
    "rnn_cell",
    "gru_cell",
    "lstm_cell",
)

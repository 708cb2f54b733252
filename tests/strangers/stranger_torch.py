"""Two encoders over one text, gated attention over both, a head of two layers."""

import sys

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import rnn

from lockstep.exporters.standins.recurrent_loop import run_cell


class GatedAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.values, self.gate, self.score = nn.Linear(width, 9), nn.Linear(width, 9), nn.Linear(9, 1, bias=False)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = self.score(torch.tanh(self.values(states)) * torch.sigmoid(self.gate(states))).squeeze(-1)
        weights = F.softmax(scores.masked_fill(mask == 0, float("-inf")), dim=-1)
        return torch.einsum("bt,btw->bw", weights, states)


class TwoEncoders(nn.Module):
    def __init__(self, words: int = 44) -> None:
        super().__init__()
        self.words = nn.Embedding(words, 10)
        self.lstm = nn.LSTM(10, 7, num_layers=2, bidirectional=True, dropout=0.4, batch_first=True)
        self.gru = nn.GRU(10, 5, bias=False)
        self.cell = nn.GRUCell(5, 6)
        self.attention = GatedAttention(14)
        self.norm = nn.LayerNorm(14 + 5 + 6)
        self.head = nn.Sequential(nn.Linear(14 + 5 + 6, 8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        lengths = attention_mask.sum(-1)
        x = self.words(input_ids)
        packed = rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states = rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=input_ids.shape[1])[0]
        packed = rnn.pack_padded_sequence(x.transpose(0, 1), lengths.cpu(), enforce_sorted=False)
        steps, last = self.gru(packed)
        steps = rnn.pad_packed_sequence(steps, total_length=input_ids.shape[1])[0].transpose(0, 1)
        _, state = run_cell(self.cell, steps, lengths)
        features = torch.cat([self.attention(states, attention_mask), last[0], state], dim=-1)
        return self.head(self.norm(features))


def build() -> nn.Module:
    return TwoEncoders()


if __name__ == "__main__":
    torch.manual_seed(5)
    model = build()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.6, 0.6)
    save_file(model.state_dict(), sys.argv[1])

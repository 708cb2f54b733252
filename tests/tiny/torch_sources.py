"""Tiny PyTorch sources with seeded random weights, as a user would write them.

`python -m tests.tiny.torch_sources FOLDER NAME...` writes them, in a process of its own: the tests' own
process imports no framework.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.tiny.descriptions import write_folder
from tests.tiny.texts import LABELS, MAX_TOKENS, VOCABULARY

WIDTH = 12
HIDDEN = 10


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            # Wide enough that every gate and bias matters to the answer.
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    return module


class BiLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.lstm = nn.LSTM(WIDTH, HIDDEN, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN, len(LABELS))

    def forward(self, input_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(self.embedding(input_ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        # Padded positions are zero, so the sum needs no mask.
        return self.head(states.sum(dim=1) / lengths.unsqueeze(1))


class StackedGru(nn.Module):
    """Two bidirectional layers, time first, lengths from the mask, final states, a sigmoid unit as the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.gru = nn.GRU(WIDTH, HIDDEN, num_layers=2, bidirectional=True, dropout=0.5)
        self.hidden = nn.Linear(2 * HIDDEN, 6)
        self.head = nn.Linear(6, 1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        embedded = self.embedding(input_ids).transpose(0, 1)
        packed = nn.utils.rnn.pack_padded_sequence(embedded, attention_mask.sum(1).cpu(), enforce_sorted=False)
        _, final = self.gru(packed)
        last = torch.cat([final[-2], final[-1]], dim=1)
        return self.head(torch.relu(self.hidden(last)))


class UnmaskedRnn(nn.Module):
    """Averages over the padding too: right alone, wrong in a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.rnn = nn.RNN(WIDTH, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, len(LABELS))

    def forward(self, input_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(self.embedding(input_ids))
        return self.head(states.mean(dim=1)) + 0 * lengths.unsqueeze(1)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Embedding(MAX_TOKENS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, len(LABELS))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        states = self.encoder(
            self.embedding(input_ids) + self.position(places), src_key_padding_mask=attention_mask == 0
        )
        weights = attention_mask.unsqueeze(2).float()
        return self.head((states * weights).sum(1) / weights.sum(1))


class BareLoop(nn.Module):
    """A cell under a Python loop, which freezes the length axis of whatever captures it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.cell = nn.GRUCell(WIDTH, HIDDEN)
        self.head = nn.Linear(HIDDEN, len(LABELS))

    def forward(self, input_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        embedded = self.embedding(input_ids)
        state = embedded.new_zeros(input_ids.shape[0], HIDDEN)
        for step in range(embedded.shape[1]):
            state = torch.where((step < lengths).unsqueeze(1), self.cell(embedded[:, step], state), state)
        return self.head(state)


class Tied(nn.Module):
    """An embedding under two names, and weights that two layers share: `safetensors` writes each once."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.words = self.embedding
        self.inner, self.outer = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.outer.weight = self.inner.weight
        self.head = nn.Linear(WIDTH, len(LABELS))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.outer(torch.tanh(self.inner(self.words(input_ids)))) * attention_mask.unsqueeze(2)
        return self.head(states.sum(1))


def tied() -> nn.Module:
    return Tied()


def bare_loop() -> nn.Module:
    return BareLoop()


def bilstm() -> nn.Module:
    return BiLstm()


def stacked_gru() -> nn.Module:
    return StackedGru()


def unmasked_rnn() -> nn.Module:
    return UnmaskedRnn()


def transformer() -> nn.Module:
    return Transformer()


def crashing() -> nn.Module:
    print("about to crash", file=sys.stderr, flush=True)
    os.abort()


def open_tied(weights: Path) -> None:
    """Save tied weights as safetensors does, open them as a source, and say what is missing or differs."""
    from lockstep.exporters.source import Framework
    from lockstep.exporters.sources import torch_source
    from tests.tiny.varieties import files

    module = seeded(Tied()).eval()
    save_model(module, str(weights))
    assert len(load_file(weights)) == len(module.state_dict()) - 2
    source = torch_source.open_source(files("tied", Framework.TORCH, weights, "tests.tiny.torch_sources:tied"))
    ids = torch.arange(1, 8).unsqueeze(0)
    expected = module(ids, torch.ones_like(ids)).detach().numpy()
    assert (source.outputs(ids.numpy(), torch.tensor([7]).numpy()) == expected).all()


def main(folder: Path, names: list[str]) -> None:
    """Write the source folders of these names below `folder`."""
    for name in names:
        description = write_folder(folder / name, name)
        assert description.build is not None
        module = seeded(globals()[description.build.partition(":")[2]]())
        weights = folder / name / description.weights
        if weights.suffix == ".safetensors":
            save_file(module.state_dict(), weights)
        else:
            torch.save(module.state_dict(), weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

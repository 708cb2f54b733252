"""The PyTorch models that step a cell through time themselves, as any user would write them.

Owns their architectures. Knows nothing of training. The loop is `run_cell` of
`lockstep.exporters.standins.recurrent_loop`, which any user may import: a loop of one's own runs as well, but no export
can follow it over rows of any length. Each `build` function takes no argument and returns an untrained module whose
`forward` takes `input_ids` with `lengths`, and returns logits float32[batch, labels].
"""

from __future__ import annotations

from torch import Tensor, nn

from lockstep.exporters.standins.recurrent_loop import run_cell
from lockstep.zoo.corpus import LABELS
from lockstep.zoo.torch_layers import embedding, orthogonal

EMBEDDING = 64
HIDDEN = 64
DROPOUT = 0.3


class CellLoop(nn.Module):  # type: ignore[misc]
    """A cell, run over each row to its end; a linear head on its final state."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.embedding = embedding(cell.input_size)
        self.dropout = nn.Dropout(DROPOUT)
        self.cell = cell
        self.head = nn.Linear(cell.hidden_size, len(LABELS))

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Map int64[batch, length] and int64[batch] to logits float32[batch, labels]."""
        _, state = run_cell(self.cell, self.dropout(self.embedding(input_ids)), lengths)
        h = state[0] if isinstance(state, tuple) else state  # [batch, hidden]
        return self.head(self.dropout(h))


def rnncell() -> nn.Module:
    """Build `torch-rnncell`."""
    return CellLoop(orthogonal(nn.RNNCell(EMBEDDING, HIDDEN)))


def grucell() -> nn.Module:
    """Build `torch-grucell`."""
    return CellLoop(nn.GRUCell(EMBEDDING, HIDDEN))


def lstmcell() -> nn.Module:
    """Build `torch-lstmcell`."""
    return CellLoop(nn.LSTMCell(EMBEDDING, HIDDEN))

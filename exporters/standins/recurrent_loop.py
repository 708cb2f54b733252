"""A PyTorch cell run over rows of unequal length: a function that any model's author may import.

A Python loop over the steps of a batch is right where it runs, but whoever captures its graph sees one batch
of one length: the length axis freezes. Called through this function the loop is eager in training and in
the author's own use, and an export replaces it by the fused operator with lengths, which answers the same.

    outputs, h = run_cell(self.cell, embedded, lengths)         # nn.RNNCell, nn.GRUCell
    outputs, (h, c) = run_cell(self.cell, embedded, lengths)    # nn.LSTMCell

Owns the loop. Knows nothing of exports, and imports PyTorch when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def run_cell(cell: nn.RNNCell | nn.GRUCell | nn.LSTMCell, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Any]:
    """Run `cell` over each row from its first step to its last, from a state of zeros.

    inputs: float32[batch, length, features], padded at the right end; lengths: int64[batch].

    Returns the outputs float32[batch, length, hidden], zero beyond each row's end, and the final state: `h`
    float32[batch, hidden], or `(h, c)` of an `nn.LSTMCell`. A row's state stays as it is once the row has
    ended, so what stands in the padding changes nothing. Gradients flow through.
    """
    import torch

    batch, length, _ = inputs.shape
    steps = torch.arange(length, device=inputs.device)
    going = (steps[:, None] < lengths.to(inputs.device)[None, :]).unsqueeze(2)  # bool[length, batch, 1]
    zero = inputs.new_zeros(batch, cell.hidden_size)
    two = isinstance(cell, torch.nn.LSTMCell)
    state = (zero, zero) if two else (zero,)
    outputs = []
    for x, here in zip(inputs.unbind(dim=1), going, strict=True):
        answered = cell(x, state) if two else (cell(x, state[0]),)
        state = tuple(torch.where(here, new, old) for new, old in zip(answered, state, strict=True))
        outputs.append(state[0] * here)
    stacked = torch.stack(outputs, dim=1) if outputs else inputs.new_zeros(batch, 0, cell.hidden_size)
    return stacked, state if two else state[0]

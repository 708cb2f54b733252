"""What several of the PyTorch models are made of. Owns no model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lockstep.zoo.tokenizer import PAD_ID, VOCABULARY_TOKENS


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


def orthogonal(recurrent: nn.Module) -> nn.Module:
    """Start the recurrent weights as rotations, which neither shrink nor blow up a state over many steps."""
    for name, weight in recurrent.named_parameters():
        if name.startswith("weight_hh"):
            nn.init.orthogonal_(weight)
    return recurrent

"""The PyTorch Transformer, as any user would write it.

Owns its architecture. Knows nothing of training and nothing of export. The `build` function takes no
argument and returns an untrained module whose `forward` takes `input_ids` with `attention_mask`, and
returns logits float32[batch, labels].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lockstep.zoo.corpus import LABELS
from lockstep.zoo.tokenizer import MAX_TOKENS
from lockstep.zoo.torch_layers import embedding, masked_mean

WIDTH = 64
HEADS = 4
FEEDFORWARD = 128
LAYERS = 2
DROPOUT = 0.2


class Transformer(nn.Module):  # type: ignore[misc]
    """Token and position embeddings, a two-layer encoder with a key-padding mask, a masked mean, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = embedding(WIDTH)
        self.position = nn.Embedding(MAX_TOKENS, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        layer = nn.TransformerEncoderLayer(
            WIDTH,
            HEADS,
            FEEDFORWARD,
            dropout=DROPOUT,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        # Dropout of the attention's weights keeps torch from its fused kernel: half the time of a step.
        layer.self_attn.dropout = 0.0
        # Nested tensors drop the padding from the output's length, which has to stay the input's.
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, len(LABELS))
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64[batch, length] and its mask (1 = token) to logits float32[batch, labels]."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        embedded = self.dropout(self.embedding(input_ids) + self.position(places))
        states = self.encoder(embedded, src_key_padding_mask=attention_mask == 0)
        return self.head(self.dropout(masked_mean(states, attention_mask != 0)))


def transformer() -> nn.Module:
    """Build `torch-transformer`."""
    return Transformer()

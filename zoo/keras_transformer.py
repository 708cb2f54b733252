"""The Keras Transformer, as any user would write it.

Owns its architecture. Knows nothing of training and nothing of export. The `build` function takes no
argument and returns an untrained functional model from `input_ids` int64[batch, length] to logits
float32[batch, labels], its padding mask made from the ids.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from lockstep.zoo.corpus import LABELS
from lockstep.zoo.tokenizer import MAX_TOKENS, PAD_ID, VOCABULARY_TOKENS

WIDTH = 64
HEADS = 4
FEEDFORWARD = 128
LAYERS = 2
DROPOUT = 0.2


def transformer() -> keras.Model:
    """Build `keras-transformer`: an encoder whose blocks normalise first, a masked mean, a linear head."""
    input_ids = keras.Input((None,), dtype="int64", name="input_ids")
    mask = ops.not_equal(input_ids, PAD_ID)  # bool[batch, length]
    places = ops.cumsum(ops.cast(mask, "int32"), axis=1)  # from 1; 0 is nobody's
    x = layers.Embedding(VOCABULARY_TOKENS, WIDTH, name="embedding")(input_ids)
    x = x + layers.Embedding(1 + MAX_TOKENS, WIDTH, name="position")(places)
    x = layers.Dropout(DROPOUT, name="embedding_dropout")(x)
    for number in range(LAYERS):
        x = block(x, ops.expand_dims(mask, 1), f"block_{number}")
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x, mask=mask)
    x = layers.Dropout(DROPOUT, name="state_dropout")(x)
    logits = layers.Dense(len(LABELS), name="logits")(x)
    return keras.Model(input_ids, logits, name="keras_transformer")


def block(x: keras.KerasTensor, mask: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Add one block to float32[batch, length, width]; bool[batch, 1, length] says where tokens are."""
    y = layers.LayerNormalization(name=f"{name}_attention_norm")(x)
    y = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"{name}_attention")(y, y, attention_mask=mask)
    x = x + layers.Dropout(DROPOUT, name=f"{name}_attention_dropout")(y)
    y = layers.LayerNormalization(name=f"{name}_feedforward_norm")(x)
    y = layers.Dense(FEEDFORWARD, activation="gelu", name=f"{name}_feedforward")(y)  # the exact one
    y = layers.Dense(WIDTH, name=f"{name}_output")(y)
    return x + layers.Dropout(DROPOUT, name=f"{name}_output_dropout")(y)

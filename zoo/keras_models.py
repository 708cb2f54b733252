"""The Keras models, as any user would write them.

Owns their architectures. Knows nothing of training and nothing of export. Each `build` function takes no
argument and returns an untrained functional model from `input_ids` int64[batch, length] to logits
float32[batch, labels]; the mask comes from the ids.
"""

from __future__ import annotations

import keras
from keras import layers

from zoo.corpus import LABELS
from zoo.tokenizer import VOCABULARY_TOKENS

EMBEDDING = 64
HIDDEN = 64
DROPOUT = 0.3


def bigru() -> keras.Model:
    """Build `keras-bigru`: one bidirectional GRU, its two final states, a linear head."""
    input_ids = keras.Input((None,), dtype="int64", name="input_ids")
    x = layers.Embedding(VOCABULARY_TOKENS, EMBEDDING, mask_zero=True, name="embedding")(input_ids)
    x = layers.Dropout(DROPOUT, name="embedding_dropout")(x)
    x = layers.Bidirectional(layers.GRU(HIDDEN), name="bigru")(x)
    x = layers.Dropout(DROPOUT, name="state_dropout")(x)
    logits = layers.Dense(len(LABELS), name="logits")(x)
    return keras.Model(input_ids, logits, name="keras_bigru")

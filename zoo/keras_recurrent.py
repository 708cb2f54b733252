"""The recurrent Keras models, as any user would write them, for whichever backend Keras runs on.

Owns their architectures. Knows nothing of training and nothing of export. Each `build` function takes no
argument and returns an untrained functional model from `input_ids` int64[batch, length] to logits
float32[batch, labels], its mask made from the ids; `stacked_bilstm` takes its mask as an input, and answers
one probability.
"""

from __future__ import annotations

import keras
from keras import layers

from lockstep.zoo.corpus import LABELS
from lockstep.zoo.tokenizer import VOCABULARY_TOKENS

EMBEDDING = 64
HIDDEN = 64
DROPOUT = 0.3


def classifier(recurrent: keras.Layer, name: str) -> keras.Model:
    """Build a model of one recurrent layer that answers its final state, under a linear head."""
    input_ids = keras.Input((None,), dtype="int64", name="input_ids")
    x = layers.Embedding(VOCABULARY_TOKENS, EMBEDDING, mask_zero=True, name="embedding")(input_ids)
    x = layers.Dropout(DROPOUT, name="embedding_dropout")(x)
    x = recurrent(x)
    x = layers.Dropout(DROPOUT, name="state_dropout")(x)
    logits = layers.Dense(len(LABELS), name="logits")(x)
    return keras.Model(input_ids, logits, name=name)


def simplernn() -> keras.Model:
    """Build `keras-simplernn`."""
    return classifier(layers.SimpleRNN(HIDDEN, name="rnn"), "keras_simplernn")


def gru() -> keras.Model:
    """Build `keras-gru`, and `keras-jax-gru`."""
    return classifier(layers.GRU(HIDDEN, name="gru"), "keras_gru")


def lstm() -> keras.Model:
    """Build `keras-lstm`."""
    return classifier(layers.LSTM(HIDDEN, name="lstm"), "keras_lstm")


def bigru() -> keras.Model:
    """Build `keras-bigru`."""
    return classifier(layers.Bidirectional(layers.GRU(HIDDEN), name="bigru"), "keras_bigru")


def bilstm() -> keras.Model:
    """Build `keras-torch-bilstm`."""
    return classifier(layers.Bidirectional(layers.LSTM(HIDDEN), name="bilstm"), "keras_bilstm")


def stacked_bilstm() -> keras.Model:
    """Build `keras-stacked-bilstm`: the mask is an input, the head one sigmoid unit."""
    input_ids = keras.Input((None,), dtype="int64", name="input_ids")
    attention_mask = keras.Input((None,), dtype="int64", name="attention_mask")
    mask = keras.ops.not_equal(attention_mask, 0)
    x = layers.Embedding(VOCABULARY_TOKENS, EMBEDDING, name="embedding")(input_ids)
    x = layers.Dropout(DROPOUT, name="embedding_dropout")(x)
    x = layers.Bidirectional(layers.LSTM(HIDDEN, return_sequences=True), name="lower")(x, mask=mask)
    x = layers.Bidirectional(layers.LSTM(HIDDEN), name="upper")(x, mask=mask)
    x = layers.Dropout(DROPOUT, name="state_dropout")(x)
    positive = layers.Dense(1, activation="sigmoid", name="positive")(x)
    return keras.Model([input_ids, attention_mask], positive, name="keras_stacked_bilstm")

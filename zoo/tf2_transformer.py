"""The TensorFlow Transformer: a `tf.Module` with no Keras, as any user would write it.

Owns its architecture. Knows nothing of training and nothing of export. The `build` function takes no
argument and returns an untrained module whose `__call__` is a `tf.function` from `input_ids` and
`attention_mask`, int64[batch, length] each, to logits float32[batch, labels].
A checkpoint is `tf.train.Checkpoint(model=module)`.
"""

from __future__ import annotations

import tensorflow as tf

from lockstep.zoo.corpus import LABELS
from lockstep.zoo.tf2_layers import IDS, MASK, Dense, dropped, masked_mean
from lockstep.zoo.tokenizer import MAX_TOKENS, VOCABULARY_TOKENS

WIDTH = 64
HEADS = 4
FEEDFORWARD = 128
LAYERS = 2
DROPOUT = 0.2
EPSILON = 1e-5


class LayerNorm(tf.Module):  # type: ignore[misc]
    """Normalises the last axis."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.scale = tf.Variable(tf.ones(WIDTH), name="scale")
        self.shift = tf.Variable(tf.zeros(WIDTH), name="shift")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Map float32[..., width] to the same shape."""
        mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + EPSILON) * self.scale + self.shift


class Block(tf.Module):  # type: ignore[misc]
    """Self-attention and two dense layers, each normalised first and added to what it was given."""

    def __init__(self) -> None:
        super().__init__(name="block")
        self.attention_norm, self.feedforward_norm = LayerNorm("attention_norm"), LayerNorm("feedforward_norm")
        self.queries_keys_values = Dense(WIDTH, 3 * WIDTH, name="queries_keys_values")
        self.attended = Dense(WIDTH, WIDTH, name="attended")
        self.feedforward = Dense(WIDTH, FEEDFORWARD, name="feedforward")
        self.output = Dense(FEEDFORWARD, WIDTH, name="output")

    def __call__(self, x: tf.Tensor, mask: tf.Tensor, dropout: float) -> tf.Tensor:
        """Map float32[batch, length, width] to the same shape; bool[batch, length] says where tokens are."""
        x = x + dropped(self.attended(self.attend(self.attention_norm(x), mask)), dropout)
        y = tf.nn.gelu(self.feedforward(self.feedforward_norm(x)), approximate=False)
        return x + dropped(self.output(y), dropout)

    def attend(self, x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Mix float32[batch, length, width] over the places that `mask` keeps."""
        batch, length = tf.shape(x)[0], tf.shape(x)[1]
        heads = tf.reshape(self.queries_keys_values(x), [batch, length, 3, HEADS, WIDTH // HEADS])
        q, k, v = tf.unstack(tf.transpose(heads, [2, 0, 3, 1, 4]))  # [batch, heads, length, width of a head]
        scores = tf.matmul(q, k, transpose_b=True) * (WIDTH // HEADS) ** -0.5
        scores = tf.where(mask[:, tf.newaxis, tf.newaxis, :], scores, tf.float32.min)
        mixed = tf.matmul(tf.nn.softmax(scores), v)
        return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [batch, length, WIDTH])


class Transformer(tf.Module):  # type: ignore[misc]
    """Token and position embeddings, blocks with a padding mask, a masked mean, a linear head."""

    def __init__(self) -> None:
        super().__init__(name="transformer")
        self.embedding = tf.Variable(tf.random.normal([VOCABULARY_TOKENS, WIDTH], stddev=0.1), name="embedding")
        self.position = tf.Variable(tf.random.normal([MAX_TOKENS, WIDTH], stddev=0.02), name="position")
        self.blocks = [Block() for _ in range(LAYERS)]
        self.norm = LayerNorm("norm")
        self.head = Dense(WIDTH, len(LABELS), name="head")

    @tf.function(input_signature=(IDS, MASK))  # type: ignore[untyped-decorator]
    def __call__(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
        """Map int64[batch, length] and its mask (1 = token) to logits float32[batch, labels]."""
        return self.logits(input_ids, attention_mask, dropout=0.0)

    def logits(self, input_ids: tf.Tensor, attention_mask: tf.Tensor, dropout: float = DROPOUT) -> tf.Tensor:
        """Compute the logits; a training calls this, with its dropout."""
        mask = tf.not_equal(attention_mask, 0)
        x = tf.gather(self.embedding, input_ids) + self.position[: tf.shape(input_ids)[1]]
        x = dropped(x, dropout)
        for block in self.blocks:
            x = block(x, mask, dropout)
        return self.head(dropped(masked_mean(self.norm(x), mask), dropout))


def transformer() -> tf.Module:
    """Build `tf2-transformer`."""
    return Transformer()

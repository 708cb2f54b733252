"""Keras models that end in a softmax, a sigmoid and a logit, and what Keras itself predicts.

`python -m tests.tiny.keras_endings FOLDER TEXT...` writes `softmax.keras`, `sigmoid.keras` and `logit.keras`, and
prints {model: probabilities of both labels for each text}, in a process of its own. FOLDER holds the tokenizer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tokenizers import Tokenizer

from tests.tiny.texts import VOCABULARY


def model(columns: int, activation: str | None) -> Any:
    layers, wide = keras.layers, keras.initializers.RandomNormal(stddev=9)
    head = layers.Dense(columns, activation=activation, kernel_initializer=wide)
    embedding = layers.Embedding(VOCABULARY, 8, mask_zero=True, embeddings_initializer="random_normal")
    return keras.Sequential([keras.Input((None,), dtype="int32"), embedding, layers.LSTM(6), head])


def main(folder: Path, texts: list[str]) -> dict[str, list[list[float]]]:
    keras.utils.set_random_seed(0)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    answers: dict[str, list[list[float]]] = {}
    for name, columns, activation in (("softmax", 2, "softmax"), ("sigmoid", 1, "sigmoid"), ("logit", 1, None)):
        made = model(columns, activation)
        made.save(folder / f"{name}.keras")
        rows = [made.predict(np.array([tokenizer.encode(text).ids]), verbose=0)[0].tolist() for text in texts]
        if activation:
            answers[name] = [row if columns == 2 else [1 - row[0], row[0]] for row in rows]
    return answers


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])))

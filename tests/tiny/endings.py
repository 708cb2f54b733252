"""Sources that end in many ways, each asked what operator it ends in.

`python -m tests.tiny.endings torch|tensorflow|tf1 FOLDER` prints {case: [kind found, kind there is]}, in a process of
its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.exporters.conversion import Framework, SourceFiles
from tests.tiny.texts import MAX_TOKENS, VOCABULARY

IDS = np.random.default_rng(0).integers(1, VOCABULARY, (2, 5), dtype=np.int64)
LENGTHS = np.array([5, 5], dtype=np.int64)

Results = dict[str, tuple[str | None, str | None]]


def files(framework: Framework, weights: Path = Path("none"), build: str | None = None) -> SourceFiles:
    return SourceFiles(
        name="ending",
        framework=framework,
        weights=weights,
        build=build,
        python_path=(Path.cwd(),),
        labels=2,
        output=None,
        activation=None,
        pad_id=0,
        max_tokens=MAX_TOKENS,
    )


def kind(source: Any) -> str | None:
    ending = source.ending(IDS, LENGTHS)
    return None if ending is None else str(ending.kind)


def run_torch(folder: Path) -> Results:
    import torch
    from torch.nn import functional

    from lockstep.exporters.sources.torch_source import TorchSource

    del folder

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, head: Any, bias: bool) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(VOCABULARY, 4)
            self.linear = torch.nn.Linear(4, 2, bias=bias)
            self.head = head

        def forward(self, input_ids: Any, lengths: Any) -> Any:
            return self.head(self.linear(self.embedding(input_ids).mean(1)))

    heads: dict[str, tuple[Any, str | None]] = {
        "linear": (lambda x: x, "affine"),
        "softmax module": (torch.nn.Softmax(dim=1), "softmax"),
        "softmax function": (lambda x: functional.softmax(x, dim=-1), "softmax"),
        "one sigmoid, squeezed": (lambda x: torch.sigmoid(x[:, :1]).squeeze(1), "sigmoid"),
        "squeezed in place": (lambda x: torch.sigmoid(x[:, :1]).squeeze_(1), "sigmoid"),
        "sigmoid in place": (lambda x: x.sigmoid_(), "sigmoid"),
        "in double precision": (lambda x: torch.sigmoid(x.double()).float(), "sigmoid"),
        "log softmax": (lambda x: functional.log_softmax(x, dim=1), "log_softmax"),
        "log of a softmax": (lambda x: torch.log(torch.softmax(x, 1)), "log_softmax"),
        "log sigmoid": (functional.logsigmoid, "log_sigmoid"),
        "tanh": (torch.tanh, None),
        "a column of sigmoids": (lambda x: torch.sigmoid(x)[:, 1], "sigmoid"),
        "a column of a softmax": (lambda x: torch.softmax(x, 1)[:, 1], None),
    }
    results = {
        name: (kind(TorchSource(Model(head, True).eval(), ("input_ids", "lengths"), files(Framework.TORCH))), there)
        for name, (head, there) in heads.items()
    }
    bare = TorchSource(Model(lambda x: x, False).eval(), ("input_ids", "lengths"), files(Framework.TORCH))
    return results | {"a product without a bias": (kind(bare), None)}


def run_tensorflow(folder: Path) -> Results:
    import keras
    import tensorflow as tf

    from lockstep.exporters.sources.keras_source import KerasSource
    from lockstep.exporters.sources.saved_model_source import open_source
    from lockstep.exporters.sources.tf2_source import Tf2Source

    layers = keras.layers

    def model(*head: Any) -> Any:
        ids = keras.Input((None,), dtype="int32")
        x = layers.GlobalAveragePooling1D()(layers.Embedding(VOCABULARY, 4, mask_zero=True)(ids))
        for layer in head:
            x = layer(x)
        return keras.Model(ids, x)

    def nested(activation: str) -> Any:
        return keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2, activation=activation)])

    heads: dict[str, tuple[Any, str | None]] = {
        "keras dense softmax": ((layers.Dense(2, activation="softmax"),), "softmax"),
        "keras dense sigmoid, reshaped": ((layers.Dense(1, activation="sigmoid"), layers.Reshape((1,))), "sigmoid"),
        "keras activation layer": ((layers.Dense(2), layers.Activation("softmax")), "softmax"),
        "keras softmax layer": ((layers.Dense(2), layers.Softmax()), "softmax"),
        "keras operation": ((layers.Dense(1), keras.ops.sigmoid), "sigmoid"),
        "keras nested model": ((nested("softmax"), layers.Dropout(0.5)), "softmax"),
        "keras logits": ((layers.Dense(2),), "affine"),
        "keras log softmax": ((layers.Dense(2, activation="log_softmax"),), "log_softmax"),
        "keras log sigmoid": ((layers.Dense(1, activation="log_sigmoid"),), "log_sigmoid"),
        "keras column of a softmax": ((layers.Dense(2, activation="softmax"), lambda x: x[:, 1]), None),
        "keras column of logits": ((layers.Dense(2), lambda x: x[:, 1]), "affine"),
        "keras tanh": ((layers.Dense(1, activation="tanh"),), None),
    }
    results = {
        name: (kind(KerasSource(model(*head), ("input_ids",), files(Framework.KERAS))), there)
        for name, (head, there) in heads.items()
    }

    class Bag(tf.Module):  # type: ignore[misc]
        def __init__(self, head: Any) -> None:
            super().__init__()
            self.embedding = tf.Variable(tf.random.normal((VOCABULARY, 4)))
            self.kernel, self.bias = tf.Variable(tf.random.normal((4, 2))), tf.Variable([1.0, 2.0])
            self.head = head

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([None], tf.int64)])  # type: ignore[untyped-decorator]
        def __call__(self, input_ids: Any, lengths: Any) -> Any:
            return self.scored(tf.reduce_mean(tf.gather(self.embedding, input_ids), 1))

        @tf.function  # type: ignore[untyped-decorator]
        def scored(self, x: Any) -> Any:
            return self.head(tf.nn.bias_add(x @ self.kernel, self.bias))

    takes = {"input_ids": tf.int64, "lengths": tf.int64}
    for name, (head, there) in {"softmax": (tf.nn.softmax, "softmax"), "logits": (tf.identity, "affine")}.items():
        module = Bag(head)
        results[f"module {name}"] = (kind(Tf2Source(module, takes, files(Framework.TF2))), there)
        saved = folder / name
        tf.saved_model.save(module, str(saved), signatures=module.__call__)
        results[f"SavedModel {name}"] = (kind(open_source(files(Framework.SAVED_MODEL, saved))), there)
    return results


def ending_in_a_sigmoid(ids: Any, lengths: Any) -> Any:
    """The graph of a TensorFlow 1 source, which the exporter builds."""
    import tensorflow as tf

    v1 = tf.compat.v1
    del lengths
    embedding = v1.get_variable("embedding", (VOCABULARY, 1))
    return tf.sigmoid(tf.squeeze(tf.reduce_mean(tf.gather(embedding, ids), 1), axis=1))


def run_tf1(folder: Path) -> Results:
    import tensorflow as tf

    from lockstep.exporters.sources.tf1_source import open_source

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("embedding", (VOCABULARY, 1))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model"))
    source = open_source(files(Framework.TF1, folder / "model", "tests.tiny.endings:ending_in_a_sigmoid"))
    return {"graph": (kind(source), "sigmoid")}


if __name__ == "__main__":
    run = {"torch": run_torch, "tensorflow": run_tensorflow, "tf1": run_tf1}[sys.argv[1]]
    print(json.dumps(run(Path(sys.argv[2]))))

"""Hold each framework's recurrent layers against the ONNX operator that their description becomes.

`python -m tests.tiny.recurrences torch|keras` prints {case: largest difference}, in a process of its own.
Every weight and bias is random and not small, rows are of unequal length.
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from lockstep.exporters.standins.recurrence import Recurrence

INPUTS, HIDDEN = 5, 4
LENGTHS = np.array([3, 7, 1, 6], dtype=np.int64)
X = np.random.default_rng(0).normal(size=(len(LENGTHS), 7, INPUTS)).astype(np.float32)
INSIDE = np.arange(X.shape[1])[None, :] < LENGTHS[:, None]


def run(recurrence: Recurrence, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return Y float32[length, directions, batch, hidden] and the final states of the operator itself."""
    outputs = ["Y", "Y_h", "Y_c"][: 1 + recurrence.states]
    node = helper.make_node(recurrence.kind.value, ["X", "W", "R", "B", "lengths"], outputs, **recurrence.attributes)
    constants = {"W": recurrence.weights, "R": recurrence.recurrent_weights, "B": recurrence.biases}
    graph = helper.make_graph(
        [node],
        "recurrence",
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, ["length", "batch", x.shape[2]]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answered: list[np.ndarray[Any, Any]] = session.run(outputs, {"X": x, "lengths": LENGTHS.astype(np.int32)})
    return answered


def together(y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[length, directions, batch, hidden] -> [length, batch, directions * hidden]."""
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1)


def torch_cases() -> dict[str, float]:
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    from lockstep.exporters.standins.torch_fused import describe

    differences = {}
    kinds = {
        "RNN tanh": (nn.RNN, {}),
        "RNN relu": (nn.RNN, {"nonlinearity": "relu"}),
        "GRU": (nn.GRU, {}),
        "LSTM": (nn.LSTM, {}),
    }
    for (name, (kind, more)), layers, both, bias in itertools.product(
        kinds.items(), (1, 3), (False, True), (False, True)
    ):
        torch.manual_seed(0)
        layer = kind(INPUTS, HIDDEN, layers, bidirectional=both, bias=bias, dropout=0.5 * (layers > 1), **more)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -1, 1)
        layer.eval()
        packed = pack_padded_sequence(
            torch.from_numpy(X.transpose(1, 0, 2).copy()), torch.from_numpy(LENGTHS), enforce_sorted=False
        )
        with torch.no_grad():
            states, final = layer(packed)
            expected = [pad_packed_sequence(states)[0], *(final if isinstance(final, tuple) else (final,))]
        x, finals = X.transpose(1, 0, 2), []
        for recurrence in describe(layer):
            y, *ends = run(recurrence, x)
            x = together(y)
            finals.append(ends)
        got = [x, *(np.concatenate(parts) for parts in zip(*finals, strict=True))]
        case = (
            f"{name}, {layers} layers, {'both directions' if both else 'forward'}, {'biases' if bias else 'no biases'}"
        )
        differences[case] = max(
            # An unbounded activation makes large numbers: hold the difference against their size.
            float((np.abs(mine - theirs.numpy()) / np.maximum(1, np.abs(theirs.numpy()))).max())
            for mine, theirs in zip(got, expected, strict=True)
        )
    return differences


def keras_cases() -> dict[str, float]:
    from keras import layers

    from lockstep.exporters.standins.keras_standins import describe

    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "SimpleRNN": (layers.SimpleRNN, {}),
        "SimpleRNN relu": (layers.SimpleRNN, {"activation": "relu"}),
        "LSTM": (layers.LSTM, {}),
        "LSTM hard_sigmoid, linear": (
            layers.LSTM,
            {"recurrent_activation": "hard_sigmoid", "activation": "linear"},
        ),
        "GRU reset_after": (layers.GRU, {"reset_after": True}),
        "GRU reset before": (layers.GRU, {"reset_after": False}),
    }
    differences = {}
    for (name, (kind, more)), direction, bias in itertools.product(
        kinds.items(), ("forward", "backward", "both"), (False, True)
    ):
        layer = kind(
            HIDDEN,
            return_sequences=True,
            return_state=True,
            use_bias=bias,
            go_backwards=direction == "backward",
            **more,
        )
        if direction == "both":
            layer = layers.Bidirectional(layer)
        layer.build(X.shape)
        random = np.random.default_rng(1)
        layer.set_weights([random.uniform(-1, 1, array.shape) for array in layer.get_weights()])
        states, *ends = (np.array(part) for part in layer(X, mask=INSIDE))
        recurrence = describe(layer)
        y, *finals = run(recurrence, X.transpose(1, 0, 2))
        got = together(y).transpose(1, 0, 2)
        if direction == "backward":
            states = states[:, ::-1]  # Keras answers in the order that the steps were taken
        apart = np.abs(got - states)[INSIDE].max()  # beyond a row's end Keras repeats, ONNX answers zero
        mine = [state[which] for which in range(recurrence.directions) for state in finals]
        apart_at_end = max(np.abs(one - other).max() for one, other in zip(mine, ends, strict=True))
        case = f"{name}, {direction}, {'biases' if bias else 'no biases'}"
        differences[case] = float(max(apart, apart_at_end))
    return differences


if __name__ == "__main__":
    print(json.dumps({"torch": torch_cases, "keras": keras_cases}[sys.argv[1]]()))

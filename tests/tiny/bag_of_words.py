"""The smallest model there is, written as an ONNX graph by hand so that it can be broken on purpose.

Each token has logits of its own; a row's are the mean of its tokens'. `answer` is the same in numpy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lockstep.server.core.artifact import ArtifactSpec, TensorSpec
from tests.tiny.texts import VOCABULARY

__all__ = ["VOCABULARY", "answer", "weights", "write"]


def weights(seed: int = 0) -> NDArray[np.float32]:
    """float32[vocabulary, labels]; the padding's row is zero, which hides a dropped mask from a plain sum."""
    drawn = np.random.default_rng(seed).normal(size=(VOCABULARY, 2)).astype(np.float32)
    drawn[0] = 0
    return drawn


def answer(row: NDArray[np.int64], seed: int = 0) -> NDArray[np.float32]:
    """Return the logits float32[labels] of one row of ids."""
    mean: NDArray[np.float32] = weights(seed)[row].mean(axis=0)
    return mean


def write(
    path: Path,
    *,
    seed: int = 0,
    masked: bool = True,
    divisor: str = "lengths",
    length: int | str = "length",
    poisoned: bool = False,
) -> ArtifactSpec:
    """Write the graph; every argument but `path` breaks it in one way.

    `masked=False` sums the padding too; `divisor="axis"` divides by the batch's length; an integer `length`
    freezes that axis; `poisoned` divides zero by zero.
    """
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["tokens"]),
        helper.make_node("Shape", ["input_ids"], ["size"], start=1, end=2),
        helper.make_node("Squeeze", ["size"], ["steps"]),
        helper.make_node("Range", ["zero", "steps", "one"], ["places"]),
        helper.make_node("Unsqueeze", ["lengths", "last"], ["ends"]),
        helper.make_node("Less", ["places", "ends"], ["inside"]),
        helper.make_node("Cast", ["inside"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["tokens", "mask3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept" if masked else "tokens", "one_axis"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["ends" if divisor == "lengths" else "size"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["count", "scale"], ["scaled"]),
        helper.make_node("Div", ["sum", "scaled"], ["logits"]),
    ]
    constants = {
        "weights": weights(seed) * (0 if poisoned else 1),
        "zero": np.int64(0),
        "one": np.int64(1),
        "last": np.array([-1], dtype=np.int64),
        "one_axis": np.array([1], dtype=np.int64),
        "scale": np.float32(0 if poisoned else 1),
    }
    graph = helper.make_graph(
        nodes,
        "bag_of_words",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", length]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save_model(model, str(path))
    return ArtifactSpec(
        path=str(path),
        input_ids=TensorSpec("input_ids", "int64"),
        attention_mask=None,
        lengths=TensorSpec("lengths", "int64"),
        logits=TensorSpec("logits", "float32"),
        labels=2,
    )

"""Drives the properties of bytes with atheris, which looks for input that takes new paths through the code.

Optional, and no dependency: `pip install atheris` where it has a wheel.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from tests.fuzz.properties import Property


def fuzz(chosen: Mapping[str, Property], seconds: float, seed: int) -> None:
    """Fuzz for so many seconds, and end the process: 0 where every promise held."""
    import atheris

    from lockstep.server.core import messages
    from lockstep.server.rpc import inference, sentiment, status, tensors

    for module in (inference, messages, sentiment, status, tensors):
        for name, value in vars(module).items():
            if callable(value) and getattr(value, "__module__", "") == module.__name__ and hasattr(value, "__code__"):
                setattr(module, name, atheris.instrument_func(value))
    checks = [one.holds for one in chosen.values()]

    def one_input(data: bytes) -> None:
        if data:
            checks[data[0] % len(checks)](data[1:])

    with tempfile.TemporaryDirectory() as corpus:
        for number, message in enumerate(_sound()):
            for which in range(len(checks)):
                Path(corpus, f"{number}-{which}").write_bytes(bytes([which]) + message)
        options = [f"-max_total_time={int(seconds)}", f"-seed={seed or 1}", "-timeout=60", corpus]
        atheris.Setup([sys.argv[0], *options], one_input)
        atheris.Fuzz()


def _sound() -> list[bytes]:
    """What to begin with: messages that are read."""
    texts, ids = oip.ModelInferRequest(model_name="model", id="1"), oip.ModelInferRequest(model_name="model")
    texts.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"good film")
    texts.parameters["timeout"].int64_param = 10**6
    texts.outputs.add(name="label")
    for name, shape, values in (("input_ids", [2, 2], [2, 3, 2, 3]), ("lengths", [2], [2, 1])):
        ids.inputs.add(name=name, datatype="INT64", shape=shape)
        ids.raw_input_contents.append(b"".join(value.to_bytes(8, "little") for value in values))
    classify = pb.ClassifyRequest(model="model@onnxruntime", texts=["good", "bad film"], id="1")
    messages = [
        texts,
        ids,
        classify,
        pb.StreamRequest(classify=classify, timeout_us=10**6),
        pb.StreamRequest(cancel="1"),
    ]
    return [message.SerializeToString() for message in messages]

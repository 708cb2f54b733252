"""The table of bad input: what is sent, its status, and a piece of the message that names what is wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import numpy as np

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from tests.serving import ids_request, text_request

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
LATE = grpc.StatusCode.DEADLINE_EXCEEDED
_MEGABYTE = "x" * (1 << 20)


@dataclass(frozen=True)
class Infer:
    """A ModelInfer request that fails as a whole."""

    request: oip.ModelInferRequest
    status: grpc.StatusCode
    message: str


@dataclass(frozen=True)
class Classify:
    """A Classify request that fails as a whole, or in one of its rows."""

    request: pb.ClassifyRequest
    status: grpc.StatusCode
    message: str
    row: int | None = None


def _texts(change: Callable[[oip.ModelInferRequest], object]) -> oip.ModelInferRequest:
    request = text_request("model", "good", "bad")
    change(request)
    return request


def _raw_texts(shape: list[int], raw: bytes) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="model", raw_input_contents=[raw])
    request.inputs.add(name="text", datatype="BYTES", shape=shape)
    return request


def _prefixed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _ids(change: Callable[[oip.ModelInferRequest], object], *, mask: bool = False) -> oip.ModelInferRequest:
    request = ids_request([[2, 4, 3], [2, 3]], mask=mask)
    change(request)
    return request


def _shaped(tensor: oip.ModelInferRequest.InferInputTensor, *shape: int) -> None:
    del tensor.shape[:]
    tensor.shape.extend(shape)


def _with(index: int, *values: int) -> oip.ModelInferRequest:
    """Return the request of ids with other contents of one of its tensors."""
    raw = np.array(values, dtype="<i8").tobytes()
    return _ids(lambda r: r.raw_input_contents.__setitem__(index, raw))


def _absurd(*shape: int, raw: bytes = b"") -> oip.ModelInferRequest:
    """Return a request of ids whose shape claims what its bytes do not bear out."""
    request = oip.ModelInferRequest(model_name="model", raw_input_contents=[raw])
    request.inputs.add(name="input_ids", datatype="INT64", shape=shape)
    return request


def _parameter(name: str, **value: object) -> oip.ModelInferRequest:
    return _texts(lambda r: r.parameters[name].MergeFrom(oip.InferParameter(**value)))


def _output(output: str, name: str, **value: object) -> oip.ModelInferRequest:
    def change(request: oip.ModelInferRequest) -> None:
        request.outputs.add(name=output).parameters[name].MergeFrom(oip.InferParameter(**value))

    return _texts(change)


INFER: dict[str, Infer] = {
    # whom it is for
    "no model": Infer(text_request("", "good"), INVALID, "no model is named"),
    "unknown model": Infer(text_request("nope", "good"), MISSING, "no model 'nope' is served; served are: model"),
    "unknown model of 100 kB": Infer(text_request("n" * 100_000, "good"), MISSING, "no model 'nnnn"),
    "unknown model with a NUL": Infer(text_request("model\0", "good"), MISSING, "no model 'model\\x00'"),
    "refused model": Infer(text_request("broken", "good"), MISSING, "refused"),
    "unknown backend": Infer(text_request("model@nope", "good"), MISSING, "no backend 'nope', only onnxruntime"),
    "empty backend": Infer(text_request("model@", "good"), INVALID, "names no backend after the @"),
    "unknown version": Infer(text_request("model", "good", model_version="9"), MISSING, "version 1, not 9"),
    "version that is no number": Infer(text_request("model", "good", model_version="x"), INVALID, "version 'x'"),
    "version of 5000 digits": Infer(text_request("model", "good", model_version="9" * 5000), INVALID, "version '999"),
    # texts
    "no inputs": Infer(oip.ModelInferRequest(model_name="model"), INVALID, "no inputs"),
    "empty list": Infer(text_request("model"), INVALID, "the call holds no rows"),
    "empty list, raw": Infer(_raw_texts([0], b""), INVALID, "the call holds no rows"),
    "empty text": Infer(text_request("model", "good", ""), INVALID, "row 1: the text has no tokens"),
    "blank text": Infer(text_request("model", " \n\t"), INVALID, "row 0: the text has no tokens"),
    "too many tokens": Infer(text_request("model", "bad " * 99), INVALID, "row 0: the text has 101 tokens"),
    "text of 1 MB": Infer(text_request("model", "good", _MEGABYTE), INVALID, "row 1: the text has 1048576 bytes"),
    "invalid UTF-8": Infer(text_request("model", "ok", b"\xff\xfe"), INVALID, "row 1: the text is not valid UTF-8"),
    "invalid UTF-8, raw": Infer(_raw_texts([1], _prefixed(b"a\x80")), INVALID, "not valid UTF-8 at byte 1"),
    "half a surrogate": Infer(text_request("model", b"\xed\xa0\x80"), INVALID, "row 0: the text is not valid UTF-8"),
    "100,000 rows": Infer(text_request("model", *["good"] * 100_000), INVALID, "holds 100000 rows, at most 4096"),
    "4,000,000 rows in 16 MB": Infer(_raw_texts([4_000_000], bytes(16_000_000)), INVALID, "holds 4000000 rows"),
    "raw text that ends in a length": Infer(_raw_texts([1], _prefixed(b"good") + b"\1"), INVALID, "ends within the"),
    "raw text that claims more": Infer(_raw_texts([1], b"\xff\xff\xff\xffgood"), INVALID, "claims 4294967295 bytes"),
    "raw text of more elements": Infer(_raw_texts([1], _prefixed(b"a", b"b", b"c")), INVALID, "holds more texts"),
    # the tensor
    "wrong name": Infer(_texts(lambda r: setattr(r.inputs[0], "name", "txt")), INVALID, "no input named 'txt'"),
    "wrong datatype": Infer(_texts(lambda r: setattr(r.inputs[0], "datatype", "FP32")), INVALID, "must be BYTES"),
    "no datatype": Infer(_texts(lambda r: setattr(r.inputs[0], "datatype", "")), INVALID, "without a datatype"),
    "wrong shape": Infer(_texts(lambda r: _shaped(r.inputs[0], 3)), INVALID, "shape [3] but holds 2 texts"),
    "no shape": Infer(_texts(lambda r: _shaped(r.inputs[0])), INVALID, "shape [n] or [n, 1], not []"),
    "three dimensions": Infer(_texts(lambda r: _shaped(r.inputs[0], 2, 1, 1)), INVALID, "not [2, 1, 1]"),
    "100,000 dimensions": Infer(_absurd(*[1 << 62] * 100_000), INVALID, "must have 2 dimensions"),
    "negative size": Infer(_texts(lambda r: _shaped(r.inputs[0], -2)), INVALID, "negative size in its shape [-2]"),
    "2^62 texts": Infer(_texts(lambda r: _shaped(r.inputs[0], 1 << 62)), INVALID, "but holds 2 texts"),
    "2^62 texts, raw": Infer(_raw_texts([1 << 62], b"\0" * 64), INVALID, "but 64 bytes came"),
    "ids of INT32": Infer(_ids(lambda r: setattr(r.inputs[0], "datatype", "INT32")), INVALID, "must be INT64"),
    "ids in one dimension": Infer(_ids(lambda r: _shaped(r.inputs[0], 6)), INVALID, "must have 2 dimensions, not [6]"),
    "ids of negative size": Infer(_absurd(-1, -1, raw=bytes(8)), INVALID, "negative size in its shape [-1, -1]"),
    "ids short of bytes": Infer(_with(0, 2, 3), INVALID, "which is 48 bytes, but 16 bytes came"),
    "ids in the wrong field": Infer(
        _ids(lambda r: (r.ClearField("raw_input_contents"), r.inputs[0].contents.int_contents.append(2))),
        INVALID, "input input_ids has the shape [2, 3] but 0 values came",
    ),
    "2^62 x 2^62 ids": Infer(_absurd(1 << 62, 1 << 62, raw=bytes(48)), INVALID, "but 48 bytes came"),
    "product that is 0 in 64 bits": Infer(_absurd(1 << 32, 1 << 32), INVALID, "but 0 bytes came"),
    "bytes that are 0 in 64 bits": Infer(_absurd(1 << 61, 1), INVALID, "but 0 bytes came"),
    "2^62 rows of nothing": Infer(_absurd(1 << 62, 0), INVALID, "rows without tokens have no answer"),
    "10^9 rows of nothing": Infer(_absurd(10**9, 0), INVALID, "rows without tokens have no answer"),
    "no rows of 2^62 ids": Infer(_absurd(0, 1 << 62), INVALID, "the call holds no rows"),
    "100,000 rows of ids": Infer(_absurd(100_000, 1, raw=bytes(800_000)), INVALID, "holds 100000 rows"),
    "id below the vocabulary": Infer(_with(0, 2, -1, 3, 2, 3, 0), INVALID, "row 0: token id -1 is outside"),
    "id beyond the vocabulary": Infer(_with(0, 2, 4, 3, 2, 12, 0), INVALID, "row 1: token id 12 is outside the voc"),
    "id of 2^63 - 1": Infer(_with(0, 2, 4, 2**63 - 1, 2, 3, 0), INVALID, f"row 0: token id {2**63 - 1}"),
    "too many ids": Infer(ids_request([[2] * 65]), INVALID, "row 0: the row has 65 tokens, the model's maximum is 64"),
    "length 0": Infer(_with(1, 3, 0), INVALID, "row 1: its length is 0, it must be 1 to 3"),
    "length below 0": Infer(_with(1, -1, 2), INVALID, "row 0: its length is -1"),
    "length beyond the axis": Infer(_with(1, 4, 2), INVALID, "row 0: its length is 4, it must be 1 to 3"),
    "lengths of another count": Infer(
        _ids(lambda r: (_shaped(r.inputs[1], 3), r.raw_input_contents.__setitem__(1, bytes(24)))),
        INVALID, "input lengths has the shape [3], input_ids has 2 rows",
    ),
    "lengths without ids": Infer(
        _ids(lambda r: (r.inputs.pop(0), r.raw_input_contents.pop(0))), INVALID, "no input named text or input_ids",
    ),
    "mask of another shape": Infer(
        _ids(lambda r: (_shaped(r.inputs[1], 3, 2)), mask=True), INVALID, "shape [3, 2], input_ids [2, 3]",
    ),
    "mask with a hole": Infer(
        _ids(
            lambda r: r.raw_input_contents.__setitem__(1, np.array([1, 0, 1, 1, 1, 0], dtype="<i8").tobytes()),
            mask=True,
        ),
        INVALID, "row 0: attention_mask must be ones, then zeros",
    ),
    "mask of zeros": Infer(
        _ids(lambda r: r.raw_input_contents.__setitem__(1, bytes(48)), mask=True), INVALID, "row 0: its length is 0",
    ),
    "mask and lengths": Infer(
        _ids(lambda r: (r.inputs.append(ids_request([[2, 4, 3], [2, 3]], mask=True).inputs[1]),
                        r.raw_input_contents.append(bytes(48)))),
        INVALID, "attention_mask or lengths, not both",
    ),
    "texts and ids": Infer(
        _ids(lambda r: (r.inputs.append(_raw_texts([1], b"").inputs[0]), r.raw_input_contents.append(_prefixed(b"a")))),
        INVALID, "either text, or input_ids",
    ),
    "input twice": Infer(_texts(lambda r: r.inputs.append(r.inputs[0])), INVALID, "input 'text' is there twice"),
    "raw and typed together": Infer(_texts(lambda r: r.raw_input_contents.append(b"")), INVALID, "raw and typed"),
    "raw contents for one of two": Infer(_ids(lambda r: r.raw_input_contents.pop()), INVALID, "2 inputs but 1 raw"),
    "input in shared memory": Infer(
        _texts(
            lambda r: (
                r.inputs[0].parameters["shared_memory_region"].MergeFrom(oip.InferParameter(string_param="region")),
                r.inputs[0].ClearField("contents"),
            )
        ),
        INVALID, "input 'text' lies in shared memory",
    ),
    # what is asked for
    "output to shared memory": Infer(
        _output("label", "shared_memory_region", string_param="region"),
        INVALID, "output 'label' is to be written to shared memory",
    ),
    "output as classes": Infer(
        _output("probabilities", "classification", int64_param=1), INVALID, "asked for as classes",
    ),
    "unknown output": Infer(_texts(lambda r: r.outputs.add(name="colour")), INVALID, "no output named 'colour'"),
    "output twice": Infer(
        _texts(lambda r: (r.outputs.add(name="label"), r.outputs.add(name="label"))), INVALID, "asked for twice",
    ),
    "100,000 outputs": Infer(
        _texts(lambda r: r.outputs.extend([oip.ModelInferRequest.InferRequestedOutputTensor(name="label")] * 100_000)),
        INVALID, "100000 outputs are asked for",
    ),
    "truncate that is text": Infer(_parameter("truncate", string_param="yes"), INVALID, "truncate must be a bool"),
    "priority that is a bool": Infer(_parameter("priority", bool_param=True), INVALID, "priority must be a int64"),
    "priority of 2^63": Infer(_parameter("priority", uint64_param=1 << 63), INVALID, "priority is 9223372036854775808"),
    "timeout that is a float": Infer(_parameter("timeout", double_param=1.0), INVALID, "timeout must be a int64"),
    "negative timeout": Infer(_parameter("timeout", int64_param=-1), INVALID, "must not be negative"),
    "deadline that has passed": Infer(_parameter("timeout", int64_param=1), LATE, "the deadline had passed"),
}  # fmt: skip


def _of(*texts: str, model: str = "model", **fields: object) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(model=model, texts=texts, **fields)


CLASSIFY: dict[str, Classify] = {
    "no model of two": Classify(_of("good", model=""), MISSING, "served are: model, other"),
    "unknown model": Classify(_of("good", model="nope"), MISSING, "no model 'nope' is served; served are: model"),
    "unknown model of 100 kB": Classify(_of("good", model="é" * 50_000), MISSING, "no model 'ééé"),
    "refused model": Classify(_of("good", model="broken"), MISSING, "refused"),
    "unknown backend": Classify(_of("good", model="model@nope"), MISSING, "no backend 'nope', only onnxruntime"),
    "empty backend": Classify(_of("good", model="model@"), INVALID, "names no backend after the @"),
    "empty list": Classify(_of(), INVALID, "the call holds no rows"),
    "empty text": Classify(_of("good", "", "bad"), INVALID, "the text has no tokens", row=1),
    "blank text": Classify(_of(" \n\t"), INVALID, "the text has no tokens", row=0),
    "too many tokens": Classify(_of("good", "bad " * 99), INVALID, "101 tokens, the model's maximum is 64", row=1),
    "text of 1 MB": Classify(_of(_MEGABYTE, "good"), INVALID, "1048576 bytes, at most 262144 are taken", row=0),
    "100,000 rows": Classify(_of(*["good"] * 100_000), INVALID, "holds 100000 rows, at most 4096"),
    "4,000,000 rows in 8 MB": Classify(_of(*[""] * 4_000_000), INVALID, "holds 4000000 rows, at most 4096"),
}

SOUND_TEXTS = ("good\0film", "\0", "\ufeffgood", "good\u200dfilm", "\U0001f600 good", "\x1b[31mbad", "a" * 5000)
"""Unusual, and text all the same: answered, NUL bytes and all."""

NO_MESSAGES: dict[str, bytes] = {
    "no tag": b"\xff\xff\xff",
    "truncated": text_request("model", "good").SerializeToString()[:-3],
    "truncated length": b"\x0a\xff\xff\xff\xff\x0f",
    "group that does not end": b"\xc3\x3e" * 5000,
    "field number 0": b"\x02\x01a",
    "string that is not UTF-8": b"\x0a\x02\xff\xfe",
}
"""Bytes that are no request of any service."""

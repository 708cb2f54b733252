"""Strategies: requests as clients send them, with something changed; and bytes that are nearly a request."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb

SIZES = st.sampled_from(
    [-(2**63), -1, 0, 1, 2, 3, 4, 7, 2**16, 10**9, 2**31 - 1, 2**31, 2**32, 2**61, 2**62, 2**63 - 1]
)
NAMES = st.sampled_from(["text", "input_ids", "attention_mask", "lengths", "", "x", "text\0", "é" * 3000])
DATATYPES = st.sampled_from(["BYTES", "INT64", "INT32", "FP32", "BOOL", "", "bytes", "\ud7ff" * 900])
MODELS = st.one_of(
    st.sampled_from(["model", "model@onnxruntime", "model@tensorflow", "model@", "@", "", "@x", "other", "m" * 70_000]),
    st.text(max_size=20),
)
VERSIONS = st.one_of(
    st.sampled_from(["", "1", "0", "-1", "9" * 5000, "1" * 18, "1" * 19, "١", "1_0", " 1", "1.0"]),
    st.text(max_size=4),
)
WORDS = st.sampled_from(["good", "bad", "film", "", " ", "\0", "\x7f", "\u200d", "\U0001f600", "a" * 200, "good " * 80])
TEXTS = st.one_of(st.lists(WORDS, max_size=4).map(" ".join), st.text(max_size=30))
RAW_TEXTS = st.one_of(TEXTS.map(str.encode), st.binary(max_size=12))
IDS = st.one_of(st.integers(0, 11), st.sampled_from([-1, 12, 2**31, 2**63 - 1, -(2**63)]))
COUNTS = st.integers(0, 6)


@st.composite
def parameters(draw: st.DrawFn) -> oip.InferParameter:
    """Any kind of parameter with a value of its kind."""
    kind = draw(st.sampled_from(["bool_param", "int64_param", "uint64_param", "double_param", "string_param", None]))
    values = {
        "bool_param": st.booleans(),
        "int64_param": st.one_of(st.sampled_from([-(2**63), -1, 0, 1, 2**31, 2**63 - 1]), st.integers(0, 10**9)),
        "uint64_param": st.sampled_from([0, 1, 2**31, 2**63, 2**64 - 1]),
        "double_param": st.floats(),
        "string_param": st.text(max_size=5),
    }
    return oip.InferParameter() if kind is None else oip.InferParameter(**{kind: draw(values[kind])})


def _prefixed(texts: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


@st.composite
def sound_infer_requests(draw: st.DrawFn) -> oip.ModelInferRequest:
    """A ModelInfer request in which everything fits, raw or typed, of texts or of ids."""
    request = oip.ModelInferRequest(model_name="model", id=draw(st.text(max_size=3)))
    raw, rows = draw(st.booleans()), draw(st.integers(1, 4))
    if draw(st.booleans()):
        texts = [text.encode() for text in draw(st.lists(TEXTS, min_size=rows, max_size=rows))]
        tensor = request.inputs.add(name="text", datatype="BYTES", shape=draw(st.sampled_from([[rows], [rows, 1]])))
        if raw:
            request.raw_input_contents.append(_prefixed(texts))
        else:
            tensor.contents.bytes_contents.extend(texts)
        return request
    length = draw(st.integers(1, 5))
    integers = {"input_ids": (draw(st.lists(IDS, min_size=rows * length, max_size=rows * length)), [rows, length])}
    lengths = draw(st.lists(st.integers(1, length), min_size=rows, max_size=rows))
    kind = draw(st.sampled_from(["lengths", "attention_mask", "neither"]))
    if kind == "lengths":
        integers["lengths"] = (lengths, [rows])
    elif kind == "attention_mask":
        ones = [int(place < one) for one in lengths for place in range(length)]
        integers["attention_mask"] = (ones, [rows, length])
    for name, (values, shape) in integers.items():
        tensor = request.inputs.add(name=name, datatype="INT64", shape=shape)
        if raw:
            request.raw_input_contents.append(struct.pack(f"<{len(values)}q", *values))
        else:
            tensor.contents.int64_contents.extend(values)
    return request


@st.composite
def infer_requests(draw: st.DrawFn) -> oip.ModelInferRequest:
    """A sound request with up to three things changed."""
    request = draw(sound_infer_requests())
    for _ in range(draw(st.integers(0, 3))):
        change = draw(st.sampled_from(sorted(_CHANGES)))
        _CHANGES[change](draw, request)
    return request


def _reshape(draw: st.DrawFn, request: oip.ModelInferRequest) -> None:
    for tensor in request.inputs[:1] if draw(st.booleans()) else request.inputs:
        del tensor.shape[:]
        tensor.shape.extend(draw(st.lists(SIZES, max_size=4)))


def _rename(draw: st.DrawFn, request: oip.ModelInferRequest) -> None:
    for tensor in request.inputs[-1:]:
        tensor.name = draw(NAMES)


def _retype(draw: st.DrawFn, request: oip.ModelInferRequest) -> None:
    for tensor in request.inputs[:1]:
        tensor.datatype = draw(DATATYPES)


def _double(draw: st.DrawFn, request: oip.ModelInferRequest) -> None:
    for tensor in list(request.inputs[:1]):
        request.inputs.append(tensor)


def _raw(draw: st.DrawFn, request: oip.ModelInferRequest) -> None:
    contents = draw(st.one_of(st.binary(max_size=40), st.lists(RAW_TEXTS, max_size=3).map(_prefixed)))
    if request.raw_input_contents and draw(st.booleans()):
        request.raw_input_contents[0] = contents
    else:
        request.raw_input_contents.append(contents)


def _no_raw(draw: st.DrawFn, request: oip.ModelInferRequest) -> None:
    del request.raw_input_contents[draw(COUNTS) :]


def _typed(draw: st.DrawFn, request: oip.ModelInferRequest) -> None:
    for tensor in request.inputs[:1]:
        kind = draw(st.sampled_from(["int64_contents", "bytes_contents", "int_contents", "fp32_contents"]))
        values = {"bytes_contents": RAW_TEXTS, "int64_contents": IDS}.get(kind, st.integers(0, 9))
        getattr(tensor.contents, kind).extend(draw(st.lists(values, max_size=4)))


def _parameter(draw: st.DrawFn, request: oip.ModelInferRequest) -> None:
    name = draw(st.sampled_from(["truncate", "priority", "timeout", "sequence_id", ""]))
    request.parameters[name].CopyFrom(draw(parameters()))


def _output(draw: st.DrawFn, request: oip.ModelInferRequest) -> None:
    for name in draw(st.lists(st.sampled_from(["probabilities", "label", "truncated", "x", ""]), max_size=5)):
        request.outputs.add(name=name)


def _model(draw: st.DrawFn, request: oip.ModelInferRequest) -> None:
    request.model_name, request.model_version = draw(MODELS), draw(VERSIONS)


def _empty(draw: st.DrawFn, request: oip.ModelInferRequest) -> None:
    del request.inputs[draw(COUNTS) :]


_CHANGES = {
    "another shape": _reshape,
    "another name": _rename,
    "another datatype": _retype,
    "an input twice": _double,
    "other raw contents": _raw,
    "fewer raw contents": _no_raw,
    "typed contents": _typed,
    "a parameter": _parameter,
    "outputs": _output,
    "another model": _model,
    "fewer inputs": _empty,
}


@st.composite
def classify_requests(draw: st.DrawFn) -> pb.ClassifyRequest:
    """Any Classify request that can be written."""
    return pb.ClassifyRequest(
        model=draw(MODELS),
        texts=draw(st.lists(TEXTS, max_size=5)),
        truncate=draw(st.booleans()),
        priority=draw(st.sampled_from([-(2**31), -1, 0, 1, 2**31 - 1])),
        id=draw(st.text(max_size=3)),
    )


@st.composite
def stream_requests(draw: st.DrawFn) -> pb.StreamRequest:
    """Any message of ClassifyStream that can be written."""
    message = pb.StreamRequest(
        timeout_us=draw(st.sampled_from([-(2**63), -1, 0, 1, 10**6, 2**63 - 1])), together=draw(st.booleans())
    )
    kind = draw(st.sampled_from(["classify", "cancel", "neither"]))
    if kind == "classify":
        message.classify.CopyFrom(draw(classify_requests()))
    elif kind == "cancel":
        message.cancel = draw(st.text(max_size=3))
    return message


@st.composite
def spoiled(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of a message, cut, with some replaced, inserted or said twice."""
    payload = bytearray(draw(messages))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(payload)))
        match draw(st.sampled_from(["cut", "replace", "insert", "twice", "unknown"])):
            case "cut":
                del payload[at:]
            case "replace":
                payload[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "insert":
                payload[at:at] = draw(st.binary(max_size=6))
            case "twice":
                payload += payload[at:]
            case "unknown":  # groups, nested: field 1000, begun and perhaps ended
                depth = draw(st.sampled_from([1, 50, 99, 101, 5000]))
                payload += b"\xc3\x3e" * depth + b"\xc4\x3e" * draw(st.sampled_from([0, depth]))
    return bytes(payload)

"""Open Inference tensors <-> rows. Every mistake a caller can make with a tensor is found here and named.

Checks come before allocation: a tensor's shape is the caller's claim, and only its bytes are believed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lockstep.protos import open_inference_pb2 as oip
from lockstep.server.core.errors import InvalidInput
from lockstep.server.core.messages import Answer, Ids

_LENGTH_PREFIX = struct.Struct("<I")
_SHARED_MEMORY = "shared_memory_region"
_CLASSES = "classification"
_INTEGER_TENSORS = ("input_ids", "attention_mask", "lengths")

OUTPUTS = ("probabilities", "label", "truncated")


@dataclass(frozen=True, slots=True)
class InputTensor:
    """An input as it came: its claim, and its contents, raw or typed."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes | None
    typed: oip.InferTensorContents


def rows_of(
    request: oip.ModelInferRequest, check_rows: Callable[[int], None] = lambda rows: None
) -> Sequence[str] | Sequence[Ids]:
    """Return the request's rows: texts, or ids that the caller tokenised. Raises `InvalidInput`.

    `check_rows` hears how many there are before any is made, and raises where they are too many: 16 megabytes hold
    four million empty texts.
    """
    inputs = _inputs(request)
    if "text" in inputs:
        if len(inputs) > 1:
            raise InvalidInput("send either text, or input_ids with attention_mask or lengths; not both")
        return _texts(inputs["text"], check_rows)
    if "input_ids" in inputs:
        return _id_rows(inputs, check_rows)
    raise InvalidInput(f"no input named text or input_ids among {sorted(inputs) or 'no inputs'}")


def outputs_of(
    request: oip.ModelInferRequest, labels: Sequence[str], answers: Sequence[Answer]
) -> tuple[list[oip.ModelInferResponse.InferOutputTensor], list[bytes]]:
    """Return the requested outputs (all, where none is named) and their raw contents, in the same order."""
    wanted = [output.name for output in request.outputs] or list(OUTPUTS)
    tensors, contents = [], []
    for name in wanted:
        datatype, shape, raw = _output(name, labels, answers)
        tensors.append(oip.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape))
        contents.append(raw)
    return tensors, contents


def check_outputs(request: oip.ModelInferRequest) -> None:
    """Raise `InvalidInput` where an output is asked for that does not exist, or twice, or in a way that is not here."""
    if len(request.outputs) > len(OUTPUTS):
        raise InvalidInput(f"{len(request.outputs)} outputs are asked for; there are {', '.join(OUTPUTS)}")
    names = [output.name for output in request.outputs]
    for output in request.outputs:
        if output.name not in OUTPUTS:
            raise InvalidInput(f"no output named {output.name!r}; there are {', '.join(OUTPUTS)}")
        if _SHARED_MEMORY in output.parameters:
            raise InvalidInput(
                f"output {output.name!r} is to be written to shared memory, which this server does not do: "
                "take it from the response"
            )
        if _CLASSES in output.parameters:
            raise InvalidInput(
                f"output {output.name!r} is asked for as classes, which this server does not do: "
                "ask for label, or for probabilities as they are"
            )
    if len(set(names)) < len(names):
        raise InvalidInput("an output is asked for twice")


def _output(name: str, labels: Sequence[str], answers: Sequence[Answer]) -> tuple[str, list[int], bytes]:
    rows = len(answers)
    if name == "probabilities":
        stacked = np.array([answer.probabilities for answer in answers], dtype="<f4")
        return "FP32", [rows, len(labels)], stacked.tobytes()
    if name == "label":
        texts = [labels[answer.label].encode() for answer in answers]
        return "BYTES", [rows], b"".join(_LENGTH_PREFIX.pack(len(text)) + text for text in texts)
    return "BOOL", [rows], bytes(answer.encoding.truncated for answer in answers)


def _inputs(request: oip.ModelInferRequest) -> dict[str, InputTensor]:
    """Return the inputs by name; the first that is wrong ends it, however many follow."""
    for tensor in request.inputs:
        if _SHARED_MEMORY in tensor.parameters:  # such a tensor has no contents: they would be missed below
            raise InvalidInput(
                f"input {tensor.name!r} lies in shared memory, which this server does not read: send it in the request"
            )
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise InvalidInput(f"{len(request.inputs)} inputs but {len(raws)} raw contents: send one for each")
    inputs: dict[str, InputTensor] = {}
    for index, tensor in enumerate(request.inputs):
        if tensor.name in inputs:
            raise InvalidInput(f"input {tensor.name!r} is there twice")
        if tensor.name not in ("text", *_INTEGER_TENSORS):
            known = ", ".join(("text", *_INTEGER_TENSORS))
            raise InvalidInput(f"no input named {tensor.name!r}; there are {known}")
        if raws and tensor.HasField("contents"):
            raise InvalidInput(f"input {tensor.name!r} has raw and typed contents: send one of them")
        if any(size < 0 for size in tensor.shape):
            raise InvalidInput(f"input {tensor.name!r} has a negative size in its shape {list(tensor.shape)}")
        raw = raws[index] if raws else None
        inputs[tensor.name] = InputTensor(tensor.name, tensor.datatype, tuple(tensor.shape), raw, tensor.contents)
    return inputs


def _texts(tensor: InputTensor, check_rows: Callable[[int], None]) -> list[str]:
    if tensor.datatype != "BYTES":
        raise InvalidInput(f"input text must be BYTES, not {tensor.datatype or 'without a datatype'}")
    if len(tensor.shape) not in (1, 2) or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
        raise InvalidInput(f"input text must have the shape [n] or [n, 1], not {list(tensor.shape)}")
    claimed = tensor.shape[0]
    if tensor.raw is None:
        held = len(tensor.typed.bytes_contents)
        if held == claimed:
            check_rows(held)
        values: Sequence[bytes] = tensor.typed.bytes_contents
    else:
        if claimed * _LENGTH_PREFIX.size > len(tensor.raw):
            raise InvalidInput(
                f"input text has the shape {list(tensor.shape)}, which is {claimed * _LENGTH_PREFIX.size} bytes "
                f"at least, but {len(tensor.raw)} bytes came"
            )
        check_rows(claimed)
        values = _split(tensor.raw, claimed)
        held = len(values)
    if held != claimed:
        more = "more" if tensor.raw is not None and held > claimed else held
        raise InvalidInput(f"input text has the shape {list(tensor.shape)} but holds {more} texts")
    return [_decode(value, row) for row, value in enumerate(values)]


def _split(raw: bytes, most: int) -> list[bytes]:
    """Split BYTES contents: each element is a little-endian u32 length and that many bytes. Stops beyond `most`."""
    values: list[bytes] = []
    offset = 0
    while offset < len(raw) and len(values) <= most:
        if offset + _LENGTH_PREFIX.size > len(raw):
            raise InvalidInput(f"input text ends within the length of element {len(values)}")
        (size,) = _LENGTH_PREFIX.unpack_from(raw, offset)
        offset += _LENGTH_PREFIX.size
        if offset + size > len(raw):
            raise InvalidInput(f"element {len(values)} of input text claims {size} bytes, {len(raw) - offset} are left")
        values.append(raw[offset : offset + size])
        offset += size
    return values


def _decode(value: bytes, row: int) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"row {row}: the text is not valid UTF-8 at byte {error.start}") from error


def _id_rows(inputs: Mapping[str, InputTensor], check_rows: Callable[[int], None]) -> list[Ids]:
    shape = inputs["input_ids"].shape
    if len(shape) == 2 and shape[1] == 0 and shape[0] > 0:  # no bytes bear out how many such rows there are
        raise InvalidInput(f"input input_ids has the shape {list(shape)}: rows without tokens have no answer")
    ids = _integers(inputs["input_ids"], dimensions=(2,))
    rows, length = ids.shape
    check_rows(rows)
    if "attention_mask" in inputs and "lengths" in inputs:
        raise InvalidInput("send attention_mask or lengths, not both")
    if "lengths" in inputs:
        lengths = _integers(inputs["lengths"], dimensions=(1, 2))
        if lengths.shape not in ((rows,), (rows, 1)):
            raise InvalidInput(f"input lengths has the shape {list(lengths.shape)}, input_ids has {rows} rows")
        lengths = lengths.reshape(rows)
    elif "attention_mask" in inputs:
        lengths = _lengths_of_mask(_integers(inputs["attention_mask"], dimensions=(2,)), (rows, length))
    else:
        lengths = np.full(rows, length, dtype=np.int64)
    for row in np.flatnonzero((lengths < 1) | (lengths > length))[:1]:
        raise InvalidInput(f"row {row}: its length is {lengths[row]}, it must be 1 to {length}")
    return [ids[row, : lengths[row]] for row in range(rows)]


def _lengths_of_mask(mask: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return each row's length int64[batch]; only right-padding masks have one."""
    if mask.shape != shape:
        raise InvalidInput(f"input attention_mask has the shape {list(mask.shape)}, input_ids {list(shape)}")
    lengths: NDArray[np.int64] = (mask != 0).sum(axis=1)
    expected = np.arange(shape[1])[None, :] < lengths[:, None]
    for row in np.flatnonzero((mask != expected).any(axis=1))[:1]:
        raise InvalidInput(f"row {row}: attention_mask must be ones, then zeros: rows are padded on the right")
    return lengths


def _integers(tensor: InputTensor, *, dimensions: tuple[int, ...]) -> NDArray[np.int64]:
    if tensor.datatype != "INT64":
        raise InvalidInput(f"input {tensor.name} must be INT64, not {tensor.datatype or 'without a datatype'}")
    if len(tensor.shape) not in dimensions:
        allowed = " or ".join(map(str, dimensions))
        raise InvalidInput(f"input {tensor.name} must have {allowed} dimensions, not {list(tensor.shape)}")
    count = math.prod(tensor.shape)  # Python integers: it cannot overflow
    if tensor.raw is None:
        values = np.array(tensor.typed.int64_contents, dtype=np.int64)
        if len(values) != count:
            raise InvalidInput(f"input {tensor.name} has the shape {list(tensor.shape)} but {len(values)} values came")
    else:
        if len(tensor.raw) != count * 8:
            raise InvalidInput(
                f"input {tensor.name} has the shape {list(tensor.shape)}, which is {count * 8} bytes, "
                f"but {len(tensor.raw)} bytes came"
            )
        values = np.frombuffer(tensor.raw, dtype="<i8")
    return values.reshape(tensor.shape if count else (0,) * len(tensor.shape))

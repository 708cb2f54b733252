"""Which other files an ONNX file refers to: tensors may be kept outside of it ("external data").

A model file is hostile input, and the gateway has no ONNX library: what is read here is the part of ONNX's own schema
(onnx.proto3: the numbers of its fields) that leads to such references, and nothing else of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

_PACKAGE = "lockstep.onnx_references"
_SCHEMA: dict[str, dict[str, tuple[int, str | None, bool]]] = {
    # field: number, message (None for a string), repeated
    "Model": {"graph": (7, "Graph", False), "functions": (25, "Function", True)},
    "Function": {"node": (7, "Node", True)},
    "Graph": {
        "node": (1, "Node", True),
        "initializer": (5, "Tensor", True),
        "sparse_initializer": (15, "SparseTensor", True),
    },
    "Node": {"attribute": (5, "Attribute", True)},
    "Attribute": {
        "t": (5, "Tensor", False),
        "g": (6, "Graph", False),
        "tensors": (10, "Tensor", True),
        "graphs": (11, "Graph", True),
        "sparse_tensor": (22, "SparseTensor", False),
        "sparse_tensors": (23, "SparseTensor", True),
    },
    "SparseTensor": {"values": (1, "Tensor", False), "indices": (2, "Tensor", False)},
    "Tensor": {"external_data": (13, "Entry", True)},
    "Entry": {"key": (1, None, False), "value": (2, None, False)},
}


def external_files(path: Path) -> set[str]:
    """Return the locations, as written, of every tensor that an ONNX file keeps elsewhere.

    Raises `ValueError` where the file is no ONNX model, `OSError` where it cannot be read.
    """
    model = _model_type()()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"not an ONNX model ({error})") from error
    return set(_locations(model))


def _locations(message: Any) -> Iterator[str]:
    for field, value in message.ListFields():
        for one in value if field.is_repeated else [value]:
            if field.name == "external_data":
                if one.key == "location":
                    yield one.value
            elif isinstance(one, Message):
                yield from _locations(one)


@cache
def _model_type() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, of, repeated) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added.type = kinds.TYPE_STRING if of is None else kinds.TYPE_MESSAGE
            if of is not None:
                added.type_name = f".{_PACKAGE}.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))

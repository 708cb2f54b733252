"""The protocol as tritonclient and kserve publish it: prints every field, method and enum value, as JSON.

Argument: the module whose descriptors are told, with those of the files that it imports.
"""

import importlib
import json
import sys

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto


def main(module):
    files, waiting = {}, [importlib.import_module(module).DESCRIPTOR]
    while waiting:
        found = waiting.pop()
        if found.name not in files:
            files[found.name] = FileDescriptorProto()
            found.CopyToProto(files[found.name])
            waiting.extend(found.dependencies)
    print(json.dumps({name: value for one in files.values() for name, value in told(one)}))


def told(file):
    """Yield what the file declares: a dotted name, and everything about it that the wire or generated code shows."""
    prefix = f".{file.package}"
    for message in file.message_type:
        yield from message_told(f"{prefix}.{message.name}", message)
    for enum in file.enum_type:
        yield from enum_told(f"{prefix}.{enum.name}", enum)
    for service in file.service:
        for method in service.method:
            yield (
                f"{prefix}.{service.name}/{method.name}",
                [method.input_type, method.output_type, method.client_streaming, method.server_streaming],
            )


def message_told(name, message):
    yield name, "message"
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
        kind = FieldDescriptorProto.Type.Name(field.type)
        label = FieldDescriptorProto.Label.Name(field.label)
        yield f"{name}.{field.name}", [field.number, kind, field.type_name, label, oneof]
    for nested in message.nested_type:
        yield from message_told(f"{name}.{nested.name}", nested)
    for enum in message.enum_type:
        yield from enum_told(f"{name}.{enum.name}", enum)


def enum_told(name, enum):
    yield name, "enum"
    for value in enum.value:
        yield f"{name}.{value.name}", value.number


if __name__ == "__main__":
    main(*sys.argv[1:])

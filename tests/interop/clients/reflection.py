"""A client that knows no message beforehand: it asks the server what it serves, as grpcurl does, and calls it.

Prints what it was told, as JSON. Arguments: host:port, model.
"""

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main(address, model):
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        services = {name: pool.FindServiceByName(name) for name in database.get_services()}

        def call(service, method, /, **fields):
            found = services[service].FindMethodByName(method)
            request = ParseDict(fields, GetMessageClass(found.input_type)())
            answer = channel.unary_unary(
                f"/{service}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(found.output_type).FromString,
            )(request, timeout=60)
            return MessageToDict(answer, preserving_proto_field_name=True)

        told = {
            "methods": {name: [method.name for method in service.methods] for name, service in services.items()},
            "classify": call("sentiment.v1.SentimentService", "Classify", model=model, texts=["good film", ""]),
            "infer": call(
                "inference.GRPCInferenceService",
                "ModelInfer",
                model_name=model,
                id="mine",
                inputs=[{
                    "name": "text", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": ["Z29vZCBmaWxt"]},
                }],
            ),
            "config": call("inference.GRPCInferenceService", "ModelConfig", name=model),
            "statistics": call("inference.GRPCInferenceService", "ModelStatistics", name=model),
            "health": call("grpc.health.v1.Health", "Check", service=model),
        }  # fmt: skip
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])

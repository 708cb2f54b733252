"""The Open Inference Protocol by its own stub: `python open_inference.py HOST:PORT`."""

import sys

import grpc

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub

stub = GRPCInferenceServiceStub(grpc.insecure_channel(sys.argv[1]))
model = stub.RepositoryIndex(oip.RepositoryIndexRequest(ready=True)).models[0].name
text = oip.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=[1])
text.contents.bytes_contents.append(b"A fine film.")
wanted = oip.ModelInferRequest.InferRequestedOutputTensor(name="label")
answer = stub.ModelInfer(oip.ModelInferRequest(model_name=model, inputs=[text], outputs=[wanted]), timeout=10)
print(answer.raw_output_contents[0][4:].decode(), answer.parameters["backend"].string_param)

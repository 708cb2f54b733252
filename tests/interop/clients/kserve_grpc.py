"""kserve's InferenceGRPCClient. Prints what it was told, as JSON. Arguments: host:port, model."""

import asyncio
import json
import logging
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput

TEXTS = ["good film", "bad", "the good film"]


async def main(address, model):
    logging.disable()  # it logs what it raises
    async with InferenceGRPCClient(address) as client:
        told = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready(model),
            "typed": await answer(client, request(model, text(TEXTS))),
            "raw": await answer(
                client, request(model, text(np.array([[one.encode()] for one in TEXTS], dtype=object)))
            ),
            "typed ids": await answer(client, request(model, *ids(raw=False))),
            "raw ids": await answer(client, request(model, *ids(raw=True))),
            "chosen": await answer(
                client, request(model, text(TEXTS), request_outputs=[RequestedOutput("label", {"binary_data": False})])
            ),
            "pinned": await answer(client, request(f"{model}@onnxruntime", text(TEXTS), model_version="1")),
            "parameters": await answer(
                client, request(model, text(["bad " * 100]), parameters={"truncate": True, "priority": 2})
            ),
            "unknown": await refusal(client.infer(request("nope", text(TEXTS)))),
            "unknown's readiness": await refusal(client.is_model_ready("nope")),
            "too long": await refusal(client.infer(request(model, text(["bad " * 100])))),
        }
    print(json.dumps(told))


def request(model, *inputs, **fields):
    return InferRequest(model_name=model, infer_inputs=list(inputs), request_id="mine", **fields)


def text(values):
    if isinstance(values, list):
        return InferInput("text", [len(values)], "BYTES", data=values)
    return InferInput("text", list(values.shape), "BYTES", data=values)


def ids(*, raw):
    padded, lengths = np.array([[2, 4, 6, 3], [2, 5, 3, 0]], dtype=np.int64), np.array([4, 3], dtype=np.int64)
    for name, values in (("input_ids", padded), ("lengths", lengths)):
        data = values if raw else values.flatten().tolist()
        yield InferInput(name, list(values.shape), "INT64", data=data)


async def answer(client, asked):
    response = await client.infer(asked, timeout=60)
    told = {"id": response.id, "model": response.model_name, "version": response.model_version, "outputs": {}}
    for output in response.outputs:
        values = output.as_numpy()
        told["outputs"][output.name] = (
            [one.decode() if isinstance(one, bytes) else one for one in values]
            if output.datatype == "BYTES"
            else values.tolist()
        )
    return told


async def refusal(call):
    try:
        await call
    except grpc.RpcError as error:
        return {"status": str(error.code()), "message": error.details()}
    return None


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

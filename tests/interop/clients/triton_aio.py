"""tritonclient.grpc.aio. Prints what it was told, as JSON. Arguments: host:port, model."""

import asyncio
import json
import sys

import tensors
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

REQUESTS = 50


async def main(address, model):
    async with InferenceServerClient(address) as client:
        told = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready(model),
            "metadata": await client.get_model_metadata(model, as_json=True),
            "config": await client.get_model_config(model, as_json=True),
            "index": await client.get_model_repository_index(as_json=True),
            "text": tensors.answer(await client.infer(model, tensors.text(), request_id="mine")),
            "ids": tensors.answer(await client.infer(model, tensors.ids(), compression_algorithm="deflate")),
            "together": [
                tensors.answer(one)
                for one in await asyncio.gather(*(client.infer(model, tensors.text()) for _ in range(REQUESTS)))
            ],
            "stream": await stream(client, model),
            "unknown": await refusal(client.infer("nope", tensors.text())),
            "late": await refusal(client.infer(model, tensors.text(), client_timeout=-1)),
            "shared memory": await refusal(client.get_system_shared_memory_status()),
            "statistics": await client.get_inference_statistics(model, as_json=True),
        }
    print(json.dumps(told))


async def stream(client, model):
    async def requests():
        for number in range(REQUESTS):
            asked = "nope" if number == 7 else model
            yield {"model_name": asked, "inputs": tensors.text(), "request_id": str(number)}

    told = []
    async for result, error in client.stream_infer(requests(), compression_algorithm="gzip"):
        told.append(tensors.answer(result) if error is None else tensors.failure(error))
    return told


async def refusal(call):
    try:
        await call
    except InferenceServerException as error:
        return tensors.failure(error)
    return None


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""tritonclient.grpc over TLS, with a certificate and a token. Prints what it was told, as JSON.

Arguments: host:port, model, the folder of `ca.pem`, `client-key.pem` and `client-cert.pem`, a token.
"""

import asyncio
import json
import queue
import sys
from pathlib import Path

import tensors
from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc.aio import InferenceServerClient as AsyncClient
from tritonclient.utils import InferenceServerException


def main(address, model, folder, token):
    files = Path(folder)
    tls = {
        "ssl": True,
        "root_certificates": str(files / "ca.pem"),
        "private_key": str(files / "client-key.pem"),
        "certificate_chain": str(files / "client-cert.pem"),
    }
    headers = {"authorization": f"Bearer {token}"}
    with InferenceServerClient(address, **tls) as client:
        told = {
            "ready": client.is_server_ready(headers=headers),
            "answer": tensors.answer(client.infer(model, tensors.text(), headers=headers)),
            "stream": stream(client, model, headers),
            "no token": refusal(lambda: client.infer(model, tensors.text())),
            "wrong token": refusal(lambda: client.is_server_live(headers={"authorization": "Bearer wrong"})),
            "not an admin": refusal(lambda: client.load_model(model, headers=headers)),
        }
    with InferenceServerClient(address) as client:
        told["no TLS"] = refusal(lambda: client.infer(model, tensors.text(), headers=headers, client_timeout=20))
    told["aio"] = asyncio.run(asynchronously(address, model, tls, headers))
    print(json.dumps(told))


def stream(client, model, headers):
    outcomes = queue.Queue()
    client.start_stream(lambda result, error: outcomes.put((result, error)), headers=headers)
    client.async_stream_infer(model, tensors.text())
    client.stop_stream()
    result, error = outcomes.get_nowait()
    return tensors.answer(result) if error is None else tensors.failure(error)


async def asynchronously(address, model, tls, headers):
    async with AsyncClient(address, **tls) as client:
        return tensors.answer(await client.infer(model, tensors.text(), headers=headers))


def refusal(call):
    try:
        call()
    except InferenceServerException as error:
        return tensors.failure(error)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])

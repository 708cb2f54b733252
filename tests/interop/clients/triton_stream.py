"""tritonclient.grpc, many requests over one stream. Prints what it was told, as JSON. Arguments: host:port, model."""

import json
import queue
import sys

import tensors
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

REQUESTS = 50


def main(address, model):
    with InferenceServerClient(address) as client:
        told = {
            "ordered": stream(client, [(model, {}) for _ in range(REQUESTS)]),
            "named": stream(
                client,
                [(model, {"request_id": str(number)}) for number in range(REQUESTS)],
                compression_algorithm="gzip",
            ),
            "last": stream(client, [(model, {"enable_empty_final_response": True, "request_id": "last"})]),
            "mixed": stream(
                client,
                [
                    (model, {}),
                    ("nope", {}),
                    (f"{model}@tensorflow", {}),
                    (model, {"inputs": tensors.text([""])}),
                    (model, {"inputs": tensors.text(["bad " * 100])}),
                    (model, {"inputs": tensors.ids()}),
                ],
            ),
            "cancelled": cancelled(client, model),
            "after": tensors.answer(client.infer(model, tensors.text())),
        }
    print(json.dumps(told))


def stream(client, requests, **options):
    """Send requests, and return their outcomes in the order that they came in."""
    outcomes = queue.Queue()
    client.start_stream(lambda result, error: outcomes.put((result, error)), **options)
    for model, request in requests:
        inputs = request.pop("inputs", None) or tensors.text()
        client.async_stream_infer(model, inputs, **request)
    client.stop_stream()
    told = [outcomes.get_nowait() for _ in requests]
    return [tensors.answer(result) if error is None else tensors.failure(error) for result, error in told]


def cancelled(client, model):
    """Hang up without waiting for answers; the callback hears of it."""
    outcomes = queue.Queue()
    client.start_stream(lambda result, error: outcomes.put(error))
    for _ in range(REQUESTS):
        client.async_stream_infer(model, tensors.text())
    client.stop_stream(cancel_requests=True)
    errors = [error for error in (outcomes.get_nowait() for _ in range(outcomes.qsize())) if error is not None]
    assert all(isinstance(error, InferenceServerException) for error in errors)
    return [tensors.failure(error) for error in errors]


if __name__ == "__main__":
    main(*sys.argv[1:])

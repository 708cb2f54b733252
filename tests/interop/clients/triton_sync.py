"""tritonclient.grpc, one call after the other. Prints what it was told, as JSON. Arguments: host:port, model."""

import json
import queue
import sys

import tensors
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException


def main(address, model):
    with InferenceServerClient(address) as client:
        told = described(client, model)
        told["answers"] = answers(client, model)
        told["async"] = asynchronously(client, model)
        told["cancelled"] = cancelled(client, model)
        told["errors"] = errors(client, model)
        told["unimplemented"] = unimplemented(client)
        told["statistics"] = client.get_inference_statistics(model, as_json=True)
        told["all_statistics"] = client.get_inference_statistics(as_json=True)
    print(json.dumps(told))


def described(client, model):
    config = client.get_model_config(model).config
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model),
        "version_ready": client.is_model_ready(model, "1"),
        "backend_ready": client.is_model_ready(f"{model}@onnxruntime"),
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata(model, as_json=True),
        "config": client.get_model_config(model, as_json=True),
        "max_batch_size": config.max_batch_size,
        "decoupled": config.model_transaction_policy.decoupled,
        "index": client.get_model_repository_index(as_json=True),
    }


def answers(client, model):
    requests = {
        "texts": (tensors.text(), {}),
        "column": (tensors.text(column=True), {}),
        "lengths": (tensors.ids(), {}),
        "mask": (tensors.ids(lengths=False), {}),
        "chosen": (tensors.text(), {"outputs": tensors.outputs("label", "probabilities"), "request_id": "call-7"}),
        "pinned": (tensors.text(), {"model_version": "1"}),
        "gzip": (tensors.text(), {"compression_algorithm": "gzip"}),
        "deflate": (tensors.text(), {"compression_algorithm": "deflate"}),
        "parameters": (
            tensors.text(["bad " * 100]),
            {"priority": 3, "timeout": 10_000_000, "client_timeout": 60, "parameters": {"truncate": True, "own": "x"}},
        ),
        "sequence": (tensors.text(), {"sequence_id": 7, "sequence_start": True, "sequence_end": True}),
        "headers": (tensors.text(), {"headers": {"x-request-id": "mine"}}),
    }
    told = {}
    for name, (inputs, options) in requests.items():
        asked = f"{model}@onnxruntime" if name == "pinned" else model
        told[name] = tensors.answer(client.infer(asked, inputs, **options))
    return told


def asynchronously(client, model):
    finished = queue.Queue()
    for number in range(8):
        request_id = str(number)
        client.async_infer(
            model, tensors.text(), lambda result, error: finished.put((result, error)), request_id=request_id
        )
    results = [finished.get(timeout=30) for _ in range(8)]
    return [tensors.answer(result) if error is None else tensors.failure(error) for result, error in results]


def cancelled(client, model):
    """Cancel a call at once: its callback hears of that, or of its answer where that was quicker."""
    finished = queue.Queue()
    call = client.async_infer(model, tensors.text(), lambda result, error: finished.put(error))
    call.cancel()
    error = finished.get(timeout=30)
    return None if error is None else tensors.failure(error)


def errors(client, model):
    in_region = InferInput("text", [3], "BYTES")
    in_region.set_shared_memory("region", 64)
    to_region = InferRequestedOutput("probabilities")
    to_region.set_shared_memory("region", 64)
    wrong = InferInput("text", [1], "FP32")
    wrong._raw_content = b"\0\0\0\0"
    calls = {
        "unknown model": lambda: client.infer("nope", tensors.text()),
        "unknown backend": lambda: client.infer(f"{model}@nope", tensors.text()),
        "unknown version": lambda: client.infer(model, tensors.text(), model_version="9"),
        "unknown model's metadata": lambda: client.get_model_metadata("nope"),
        "unknown model's config": lambda: client.get_model_config("nope"),
        "unknown model's statistics": lambda: client.get_inference_statistics("nope"),
        "unknown model's readiness": lambda: client.is_model_ready("nope"),
        "wrong datatype": lambda: client.infer(model, [wrong]),
        "too long": lambda: client.infer(model, tensors.text(["bad " * 100])),
        "empty": lambda: client.infer(model, tensors.text(["good", ""])),
        "unknown output": lambda: client.infer(model, tensors.text(), outputs=tensors.outputs("colour")),
        "input in shared memory": lambda: client.infer(model, [in_region]),
        "one of two in shared memory": lambda: client.infer(model, [tensors.ids()[0], in_region]),
        "output to shared memory": lambda: client.infer(model, tensors.text(), outputs=[to_region]),
        "as classes": lambda: client.infer(
            model, tensors.text(), outputs=[InferRequestedOutput("probabilities", class_count=1)]
        ),
        "client's timeout": lambda: client.infer(model, tensors.text(), client_timeout=-1),
    }
    return {name: refusal(call) for name, call in calls.items()}


def unimplemented(client):
    calls = {
        "system status": client.get_system_shared_memory_status,
        "system register": lambda: client.register_system_shared_memory("region", "/region", 64),
        "system unregister": client.unregister_system_shared_memory,
        "cuda status": client.get_cuda_shared_memory_status,
        "cuda register": lambda: client.register_cuda_shared_memory("region", b"AAAA", 0, 64),
        "cuda unregister": client.unregister_cuda_shared_memory,
        "trace": client.get_trace_settings,
        "trace update": lambda: client.update_trace_settings(settings={"trace_level": "TIMESTAMPS"}),
        "log": client.get_log_settings,
        "log update": lambda: client.update_log_settings({"log_verbose_level": 1}),
    }
    return {name: refusal(call) for name, call in calls.items()}


def refusal(call):
    try:
        call()
    except InferenceServerException as error:
        return tensors.failure(error)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])

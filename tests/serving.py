"""A real server in the test's process, on ports that the system picks, and stubs to call it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from lockstep.protos.sentiment_pb2_grpc import SentimentServiceStub
from lockstep.server.app import App
from lockstep.server.config import ServerConfig
from lockstep.server.runtimes.registry import ADAPTERS


class Served:
    """A running server and stubs over one channel."""

    def __init__(self, app: App, channel: grpc.aio.Channel) -> None:
        self.app = app
        self.channel = channel
        self.sentiment = SentimentServiceStub(channel)
        self.inference = GRPCInferenceServiceStub(channel)

    def batcher(self, model: str) -> Any:
        """Return a model's batcher: `hold` and `release` are the tests' seam."""
        return self.app.gateway.models[model].batcher


@asynccontextmanager
async def serving(
    repository: Path,
    adapters: Mapping[str, str] = ADAPTERS,
    channel_to: Callable[[App], grpc.aio.Channel] = lambda app: grpc.aio.insecure_channel(f"127.0.0.1:{app.grpc_port}"),
    **config: Any,
) -> AsyncIterator[Served]:
    """Serve a repository until the block ends; every model has a ready backend when it begins."""
    with TemporaryDirectory() as state:  # of its own: a repository may be served twice at once
        async with _serving(repository, adapters, channel_to, {"state": state} | config) as served:
            yield served


@asynccontextmanager
async def _serving(
    repository: Path,
    adapters: Mapping[str, str],
    channel_to: Callable[[App], grpc.aio.Channel],
    config: Mapping[str, Any],
) -> AsyncIterator[Served]:
    settings: dict[str, Any] = {
        "grpc": "127.0.0.1:0",
        "http": "127.0.0.1:0",
        "threads": 1,
        "drain_s": 5.0,
        "instances": 1,
        "measure_s": 0.0,
    } | dict(config)
    app = App(ServerConfig(repository=repository, **settings), adapters=adapters)
    await app.start()
    try:
        async with asyncio.timeout(120):
            await app.ready()
        async with channel_to(app) as channel:
            yield Served(app, channel)
    finally:
        await app.stop()


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; the test's own timeout bounds it."""
    while not condition():  # noqa: ASYNC110 - what is waited for is another process's doing
        await asyncio.sleep(0.002)


def text_request(model: str, *texts: str | bytes, **fields: Any) -> oip.ModelInferRequest:
    """Build a ModelInfer request of texts, with typed contents."""
    request = oip.ModelInferRequest(model_name=model, **fields)
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[len(texts)])
    tensor.contents.bytes_contents.extend(text.encode() if isinstance(text, str) else text for text in texts)
    return request


def ids_request(rows: list[list[int]], *, mask: bool = False, model: str = "model") -> oip.ModelInferRequest:
    """Build a ModelInfer request of ids, padded, with raw contents."""
    length = max(map(len, rows))
    ids = np.array([row + [0] * (length - len(row)) for row in rows], dtype="<i8")
    lengths = np.array([len(row) for row in rows], dtype="<i8")
    request = oip.ModelInferRequest(model_name=model)
    request.inputs.add(name="input_ids", datatype="INT64", shape=ids.shape)
    request.raw_input_contents.append(ids.tobytes())
    if mask:
        request.inputs.add(name="attention_mask", datatype="INT64", shape=ids.shape)
        ones = (np.arange(length)[None, :] < lengths[:, None]).astype("<i8")
        request.raw_input_contents.append(ones.tobytes())
    else:
        request.inputs.add(name="lengths", datatype="INT64", shape=lengths.shape)
        request.raw_input_contents.append(lengths.tobytes())
    return request


def outputs(response: oip.ModelInferResponse) -> dict[str, Any]:
    """Read a response's raw outputs by name."""
    read: dict[str, Any] = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if tensor.datatype == "FP32":
            read[tensor.name] = np.frombuffer(raw, dtype="<f4").reshape(tensor.shape)
        elif tensor.datatype == "BOOL":
            read[tensor.name] = [bool(byte) for byte in raw]
        else:
            values, offset = [], 0
            while offset < len(raw):
                size = int.from_bytes(raw[offset : offset + 4], "little")
                values.append(raw[offset + 4 : offset + 4 + size].decode())
                offset += 4 + size
            read[tensor.name] = values
    return read

"""A server that answers at once: What a generator can send is measured on it.

Prints its port, and ends with its stdin. Its answers look like those of a real server, so that a generator has the same
work with them; they are serialised once.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import grpc

from lockstep.clients.transport import CLASSIFY, CLASSIFY_STREAM
from lockstep.protos import sentiment_pb2 as wire

_PHASES: Final = wire.Phases(
    decode_us=20, tokenize_us=90, queue_us=900, pad_us=15, transfer_us=60, execute_us=1500, respond_us=25
)


def answer(texts: int) -> wire.ClassifyResponse:
    """Return what a call of so many texts is answered with."""
    prediction = wire.Prediction(
        label="positive",
        probabilities=[0.25, 0.75],
        tokens=24,
        backend="echo",
        phases=_PHASES,
        batch_rows=8,
        batch_tokens=32,
    )
    results = [wire.Result(prediction=prediction)] * texts
    return wire.ClassifyResponse(model="echo", version=1, labels=["negative", "positive"], results=results)


async def serve(texts: int) -> None:
    """Serve on a free port of the loopback interface until stdin ends."""
    whole = answer(texts)
    encoded = whole.SerializeToString()

    async def classify(_request: bytes, _context: Any) -> bytes:
        return encoded

    async def classify_stream(_: Any, context: Any) -> None:
        while isinstance(message := await context.read(), wire.StreamRequest):
            if message.WhichOneof("message") == "classify":
                await context.write(wire.StreamResponse(id=message.classify.id, response=whole))

    handlers = {
        CLASSIFY.path.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(classify),
        CLASSIFY_STREAM.rpartition("/")[2]: grpc.stream_stream_rpc_method_handler(
            classify_stream,
            request_deserializer=wire.StreamRequest.FromString,
            response_serializer=wire.StreamResponse.SerializeToString,
        ),
    }
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    service = CLASSIFY.path.strip("/").partition("/")[0]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


def main() -> None:
    """Serve answers of so many texts a call as the only argument says."""
    asyncio.run(serve(int(sys.argv[1])))

"""The worker: one process, one artifact, one runtime. Its arguments: FD PARENT.

Reads frames from the inherited socket FD and answers each in order until the other end closes.
Imports nothing but its runtime, numpy and the standard library, so that any interpreter that holds
the runtime can run it. Knows no model, no queue, no request.
"""

from __future__ import annotations

import gc
import importlib
import json
import signal
import socket
import sys
import time
from typing import Any

import numpy as np

from lockstep.child_processes import die_with_parent
from lockstep.server.core.artifact import ArtifactSpec, Budget, TensorSpec
from lockstep.server.runtimes.base import Adapter
from lockstep.server.runtimes.wire import DONE_TIMES, HEADER, Kind


def main() -> None:
    """Serve the socket named on the command line until the gateway closes it or dies."""
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the gateway's to answer: it drains first
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        try:
            _serve(connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the gateway has gone


def _serve(connection: socket.socket) -> None:
    buffer = bytearray(1 << 16)
    adapter: Adapter | None = None
    labels = 0
    while True:
        kind, batch, rows, length, payload_bytes = HEADER.unpack(_receive(connection, buffer, HEADER.size))
        if payload_bytes > len(buffer):
            buffer = bytearray(payload_bytes)
        payload = _receive(connection, buffer, payload_bytes)
        try:
            if kind == Kind.LOAD:
                started = time.monotonic()
                request = json.loads(bytes(payload))
                adapter, labels = _load(request), request["artifact"]["labels"]
                gc.collect()
                gc.freeze()  # the framework's objects live as long as we do: do not walk them again
                report = {"versions": adapter.versions, "seconds": time.monotonic() - started}
                _send(connection, Kind.LOADED, (0, 0, 0), json.dumps(report).encode())
            elif kind == Kind.EXECUTE and adapter is not None:
                _execute(connection, adapter, labels, batch, (rows, length), payload)
            else:
                raise ValueError(f"unexpected frame of kind {kind}")
        except Exception as error:  # reported to the gateway, which decides what becomes of the rows
            message = f"{type(error).__name__}: {error}"
            _send(connection, Kind.FAILED, (batch, 0, 0), json.dumps({"error": message}).encode())


def _execute(
    connection: socket.socket, adapter: Adapter, labels: int, batch: int, shape: tuple[int, int], payload: memoryview
) -> None:
    rows, length = shape
    ids_bytes = rows * length * 8
    ids = np.frombuffer(payload[:ids_bytes], dtype=np.int64).reshape(rows, length)
    lengths = np.frombuffer(payload[ids_bytes:], dtype=np.int64)
    cpu_ns = time.process_time_ns()
    start_ns = time.monotonic_ns()
    outputs = adapter.execute(ids, lengths)
    end_ns = time.monotonic_ns()
    cpu_ns = time.process_time_ns() - cpu_ns
    if outputs.shape != (rows, labels):
        raise ValueError(f"the artifact answered {list(outputs.shape)} for {rows} rows of {labels} labels")
    times = DONE_TIMES.pack(start_ns, end_ns, cpu_ns)
    _send(connection, Kind.DONE, (batch, rows, outputs.shape[1]), times + outputs.tobytes())


def _load(request: dict[str, Any]) -> Adapter:
    module, _, name = request["adapter"].partition(":")
    fields: dict[str, Any] = {
        key: TensorSpec(**value) if isinstance(value, dict) else value for key, value in request["artifact"].items()
    }
    loader: type[Adapter] = getattr(importlib.import_module(module), name)
    return loader.load(ArtifactSpec(**fields), Budget(**request["budget"]))


def _receive(connection: socket.socket, buffer: bytearray, size: int) -> memoryview:
    view = memoryview(buffer)[:size]
    received = 0
    while received < size:
        count = connection.recv_into(view[received:])
        if count == 0:
            raise EOFError
        received += count
    return view


def _send(connection: socket.socket, kind: Kind, fields: tuple[int, int, int], payload: bytes) -> None:
    connection.sendall(HEADER.pack(kind, *fields, len(payload)) + payload)

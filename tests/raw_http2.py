"""A client that speaks HTTP/2 by hand, to say what no gRPC library lets one say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events

Header = tuple[bytes, bytes]


class RawHttp2:
    """One connection. `h2` makes the frames; nothing is checked on the way out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        config = h2.config.H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.events: list[h2.events.Event] = []
        self.closed = False

    async def send(self) -> None:
        """Send what was made."""
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def call(self, path: str, *more: Header, end: bool = False) -> int:
        """Open a call and return the number of its stream."""
        stream = self.h2.get_next_available_stream_id()
        headers: Sequence[Header] = [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"localhost"),
            (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more,
        ]  # fmt: skip
        self.h2.send_headers(stream, headers, end_stream=end)
        await self.send()
        return stream

    async def until(self, kind: type[h2.events.Event], stream: int | None = None) -> h2.events.Event:
        """Read until an event of that kind (of that stream) comes, and return it."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    self.events.remove(event)
                    return event
            assert not self.closed, f"the connection was closed; came: {self.events}"
            await self.read()

    async def read(self) -> None:
        """Read what comes next, or note that the server closed the connection."""
        try:
            data = await self._reader.read(65_536)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return
        self.events += self.h2.receive_data(data)
        await self.send()

    async def status(self, stream: int) -> tuple[int, str]:
        """Read until a call ends, and return its gRPC status and message."""
        while True:
            for event in self.events:
                if getattr(event, "stream_id", None) != stream:
                    continue
                assert not isinstance(event, h2.events.StreamReset), f"stream {stream} was reset"
                headers = dict(getattr(event, "headers", None) or ())
                if b"grpc-status" in headers:
                    return int(headers[b"grpc-status"]), headers.get(b"grpc-message", b"").decode()
            assert not self.closed, "the connection was closed"
            await self.read()


@asynccontextmanager
async def raw_http2(port: int) -> AsyncIterator[RawHttp2]:
    """Connect and greet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = RawHttp2(reader, writer)
    try:
        client.h2.initiate_connection()
        await client.send()
        yield client
    finally:
        writer.close()

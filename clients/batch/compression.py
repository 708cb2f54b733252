"""Compressed inputs: what they are, by name or by their first bytes, and the stream inside. Knows no lines."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, TypeAlias, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Compression: TypeAlias = Literal["gzip", "bzip2", "xz", "zstd"]

COMPRESSED: Final[dict[str, Compression]] = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
"""By the end of the name, in lower case."""
_BEGINNINGS: Final[dict[bytes, Compression]] = {
    b"\x1f\x8b": "gzip",
    b"BZh91AY&SY": "bzip2",  # other levels than the usual 9 are told by their name
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
DECOMPRESSION_ERRORS: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a stream raises if the file is cut or is not what its name says."""
_BUFFER_BYTES: Final = 256 * 1024


def compression_of(beginning: bytes) -> Compression | None:
    """Return what a file is compressed with, by its first bytes."""
    return next((kind for magic, kind in _BEGINNINGS.items() if beginning.startswith(magic)), None)


def decompressed(stored: BinaryIO, kind: Compression) -> BinaryIO:
    """Return the stream inside, buffered; it can seek if `stored` can, by reading from the beginning."""
    match kind:
        case "gzip":
            return cast("BinaryIO", gzip.GzipFile(fileobj=stored))
        case "bzip2":
            return cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", bz2.BZ2File(stored)), _BUFFER_BYTES))
        case "xz":
            return cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", lzma.LZMAFile(stored)), _BUFFER_BYTES))
        case "zstd":
            return cast("BinaryIO", io.BufferedReader(_Zstandard(stored), _BUFFER_BYTES))


class _Zstandard(io.RawIOBase):
    """Zstandard, by Arrow."""

    def __init__(self, stored: BinaryIO) -> None:
        import pyarrow as pa

        self._stored = stored
        self._stream = pa.CompressedInputStream(stored, "zstd")
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stored.seekable()

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        found = self._stream.read(len(view))
        view[: len(found)] = found
        self._at += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        import pyarrow as pa

        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a compressed stream is sought from its beginning")
        if offset < self._at:
            self._stored.seek(0)
            self._stream = pa.CompressedInputStream(self._stored, "zstd")
            self._at = 0
        while self._at < offset and (found := self._stream.read(min(offset - self._at, _BUFFER_BYTES))):
            self._at += len(found)
        return self._at

    def tell(self) -> int:
        return self._at

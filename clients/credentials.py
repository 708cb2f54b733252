"""Who the caller is, and how it knows the server: a token, certificates. Read from files when a channel is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

AUTHORIZATION_KEY: Final = "authorization"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A bearer token, TLS, or both; nothing by default.

    TLS is used if `tls` says so or a certificate is named. The server's certificate is checked against the CA
    certificates of `root_certificates` (PEM), else those that gRPC brings; `certificate` and `key` are for a server
    that asks for the caller's own.
    """

    token: str | None = field(default=None, repr=False)
    tls: bool = False
    root_certificates: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key go together: name both")
        if self.token is not None and (not self.token or not self.token.isascii() or not self.token.isprintable()):
            raise ValueError("a token is printable ASCII, and not empty")

    @property
    def encrypted(self) -> bool:
        """Whether calls travel over TLS."""
        return self.tls or self.root_certificates is not None or self.certificate is not None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return () if self.token is None else ((AUTHORIZATION_KEY, f"Bearer {self.token}"),)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Read the certificates; raises `OSError` for a file that cannot be read."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.root_certificates),
            private_key=_read(self.key),
            certificate_chain=_read(self.certificate),
        )


def _read(path: Path | str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()

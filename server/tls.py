"""TLS material from files, for both ports; read again when asked, so that renewing a certificate needs no restart."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pem:
    """What the files hold."""

    certificates: bytes
    key: bytes
    client_ca: bytes | None


class TlsFiles:
    """The files of a server's TLS: its certificates and key, and whom its clients' certificates must be signed by."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        """Read the files; raises `OSError`, `ssl.SSLError` (an `OSError` too) where they are no pair."""
        self.cert = cert
        self.key = key
        self.client_ca = client_ca
        self.context = self._context()
        self.pem = self._pem()

    def reload(self) -> None:
        """Read the files again, for connections to come; raises as the constructor does, and then keeps what it had."""
        self._context()  # a pair that does not fit is refused before anything changes
        self.pem = self._pem()
        self.context.load_cert_chain(self.cert, self.key)

    def _pem(self) -> Pem:
        client_ca = self.client_ca.read_bytes() if self.client_ca is not None else None
        return Pem(self.cert.read_bytes(), self.key.read_bytes(), client_ca)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert, self.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

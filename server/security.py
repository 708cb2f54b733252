"""What keeps strangers out, from the configuration: TLS and tokens, and whether it suffices for where we listen."""

from __future__ import annotations

import logging

from lockstep.server.config import ServerConfig
from lockstep.server.core.address import Address
from lockstep.server.core.errors import LockstepError
from lockstep.server.core.tokens import Tokens
from lockstep.server.tls import TlsFiles

_log = logging.getLogger("lockstep.security")


class InsecureConfiguration(LockstepError):
    """The security that is configured cannot be had, or does not suffice; the message says what to change."""


class Security:
    """TLS and tokens of a server; None where there is none."""

    def __init__(self, config: ServerConfig) -> None:
        """Read the files. Raises `InsecureConfiguration`."""
        self.tls = _tls(config)
        self.tokens = _tokens(config)
        for flag, address in (("--grpc", config.grpc), ("--http", config.http)):
            self._judge(flag, address, required=config.require_auth)

    def reload(self) -> None:
        """Read the files again; what cannot be read is logged, and stays as it was."""
        for name, part in (("tokens", self.tokens), ("TLS", self.tls)):
            if part is None:
                continue
            try:
                part.reload()
                _log.info("%s read again", name)
            except (OSError, ValueError) as error:
                _log.error("%s not read again, those from before hold: %s", name, error)

    def _judge(self, flag: str, address: Address, *, required: bool) -> None:
        """Say where strangers could call; raises `InsecureConfiguration` where that is `required` not to be."""
        if address.is_loopback:
            return
        known = self.tokens is not None or (self.tls is not None and self.tls.client_ca is not None)
        missing = [
            what
            for what, there in (("TLS (--tls-cert, --tls-key)", self.tls), ("tokens (--tokens)", known))
            if not there
        ]
        if not missing:
            return
        message = f"{flag} {address} listens beyond this machine without {' and without '.join(missing)}"
        if required:
            raise InsecureConfiguration(f"{message}, which --require-auth forbids")
        _log.warning("%s: whoever reaches it can call it, or read what others send", message)


def _tls(config: ServerConfig) -> TlsFiles | None:
    if config.tls_cert is None and config.tls_key is None and config.tls_client_ca is None:
        return None
    if config.tls_cert is None or config.tls_key is None:
        raise InsecureConfiguration("TLS needs both --tls-cert and --tls-key")
    try:
        return TlsFiles(config.tls_cert, config.tls_key, config.tls_client_ca)
    except OSError as error:
        files = ", ".join(str(one) for one in (config.tls_cert, config.tls_key, config.tls_client_ca) if one)
        raise InsecureConfiguration(f"TLS cannot be had from {files}: {error}") from error


def _tokens(config: ServerConfig) -> Tokens | None:
    if config.tokens is None:
        return None
    try:
        return Tokens(config.tokens)
    except (OSError, ValueError) as error:
        raise InsecureConfiguration(f"--tokens {config.tokens}: {error}") from error

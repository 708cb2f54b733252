"""Where a server listens, as a flag or a file writes it: `host:port`, `[IPv6]:port`, `unix:path`. Opens nothing."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_UNIX = "unix:"
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_LONGEST_NAME = 253
_LONGEST_PATH = 107  # bytes of sun_path, unix(7)
_PORTS = range(2**16)
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen: a host, without brackets, and a port, of which 0 is any; or the path of a Unix socket."""

    host: str
    port: int
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address; raises `ValueError`, which says what to write instead."""
        if text.startswith(_UNIX):
            path = text.removeprefix(_UNIX).removeprefix("//")
            if not path or "\0" in path:
                raise ValueError("after unix: comes the path of a socket: write unix:/run/lockstep.sock")
            if len(path.encode()) > _LONGEST_PATH:
                raise ValueError(f"the path of a socket has at most {_LONGEST_PATH} bytes")
            return cls("", 0, path)
        if "://" in text:
            scheme, _, rest = text.partition("://")
            raise ValueError(f"write {rest.partition('/')[0]}, without {scheme}://")
        host, colon, port = text.rpartition(":")
        if not colon or (host.startswith("[") and not host.endswith("]")):
            raise ValueError(f"the port is missing: write {text or '127.0.0.1'}:8001")
        if not host:
            raise ValueError(f"the host is missing: write 127.0.0.1:{port}, or 0.0.0.0:{port} to listen everywhere")
        if not (port.isascii() and port.isdigit() and len(port) <= _DIGITS and int(port) in _PORTS):
            raise ValueError(f"invalid port {port}: use 1 to {_PORTS[-1]}, or 0 for any free one")
        return cls(_host(host), int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether it can be reached from this machine only."""
        if self.path is not None or self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def at(self, port: int) -> Address:
        """Return the same place with the port that it got; a Unix socket has none."""
        return self if self.path is not None else Address(self.host, port)

    def __str__(self) -> str:
        if self.path is not None:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise ValueError(f"{text} is not an IPv6 address") from None
    if ":" in text:
        raise ValueError("an IPv6 address goes in brackets: write [::1]:8001")
    labels = text.removesuffix(".").split(".")
    if labels[-1].isdigit():
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ValueError(f"{text} is not an IPv4 address") from None
    if len(text) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text!r} is not a host name")
    return text

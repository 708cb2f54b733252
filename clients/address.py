"""Where a server is, as a caller writes it. Opens nothing.

`host:port`, `host` (port 8001), `[IPv6]:port`, `unix:/path`, and gRPC's own names (`dns:///host:port`, `ipv4:...`,
`ipv6:...`, `xds:///...`): https://grpc.github.io/grpc/core/md_doc_naming.html.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

DEFAULT_PORT: Final = 8001
"""Of a server of ours, where an address names none."""

_PORTS: Final = range(1, 2**16)
_RESOLVED_BY_GRPC: Final = ("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "xds:", "vsock:")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOST: Final = re.compile(r"[A-Za-z0-9_.%-]+")


def target_of(address: str) -> str:
    """Return the name by which gRPC finds a server; raises `ValueError`, which says what to write instead."""
    if address.startswith("dns:"):
        host = address.removeprefix("dns:").rpartition("/")[2]
        return address.removesuffix(host) + _with_port(host, address)
    if address.startswith(_RESOLVED_BY_GRPC):
        return address
    if found := _SCHEME.match(address):
        rest = address.removeprefix(found.group()).partition("/")[0] or f"127.0.0.1:{DEFAULT_PORT}"
        raise ValueError(f"address {address!r}: write {rest}, without {found.group()}; TLS is asked for by credentials")
    return _with_port(address, address)


def targets_of(address: str | Sequence[str]) -> tuple[str, ...]:
    """Return several servers' names; raises `ValueError` for none, an empty one, and one that is named twice."""
    named = address.split(",") if isinstance(address, str) else address
    addresses = tuple(one.strip() for one in named)
    if not addresses or not all(addresses):
        raise ValueError(f"an address is missing in {address!r}: name each as host:port")
    targets = tuple(target_of(one) for one in addresses)
    if len(set(targets)) < len(targets):
        raise ValueError(f"an address is named twice in {address!r}")
    return targets


def is_loopback(target: str) -> bool:
    """Whether a server's name is this machine's."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.rpartition(":")[0].rpartition("/")[2].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _with_port(text: str, address: str) -> str:
    if text.startswith("["):
        host, bracket, port = text.partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError(f"address {address!r}: write an IPv6 address as [::1]:{DEFAULT_PORT}")
        try:
            ipaddress.IPv6Address(host[1:])
        except ValueError:
            raise ValueError(f"address {address!r}: {host[1:]!r} is not an IPv6 address") from None
        return f"{host}]:{_port(port[1:], address)}" if port else f"{host}]:{DEFAULT_PORT}"
    if text.count(":") > 1:
        raise ValueError(f"address {address!r}: write an IPv6 address in brackets: [{text}]:{DEFAULT_PORT}")
    host, colon, port = text.partition(":")
    number = _port(port, address) if colon else DEFAULT_PORT
    if not host:
        raise ValueError(f"address {address!r}: the host is missing: write 127.0.0.1:{number}")
    if not _HOST.fullmatch(host):
        raise ValueError(f"address {address!r}: {host!r} is not a host name: write host:port")
    return f"{host}:{number}"


def _port(text: str, address: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_PORTS[-1])) and int(text) in _PORTS):
        raise ValueError(f"address {address!r}: invalid port {text}: use {_PORTS[0]} to {_PORTS[-1]}")
    return int(text)

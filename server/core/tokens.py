"""Who may call: bearer tokens from a file, each with a role. Knows no wire.

One token a line, blank lines and lines that begin with `#` aside:

    infer  team-a   sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    admin  deploys  sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752

The file holds only digests, so that whoever reads it cannot call. A token is random and long, so that one round of
SHA-256 hides it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lockstep.server.core.errors import NotAuthenticated, NotPermitted

_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_SCHEME = "bearer "


class Role(StrEnum):
    """What a token is good for."""

    INFER = "infer"  # everything but what changes the repository
    ADMIN = "admin"  # everything


@dataclass(frozen=True, slots=True)
class Token:
    """Whose token it is, what it is good for, and its SHA-256."""

    role: Role
    name: str
    digest: bytes


class Tokens:
    """The tokens of a file. `reload` reads it again; calls under way are not asked twice."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises `OSError`, or `ValueError` with the line that is wrong."""
        self._path = path
        self._tokens: Sequence[Token] = read_tokens(path)

    def __len__(self) -> int:
        return len(self._tokens)

    def reload(self) -> None:
        """Read the file again; raises as the constructor does, and then keeps the tokens that it had."""
        self._tokens = read_tokens(self._path)

    def check(self, secret: str | None, needed: Role = Role.INFER) -> Token:
        """Return the token that a caller showed; raises `NotAuthenticated`, `NotPermitted`.

        Every token is compared, each in constant time: how long it takes tells nothing about any of them.
        """
        if secret is None:
            raise NotAuthenticated(
                "this server wants a token: send 'authorization: Bearer <token>' (metadata of a call, a header of HTTP)"
            )
        digest = hashlib.sha256(secret.encode(errors="backslashreplace")).digest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise NotAuthenticated("the token is not known to this server")
        if needed is Role.ADMIN and found.role is not Role.ADMIN:
            raise NotPermitted(f"this call needs a token of role {Role.ADMIN}, and {found.name}'s is {found.role}")
        return found


def bearer(authorization: str | None) -> str | None:
    """Return the token of an `authorization` header or metadata; None where there is none of that scheme."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return authorization[len(_SCHEME) :].strip()


def read_tokens(path: Path) -> Sequence[Token]:
    """Read a file of tokens; raises `OSError`, or `ValueError` with the line that is wrong."""
    found: list[Token] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}, line {number}"
        if len(words) != 3:
            raise ValueError(f"{where}: write `role name sha256:<64 hexadecimal digits>`")
        role, name, written = words
        if role not in set(Role):
            raise ValueError(f"{where}: the role is {role!r}; there are {', '.join(Role)}")
        digest = _DIGEST.fullmatch(written)
        if digest is None:
            raise ValueError(f"{where}: {name}'s token must be written as `sha256:` and 64 hexadecimal digits")
        found.append(Token(Role(role), name, bytes.fromhex(digest[1])))
    if not found:
        raise ValueError(f"{path} holds no token: nobody could call")
    return tuple(found)

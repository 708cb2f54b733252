"""Options of every command that calls a server: a token, certificates."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

TOKEN_VARIABLE = "LOCKSTEP_TOKEN"


def credential_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets `credentials`. A token on a command line would be everyone's to read."""

    @click.option("--tls", is_flag=True, help="Speak TLS; implied by the next three.")
    @click.option("--tls-ca", type=_FILE, metavar="PEM", help="CA certificates that sign the server's, a PEM file.")
    @click.option("--tls-cert", type=_FILE, metavar="PEM", help="Our certificate, where the server asks for one.")
    @click.option("--tls-key", type=_FILE, metavar="PEM", help="Its key.")
    @click.option(
        "--token-file",
        type=_FILE,
        metavar="FILE",
        help=f"Holds our bearer token; else the environment's {TOKEN_VARIABLE}.",
    )
    @functools.wraps(command)
    def with_credentials(
        *args: Any,
        tls: bool,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        token_file: Path | None,
        **kwargs: Any,
    ) -> Any:
        import os

        from lockstep.clients import Credentials

        try:
            token = (
                token_file.read_text(encoding="utf-8-sig").strip()
                if token_file
                else os.environ.get(TOKEN_VARIABLE) or None
            )
            credentials = Credentials(token, tls, tls_ca, tls_cert, tls_key)
        except (OSError, ValueError) as error:
            raise click.UsageError(str(error)) from error
        return command(*args, credentials=credentials, **kwargs)

    return with_credentials


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

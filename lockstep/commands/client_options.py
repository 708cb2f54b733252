"""What commands that ask a server one question share: options, the connection, what becomes of a call that fails."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from lockstep.commands.credentials import credential_options
from lockstep.commands.exit_codes import CALL_FAILED, CONNECT_S, fail, no_server
from lockstep.commands.seconds import Seconds
from lockstep.commands.server_address import ServerAddress

if TYPE_CHECKING:
    from lockstep.clients import Credentials, SyncSentimentClient

EXIT_CODES = (
    "Exit codes: 0 answered; 2 wrong usage, or no such model or backend; 3 the call failed, or the output "
    "cannot be written; 4 no server answers; 130 interrupted."
)


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of whom to ask; the command gets `server`, `timeout_s`, `credentials` and `as_json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        credential_options,
        click.option(
            "--timeout",
            "timeout_s",
            type=Seconds(),
            default=30.0,
            show_default=True,
            metavar="SECONDS",
            help="Of a call.",
        ),
        click.option(
            "--server", type=ServerAddress(), default="127.0.0.1:8001", show_default=True, metavar="HOST:PORT"
        ),
    ):
        command = option(command)
    return functools.wraps(command)(command)


@contextmanager
def asking(server: str, timeout_s: float, credentials: Credentials) -> Iterator[SyncSentimentClient]:
    """Connect to a server that answers; a call that fails ends the command, with the exit code that says how."""
    from lockstep.clients import CallError, DeadlineExceeded, InvalidInput, NotFound, SyncSentimentClient, Unavailable
    from lockstep.clients.choice import ChoiceUnclear

    try:
        with SyncSentimentClient(server, timeout_s=timeout_s, credentials=credentials) as client:
            try:
                client.live(timeout_s=min(CONNECT_S, timeout_s))
            except (Unavailable, DeadlineExceeded) as error:
                no_server(server, error)
            yield client
    except (InvalidInput, NotFound, ChoiceUnclear, ValueError) as error:
        raise click.UsageError(str(error)) from error
    except CallError as error:
        fail(f"{error.code.name}: {error}", CALL_FAILED)

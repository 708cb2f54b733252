"""`lockstep load` and `lockstep unload`: change what a running server serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from lockstep.commands.client_options import asking
from lockstep.commands.credentials import credential_options
from lockstep.commands.seconds import Seconds
from lockstep.commands.server_address import ServerAddress

if TYPE_CHECKING:
    from lockstep.clients import Credentials, ServedModel, SyncSentimentClient


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        credential_options,
        click.option("--timeout", "timeout_s", type=Seconds(), default=300.0, show_default=True, metavar="SECONDS"),
        click.option(
            "--server", type=ServerAddress(), default="127.0.0.1:8001", show_default=True, metavar="HOST:PORT"
        ),
        click.argument("model"),
    ):
        command = option(command)
    return command


@click.command("load")
@_options
def load(model: str, server: str, timeout_s: float, credentials: Credentials) -> None:
    """Serve MODEL in its highest published version, without a failed call.

    The server wants --allow-load, and where it has tokens, one of the role admin. Where the version cannot be served
    (or the time is over), what was served before goes on.

    Exit codes: 0 it is served; 2 wrong usage, or no such model; 3 the call failed; 4 no server answers;
    130 interrupted.
    """
    with asking(server, timeout_s, credentials) as client:
        before = _served(client, model)
        client.load(model, timeout_s=timeout_s)
        now = _served(client, model)
    was = f" (before: {before.version})" if before is not None and before.ready else ""
    click.echo(f"{model}: version {now.version if now is not None else '?'} is served{was}")


@click.command("unload")
@_options
def unload(model: str, server: str, timeout_s: float, credentials: Credentials) -> None:
    """Serve MODEL no more: calls that wait are answered, new ones are NOT_FOUND until it is loaded again.

    Exit codes: 0 it is unloaded; 2 wrong usage, or no such model; 3 the call failed; 4 no server answers;
    130 interrupted.
    """
    with asking(server, timeout_s, credentials) as client:
        client.unload(model, timeout_s=timeout_s)
    click.echo(f"{model}: unloaded")


def _served(client: SyncSentimentClient, model: str) -> ServedModel | None:
    return next((one for one in client.models() if one.name == model), None)

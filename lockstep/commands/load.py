"""`lockstep load` and `lockstep unload`: change what a running server serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lockstep.commands.credentials import credential_options

if TYPE_CHECKING:
    from clients import Credentials, SentimentClient, ServedModel

CALL_FAILED, NO_SERVER = 3, 4  # exit codes, as those of `lockstep classify`; 2 is click's own, for usage
CONNECT_S = 3.0


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        credential_options,
        click.option("--timeout", "timeout_s", default=300.0, show_default=True, metavar="SECONDS"),
        click.option("--server", default="127.0.0.1:8001", show_default=True, metavar="HOST:PORT"),
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

    Exit codes: 0 it is served; 2 wrong usage, or no such model; 3 the call failed; 4 no server answers.
    """

    async def change(client: SentimentClient) -> None:
        before = await _served(client, model)
        await client.load(model, timeout_s=timeout_s)
        now = await _served(client, model)
        was = f" (before: {before.version})" if before is not None and before.ready else ""
        click.echo(f"{model}: version {now.version if now is not None else '?'} is served{was}")

    _run(change, server=server, credentials=credentials)


@click.command("unload")
@_options
def unload(model: str, server: str, timeout_s: float, credentials: Credentials) -> None:
    """Serve MODEL no more: calls that wait are answered, new ones are NOT_FOUND until it is loaded again.

    Exit codes: 0 it is unloaded; 2 wrong usage, or no such model; 3 the call failed; 4 no server answers.
    """

    async def change(client: SentimentClient) -> None:
        await client.unload(model, timeout_s=timeout_s)
        click.echo(f"{model}: unloaded")

    _run(change, server=server, credentials=credentials)


async def _served(client: SentimentClient, model: str) -> ServedModel | None:
    return next((one for one in await client.models() if one.name == model), None)


def _run(change: Callable[[SentimentClient], Any], *, server: str, credentials: Credentials) -> None:
    import asyncio

    from clients import CallError, DeadlineExceeded, NotFound, SentimentClient, Unavailable

    async def call() -> None:
        async with SentimentClient(server, credentials=credentials) as client:
            try:
                await client.live(timeout_s=CONNECT_S)
            except (Unavailable, DeadlineExceeded) as error:
                _fail(f"no server answers at {server}: {error}\nStart one with: lockstep serve", NO_SERVER)
            await change(client)

    try:
        asyncio.run(call())
    except (NotFound, ValueError) as error:
        raise click.UsageError(str(error)) from error
    except CallError as error:
        _fail(f"{error.code.name}: {error}", CALL_FAILED)


def _fail(message: str, exit_code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    raise click.exceptions.Exit(exit_code)

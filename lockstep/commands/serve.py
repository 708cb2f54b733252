"""`lockstep serve`: flags -> configuration -> server, until a signal. The flags are the configuration's fields."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from server.config import ServerConfig

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each field of the configuration."""
    for name, field in reversed(ServerConfig.model_fields.items()):
        if field.description is None:
            continue  # a table of the file
        flag = f"--{name.replace('_', '-')}"
        shown = field.get_default()
        command = click.option(flag, type=_type(field), default=None, help=f"{field.description}  [default: {shown}]")(
            command
        )
    return command


def _type(field: FieldInfo) -> Any:
    if get_origin(field.annotation) is Literal:
        return click.Choice(get_args(field.annotation))
    kind = next((one for one in get_args(field.annotation) if one is not type(None)), field.annotation)
    return kind if kind in (int, float) else str


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file: the keys are these flags, with underscores; tables for models and backends. Flags win over it.",
)
@_options
def serve(config: Path | None, **flags: Any) -> None:
    """Serve the models of a repository over gRPC, until SIGTERM or Ctrl-C; then drain.

    A second signal stops at once. Exit codes: 0 stopped, 2 cannot be started as configured.
    """
    import uvloop
    from pydantic import ValidationError

    from server.app import ConfigurationError

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        given = {name: value for name, value in flags.items() if value is not None}
        uvloop.run(_serve(ServerConfig.read(config, given)))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        what = f"--{name.replace('_', '-')}" if name in given else f"{config}: {name}"
        raise click.UsageError(f"{what} {first['input']!r}: {first['msg']}") from error
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"{config}: {error}") from error
    except ConfigurationError as error:
        raise click.UsageError(error.message) from error


async def _serve(config: ServerConfig) -> None:
    from server.app import App

    app = App(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            for task in asyncio.all_tasks(loop):
                task.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await app.start()
    # What start-up made lives as long as we do, and requests leave few cycles behind: look for them seldom.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    names = ", ".join(sorted(app.gateway.models))
    click.echo(f"serving {names} on {config.grpc.rpartition(':')[0]}:{app.grpc_port} (HTTP {app.http_port})", err=True)
    await stop.wait()
    click.echo("draining; a second signal stops at once", err=True)
    await app.stop()

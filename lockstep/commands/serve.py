"""`lockstep serve`: flags -> configuration -> server, until a signal. The flags are the configuration's fields."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from server.config import ConfigurationError, ServerConfig

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each field of the configuration."""
    for name, field in reversed(ServerConfig.model_fields.items()):
        if field.description is None:
            continue  # a table of the file
        flag, default = f"--{name.replace('_', '-')}", field.get_default()
        if isinstance(default, bool):
            flag, shown = f"{flag}/--no-{flag[2:]}", "on" if default else "off"
        else:
            shown = "none" if default is None else default
        kind = bool if isinstance(default, bool) else _type(field)
        command = click.option(flag, type=kind, default=None, help=f"{field.description}  [default: {shown}]")(command)
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
@click.option("--check", is_flag=True, help="Hold configuration and repository against each other, and exit.")
@_options
def serve(config: Path | None, check: bool, **flags: Any) -> None:
    """Serve the models of a repository over gRPC, until SIGTERM or Ctrl-C; then drain.

    A second signal stops at once. SIGHUP reads tokens and certificates again. Exit codes: 0 stopped, 2 cannot be
    started as configured; with --check: 0 everything is sound, 1 some models would be refused, 2 nothing could start.
    """
    import uvloop
    from pydantic import ValidationError

    from server import logs

    try:
        given = {name: value for name, value in flags.items() if value is not None}
        configured = ServerConfig.read(config, given)
        logs.configure(configured.log_format, sys.stderr)
        if check:
            raise SystemExit(asyncio.run(_check(configured)))
        uvloop.run(_serve(configured))
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
    stop, at_once = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            at_once.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, app.security.reload)
    await app.start()
    # What start-up made lives as long as we do, and requests leave few cycles behind: look for them seldom.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    names = ", ".join(sorted(app.gateway.models))
    click.echo(f"serving {names} on {config.grpc.rpartition(':')[0]}:{app.grpc_port} (HTTP {app.http_port})", err=True)
    await stop.wait()
    click.echo("draining; a second signal stops at once", err=True)
    ends = (asyncio.create_task(app.stop()), asyncio.create_task(at_once.wait()))
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if at_once.is_set():
        return  # what is left is cancelled with the loop; workers end with us
    await ends[0]


async def _check(config: ServerConfig) -> int:
    """Print what would be served and what refused; no port is bound and no worker started."""
    from rich.console import Console
    from rich.table import Table

    from server.app import App

    app = App(config)
    table = Table(
        "model", "version", "backends", "files", "verdict", title=f"{config.repository}", title_justify="left"
    )
    for name, served in sorted(app.gateway.models.items()):
        files = sum(len(artifact.files) for artifact in served.manifest.artifacts)
        backends = ", ".join(backend.name for backend in served.batcher.backends)
        table.add_row(name, str(served.manifest.version), backends, str(files), "sound")
    for refused in app.gateway.refused.values():
        version = "" if refused.version is None else str(refused.version)
        table.add_row(refused.name, version, "", "", f"refused: {refused.reason}")
    Console().print(table)
    return 1 if app.gateway.refused else 0

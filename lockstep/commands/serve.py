"""`lockstep serve`: flags -> configuration -> server, until a signal. The flags are the configuration's fields."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from lockstep.commands.exit_codes import fail
from lockstep.server.config import ConfigurationError, ServerConfig

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from lockstep.server.log_writer import LogWriter

_log = logging.getLogger("lockstep.serve")

_LOG_PATIENCE_S = 1.0
"""How long the end of the server waits for a log that is not read."""


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each field of the configuration."""
    for name, field in reversed(ServerConfig.model_fields.items()):
        if field.description is None:
            continue  # a table of the file
        flag, default = f"--{name.replace('_', '-')}", field.get_default()
        if isinstance(default, bool):
            flag, shown = f"{flag}/--no-{flag[2:]}", "on" if default else "off"
        else:
            shown = "none" if default in (None, ()) else default
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
@click.option("--check", is_flag=True, help="Check the configuration and the repository, and exit.")
@_options
def serve(config: Path | None, check: bool, **flags: Any) -> None:
    """Serve the models of a repository over gRPC, until SIGTERM or Ctrl-C; then drain.

    A second signal stops at once. SIGHUP reads tokens and certificates again. Exit codes: 0 stopped, 2 cannot be
    started as configured; with --check: 0 everything is sound, 1 a model would be refused or a backend cannot start,
    2 nothing could start.
    """
    import uvloop
    from pydantic import ValidationError

    from lockstep.server import logs
    from lockstep.server.log_writer import LogWriter

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        configured = ServerConfig.read(config, given)
    except ValidationError as error:
        raise click.UsageError(_told(error.errors()[0], config, given)) from error
    except ConfigurationError as error:
        raise click.UsageError(error.message) from error
    writer = LogWriter(2)
    logs.configure(configured.log_format, writer)
    if configured.log_format == "json":  # gRPC's own words are no objects, and it writes past `logging`
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        if check:
            raise SystemExit(asyncio.run(_check(configured)))
        uvloop.run(_serve(configured, writer))
    except ConfigurationError as error:
        if configured.log_format == "json":
            _log.critical("%s", error.message)
            raise SystemExit(click.UsageError.exit_code) from error
        fail(error.message, click.UsageError.exit_code)
    finally:
        writer.close(_LOG_PATIENCE_S)


def _told(error: ErrorDetails, config: Path | None, given: Mapping[str, Any]) -> str:
    """Say which flag or key is wrong, and how."""
    name = ".".join(str(part) for part in error["loc"])
    what = f"--{name.replace('_', '-')}" if name in given else f"{config}: {name}"
    ours = error.get("ctx", {}).get("error")  # of a validator of ours, whose words pydantic would introduce
    return f"{what} {error['input']!r}: {ours or error['msg']}"


def _announce(config: ServerConfig, writer: LogWriter, line: str, **fields: object) -> None:
    """Say where the server is in its life: a bare line, which scripts wait for, or an object as the log's others."""
    if config.log_format == "json":
        _log.info("%s", line, extra={"fields": fields})
    else:
        writer.write(line)


async def _serve(config: ServerConfig, writer: LogWriter) -> None:
    from lockstep.server.app import App

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
    models, address = sorted(app.gateway.models), config.grpc.at(app.grpc_port)
    line = f"serving {', '.join(models)} on {address} (HTTP {app.http_port})"
    _announce(config, writer, line, models=models, grpc=str(address), http=str(config.http.at(app.http_port)))
    await stop.wait()
    _announce(config, writer, "draining; a second signal stops at once")
    ends = (asyncio.create_task(app.stop()), asyncio.create_task(at_once.wait()))
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if at_once.is_set():
        return  # what is left is cancelled with the loop; workers end with us
    await ends[0]


async def _check(config: ServerConfig) -> int:
    """Print what would be served and what refused; no port is bound and no worker started."""
    from rich.table import Table

    from lockstep.commands import consoles
    from lockstep.server.app import App

    app = App(config)
    table = Table(
        "model", "version", "backends", "files", "verdict", title=f"{config.repository}", title_justify="left"
    )
    for name, served in sorted(app.gateway.models.items()):
        files = sum(len(artifact.files) for artifact in served.manifest.artifacts)
        backends = ", ".join(backend.name for backend in served.batcher.backends)
        missing = ", ".join(backend.name for backend in served.batcher.backends if backend.spec.missing)
        verdict = f"{missing} cannot start" if missing else "sound"
        table.add_row(name, str(served.manifest.version), backends, str(files), verdict)
    for refused in app.gateway.refused.values():
        version = "" if refused.version is None else str(refused.version)
        table.add_row(refused.name, version, "", "", "refused")
    console = consoles.answers()
    console.print(table)
    told = [f"refused: {refused.reason}" for refused in app.gateway.refused.values()]
    told += [f"{', '.join(names)} cannot start: {reason}" for reason, names in app.missing.items()]
    for line in told:  # whole, to be searched and copied
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    return 1 if told else 0

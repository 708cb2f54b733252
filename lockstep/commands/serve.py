"""`lockstep serve`: flags -> configuration -> server, until a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=Path("models"),
    show_default=True,
    help="Folder of published models.",
)
@click.option("--grpc", default="127.0.0.1:8001", show_default=True, help="Address of the gRPC port; port 0 takes any.")
@click.option("--http", default="127.0.0.1:8002", show_default=True, help="Address of the HTTP port.")
@click.option(
    "--policy",
    type=click.Choice(["none", "first_come", "token_budget"]),
    default="token_budget",
    show_default=True,
    help="Which waiting rows are executed together.",
)
@click.option("--max-batch-rows", type=click.IntRange(1), default=32, show_default=True, help="Rows of a batch.")
@click.option(
    "--max-padded-tokens",
    type=click.IntRange(1),
    default=16_384,
    show_default=True,
    help="Rows x longest row of a batch.",
)
@click.option(
    "--budget-tokens",
    type=click.IntRange(1),
    default=1_024,
    show_default=True,
    help="Rows x longest row of a batch under token_budget.",
)
@click.option("--threads", type=click.IntRange(1), default=None, help="Threads of each worker. [default: the cores]")
@click.option("--instances", type=click.IntRange(1), default=1, show_default=True, help="Workers of each backend.")
@click.option("--device", default="cpu", show_default=True, metavar="auto|cpu|cuda:N", help="Where workers execute.")
@click.option(
    "--start",
    type=click.Choice(["preferred", "all"]),
    default="preferred",
    show_default=True,
    help="Backends to start at once; the others start when a row needs them.",
)
@click.option(
    "--max-queue-rows",
    type=click.IntRange(1),
    default=4_096,
    show_default=True,
    help="Rows that may wait, for each model.",
)
@click.option("--max-call-rows", type=click.IntRange(1), default=4_096, show_default=True, help="Rows of one call.")
@click.option(
    "--max-text-bytes", type=click.IntRange(1), default=256 * 1024, show_default=True, help="Bytes of one text."
)
@click.option(
    "--max-message-bytes",
    type=click.IntRange(1),
    default=16 * 1024 * 1024,
    show_default=True,
    help="Bytes of one gRPC message.",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Seconds that accepted calls have to finish after SIGTERM or Ctrl-C.",
)
def serve(**flags: Any) -> None:
    """Serve the models of a repository over gRPC, until SIGTERM or Ctrl-C; then drain.

    A second signal stops at once. Exit codes: 0 stopped, 2 cannot be started as configured.
    """
    import uvloop
    from pydantic import ValidationError

    from server.app import ConfigurationError
    from server.config import ServerConfig

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = ServerConfig(**{name: value for name, value in flags.items() if value is not None})
        uvloop.run(_serve(config))
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"--{first['loc'][0]}: {first['msg']}".replace("_", "-")) from error
    except ConfigurationError as error:
        raise click.UsageError(error.message) from error


async def _serve(config: Any) -> None:
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
    names = ", ".join(sorted(app.gateway.models))
    click.echo(f"serving {names} on {config.grpc.rpartition(':')[0]}:{app.grpc_port} (HTTP {app.http_port})", err=True)
    await stop.wait()
    click.echo("draining; a second signal stops at once", err=True)
    await app.stop()

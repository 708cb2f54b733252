"""How commands that call a server end where they cannot do their work: the exit codes, and what is said.

Codes below 3 are each command's own: 0 it is done, 1 some of it is not, 2 (click's) wrong usage.
"""

from __future__ import annotations

from typing import NoReturn

import click

CALL_FAILED, NO_SERVER = 3, 4
CONNECT_S = 3.0
"""How long a server may take to say that it is there."""


def fail(message: str, exit_code: int) -> NoReturn:
    """Say why, and end the command."""
    click.echo(f"Error: {message}", err=True)
    raise click.exceptions.Exit(exit_code)


def no_server(address: str, error: Exception) -> NoReturn:
    """Say that nobody answers there, and how to change that; end the command."""
    fail(f"no server answers at {address}: {error}\nStart one with: lockstep serve", NO_SERVER)

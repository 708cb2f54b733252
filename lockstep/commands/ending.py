"""How commands end where they cannot do their work: the exit codes, and what is said.

Codes below 3 are each command's own: 0 it is done, 1 some of it is not, 2 (click's) wrong usage. Beyond 128 it is a
signal's number: 130 by Ctrl-C, 143 by SIGTERM, 141 where the reader of our output has gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from typing import Final, NoReturn

import click

CALL_FAILED, NO_SERVER = 3, 4
CANNOT_WRITE: Final = 3
SIGNALLED: Final = 128
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CONNECT_S = 3.0
"""How long a server may take to say that it is there."""


def fail(message: str, exit_code: int) -> NoReturn:
    """Say why, and end the command."""
    click.echo(f"Error: {message}", err=True)
    raise click.exceptions.Exit(exit_code)


def no_server(address: str, error: Exception) -> NoReturn:
    """Say that nobody answers there, and how to change that; end the command."""
    fail(f"no server answers at {address}: {error}\nStart one with: lockstep serve", NO_SERVER)


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """End a command, whichever it is, with the exit code of what ended it, where it does not do so itself."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        raise click.exceptions.Exit(SIGNALLED + signal.SIGINT) from None
    except BrokenPipeError:
        _let_go_of_output()
        raise click.exceptions.Exit(SIGNALLED + signal.SIGPIPE) from None
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _let_go_of_output()
        fail(f"cannot write {error.filename or 'the output'}: {error.strerror}", CANNOT_WRITE)


def _let_go_of_output() -> None:
    """Have what Python still holds of our output go nowhere: it would fail once more when the process ends."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())

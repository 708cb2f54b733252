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
_UNWRITABLE: Final = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "it is as large as a file may be",
    errno.EIO: "input/output error",
    errno.EBADF: "it is closed",
}
"""What cannot be written to any more, and why: not a fault of ours."""
_NO_TEMPORARY_FOLDER: Final = "No usable temporary directory"
"""What `tempfile` says, as a FileNotFoundError of no file."""
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
    except OSError as error:
        if (error.strerror or "").startswith(_NO_TEMPORARY_FOLDER):
            fail("there is no temporary folder that can be written: set TMPDIR to one", CANNOT_WRITE)
        if not is_unwritable(error):
            raise
        let_go_of_output()
        unwritable(error)


def is_unwritable(error: OSError) -> bool:
    """Say whether an error is of an output that takes nothing more, through no fault of ours."""
    return isinstance(error, BrokenPipeError) or error.errno in _UNWRITABLE


def unwritable(error: OSError) -> NoReturn:
    """Say why the output could not be written, if its reader has not simply gone; end the command."""
    if isinstance(error, BrokenPipeError):
        raise click.exceptions.Exit(SIGNALLED + signal.SIGPIPE) from None
    fail(f"cannot write {error.filename or 'standard output'}: {_UNWRITABLE[error.errno or 0]}", CANNOT_WRITE)


def let_go_of_output() -> None:
    """Have what Python still holds of our output go nowhere: it would fail once more when the process ends."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())

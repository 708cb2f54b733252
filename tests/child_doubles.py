"""What the children of tests do."""

import signal
import sys


def obedient() -> None:
    """End when standard input does."""
    print("here", flush=True)
    sys.stdin.read()


def deaf() -> None:
    """Never end."""
    print("here", flush=True)
    signal.pause()

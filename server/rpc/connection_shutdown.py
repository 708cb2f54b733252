"""Ends connections so that their clients know what to do.

gRPC's own shutdown cancels the calls that reached it and not yet us, and those that cross its GOAWAY: they end as
CANCELLED, which nobody sends again. A connection that is closed ends them as UNAVAILABLE, which is sent again.
"""

from __future__ import annotations

import contextlib
import os
import socket

import psutil


def shut_down_connections(port: int) -> None:
    """Send no more on this process's connections to a local TCP port, once what was written is sent.

    What the peers still send is read, and goes unanswered.
    """
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fd)) as ours:
                ours.shutdown(socket.SHUT_WR)  # an error: the peer was faster

"""Lockstep: a model serving gateway across frameworks.

`from lockstep import SyncClient` is the client library: it needs grpcio and protobuf alone. Names are imported when
they are first used, so that a worker, which needs none of them, imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as `typing` has it, which is not imported: the current folder may still be on the path
if TYPE_CHECKING:
    from lockstep.clients import Client, SentimentClient, SyncClient, SyncSentimentClient

__all__ = ["Client", "SentimentClient", "SyncClient", "SyncSentimentClient"]


def __getattr__(name: str) -> object:
    """Import a public name from the client library."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("lockstep.clients"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

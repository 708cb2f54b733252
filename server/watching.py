"""Looks at the repository now and then, and loads versions that have appeared. Decides when; loading is the loader's.

A version appears by an atomic rename and never changes, so it is tried once: what was refused is not read again until
there is a higher one, or somebody loads it by call. A model that was unloaded stays so until it has a higher one too.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from server.core.errors import LockstepError
from server.gateway import Gateway
from server.loading import Loader
from server.repository.catalog import highest_versions

_log = logging.getLogger("lockstep.watching")


class Watcher:
    """Watches one repository."""

    def __init__(self, repository: Path, gateway: Gateway, loader: Loader, every_s: float) -> None:
        self._repository = repository
        self._gateway = gateway
        self._loader = loader
        self._every_s = every_s
        self._tried = {name: one.version for name, one in gateway.refused.items() if one.version is not None}

    async def run(self) -> None:
        """Look and load, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.look()

    async def look(self) -> None:
        """Load what is higher than everything of its model that was served or tried."""
        try:
            found = await asyncio.to_thread(highest_versions, self._repository)
        except OSError as error:
            _log.error("%s cannot be looked at: %s", self._repository, error.strerror)
            return
        for name, version in found.items():
            if version > self._known(name):
                self._tried[name] = version
                try:
                    await self._loader.load(name)
                except LockstepError as error:
                    _log.error("%s/%d was not loaded: %s", name, version, error.message)

    def _known(self, name: str) -> int:
        served = self._gateway.models.get(name)
        return max(
            served.manifest.version if served is not None else 0,
            self._gateway.unloaded.get(name, 0),
            self._tried.get(name, 0),
        )

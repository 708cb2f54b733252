"""Looks at the repository now and then, and loads versions that have appeared. Decides when; loading is the loader's.

A version appears by an atomic rename and never changes, so it is tried once: what was refused is not read again until
there is a higher one, or somebody loads it by call. A model that was unloaded stays so until it has a higher one too.

No load holds up the looking. New models are loaded side by side, as each waits for a slot like any other; versions that
replace another come one after the other, as their workers come on top of all others. One that takes longer than
`LOAD_S`, for whatever reason, is given up and tried anew, behind those that wait.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from lockstep.server.core.errors import LockstepError
from lockstep.server.gateway import Gateway
from lockstep.server.loading import Loader
from lockstep.server.repository.catalog import highest_versions

LOAD_S = 600.0
_log = logging.getLogger("lockstep.watching")


class Watcher:
    """Watches one repository."""

    def __init__(
        self, repository: Path, gateway: Gateway, loader: Loader, every_s: float, *, load_s: float = LOAD_S
    ) -> None:
        self._repository = repository
        self._gateway = gateway
        self._loader = loader
        self._every_s = every_s
        self._load_s = load_s
        self._tried = {name: one.version for name, one in gateway.refused.items() if one.version is not None}
        self._loads: dict[str, asyncio.Task[None]] = {}  # by model
        self._replacing = asyncio.Semaphore(1)

    async def run(self) -> None:
        """Look and load, until cancelled; then the loads that are under way are given up."""
        try:
            while True:
                await asyncio.sleep(self._every_s)
                await self.look()
        finally:
            for load in self._loads.values():
                load.cancel()
            await self.settled()

    async def look(self) -> None:
        """Begin to load what is higher than everything of its model that was served or tried."""
        try:
            found = await asyncio.to_thread(highest_versions, self._repository)
        except OSError as error:
            _log.error("%s cannot be looked at: %s", self._repository, error.strerror)
            return
        except Exception:
            _log.exception("%s cannot be looked at", self._repository)
            return
        for name, version in found.items():
            if version > self._known(name) and name not in self._loads:
                self._tried[name] = version
                self._loads[name] = asyncio.create_task(self._load(name, version), name=f"load of {name}/{version}")

    async def settled(self) -> None:
        """Wait until what was begun is loaded, or is not."""
        await asyncio.gather(*self._loads.values(), return_exceptions=True)

    async def _load(self, name: str, version: int) -> None:
        try:
            if name in self._gateway.models:
                async with self._replacing, asyncio.timeout(self._load_s):
                    await self._loader.load(name)
            else:
                async with asyncio.timeout(self._load_s):
                    await self._loader.load(name)
        except LockstepError as error:
            _log.error("%s/%d was not loaded: %s", name, version, error.message)
        except TimeoutError:
            _log.error("%s/%d was not loaded within %g s, and is tried anew", name, version, self._load_s)
            del self._tried[name]
        except Exception:
            _log.exception("%s/%d was not loaded", name, version)
        finally:
            del self._loads[name]

    def _known(self, name: str) -> int:
        served = self._gateway.models.get(name)
        return max(
            served.manifest.version if served is not None else 0,
            self._gateway.unloaded.get(name, 0),
            self._tried.get(name, 0),
        )

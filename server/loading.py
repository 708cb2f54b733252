"""Loads and unloads models while the server serves: read, warm up beside the old version, swap, drain the old one.

Owns the order of these steps and what becomes of a load that fails. The repository is read and a model built in a
thread, so that checksums stall no request; everything else is on the event loop, where the swap is one assignment.

A load either stands or has not happened: whoever goes away before the swap (a deadline, a cancelled call, a server
that stops) takes the new version's workers with him, and the old version goes on as if nothing had been asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from lockstep.server.core.errors import BackendUnavailable, LoadFailed, LockstepError, ModelNotFound, ModelNotReady
from lockstep.server.gateway import Gateway, ServedModel
from lockstep.server.repository.catalog import PublishedModel, Refused, RefusedError, read_latest
from lockstep.server.repository.manifest import Manifest

_log = logging.getLogger("lockstep.loading")


class Loader:
    """Changes which models a gateway serves."""

    def __init__(
        self,
        repository: Path,
        gateway: Gateway,
        build: Callable[[PublishedModel], ServedModel],
        changed: Callable[[], None],
    ) -> None:
        """`build` is called in a thread; `changed` hears of every model that takes calls, or takes none any more."""
        self._repository = repository
        self._gateway = gateway
        self._build = build
        self._changed = changed
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="lockstep-read")
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._loads: set[asyncio.Task[None]] = set()
        self._retiring: dict[str, asyncio.Task[None]] = {}  # by model
        self._closing = False

    async def load(self, name: str) -> None:
        """Serve what is the model's highest version in the repository now, or go on serving it.

        Returns when it takes the calls; the version before it drains meanwhile. Raises `ModelNotFound` where there is
        none, `LoadFailed` where it is not what its manifest says, is configured wrongly or cannot start.
        """
        self._refuse_if_closed()
        await self._unless_closed(self._load(name))

    async def unload(self, name: str) -> None:
        """Let the model take no calls, answer those that it has, stop its workers; returns when that is done.

        It is done too where the caller goes away. Raises `ModelNotFound` where nothing of that name was served.
        """
        async with self._lock(name):
            self._refuse_if_closed()
            served = self._gateway.unload(name)
            if served is not None:
                _log.info("%s: version %d is unloaded", name, served.manifest.version)
                self._changed()
                self._retire(served)
            elif name not in self._gateway.unloaded:
                raise ModelNotFound(f"no model {name!r} is served, so none can be unloaded")
            await self._retired(name)

    async def close(self) -> None:
        """Give up the loads that are under way, and refuse others; versions that drain go on draining."""
        self._closing = True
        self._reading.shutdown(wait=False, cancel_futures=True)
        for load in self._loads:
            load.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)

    async def stop(self) -> None:
        """Stop the workers of versions that still drain at once; rows that they hold fail as `ModelNotReady`."""
        for retirement in self._retiring.values():
            retirement.cancel()
        await asyncio.gather(*self._retiring.values(), return_exceptions=True)
        await asyncio.gather(*(served.batcher.stop() for served in self._gateway.beside))

    async def _load(self, name: str) -> None:
        async with self._lock(name):
            await self._retired(name)  # never more than two versions of a model side by side
            current = self._gateway.models.get(name)
            fresh = await self._read(name, current.manifest if current else None)
            if fresh is None:
                return
            version = fresh.manifest.version
            _log.info("%s: version %d warms up", name, version)
            try:
                await self._warm_up(fresh, current)
            except (BackendUnavailable, ModelNotReady) as error:
                raise self._failed(f"{name}/{version} cannot be served: {error.message}", current) from error
            self._gateway.serve(fresh)
            self._changed()
            _log.info("%s: version %d is served", name, version)
            if current is not None:
                self._retire(current, fresh)

    async def _read(self, name: str, current: Manifest | None) -> ServedModel | None:
        """Read and build the highest version, in the thread; None where it is served already."""

        def read() -> ServedModel | None:
            published = read_latest(self._repository, name)
            if published.manifest == current:
                return None
            try:
                return self._build(published)
            except (LockstepError, ValueError) as error:
                refusal = RefusedError(f"{name}: {error}")
                refusal.version = published.manifest.version
                raise refusal from error

        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading, read)
        except FileNotFoundError as error:
            raise ModelNotFound(str(error)) from error
        except RefusedError as error:
            served = self._gateway.models.get(name)
            if served is None:
                self._gateway.refuse(Refused(name, error.version, str(error)))
            raise self._failed(f"refused: {error}", served) from error
        except OSError as error:
            raise self._failed(f"{name} cannot be read: {error.strerror}", self._gateway.models.get(name)) from error

    async def _warm_up(self, fresh: ServedModel, current: ServedModel | None) -> None:
        """Start the workers that the old version has, and one that takes free rows; stop them all where one cannot."""
        workers = {}
        if current is not None:
            instances = {backend.name: backend.spec.instances for backend in fresh.batcher.backends}
            workers = {
                backend.name: min(len(backend.workers), instances[backend.name])
                for backend in current.batcher.backends
                if backend.workers and backend.name in instances
            }
        self._gateway.stand_beside(fresh)
        try:
            await fresh.batcher.warm_up(workers, replaces=current is not None)
        except BaseException:
            try:
                await fresh.batcher.stop()
            finally:
                self._gateway.leave(fresh)
            raise

    def _retire(self, old: ServedModel, successor: ServedModel | None = None) -> None:
        """Drain a version that takes no calls any more, in the background."""
        self._gateway.stand_beside(old)
        name = old.manifest.name
        before = self._retiring.get(name)

        async def retire() -> None:
            if before is not None:
                await asyncio.wait([before])
            await old.batcher.drain()
            self._gateway.leave(old)
            if successor is not None:
                successor.batcher.count_workers()
            _log.info("%s: version %d has answered its last row and is gone", name, old.manifest.version)

        def ended(task: asyncio.Task[None]) -> None:
            if self._retiring.get(name) is task:
                del self._retiring[name]
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.critical("%s did not drain", name, exc_info=error)

        self._retiring[name] = asyncio.create_task(retire(), name=f"{name}/{old.manifest.version} retires")
        self._retiring[name].add_done_callback(ended)

    async def _retired(self, name: str) -> None:
        """Wait until no version of the model drains."""
        while (retirement := self._retiring.get(name)) is not None:
            await asyncio.wait([retirement])

    def _lock(self, name: str) -> asyncio.Lock:
        """Return the lock under which the model changes; it lives for as long as somebody has it."""
        return self._locks.setdefault(name, asyncio.Lock())

    def _refuse_if_closed(self) -> None:
        if self._closing:
            raise ModelNotReady("the server is stopping: connect again")

    async def _unless_closed(self, load: Coroutine[Any, Any, None]) -> None:
        """Run a load as a task that `close` can give up; cancelling the caller cancels it, and waits for its end."""
        task = asyncio.create_task(load)
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)
        try:
            await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and not caller.cancelling():
                self._refuse_if_closed()
            raise

    def _failed(self, what: str, current: ServedModel | None) -> LoadFailed:
        goes_on = f"; version {current.manifest.version} goes on" if current is not None else ""
        _log.error("load failed: %s%s", what, goes_on)
        return LoadFailed(what + goes_on)

"""The composition root: builds a server of its parts, starts it, drains it. Nothing here decides anything."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection, reflection_pb2

from lockstep.server.access_log import AccessLog
from lockstep.server.builder import ModelBuilder
from lockstep.server.config import ConfigurationError, ServerConfig
from lockstep.server.core.errors import LockstepError
from lockstep.server.core.observer import Observers
from lockstep.server.exclusive import cannot_listen, check_port, take_socket, take_state
from lockstep.server.gateway import Gateway, RequestLimits
from lockstep.server.inference_statistics import Statistics
from lockstep.server.latency_window import Recent
from lockstep.server.loading import Loader
from lockstep.server.metrics import Metrics
from lockstep.server.repository.catalog import Refused, scan
from lockstep.server.rpc import inference, sentiment
from lockstep.server.rpc.connection_shutdown import shut_down_connections
from lockstep.server.rpc.guard import CallLimits, Guard
from lockstep.server.rpc.stream import StreamLimits
from lockstep.server.runtimes.registry import ADAPTERS
from lockstep.server.scheduling.wakeup import Wakeup
from lockstep.server.security import InsecureConfiguration, Security
from lockstep.server.tls import TlsFiles
from lockstep.server.watching import Watcher
from lockstep.server.web import Calls, application
from lockstep.server.web.access_log import following
from lockstep.server.web.concurrency_limit import bounded
from lockstep.server.web.guard import guard
from lockstep.server.web.hosts import known_hosts
from lockstep.server.web.listener import ListenerPolicy, listen

_log = logging.getLogger("lockstep.app")
_UNBOUNDED = 2**31 - 1
_HEALTH_RETRY_S = 0.5
_SERVICES = (inference.SERVICE, sentiment.SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)


class App:
    """A server, from its configuration. `start`, then `stop`; `grpc_port` and `http_port` are the bound ports."""

    def __init__(self, config: ServerConfig, *, adapters: Mapping[str, str] = ADAPTERS) -> None:
        """Read the repository. Raises `ConfigurationError` where the server could not serve."""
        self.config = config
        self.grpc_port = 0
        self.http_port = 0
        try:
            self.security = Security(config)
        except InsecureConfiguration as error:
            raise ConfigurationError(error.message) from error
        try:
            catalog = scan(config.repository)
        except OSError as error:
            told = f"{error.filename} cannot be read: {error.strerror}" if error.strerror else str(error)
            raise ConfigurationError(told) from error
        self.statistics = Statistics()
        self.metrics = Metrics()
        self.recent = Recent()
        heard_by = [AccessLog()] if config.access_log else []
        self._observer = Observers(self.statistics, self.metrics, self.recent, *heard_by)
        builder = ModelBuilder(config, adapters, self._observer, self._readiness_may_have_changed)
        self._health = health.HealthServicer()
        self._background: list[asyncio.Task[None]] = []
        self._readiness_changed = Wakeup()
        self._health_is_old = asyncio.Event()
        if unknown := sorted(set(config.models) - set(catalog.models) - set(catalog.refused)):
            raise ConfigurationError(f"the configuration names models that are not there: {', '.join(unknown)}")
        models, refused = {}, dict(catalog.refused)
        for name, published in catalog.models.items():
            try:
                models[name] = builder.build(published)
            except (LockstepError, ValueError) as error:
                refused[name] = Refused(name, published.manifest.version, f"{name}: {error}")
        self._refused = refused
        if not models:
            reason = "; ".join(_by_reason(refused.values())) or "it is empty"
            raise ConfigurationError(f"nothing to serve in {config.repository}: {reason}")
        limits = RequestLimits(config.max_call_rows, config.max_text_bytes, config.max_tokenize_characters)
        self.gateway = Gateway(models, refused, limits, self._observer)
        self.metrics.expose(self.gateway)
        self.loader = Loader(config.repository, self.gateway, builder.build, self._readiness_may_have_changed)

    @property
    def missing(self) -> dict[str, list[str]]:
        """Why backends cannot start on this machine -> which, as `model@backend`."""
        found: dict[str, list[str]] = {}
        for name, served in sorted(self.gateway.models.items()):
            for backend in served.batcher.backends:
                if backend.spec.missing:
                    found.setdefault(backend.spec.missing, []).append(f"{name}@{backend.name}")
        return found

    async def start(self) -> None:
        """Bind both ports and start the preferred workers.

        Raises `ConfigurationError` where a port cannot be bound or another server uses what is ours to have; then
        nothing of it was changed, and nothing is left behind.
        """
        asyncio.get_running_loop().set_exception_handler(self._on_loop_exception)
        with contextlib.ExitStack() as taken:
            if (state := take_state(self.config.state)) is not None:
                taken.callback(state.release)
            if self.config.grpc.path is not None:
                taken.callback(take_socket(Path(self.config.grpc.path)).release)
            elif self.config.grpc.port:
                check_port(self.config.grpc)
            await self._listen()
            self._taken = taken.pop_all()
        for refusal in self._refused.values():
            _log.error("refused: %s", refusal.reason)
        for reason, backends in self.missing.items():
            _log.warning("%s cannot start: %s", ", ".join(backends), reason)
        for served in self.gateway.models.values():
            served.batcher.start()
        self._in_background(self._publish_health(), "publishing of health")
        if self.config.watch_repository is not None:
            watcher = Watcher(self.config.repository, self.gateway, self.loader, self.config.watch_repository)
            self._in_background(watcher.run(), "watching of the repository")
        await self._grpc.start()
        addresses = self.config.grpc.at(self.grpc_port), self.config.http.at(self.http_port)
        _log.info("gRPC listens on %s, HTTP on %s", *addresses)

    async def _listen(self) -> None:
        """Bind both ports. Raises `ConfigurationError`; then neither is bound."""
        self._grpc = grpc.aio.server(options=grpc_options(self.config))
        most_bytes = self.config.max_message_bytes
        of_streams = StreamLimits(self.config.max_stream_messages, most_bytes, self._observer.limit_reached)
        services = (
            inference.InferenceService(
                self.gateway, self.statistics, of_streams, self.loader if self.config.allow_load else None
            ),
            sentiment.SentimentService(self.gateway, self.recent, of_streams),
        )
        self._streams = [service.streams for service in services]
        handlers = [service.handler() for service in services] + [_health_handler(self._health)]
        if self.config.reflection:
            handlers.append(_reflection_handler())
        limits = CallLimits(self.config.max_calls, self.config.max_streams, most_bytes)
        tokens, tls = self.security.tokens, self.security.tls
        self._guard = Guard(
            handlers, limits, self._observer.limit_reached, tokens=tokens, access_log=self.config.access_log
        )
        self._grpc.add_generic_rpc_handlers((self._guard,))
        await self._open_http()  # first: of a port of gRPC's that was bound and never started, the socket would stay
        try:
            if tls is None:
                self.grpc_port = self._grpc.add_insecure_port(str(self.config.grpc))
            else:
                self.grpc_port = self._grpc.add_secure_port(str(self.config.grpc), _credentials(tls))
        except RuntimeError as error:
            self._door.close()
            await self._web.cleanup()
            raise ConfigurationError(
                f"cannot listen on {self.config.grpc} (gRPC): the port is in use, or you may not bind it"
            ) from error

    async def _open_http(self) -> None:
        config, address, reached = self.config, self.config.http, self._observer.limit_reached
        tokens, tls = self.security.tokens, self.security.tls
        before = [
            following if config.access_log else None,
            known_hosts([address.host, *config.http_names]) if address.is_loopback else None,
            guard(tokens) if tokens is not None else None,
            bounded(config.max_http_calls, reached),
        ]
        calls = Calls(self.gateway, self.statistics, self.recent, config.max_text_bytes, reached)
        pages = application(calls, self.metrics.registry, [one for one in before if one is not None])
        self._web = web.AppRunner(pages, handler_cancellation=True)
        await self._web.setup()
        policy = ListenerPolicy(config.max_connections, config.keepalive_s, config.access_log, reached)
        try:
            context = tls.context if tls is not None else None
            self._door = await listen(self._web.server, address, policy, context)
        except OSError as error:
            await self._web.cleanup()
            raise cannot_listen(address, "HTTP", error) from error
        self.http_port = self._door.sockets[0].getsockname()[1]

    async def ready(self) -> None:
        """Wait until every model has a ready backend."""
        while not self.gateway.ready:
            await self._readiness_changed.wait()

    async def stop(self) -> None:
        """Drain: say that we are not ready, answer what was accepted, stop the workers. Bounded by `drain_s`."""
        self.gateway.drain()
        await self._health.enter_graceful_shutdown()
        self._guard.drain()
        for streams in self._streams:
            streams.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.drain_s):
                await self.loader.close()
                await self._guard.idle()
        shut_down_connections(self.grpc_port)
        await self._grpc.stop(None)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.loader.stop()
        await asyncio.gather(*(served.batcher.stop() for served in self.gateway.models.values()))
        self.gateway.close()
        self._door.close()
        await self._web.cleanup()
        self._taken.close()

    def _on_loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Count the answers whose client had gone, which gRPC leaves to the loop as errors; log anything else."""
        if isinstance(context.get("exception"), grpc.aio.InternalError):
            self.metrics.answer_undelivered()
        else:
            loop.default_exception_handler(context)

    def _readiness_may_have_changed(self) -> None:
        self._readiness_changed.notify()
        self._health_is_old.set()

    def _in_background(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Do something for as long as the server runs; where it ends before that, say so loudly."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                _log.critical("the %s has ended: restart the server", what, exc_info=task.exception())

        task = asyncio.create_task(work, name=what)
        task.add_done_callback(ended)
        self._background.append(task)

    async def _publish_health(self) -> None:
        """Keep grpc.health.v1 true: the server, its services, each model."""
        while True:
            self._health_is_old.clear()
            try:
                await self._tell_health()
            except Exception:
                _log.exception("health was not published, and will be once more")
                await asyncio.sleep(_HEALTH_RETRY_S)
            else:
                await self._health_is_old.wait()

    async def _tell_health(self) -> None:
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self.gateway.unloaded:
            await self._health.set(name, not_serving)
        for name, served in self.gateway.models.items():
            await self._health.set(name, serving if served.batcher.ready else not_serving)
        for service in ("", inference.SERVICE, sentiment.SERVICE):
            await self._health.set(service, serving if self.gateway.ready else not_serving)


def _by_reason(refused: Iterable[Refused]) -> list[str]:
    """Return each reason once, after the models that it is of."""
    names: dict[str, list[str]] = {}
    for one in refused:
        names.setdefault(one.reason.removeprefix(f"{one.name}: "), []).append(one.name)
    return [f"{', '.join(of)}: {reason}" for reason, of in names.items()]


def grpc_options(config: ServerConfig) -> list[tuple[str, int]]:
    """Return gRPC's own limits: what a connection may do, and when it is closed."""
    return [
        # We refuse messages over the limit by name; what is far over it, gRPC refuses before it is in memory.
        ("grpc.max_receive_message_length", min(_UNBOUNDED, 2 * config.max_message_bytes)),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        # gRPC would drop calls that it has not handed to us, as CANCELLED and without pushback:
        # every call must reach admission, whose refusals say what to do.
        ("grpc.server.max_pending_requests", _UNBOUNDED),
        ("grpc.server.max_pending_requests_hard_limit", _UNBOUNDED),
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        ("grpc.max_concurrent_streams", config.max_connection_calls),
        ("grpc.server_handshake_timeout_ms", 20_000),  # who connects and says nothing is closed
        # A peer that is gone without a word is found out; one that pings without end is shown the door.
        ("grpc.keepalive_time_ms", config.keepalive_s * 1000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),  # else gRPC waits a minute all the same
        ("grpc.http2.min_ping_interval_without_data_ms", config.min_ping_s * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 2),
    ]


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that follow the files as they are read again: gRPC asks at every handshake."""

    def current() -> grpc.ServerCertificateConfiguration:
        pem = tls.pem
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificates)], pem.client_ca)

    return grpc.dynamic_ssl_server_credentials(
        current(), current, require_client_authentication=tls.client_ca is not None
    )


def _health_handler(servicer: health.HealthServicer) -> grpc.GenericRpcHandler:
    request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    return grpc.method_handlers_generic_handler(
        HEALTH_SERVICE,
        {
            "Check": grpc.unary_unary_rpc_method_handler(
                servicer.Check, request.FromString, response.SerializeToString
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                servicer.Watch, request.FromString, response.SerializeToString
            ),
        },
    )


def _reflection_handler() -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        reflection.SERVICE_NAME,
        {
            "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                reflection.aio.ReflectionServicer(_SERVICES).ServerReflectionInfo,
                reflection_pb2.ServerReflectionRequest.FromString,
                reflection_pb2.ServerReflectionResponse.SerializeToString,
            )
        },
    )

"""The composition root: builds a server of its parts, starts it, drains it. Nothing here decides anything."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection, reflection_pb2

from server.config import BackendConfig, ModelConfig, ServerConfig
from server.core.artifact import Budget
from server.core.errors import LockstepError
from server.core.observer import Observers
from server.counts import Statistics
from server.gateway import Gateway, RequestLimits, ServedModel, probabilities
from server.metrics import Metrics
from server.recent import Recent
from server.repository.catalog import PublishedModel, Refused, scan
from server.repository.manifest import Artifact, backend_name
from server.rpc import inference, sentiment
from server.rpc.access_log import AccessLog
from server.rpc.guard import CallLimits, Guard
from server.rpc.hang_up import hang_up
from server.rpc.stream import StreamLimits
from server.runtimes.registry import ADAPTERS
from server.runtimes.worker_process import Launch
from server.scheduling.backend import BackendSpec
from server.scheduling.batcher import Batcher, BatcherSpec
from server.scheduling.cost_store import CostStore, hardware
from server.scheduling.policies import POLICIES
from server.scheduling.policy import Limits
from server.scheduling.slots import WorkerSlots
from server.security import InsecureConfiguration, Security
from server.text.encoder import TextEncoder
from server.tls import TlsFiles
from server.web import Calls, application
from server.web.guard import guard

_log = logging.getLogger("lockstep.app")
_UNBOUNDED = 2**31 - 1
_SERVICES = (inference.SERVICE, sentiment.SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)


class ConfigurationError(LockstepError):
    """The server cannot start as it is configured; the message says what to change."""


class App:
    """A server, from its configuration. `start`, then `stop`; `grpc_port` and `http_port` are the bound ports."""

    def __init__(self, config: ServerConfig, *, adapters: Mapping[str, str] = ADAPTERS) -> None:
        """Read the repository. Raises `ConfigurationError` where the server could not serve."""
        self.config = config
        self.grpc_port = 0
        self.http_port = 0
        self.device = resolve_device(config.device)
        try:
            self.security = Security(config)
        except InsecureConfiguration as error:
            raise ConfigurationError(error.message) from error
        try:
            catalog = scan(config.repository)
        except OSError as error:
            raise ConfigurationError(str(error)) from error
        self.statistics = Statistics()
        self.metrics = Metrics()
        self._access_log = AccessLog() if config.access_log else None
        self.recent = Recent()
        self._observer = Observers(self.statistics, self.metrics, self.recent, *filter(None, [self._access_log]))
        self._adapters = adapters
        self._costs = CostStore(config.state)
        self._hardware = hardware()
        self._slots = WorkerSlots(config.max_workers)
        self._health = health.HealthServicer()
        self._health_updates: asyncio.Task[None] | None = None
        self._readiness_changed = asyncio.Event()
        if unknown := sorted(set(config.models) - set(catalog.models) - set(catalog.refused)):
            raise ConfigurationError(f"the configuration names models that are not there: {', '.join(unknown)}")
        models, refused = {}, dict(catalog.refused)
        for name, published in catalog.models.items():
            try:
                models[name] = self._serve(published)
            except (LockstepError, ValueError) as error:
                refused[name] = Refused(name, published.manifest.version, f"{name}: {error}")
        for refusal in refused.values():
            _log.error("refused: %s", refusal.reason)
        if not models:
            reason = "; ".join(refusal.reason for refusal in refused.values()) or "it is empty"
            raise ConfigurationError(f"nothing to serve in {config.repository}: {reason}")
        limits = RequestLimits(config.max_call_rows, config.max_text_bytes)
        self.gateway = Gateway(models, refused, limits, self._observer)
        self.metrics.expose(self.gateway)

    async def start(self) -> None:
        """Bind both ports and start the preferred workers. Raises `ConfigurationError` where a port cannot be bound."""
        asyncio.get_running_loop().set_exception_handler(self._on_loop_exception)
        self._grpc = grpc.aio.server(options=grpc_options(self.config))
        most_bytes = self.config.max_message_bytes
        of_streams = StreamLimits(self.config.max_stream_messages, most_bytes, self._observer.limit_reached)
        services = (
            inference.InferenceService(self.gateway, self.statistics, of_streams),
            sentiment.SentimentService(self.gateway, self.recent, of_streams),
        )
        self._streams = [service.streams for service in services]
        handlers = [service.handler() for service in services] + [_health_handler(self._health)]
        if self.config.reflection:
            handlers.append(_reflection_handler())
        limits = CallLimits(self.config.max_calls, self.config.max_streams, most_bytes)
        tokens, tls = self.security.tokens, self.security.tls
        self._guard = Guard(handlers, limits, self._observer.limit_reached, tokens=tokens, access_log=self._access_log)
        self._grpc.add_generic_rpc_handlers((self._guard,))
        try:
            if tls is None:
                self.grpc_port = self._grpc.add_insecure_port(self.config.grpc)
            else:
                self.grpc_port = self._grpc.add_secure_port(self.config.grpc, _credentials(tls))
        except RuntimeError as error:
            raise ConfigurationError(f"cannot listen on {self.config.grpc} (gRPC): is it in use?") from error
        host, _, port = self.config.http.rpartition(":")
        calls = Calls(self.gateway, self.statistics, self.recent, self.config.max_text_bytes)
        pages = application(calls, self.metrics.registry)
        if tokens is not None:
            pages.middlewares.append(guard(tokens))
        self._web = web.AppRunner(pages, access_log=None, handler_cancellation=True)
        await self._web.setup()
        try:
            context = tls.context if tls is not None else None
            site = web.TCPSite(self._web, host.strip("[]"), int(port), ssl_context=context)
            await site.start()
        except OSError as error:
            await self._web.cleanup()
            raise ConfigurationError(f"cannot listen on {self.config.http} (HTTP): {error.strerror}") from error
        self.http_port = self._web.addresses[0][1]
        for served in self.gateway.models.values():
            served.batcher.start()
        self._health_updates = asyncio.create_task(self._publish_health())
        await self._grpc.start()
        _log.info("serving gRPC on port %d, HTTP on port %d", self.grpc_port, self.http_port)

    async def ready(self) -> None:
        """Wait until every model has a ready backend."""
        while not self.gateway.ready:
            self._readiness_changed.clear()
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
                await self._guard.idle()
        hang_up(self.grpc_port)
        await self._grpc.stop(None)
        if self._health_updates is not None:
            self._health_updates.cancel()
        await asyncio.gather(*(served.batcher.stop() for served in self.gateway.models.values()))
        await self._web.cleanup()

    def _serve(self, published: PublishedModel) -> ServedModel:
        """Build a model's queue and backends; raises `ConfigurationError`, `ValueError` where it cannot be served."""
        manifest = published.manifest
        model = self.config.models.get(manifest.name, ModelConfig())
        limits = Limits(
            max_rows=model.max_batch_rows or self.config.max_batch_rows,
            max_padded_tokens=model.max_padded_tokens or self.config.max_padded_tokens,
            budget_tokens=model.budget_tokens or self.config.budget_tokens,
            max_wait_ns=(model.max_wait_ms or self.config.max_wait_ms) * 1_000_000,
            order=model.order or self.config.order,
        )
        known = {backend_name(artifact): artifact for artifact in manifest.artifacts}
        for name in model.backends:
            if name not in known:
                raise ConfigurationError(f"the configuration names backend {name}, there are {', '.join(known)}")
        backends = [
            self._backend(published, artifact, limits, section)
            for name, artifact in known.items()
            if (section := model.backends.get(name, BackendConfig())).enabled
        ]
        if model.preferred is not None and model.preferred not in [one.name for one in backends if one.takes_free_rows]:
            raise ConfigurationError(f"the configuration prefers {model.preferred}, which does not take free rows here")
        spec = BatcherSpec(
            model=manifest.name,
            version=manifest.version,
            backends=backends,
            policy=POLICIES[model.policy or self.config.policy],
            pad_id=manifest.pad_id,
            max_queue_s=model.max_queue_s or self.config.max_queue_s,
            max_queue_rows=model.max_queue_rows or self.config.max_queue_rows,
            start_all=(model.start or self.config.start) == "all",
            spread=model.spread,
            preferred=model.preferred,
            idle_stop_s=self.config.idle_stop_s,
        )
        return ServedModel(
            published,
            TextEncoder.from_file(published.tokenizer, manifest.max_tokens),
            Batcher(
                spec,
                self._costs,
                self._slots,
                self._observer,
                readiness_changed=self._readiness_may_have_changed,
            ),
            tuple(manifest.labels),
        )

    def _backend(
        self, published: PublishedModel, artifact: Artifact, limits: Limits, section: BackendConfig
    ) -> BackendSpec:
        if artifact.runtime not in self._adapters:
            raise ConfigurationError(f"this server has no runtime {artifact.runtime}")
        device = resolve_device(section.device) if section.device else self.device
        threads = section.threads or self.config.threads
        ahead = self.config.prepare_ahead if section.prepare_ahead is None else section.prepare_ahead
        launch = Launch(
            adapter=self._adapters[artifact.runtime],
            artifact=published.spec(artifact),
            budget=Budget(threads, device),
            python=section.python or sys.executable,
        )
        return BackendSpec(
            name=backend_name(artifact) + ("" if device == "cpu" else "-" + device.partition(":")[0]),
            launch=launch,
            takes_free_rows="-" not in artifact.kind,
            cpu_ms=artifact.parity.cpu_ms_b32_t64 or float("inf"),
            circumstances={
                "artifact": " ".join(sorted(artifact.files.values())),
                "adapter": launch.adapter,
                "hardware": self._hardware,
                "threads": str(threads),
                "device": device,
                "limits": f"{limits.max_rows} {limits.max_padded_tokens}",
            },
            vocabulary=published.manifest.vocabulary,
            max_tokens=published.manifest.max_tokens,
            measure_s=self.config.measure_s,
            probabilities=probabilities(artifact.output, artifact.activation),
            limits=limits,
            instances=section.instances or self.config.instances,
            # a GPU would idle while the next batch is planned; on a CPU that plan takes cycles from the batch before
            prepare_ahead=int(device != "cpu") if ahead is None else ahead,
        )

    def _on_loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Count the answers whose client had gone, which gRPC leaves to the loop as errors; log anything else."""
        if isinstance(context.get("exception"), grpc.aio.InternalError):
            self.metrics.answer_undelivered()
        else:
            loop.default_exception_handler(context)

    def _readiness_may_have_changed(self) -> None:
        self._readiness_changed.set()

    async def _publish_health(self) -> None:
        """Keep grpc.health.v1 true: the server, its services, each model."""
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        while True:
            self._readiness_changed.clear()
            for name, served in self.gateway.models.items():
                await self._health.set(name, serving if served.batcher.ready else not_serving)
            for service in ("", inference.SERVICE, sentiment.SERVICE):
                await self._health.set(service, serving if self.gateway.ready else not_serving)
            await self._readiness_changed.wait()


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
        # A peer that is gone without a word is found out; one that pings without end is shown the door.
        ("grpc.keepalive_time_ms", config.keepalive_s * 1000),
        ("grpc.keepalive_timeout_ms", 20_000),
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


def resolve_device(wanted: str) -> str:
    """Return `cpu` or `cuda:N`. Raises `ConfigurationError` where the GPU that is asked for is not there."""
    present = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if wanted == "auto":
        return "cuda:0" if present else "cpu"
    if wanted != "cpu" and f"nvidia{wanted.partition(':')[2]}" not in {path.name for path in present}:
        found = f"{len(present)} GPUs" if present else "no GPU"
        raise ConfigurationError(f"--device {wanted}: this machine has {found}; use --device cpu or auto")
    return wanted

"""What machines ask the HTTP port: metrics, liveness, readiness."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from lockstep.server.core.errors import InvalidInput
from lockstep.server.gateway import Gateway
from lockstep.server.web.failures import answering_errors


def routes(gateway: Gateway, registry: CollectorRegistry) -> Sequence[web.RouteDef]:
    """Return the routes; `/readyz` answers 200 when models are served and each has a ready backend."""

    async def metrics(request: web.Request) -> web.Response:
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # a version that is no number
            raise InvalidInput("the Accept header cannot be read: leave it out, or ask for text/plain") from None
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        lines = []
        for name, served in sorted(gateway.models.items()):
            for backend in served.batcher.backends:
                lines.append(f"{name}@{backend.name}: {': '.join(filter(None, [backend.state, backend.reason]))}")
        lines += [f"{name}: unloaded" for name in sorted(gateway.unloaded)]
        for refused in gateway.refused.values():
            lines.append(f"{refused.name}: refused: {refused.reason}")
        ready = gateway.ready
        text = "\n".join(["ready" if ready else "not ready", *lines]) + "\n"
        return web.Response(text=text, status=200 if ready else 503)

    return [web.get("/metrics", answering_errors(metrics)), web.get("/healthz", healthz), web.get("/readyz", readyz)]

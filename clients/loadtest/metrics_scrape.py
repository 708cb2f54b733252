"""Reads what the server's `/metrics` say of its backends: thread budgets, CPU time, memory. Knows a few names."""

from __future__ import annotations

import http.client as http_client
import re
import ssl
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.clients.address import is_loopback
from lockstep.clients.credentials import Credentials

DEFAULT_HTTP: Final = "127.0.0.1:8002"
"""Where the metrics are of a server on this machine, unless something else is named."""
THREADS: Final = "lockstep_backend_threads"
WORKER_CPU_S: Final = "lockstep_worker_cpu_seconds"
EXECUTE_CPU_S: Final = "lockstep_execute_cpu_seconds_total"
GATEWAY_CPU_S: Final = "lockstep_gateway_cpu_seconds_total"
RESIDENT_BYTES: Final = "lockstep_worker_resident_bytes"
ROWS: Final = "lockstep_rows_total"
_TIMEOUT_S: Final = 2.0
_SAMPLE: Final = re.compile(r"^(?P<name>lockstep_\w+)(?:\{(?P<labels>[^}]*)\})?\s+(?P<value>\S+)", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class MetricsUnreachable(Exception):
    """No metrics at the address; says why."""


@dataclass(frozen=True, slots=True)
class ScrapedMetrics:
    """Samples by name, and by (model, backend) within; a backend that the server has not started is not there."""

    samples: Mapping[str, Mapping[tuple[str, str], float]]

    def threads(self, model: str, backend: str) -> int | None:
        """Return the threads of a backend; `None` where they are not known."""
        found = self.samples.get(THREADS, {}).get((model, backend))
        return None if found is None else int(found)

    def of(self, name: str, model: str, backend: str | None) -> float | None:
        """Return a backend's sample, or the sum of the model's where none is named; `None` where there is none."""
        found = self.samples.get(name, {})
        if backend is not None:
            return found.get((model, backend))
        ours = [value for (owner, _), value in found.items() if owner == model]
        return sum(ours) if ours else None

    def total(self, name: str) -> float | None:
        """Return the sum over all backends of all models; `None` where there is none."""
        found = self.samples.get(name)
        return sum(found.values()) if found else None


NOTHING: Final = ScrapedMetrics({})


@dataclass(frozen=True, slots=True)
class Spent:
    """What a backend spent between two readings, and the rows it executed meanwhile: warm-up and other callers too."""

    rows: int
    worker_cpu_s: float
    execute_cpu_s: float
    gateway_cpu_s: float  # the gateway's, for its rows' part of all rows that the server executed
    resident_bytes: int  # at the second reading

    @classmethod
    def between(cls, before: ScrapedMetrics, after: ScrapedMetrics, model: str, backend: str | None) -> Spent | None:
        """Return the difference; `None` where the server told too little, or a worker was started in between."""

        def grown(name: str) -> float | None:
            late, early = after.of(name, model, backend), before.of(name, model, backend)
            return None if late is None else late - (early or 0.0)

        def all_grown(name: str) -> float | None:
            late, early = after.total(name), before.total(name)
            return None if late is None else late - (early or 0.0)

        rows, worker_s, execute_s = grown(ROWS), grown(WORKER_CPU_S), grown(EXECUTE_CPU_S)
        all_rows, gateway_s = all_grown(ROWS), all_grown(GATEWAY_CPU_S)
        resident = after.of(RESIDENT_BYTES, model, backend)
        if rows is None or worker_s is None or execute_s is None or all_rows is None or gateway_s is None:
            return None
        # A worker that lives no more took its CPU time with it, and the gauge fell.
        if resident is None or rows <= 0 or worker_s < 0:
            return None
        return cls(int(rows), worker_s, execute_s, gateway_s * rows / all_rows, int(resident))


@dataclass(frozen=True, slots=True)
class CostReport:
    """CPU milliseconds of the server's for each text, and memory."""

    execute_cpu_ms: float  # of the worker, while it executed
    worker_cpu_ms: float  # of the worker in all
    gateway_cpu_ms: float
    resident_bytes: int  # of the backend's workers, the most that was read

    @property
    def cpu_ms(self) -> float:
        """All of the server's processes."""
        return self.worker_cpu_ms + self.gateway_cpu_ms

    @classmethod
    def of(cls, spent: Sequence[Spent]) -> CostReport | None:
        """Add up; `None` where nothing was told."""
        rows = sum(one.rows for one in spent)
        if not rows:
            return None
        return cls(
            execute_cpu_ms=sum(one.execute_cpu_s for one in spent) / rows * 1e3,
            worker_cpu_ms=sum(one.worker_cpu_s for one in spent) / rows * 1e3,
            gateway_cpu_ms=sum(one.gateway_cpu_s for one in spent) / rows * 1e3,
            resident_bytes=max(one.resident_bytes for one in spent),
        )


def parse_metrics(exposition: str) -> ScrapedMetrics:
    """Read a Prometheus text exposition; samples that differ in other labels only are added up."""
    found: dict[str, dict[tuple[str, str], float]] = defaultdict(lambda: defaultdict(float))
    for sample in _SAMPLE.finditer(exposition):
        labels = dict(_LABEL.findall(sample["labels"] or ""))
        found[sample["name"]][labels.get("model", ""), labels.get("backend", "")] += float(sample["value"])
    return ScrapedMetrics({name: dict(samples) for name, samples in found.items()})


def scrape_metrics(http: str, credentials: Credentials) -> ScrapedMetrics:
    """Fetch and parse `/metrics` of `host:port`, over TLS where the server speaks it; raises `MetricsUnreachable`.

    Blocks for 2 s at most. A token is sent to this machine or over TLS only.
    """
    scheme = "https" if credentials.encrypted else "http"
    url = f"{scheme}://{http}/metrics"
    try:
        request = urllib.request.Request(url)
        if credentials.token is not None and (credentials.encrypted or is_loopback(http)):
            request.add_header("Authorization", f"Bearer {credentials.token}")
        # A proxy of the environment has no business between a load test and its server.
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if credentials.encrypted:
            handlers.append(urllib.request.HTTPSHandler(context=_tls(credentials)))
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as answer:
            return parse_metrics(answer.read().decode())
    except (OSError, ValueError, http_client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise MetricsUnreachable(f"{url}: {reason}") from error


def _tls(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=credentials.root_certificates)
    if credentials.certificate is not None:
        context.load_cert_chain(credentials.certificate, credentials.key)
    return context

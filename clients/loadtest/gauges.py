"""Reads the thread budget of each backend from the server's `/metrics`. Knows one gauge."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DEFAULT_HTTP: Final = "127.0.0.1:8002"
THREADS_GAUGE: Final = "lockstep_backend_threads"
_TIMEOUT_S: Final = 2.0
_SAMPLE: Final = re.compile(rf"^{THREADS_GAUGE}\{{(?P<labels>[^}}]*)\}}\s+(?P<value>\S+)", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class MetricsUnreachable(Exception):
    """No metrics at the address; says why."""


@dataclass(frozen=True, slots=True)
class ThreadBudgets:
    """Threads by (model, backend); empty where the server did not tell."""

    by_backend: Mapping[tuple[str, str], int]

    def of(self, model: str, backend: str) -> int | None:
        """Return the threads of a backend; `None` where they are not known."""
        return self.by_backend.get((model, backend))


def parse_thread_budgets(exposition: str) -> ThreadBudgets:
    """Read the gauge out of a Prometheus text exposition."""
    found: dict[tuple[str, str], int] = {}
    for sample in _SAMPLE.finditer(exposition):
        labels = dict(_LABEL.findall(sample["labels"]))
        found[labels.get("model", ""), labels.get("backend", "")] = int(float(sample["value"]))
    return ThreadBudgets(found)


def read_thread_budgets(http: str) -> ThreadBudgets:
    """Fetch and parse `http://<host:port>/metrics`; blocks for 2 s at most; raises `MetricsUnreachable`."""
    # A proxy of the environment has no business between a load test and its server.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://{http}/metrics"
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            return parse_thread_budgets(answer.read().decode())
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise MetricsUnreachable(f"{url}: {reason}") from error

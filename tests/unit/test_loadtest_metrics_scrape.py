"""What a backend spends, from two readings of the server's metrics."""

from pathlib import Path

import pytest

from lockstep.clients.credentials import Credentials
from lockstep.clients.loadtest.metrics_scrape import (
    NOTHING,
    CostReport,
    MetricsUnreachable,
    Spent,
    parse_metrics,
    scrape_metrics,
)

BEFORE = """# HELP lockstep_rows_total Rows executed
lockstep_rows_total{model="m",backend="a"} 100
lockstep_rows_total{model="m",backend="b"} 50
lockstep_worker_cpu_seconds{model="m",backend="a"} 10.0
lockstep_execute_cpu_seconds_total{model="m",backend="a"} 8.0
lockstep_worker_resident_bytes{model="m",backend="a"} 1e8
lockstep_gateway_cpu_seconds_total 3.0
lockstep_backend_threads{backend="a",model="m"} 2.0
lockstep_backend_threads{model="m",backend="b"} 1
lockstep_backend_threads_created{model="m",backend="c"} 1.7e9
"""
AFTER = """lockstep_rows_total{model="m",backend="a"} 400
lockstep_rows_total{model="m",backend="b"} 150
lockstep_worker_cpu_seconds{model="m",backend="a"} 11.5
lockstep_execute_cpu_seconds_total{model="m",backend="a"} 8.9
lockstep_worker_resident_bytes{model="m",backend="a"} 2e8
lockstep_gateway_cpu_seconds_total 3.4
"""


def test_thread_budgets_are_read_by_model_and_backend() -> None:
    scraped = parse_metrics(BEFORE)
    assert [scraped.threads("m", backend) for backend in ("a", "b", "c")] == [2, 1, None]


def test_a_backend_pays_for_what_it_executed_and_for_its_part_of_the_gateway() -> None:
    spent = Spent.between(parse_metrics(BEFORE), parse_metrics(AFTER), "m", "a")
    assert spent is not None
    assert spent.rows == 300
    assert spent.worker_cpu_s == pytest.approx(1.5)
    assert spent.gateway_cpu_s == pytest.approx(0.4 * 300 / 400)
    cost = CostReport.of([spent])
    assert cost is not None
    assert (cost.worker_cpu_ms, cost.execute_cpu_ms, cost.cpu_ms) == pytest.approx((5.0, 3.0, 6.0))
    assert cost.resident_bytes == 200_000_000


def test_a_worker_that_was_started_in_between_has_no_cost() -> None:
    restarted = AFTER.replace("} 11.5", "} 0.7")
    assert Spent.between(parse_metrics(BEFORE), parse_metrics(restarted), "m", "a") is None


def test_what_the_server_does_not_tell_has_no_cost() -> None:
    assert Spent.between(NOTHING, NOTHING, "m", "a") is None
    assert Spent.between(parse_metrics(BEFORE), parse_metrics(BEFORE), "m", "a") is None
    assert CostReport.of([]) is None


def test_free_rows_cost_what_all_backends_of_the_model_spent() -> None:
    scraped = parse_metrics(AFTER)
    assert scraped.of("lockstep_rows_total", "m", None) == 550
    assert scraped.of("lockstep_rows_total", "other", None) is None


def test_certificates_that_are_not_there_are_told_as_metrics_that_are_not_reached(tmp_path: Path) -> None:
    with pytest.raises(MetricsUnreachable, match=r"https://127\.0\.0\.1:1/metrics: .*No such file"):
        scrape_metrics("127.0.0.1:1", Credentials(root_certificates=tmp_path / "none.pem"))

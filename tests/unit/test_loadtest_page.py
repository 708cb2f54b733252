import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lockstep.clients.loadtest.page import RUNTIME_COLOURS, render_page, write_page
from lockstep.clients.loadtest.report import BackendReport, LegSeen, LoadReport
from lockstep.clients.loadtest.search import BackendSearch, SearchReport, Slo, Try
from lockstep.clients.loadtest.table import print_report
from lockstep.clients.loadtest.tally import PHASES, Tally
from tests.unit.test_loadtest_report import backend_report, load_report


def figures_of(page: str) -> dict[str, dict[str, Any]]:
    """The figures by element, and within by load."""
    (found,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


def at_rates(*rates: float) -> list[LoadReport]:
    plan = load_report().plan
    return [
        replace(load_report(backend_report(), backend_report("torch")), plan=replace(plan, rate=rate), purpose="sweep")
        for rate in rates
    ]


SEARCH = SearchReport(
    "tiny",
    Slo(99, 50),
    3.0,
    (
        BackendSearch("onnxruntime", 20.0, 21.0, True, "each end", (Try(20.0, 40.0, True),)),
        BackendSearch("torch", 10.0, 10.4, True, "each end", (Try(10.0, 45.0, True),)),
        BackendSearch("tensorflow", None, 0.1, True, "not even", (Try(0.1, None, False),)),
    ),
    False,
)


def test_the_page_is_whole_in_one_file(tmp_path: Path) -> None:
    write_page(tmp_path / "deep" / "page.html", [load_report()])
    page = (tmp_path / "deep" / "page.html").read_text()
    assert "Plotly" in page
    assert not re.findall(r"<(?:script|link|img)[^>]*\b(?:src|href)=", page)
    for plot in figures_of(page):
        assert f'id="{plot}"' in page


def test_every_backend_and_phase_is_plotted() -> None:
    figures = figures_of(render_page([load_report(backend_report(), backend_report("tensorflow"))]))
    kinds = {name.split("-")[-1] for name in figures}
    assert kinds == {"percentiles", "throughput", "phases", "length", "batches", "timeline", "costs"}
    (percentiles,) = figures["model-0-percentiles"].values()
    (phases,) = figures["model-0-phases"].values()
    assert [trace["name"] for trace in percentiles["data"]] == ["onnxruntime", "tensorflow"]
    assert [trace["name"] for trace in phases["data"]] == [*PHASES, "callers saw"]


def test_a_sweep_has_its_curve_and_every_load_can_be_looked_at() -> None:
    page = render_page(at_rates(10, 20, 40), command="lockstep loadtest --sweep-rate 10,20,40")
    figures = figures_of(page)
    curve = figures["model-0-open-curve"][""]
    assert [trace["name"] for trace in curve["data"]] == ["onnxruntime", "onnxruntime, p50", "torch", "torch, p50"]
    assert [trace["x"] for trace in curve["data"]] == [[10, 20, 40]] * 4
    assert list(figures["model-0-percentiles"]) == ["open 10 texts/s", "open 20 texts/s", "open 40 texts/s"]
    assert "lockstep loadtest --sweep-rate 10,20,40" in page
    assert "The generator itself can send 2,500 calls a second" in page


def test_a_search_says_who_holds_the_promise_and_draws_it() -> None:
    reports = [replace(report, purpose="search") for report in at_rates(10, 20)]
    page = render_page(reports, searches=[SEARCH])
    assert "p99 &lt;= 50 ms is met by onnxruntime up to 20 texts/s and torch up to 10 texts/s." in page
    assert "tensorflow does not meet it at any rate." in page
    figures = figures_of(page)
    assert figures["model-0-open-curve"][""]["layout"]["shapes"][0]["y0"] == 50
    held = figures["model-0-throughput"]["held p99 <= 50 ms"]
    assert held["data"][0]["x"] == ["onnxruntime", "torch"]


def test_a_backend_has_one_colour_in_every_section_and_its_runtimes_on_every_page() -> None:
    first = load_report(backend_report("a"), backend_report("b"), backend_report("torch"))
    second = replace(load_report(backend_report("b")), plan=replace(first.plan, model="other"))
    figures = figures_of(render_page([first, second]))
    ((of_first,), (of_second,)) = (figures[f"model-{n}-percentiles"].values() for n in (0, 1))
    assert of_first["data"][1]["line"]["color"] == of_second["data"][0]["line"]["color"]
    assert of_first["data"][2]["line"]["color"] == RUNTIME_COLOURS["torch"]


def test_a_backend_that_answered_nothing_is_in_the_table_and_in_no_plot() -> None:
    tally = Tally(window_s=1.0)
    tally.fail(7, "UNAVAILABLE")
    dead = BackendReport.of("dead", [LegSeen(0, tally)], threads=None, server=None)
    page = render_page([load_report(backend_report(), dead)])
    assert "UNAVAILABLE 7" in page
    (percentiles,) = figures_of(page)["model-0-percentiles"].values()
    assert all(trace["name"] != "dead" for trace in percentiles["data"])
    assert figures_of(render_page([load_report(dead)])) == {}


def test_names_from_outside_cannot_become_markup() -> None:
    report = replace(load_report(backend_report("</script><b>x")), texts="<i>file</i>")
    page = render_page([report], title="<u>")
    for markup in ("<b>x", "<i>file", "<u>"):
        assert markup not in page


def test_no_report_is_no_page() -> None:
    with pytest.raises(ValueError, match="one report at least"):
        render_page([])


def test_the_terminal_shows_what_the_page_shows() -> None:
    console = Console(width=140, record=True, file=StringIO())
    report = replace(load_report(backend_report(threads=None)), interrupted=True)
    print_report(report, console)
    shown = console.export_text()
    for part in (
        "onnxruntime",
        "7.5",
        "10.0",
        "open loop, poisson arrivals, 10 texts/s",
        "What a text costs",
        "careful",
        "Interrupted",
    ):
        assert part in shown

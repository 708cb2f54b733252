import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from clients.loadtest.page import render_page, write_page
from clients.loadtest.report import BackendReport, LegSeen
from clients.loadtest.table import print_report
from clients.loadtest.tally import PHASES, Tally
from tests.unit.test_loadtest_report import backend_report, load_report


def figures_of(page: str) -> dict[str, dict[str, list[dict[str, object]]]]:
    (found,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


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
    assert kinds == {"percentiles", "throughput", "phases", "length", "batches"}
    assert [trace["name"] for trace in figures["plot-0-percentiles"]["data"]] == ["onnxruntime", "tensorflow"]
    assert [trace["name"] for trace in figures["plot-0-phases"]["data"]] == list(PHASES)


def test_a_backend_has_one_colour_in_every_report() -> None:
    first = load_report(backend_report("a"), backend_report("b"))
    second = load_report(backend_report("b"))
    figures = figures_of(render_page([first, second]))
    colours = [figures[f"plot-{n}-percentiles"]["data"][-1]["line"]["color"] for n in (0, 1)]
    assert colours[0] == colours[1]


def test_a_backend_that_answered_nothing_is_in_the_table_and_in_no_plot() -> None:
    tally = Tally(window_s=1.0)
    tally.fail(7, "UNAVAILABLE")
    dead = BackendReport.of("dead", [LegSeen(0, tally)], threads=None, server=None)
    page = render_page([load_report(backend_report(), dead)])
    assert "UNAVAILABLE 7" in page
    assert all(trace["name"] != "dead" for trace in figures_of(page)["plot-0-percentiles"]["data"])
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
    for part in ("onnxruntime", "7.5", "10.0", "open loop, poisson arrivals, 10 rows/s", "careful", "Interrupted"):
        assert part in shown

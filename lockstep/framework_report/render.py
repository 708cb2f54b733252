"""The report as Markdown, and as one self-contained HTML page. Holds no numbers of its own.

The page's template is `page.html.j2` beside this file; plotly.js is embedded, so that the page opens anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import jinja2
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from lockstep.framework_report.claims import Claim, claims
from lockstep.framework_report.figures import plots
from lockstep.framework_report.report_data import Facts
from lockstep.framework_report.settings import Settings
from lockstep.framework_report.tables import COMMAND, Table, sections

TITLE: Final = "PyTorch, Keras and TensorFlow, measured"

_INTRODUCTION: Final = (
    "An article compares PyTorch, Keras and TensorFlow for language: which recurrent networks and Transformers each "
    "has, how much code they take, how fast they train, what static and dynamic graphs mean for texts of unequal "
    "length, and what can be deployed. Here each of its claims that can be measured has its number, from models that "
    "were trained on the same texts, exported, held against their source and served."
)
_UNMEASURED: Final = (
    "What cannot be measured is not judged: whether eager code is easier to debug, which API is nicer, how large a "
    "community is."
)
_LEGEND: Final = "–: not measured. CPU ms: CPU time of the process that computes. B32xT64: 32 texts of 64 tokens."
_CODE: Final = re.compile(r"`([^`]+)`")


def markdown(facts: Facts, settings: Settings, failed: Mapping[str, str]) -> str:
    """Return the report as Markdown."""
    lines = [
        f"# {TITLE}",
        "",
        _INTRODUCTION,
        "",
        f"Written by `{COMMAND}`. {_LEGEND} {_UNMEASURED}",
        "",
        "## The claims",
    ]
    for group in claims(facts):
        lines += ["", f"{group.title}:", "", *_claims_table(group.claims)]
    for section in sections(facts, settings):
        lines += ["", f"## {section.title}", ""]
        for paragraph in section.text:
            lines += [paragraph, ""]
        for table in section.tables:
            lines += [*_markdown_table(table), ""] if table.cells else ["Not measured.", ""]
        lines.append(f"By: `{section.command}`.")
    if failed:
        lines += ["", "## What could not be measured", "", *(f"- {key}: {why}" for key, why in sorted(failed.items()))]
    return "\n".join(lines) + "\n"


def page(facts: Facts, settings: Settings, failed: Mapping[str, str]) -> str:
    """Return the report as an HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lockstep.framework_report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["code"] = _code
    drawn = plots(facts, settings)
    return environment.get_template("page.html.j2").render(
        title=TITLE,
        introduction=_INTRODUCTION,
        unmeasured=_UNMEASURED,
        legend=_LEGEND,
        command=COMMAND,
        groups=claims(facts),
        sections=[
            (section, [plot for plot in drawn if plot.section == section.anchor])
            for section in sections(facts, settings)
        ],
        figures={plot.element: plot.figure for plot in drawn},
        failed=sorted(failed.items()),
        plotly_js=get_plotlyjs(),
    )


def _claims_table(judged: tuple[Claim, ...]) -> list[str]:
    rows = [(one.claim, one.measured, one.found or "–", f"**{one.verdict}**", f"`{one.command}`") for one in judged]
    return _markdown_table(Table(("claim", "measured", "found", "verdict", "by"), tuple(rows), words=5))


def _markdown_table(table: Table) -> list[str]:
    marks = ["---"] * table.words + ["--:"] * (len(table.columns) - table.words)
    return [
        f"| {' | '.join(table.columns)} |",
        f"| {' | '.join(marks)} |",
        *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in table.cells),
    ]


def _code(text: str) -> Markup:
    """Return text as HTML, with what stands between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))

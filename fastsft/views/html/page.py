"""The page of an output: sections in order, and what they need in the page itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from fastsft.pipeline.overview import Overview
from fastsft.report import Report
from fastsft.version import __version__
from fastsft.views.html.files import files_section, run_section
from fastsft.views.html.markup import Markup, joined, plain, tag
from fastsft.views.html.numbers import fates_section, lengths_section, success_section
from fastsft.views.html.rows import check_section, rows_section
from fastsft.views.terminal import many, size_of

GENERATOR = "fastsft report"  # by which a page is known to be ours


def page_of(overview: Overview) -> bytes:
    """Return the page: the same bytes for the same output."""
    report = overview.report
    name = report.outputs[0].name if len(report.outputs) == 1 else overview.target.stem
    sections = [
        ("fates", "Lines", fates_section(report)),
        ("success", "Success", success_section(overview)),
        ("lengths", "Lengths", lengths_section(overview)),
        ("check", "Check", check_section(overview)),
        ("rows", "Rows", rows_section(overview)),
        ("files", "Files", files_section(overview)),
        ("run", "Run", run_section(report)),
    ]
    links = [tag("li", tag("a", title, href=f"#{anchor}")) for anchor, title, _ in sections]
    body = joined(
        [
            tag("header", tag("h1", name), _lead(report), _cards(overview), _missing(overview.missing)),
            tag("nav", tag("ul", *links), aria_label="Sections"),
            tag("main", *(tag("section", *content, id=anchor) for anchor, _, content in sections)),
            tag("footer", f"Made by fastsft {__version__}. Nothing on this page is loaded from elsewhere."),
        ]
    )
    return _document(name, body)


def _document(title: str, body: Markup) -> bytes:
    style, script, template = (_resource(f"page.{kind}") for kind in ("css", "js", "html"))
    filled = Template(template).substitute(
        title=plain(f"{title}: fastsft report"),
        generator=GENERATOR,
        style=style,
        style_hash=_hash_of(style),
        script=script,
        script_hash=_hash_of(script),
        body=body,
    )
    return filled.encode("utf-8", "xmlcharrefreplace")


def _resource(name: str) -> str:
    return files("fastsft.views.html").joinpath(name).read_text(encoding="utf-8")


def _hash_of(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _lead(report: Report) -> Markup:
    layout = report.options.get("format", "")
    nbytes = sum(entry.nbytes for entry in report.inputs)
    return tag(
        "p",
        f"{many(report.fates.kept, 'row')} in the layout {layout}, from {many(report.fates.lines, 'line')} "
        f"of {many(len(report.inputs), 'input file')} ({size_of(nbytes)}).",
        class_="lead",
    )


def _cards(overview: Overview) -> Markup:
    report = overview.report
    fates = report.fates
    outputs = [output for one in overview.outputs.values() for output in one.outputs]
    usable = fates.lines - fates.blank
    cards = [
        (f"{fates.kept:,}", "rows kept"),
        (f"{fates.kept / usable:.1%}" if usable else "-", "of all lines"),
        (f"{fates.all_refused:,}", "lines refused"),
        (f"{len(outputs):,}", "file of rows" if len(outputs) == 1 else "files of rows"),
        (size_of(sum(output.nbytes for output in outputs)), "of rows"),
    ]
    if overview.rows.check is not None:
        findings = len(overview.rows.check.findings)
        cards.append((f"{findings}" if findings else "none", "kind of fault" if findings == 1 else "kinds of faults"))
    return tag(
        "div",
        *(tag("div", tag("strong", value), tag("span", what), class_="card") for value, what in cards),
        class_="cards",
    )


def _missing(missing: Sequence[str]) -> Markup:
    if not missing:
        return Markup("")
    items = [tag("li", one) for one in missing[:20]]
    more = [tag("li", f"… {len(missing) - 20:,} more")] if len(missing) > 20 else []
    return tag("div", tag("strong", "Not shown"), tag("ul", *items, *more), class_="missing", role="note")

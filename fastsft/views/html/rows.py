"""Sections of rows: what a check finds in them, some that unfold, and refused lines."""

from __future__ import annotations

from typing import Any

from fastsft.checks.report import Finding
from fastsft.pipeline.overview import Overview
from fastsft.views.html.conversations import conversation_of
from fastsft.views.html.markup import Markup, table, tag
from fastsft.views.terminal import many


def checked(overview: Overview) -> str:
    """Say which rows were checked."""
    check, total = overview.rows.check, sum(report.rows for report in overview.outputs.values())
    read = check.lines if check else 0
    if overview.rows.is_all:
        return f"All rows were checked: {total:,}."
    return f"A sample was checked: {read:,} of {many(total, 'row')}."


def check_section(overview: Overview) -> list[Markup]:
    """Return what a check finds in the rows that were looked at."""
    heading = tag("h2", "What a check finds")
    check = overview.rows.check
    if check is None:
        return [heading, tag("p", "No rows could be read, so none were checked.", class_="note")]
    content = [heading, tag("p", checked(overview), class_="note")]
    if check.findings:
        content += [_finding(one, "finding") for one in check.findings]
    else:
        content.append(tag("p", "Nothing was found that keeps these rows from training.", class_="fine"))
    if check.notes:
        content.append(tag("h3", "What matters to some trainers and templates"))
        content += [_finding(one, "finding remark") for one in check.notes]
    return content


def _finding(finding: Finding, kind: str) -> Markup:
    places = []
    for example in finding.examples:
        place = f"{example.file}:{example.line}" if example.line else example.file or "all rows"
        places.append(tag("li", tag("code", place), f": {example.detail}" if example.detail else ""))
    head = tag("p", tag("strong", finding.kind), f": {many(finding.rows, 'row')}")
    told = [tag("p", f"{finding.meaning[:1].upper()}{finding.meaning[1:]}."), tag("p", f"Fix: {finding.fix}.")]
    return tag("div", head, *told, tag("ul", *places), class_=kind)


def rows_section(overview: Overview) -> list[Markup]:
    """Return example rows, and refused lines."""
    heading = tag("h2", f"{many(len(overview.rows.shown), 'example row')}")
    if not overview.rows.shown:
        return [tag("h2", "Example rows"), tag("p", "No rows could be read.", class_="note")]
    note = tag("p", "They lie evenly over the rows that were looked at; long texts are cut.", class_="note")
    return [heading, note, *map(conversation_of, overview.rows.shown), *_refused(overview)]


def _refused(overview: Overview) -> list[Markup]:
    if not overview.refused:
        return []
    rows: list[list[Any]] = [[one.reason, f"{one.shard}:{one.line}", one.problem[:400]] for one in overview.refused]
    return [
        tag("h3", "Refused lines, a few of each reason"),
        table(["reason", "line", "problem"], rows),
        tag("p", f"All that are listed stand in {overview.report.refused_lines}.", class_="note"),
    ]

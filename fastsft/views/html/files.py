"""Sections of provenance: which files were read and written, and how the run went."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fastsft.pipeline.overview import Overview
from fastsft.report import Report
from fastsft.views.html.flow import split_name
from fastsft.views.html.markup import Markup, table, tag
from fastsft.views.terminal import size_of

_MOST_FILES = 200  # that are listed


def files_section(overview: Overview) -> list[Markup]:
    """Return the files of rows, the splits and the inputs."""
    rows: list[list[Any]] = []
    for split, report in overview.outputs.items():
        rows += [
            [
                split_name(overview.report, split),
                one.name,
                one.rows,
                (one.nbytes, size_of(one.nbytes)),
                tag("code", one.sha256[:16]),
            ]
            for one in report.outputs
        ]
    inputs: list[list[Any]] = [
        [
            entry.path,
            (entry.nbytes, size_of(entry.nbytes)),
            entry.fates.lines,
            entry.fates.kept,
            entry.fates.all_dropped,
            entry.fates.all_refused,
        ]
        for entry in overview.report.inputs[:_MOST_FILES]
    ]
    has_splits = len(overview.outputs) > 1
    heads = ["output", "file", "rows", "size", "sha256, its beginning"]
    if not has_splits:
        heads, rows = heads[1:], [row[1:] for row in rows]
    content = [
        tag("h2", "Files"),
        tag("h3", "Rows"),
        table(heads, rows[:_MOST_FILES], numbers={2, 3} if has_splits else {1, 2}),
        *_more(len(rows)),
    ]
    if overview.report.splits:
        splits: list[list[Any]] = [
            [split_name(overview.report, one.name), one.rows, one.tasks, one.tasks_elsewhere]
            for one in overview.report.splits
        ]
        content += [
            tag("h3", "Splits"),
            table(["split", "rows", "tasks", "tasks that are elsewhere, too"], splits, numbers={1, 2, 3}),
        ]
    content += [
        tag("h3", "Inputs"),
        table(["file", "size", "lines", "kept", "dropped", "refused"], inputs, numbers=set(range(1, 6))),
    ]
    return [*content, *_more(len(overview.report.inputs))]


def _more(count: int) -> Iterable[Markup]:
    return [tag("p", f"… {count - _MOST_FILES:,} more files", class_="more")] if count > _MOST_FILES else []


def run_section(report: Report) -> list[Markup]:
    """Return how the run went, its notes and its settings."""
    options = json.dumps(report.options, indent=2, ensure_ascii=False)
    notes = [tag("li", note) for note in report.notes[:50]]
    return [
        tag("h2", "The run"),
        tag("p", f"fastsft {report.version} took {report.seconds:,.1f} s.", class_="note"),
        *([tag("ul", *notes)] if notes else []),
        tag("details", tag("summary", "Settings that decide what is written"), tag("pre", options), class_="tools"),
    ]

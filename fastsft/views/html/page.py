"""The page of an output: sections in order, and what they need in the page itself."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from fastsft.checks.report import Finding
from fastsft.pipeline.overview import Overview
from fastsft.report import Report
from fastsft.statistics.distribution import Distribution, Success, edges_of
from fastsft.version import __version__
from fastsft.views.html.charts import columns, rate
from fastsft.views.html.conversations import conversation_of
from fastsft.views.html.flow import flow_of
from fastsft.views.html.markup import Markup, joined, plain, table, tag
from fastsft.views.terminal import many, size_of

GENERATOR = "fastsft report"  # by which a page is known to be ours
_MOST_FILES = 200  # that are listed
_MOST_AGENTS = 500


def page_of(overview: Overview) -> bytes:
    """Return the page: the same bytes for the same output."""
    report = overview.report
    name = report.outputs[0].name if len(report.outputs) == 1 else overview.target.stem
    sections = [
        ("fates", "Lines", _fates(report)),
        ("success", "Success", _success(overview)),
        ("lengths", "Lengths", _lengths(overview)),
        ("check", "Check", _check(overview)),
        ("rows", "Rows", _rows(overview)),
        ("files", "Files", _files(overview)),
        ("run", "Run", _run(report)),
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


def _fates(report: Report) -> list[Markup]:
    fates = report.fates
    rows: list[list[Any]] = [["kept", "", fates.kept], ["blank", "", fates.blank]]
    rows += [
        [fate, reason, count]
        for fate, counts in (("dropped", fates.dropped), ("refused", fates.refused))
        for reason, count in counts.items()
    ]
    rows = [[*row, rate(row[2], fates.lines)] for row in sorted(rows, key=lambda row: -row[2]) if row[2]]
    said = []
    if fates.trimmed:
        said.append(f"{many(fates.trimmed, 'row')} end at the last assistant turn: what follows it was cut.")
    said += [f"{many(count, 'row')} lack {what} that their rollouts have." for what, count in report.left_out.items()]
    return [
        tag("h2", "What became of the lines"),
        tag(
            "p",
            "Every line of the input has one fate. ",
            tag("code", "fastsft docs reasons"),
            " tells what each reason means.",
            class_="note",
        ),
        flow_of(report),
        *(tag("p", one) for one in said),
        table(["fate", "reason", "lines", "share of lines"], rows, numbers={2, 3}),
    ]


def _checked(overview: Overview) -> str:
    check, total = overview.rows.check, sum(report.rows for report in overview.outputs.values())
    read = check.lines if check else 0
    what = "All" if overview.rows.is_all else f"A sample of {read:,} of"
    return f"{what} {many(total, 'row')} {'was' if total == 1 else 'were'} checked."


def _counted(overview: Overview, success: Success) -> str:
    what = "" if overview.inputs.is_all else ", a sample"
    return f"Counted from {overview.inputs.source}: {many(success.rollouts, 'rollout')}{what}."


def _success(overview: Overview) -> list[Markup]:
    heading = tag("h2", "Rewards and pass rates")
    success = overview.inputs.success
    if success is None:
        return [
            heading,
            tag(
                "p", "They come from the inputs or an index of them, and neither can be read from here.", class_="note"
            ),
        ]
    edges = [f"{low:.3g} to {high:.3g}" for low, high in edges_of(success.histogram)]
    tasks = success.tasks
    rows: list[list[Any]] = [
        [
            (number, agent.name if agent.name is not None else "(no agent_ref)"),
            agent.rollouts,
            (agent.mean, f"{agent.mean:.3f}"),
            rate(agent.passed, agent.rollouts),
            agent.tasks,
            agent.never,
            agent.sometimes,
            agent.always,
        ]
        for number, agent in enumerate(success.agents[:_MOST_AGENTS])
    ]
    for row in rows:
        row[0] = row[0][1]  # sorts by its text
    heads = ["agent", "rollouts", "mean reward", "pass rate", "tasks", "never", "sometimes", "always"]
    more = len(success.agents) - _MOST_AGENTS
    return [
        heading,
        tag(
            "p",
            f"{_counted(overview, success)} A rollout passes, and solves its task, with a reward of at least "
            f"{success.reward_threshold:g}.",
            class_="note",
        ),
        tag(
            "div",
            columns("Rewards", success.histogram, edges, at=success.reward_threshold),
            _solved(success),
            class_="charts",
        ),
        tag("h3", f"By agent, of {many(tasks.count, 'task')}"),
        table(heads, rows, numbers=set(range(1, 8))),
        *([tag("p", f"… {more:,} more agents", class_="more")] if more > 0 else []),
    ]


def _solved(success: Success) -> Markup:
    tasks = success.tasks
    rows = [
        [name, count, rate(count, tasks.count)]
        for name, count in (("never", tasks.never), ("sometimes", tasks.sometimes), ("always", tasks.always))
    ]
    return tag("div", tag("h3", "Tasks solved"), table(["by its rollouts", "tasks", "share"], rows, numbers={1, 2}))


def _lengths(overview: Overview) -> list[Markup]:
    content: list[Markup] = [tag("h2", "Lengths")]
    success, check = overview.inputs.success, overview.rows.check
    if check is not None and check.lengths:
        parts = list(next(iter(check.lengths.values())))
        heads = ["of a row", *("longest" if part == "1.0" else f"{float(part):.0%}" for part in parts)]
        rows: list[list[Any]] = [
            [_LENGTHS.get(name, name), *(found[part] for part in parts)] for name, found in check.lengths.items()
        ]
        content += [
            tag("h3", "Rows"),
            tag("p", _checked(overview), class_="note"),
            table(heads, rows, numbers=set(range(1, len(heads)))),
        ]
        if "tokens" not in check.lengths:
            content.append(
                tag(
                    "p",
                    "Tokens of rows are counted with ",
                    tag("code", "--template FOLDER"),
                    ", the folder of a tokenizer.",
                    class_="note",
                )
            )
    if success is None:
        return content
    rows = [_length_row(name, found) for name, found in success.lengths.items() if found.count]
    content += [
        tag("h3", "Rollouts"),
        tag("p", f"{_counted(overview, success)} Tokens are those that the rollouts record.", class_="note"),
        table(
            ["of a rollout", "known of", "mean", "least", "5%", "median", "95%", "longest"],
            rows,
            numbers=set(range(1, 8)),
        ),
    ]
    charts = []
    for name in ("tokens", "turns", "calls", "nbytes"):
        bins = success.octaves.get(name) or []
        if bins and name in ("tokens", "turns"):
            labels = [
                f"{one.low:,.0f}" if one.high - one.low <= 1 else f"{one.low:,.0f} to {one.high - 1:,.0f}"
                for one in bins
            ]
            charts.append(columns(f"{_LENGTHS[name].capitalize()} of a rollout", bins, labels))
    if not success.lengths["tokens"].count:
        content.append(tag("p", "No rollout records its tokens.", class_="note"))
    return [*content, tag("div", *charts, class_="charts")]


_LENGTHS = {"nbytes": "bytes", "turns": "turns", "calls": "calls", "tokens": "tokens"}


def _length_row(name: str, found: Distribution) -> list[Any]:
    def cell(value: float | None) -> tuple[float, str]:
        return (value or 0.0, "-" if value is None else f"{value:,.0f}")

    middle = [cell(found.quantiles[part]) for part in ("0.05", "0.5", "0.95")]
    mean = (found.mean or 0.0, "-" if found.mean is None else f"{found.mean:,.1f}")
    return [_LENGTHS[name], found.count, mean, cell(found.min), *middle, cell(found.max)]


def _check(overview: Overview) -> list[Markup]:
    heading = tag("h2", "What a check finds")
    check = overview.rows.check
    if check is None:
        return [heading, tag("p", "No rows could be read, so none were checked.", class_="note")]
    content = [heading, tag("p", _checked(overview), class_="note")]
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


def _rows(overview: Overview) -> list[Markup]:
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


def _files(overview: Overview) -> list[Markup]:
    rows: list[list[Any]] = []
    for split, report in overview.outputs.items():
        rows += [
            [split or "(main)", one.name, one.rows, (one.nbytes, size_of(one.nbytes)), tag("code", one.sha256[:16])]
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
            [one.name, one.rows, one.tasks, one.tasks_elsewhere] for one in overview.report.splits
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


def _run(report: Report) -> list[Markup]:
    options = json.dumps(report.options, indent=2, ensure_ascii=False)
    notes = [tag("li", note) for note in report.notes[:50]]
    return [
        tag("h2", "The run"),
        tag("p", f"fastsft {report.version} took {report.seconds:,.1f} s.", class_="note"),
        *([tag("ul", *notes)] if notes else []),
        tag("details", tag("summary", "Settings that decide what is written"), tag("pre", options), class_="tools"),
    ]

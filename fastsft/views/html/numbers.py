"""Sections of numbers: what became of the lines, how often rollouts succeed, how long all is."""

from __future__ import annotations

from typing import Any

from fastsft.pipeline.overview import Overview
from fastsft.report import Report
from fastsft.statistics.distribution import Distribution, Success, edges_of
from fastsft.views.html.charts import columns, rate
from fastsft.views.html.flow import flow_of
from fastsft.views.html.markup import Markup, table, tag
from fastsft.views.html.rows import checked
from fastsft.views.terminal import many

_MOST_AGENTS = 500


def fates_section(report: Report) -> list[Markup]:
    """Return the fates of lines: as a flow, as a table, and what rows lack."""
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


def _counted(overview: Overview, success: Success) -> str:
    what = "" if overview.inputs.is_all else ", a sample"
    return f"Counted from {overview.inputs.source}: {many(success.rollouts, 'rollout')}{what}."


def success_section(overview: Overview) -> list[Markup]:
    """Return rewards and pass rates, of all and by agent."""
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
    heads = ["agent", "rollouts", "mean", "pass rate", "tasks", "never", "sometimes", "always"]
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


def lengths_section(overview: Overview) -> list[Markup]:
    """Return how long rows are, and the rollouts that they are from."""
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
            tag("p", checked(overview), class_="note"),
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

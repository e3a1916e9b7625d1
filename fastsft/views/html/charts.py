"""Small charts as inline SVG: a share as a bar, counts as columns."""

from __future__ import annotations

from collections.abc import Sequence

from fastsft.statistics.distribution import Bin
from fastsft.views.html.markup import Markup, tag

_WIDTH, _HEIGHT = 400, 120


def rate(count: int, total: int) -> tuple[float, Markup]:
    """Return a share as a cell that sorts by it: a bar and percents."""
    share = count / total if total else 0.0
    bar = tag(
        "svg",
        tag("rect", width=72, height=8, rx=4, class_="track"),
        tag("rect", width=f"{72 * share:.1f}", height=8, rx=4, class_="bar"),
        viewBox="0 0 72 8",
        aria_hidden="true",
    )
    return share, tag("span", bar, tag("span", f"{share:.1%}"), class_="rate")


def columns(title: str, bins: Sequence[Bin], labels: Sequence[str], *, at: float | None = None) -> Markup:
    """Draw counts as columns, with labels at both ends; a line at the value `at`, where bins have it inside."""
    most = max((one.count for one in bins), default=0) or 1
    step = _WIDTH / max(len(bins), 1)
    marks = []
    for number, one in enumerate(bins):
        height = max(_HEIGHT * one.count / most, 1.5) if one.count else 0
        said = tag("title", f"{labels[number]}: {one.count:,}")
        place = {"x": f"{number * step + 1:.1f}", "y": f"{_HEIGHT - height:.1f}"}
        size = {"width": f"{max(step - 2, 1):.1f}", "height": f"{height:.1f}"}
        marks.append(tag("rect", said, **place, **size, class_="column"))
    marks.append(tag("line", x1=0, x2=_WIDTH, y1=_HEIGHT, y2=_HEIGHT, class_="base"))
    marks += _threshold(bins, step, at)
    if bins:
        highest = max(range(len(bins)), key=lambda number: bins[number].count)
        middle = min(max((highest + 0.5) * step, 24), _WIDTH - 24)
        marks.append(tag("text", f"{most:,}", x=f"{middle:.1f}", y=-5, text_anchor="middle", class_="axis"))
        marks.append(tag("text", labels[0], x=0, y=_HEIGHT + 16, class_="axis"))
        marks.append(tag("text", labels[-1], x=_WIDTH, y=_HEIGHT + 16, text_anchor="end", class_="axis"))
    heading = tag("h3", title)
    drawn = tag("svg", *marks, viewBox=f"0 -20 {_WIDTH} {_HEIGHT + 42}", role="img", aria_label=title)
    return tag("div", heading, drawn, class_="chart")


def _threshold(bins: Sequence[Bin], step: float, at: float | None) -> list[Markup]:
    """Mark a value, by the bin that it is in: the outermost may be wider than the others."""
    for number, one in enumerate(bins):
        if at is not None and one.low <= at < one.high:
            x = step * (number + (at - one.low) / (one.high - one.low))
            line = tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=0, y2=_HEIGHT, class_="threshold")
            left = x > _WIDTH / 2
            place = {"x": f"{x - 5 if left else x + 5:.1f}", "text_anchor": "end" if left else "start"}
            return [line, tag("text", f"threshold {at:g}", y=12, **place, class_="threshold")]
    return []

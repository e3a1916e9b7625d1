"""The fates of lines as a flow, an inline SVG: lines -> kept, dropped, refused, blank -> splits and reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fastsft.report import Report
from fastsft.views.html.markup import Markup, joined, tag

_MOST_REASONS = 7  # of dropped and of refused lines; the others are one
_BAR = 12  # the width of a node
_SLOT = 34  # the least height of a node with its label
_GAP = 8
_LINES = 240  # the height that all lines have


class _Node(msgspec.Struct):
    """A box of the flow: how many lines, and how tall it is and where."""

    name: str
    count: int
    kind: str
    height: float = 0.0
    top: float = 0.0
    parts: list[_Node] = []


def flow_of(report: Report) -> Markup:
    """Draw the fates of a report, once for wide and once for narrow windows; a style shows one of them."""
    said = ", ".join(f"{node.name} {node.count:,}" for node in _fates(report))
    title = f"Of {report.fates.lines:,} lines: {said}"
    wide = _drawn(report, title, width=920, columns=(0, 300, 610), kind="wide")
    return joined([wide, _drawn(report, title, width=340, columns=(0, 92, 196), kind="narrow")])


def _fates(report: Report) -> list[_Node]:
    fates = report.fates
    splits = [_Node(split_name(report, split.name), split.rows, "kept") for split in report.splits if split.rows]
    nodes = [
        _Node("kept", fates.kept, "kept", parts=splits),
        _Node("dropped", fates.all_dropped, "dropped", parts=_reasons(fates.dropped, "dropped")),
        _Node("refused", fates.all_refused, "refused", parts=_reasons(fates.refused, "refused")),
        _Node("blank", fates.blank, "blank"),
    ]
    return [node for node in nodes if node.count]


def split_name(report: Report, name: str) -> str:
    """Return what a split is called; the main one in a folder has the name of its report."""
    return report.file.removesuffix(".report.json") if name in ("", ".") else name


def _reasons(counts: Mapping[str, int], kind: str) -> list[_Node]:
    most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    nodes = [_Node(reason, count, kind) for reason, count in most[:_MOST_REASONS]]
    if others := most[_MOST_REASONS:]:
        what = "other reason" if len(others) == 1 else "other reasons"
        nodes.append(_Node(f"{len(others)} {what}", sum(count for _, count in others), kind))
    return nodes


def _drawn(report: Report, title: str, *, width: int, columns: Sequence[int], kind: str) -> Markup:
    total = max(report.fates.lines, 1)
    fates = _fates(report)
    top = 0.0
    for fate in fates:
        top = _placed(fate, top, total)
    height = max(top - _GAP, _SLOT)
    root = _Node("lines", report.fates.lines, "lines", _tall(report.fates.lines, total), parts=fates)
    root.top = max((height - root.height) / 2, 0)
    height = max(height, root.height)
    links, boxes = [], []
    for node, depth in [(root, 0), *((fate, 1) for fate in fates)]:
        links += _links(node, columns[depth] + _BAR, columns[depth + 1])
        boxes += _box(node, columns[depth], total, first=depth == 0)
    boxes += [mark for fate in fates for part in fate.parts for mark in _box(part, columns[2], total, first=False)]
    return tag(
        "svg",
        tag("title", title),
        *links,
        *boxes,
        class_=f"flow {kind}",
        viewBox=f"0 -8 {width} {height + 16:.0f}",
        role="img",
    )


def _tall(count: int, total: int) -> float:
    return max(_LINES * count / total, 1.5)


def _placed(node: _Node, top: float, total: int) -> float:
    """Place a fate and what it has parted into from a height on; return where the next begins."""
    node.height = _tall(node.count, total)
    below = top
    for part in node.parts:
        part.height = _tall(part.count, total)
        part.top = below + max(_SLOT - part.height, 0) / 2
        below += max(part.height, _SLOT) + _GAP
    below = max(below, top + max(node.height, _SLOT) + _GAP)
    node.top = top + (below - _GAP - top - node.height) / 2
    return below


def _links(node: _Node, left: float, right: float) -> list[Markup]:
    """Draw bands from a node to its parts, each as wide at its ends as its lines are many."""
    links, start = [], node.top
    middle = (left + right) / 2
    for part in node.parts:
        end = start + node.height * part.count / node.count
        bottom = part.top + part.height
        shape = (
            f"M{left} {start:.1f}C{middle} {start:.1f} {middle} {part.top:.1f} {right} {part.top:.1f}"
            f"V{bottom:.1f}C{middle} {bottom:.1f} {middle} {end:.1f} {left} {end:.1f}Z"
        )
        links.append(tag("path", d=shape, class_=f"link {part.kind}"))
        start = end
    return links


def _box(node: _Node, left: int, total: int, *, first: bool) -> list[Markup]:
    middle = node.top + node.height / 2
    share = "" if first else f" · {_share(node.count, total)}"
    return [
        tag("rect", x=left, y=f"{node.top:.1f}", width=_BAR, height=f"{node.height:.1f}", class_=f"node {node.kind}"),
        tag("text", node.name, x=left + _BAR + 7, y=f"{middle - 3:.1f}", class_="name"),
        tag("text", f"{node.count:,}{share}", x=left + _BAR + 7, y=f"{middle + 13:.1f}", class_="count"),
    ]


def _share(count: int, total: int) -> str:
    """Write a share in percent; a few of many are not none.

    >>> _share(1, 3), _share(1, 10_000_000), _share(3, 3)
    ('33.3%', '<0.1%', '100%')
    """
    if count == total:
        return "100%"
    share = 100 * count / total
    return "<0.1%" if 0 < share < 0.1 else f"{min(share, 99.9):.1f}%"

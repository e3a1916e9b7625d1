"""What a check found, and what a config says, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fastsft.escape import escaped
from fastsft.views.terminal import many, size_of

if TYPE_CHECKING:
    from fastsft.checks.report import CheckReport, Finding
    from fastsft.configs.nemo_rl import Written


def findings_told(report: CheckReport) -> str:
    """Write what a person reads of a check: faults, notes, lengths."""
    lines = [escaped(note) for note in report.skipped]
    lines.append(
        f"{many(report.files, 'file')}, {size_of(report.nbytes)}: "
        f"{many(report.rows, 'row')} of {many(report.lines, 'line')}."
    )
    if report.findings:
        lines += ["", *_findings(report.findings)]
    else:
        lines.append("Nothing was found that keeps them from training.")
    if report.notes:
        lines += ["", "Notes: what matters to some trainers and templates", "", *_findings(report.notes)]
    if report.sides:
        chosen, rejected, longer = (report.sides[name] for name in ("chosen", "rejected", "longer"))
        pairs = many(round(report.sides["pairs"]), "pair")
        lines += ["", f"{pairs}: chosen {chosen:,.0f} bytes on average, rejected {rejected:,.0f}; "
                  f"longer in {longer:.0%}"]  # fmt: skip
    if report.lengths:
        parts = list(next(iter(report.lengths.values())))
        heads = ["longest" if part == "1.0" else f"{float(part):.0%}" for part in parts]
        lines += ["", f"{'of a row':<12}" + "".join(f"{head:>12}" for head in heads)]
        for name, found in report.lengths.items():
            lines.append(f"  {name:<10}" + "".join(f"{found[part]:>12,}" for part in parts))
    return "\n".join(lines)


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.kind}: {many(finding.rows, 'row')}"
        yield _wrapped(finding.meaning)
        yield _wrapped(f"Fix: {finding.fix}.")
        for example in finding.examples:
            index = escaped(example.file) + (f":{example.line}" if example.line else "") if example.file else "all rows"
            yield f"    {index}{': ' if example.detail else ''}{escaped(example.detail)}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 78, initial_indent="  ", subsequent_indent="  ")


def config_told(written: Written) -> str:
    """Write where a config is, what to know of it, and the commands that train with it."""
    lines = [f"Wrote {escaped(written.path)}"]
    lines += [textwrap.fill(escaped(remark), 80) for remark in written.remarks]
    for title, command in written.commands:
        lines += ["", f"{title}:", textwrap.indent(escaped(command, keep="\n"), "  ")]
    return "\n".join(lines)

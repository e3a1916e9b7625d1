"""Find what was published at a path: outputs by the reports beside them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from fastsft.errors import FailedRun, UsageError
from fastsft.outputs.publication import is_pending
from fastsft.outputs.target import Target, stem_of
from fastsft.report import Report
from fastsft.storage.files import read_file

REPORT = ".report.json"


def targets_at(output: str | os.PathLike[str], nothing: str) -> list[Target]:
    """Find the outputs at a path: those of a folder that have a report, or the one of a file.

    `nothing` begins the error where there is none.

    Raises:
        UsageError: There is none.
    """
    path = Path(os.path.realpath(output))
    if path.is_dir():
        names = sorted(os.listdir(path))
        stems = {name.removesuffix(REPORT) for name in names if name.endswith(REPORT)}
        stems |= {name[1:].removesuffix(".fastsft") for name in names if re.fullmatch(r"\..+\.fastsft", name)}
        where = path / f"NAME{REPORT}"
    else:
        is_report = path.name.endswith(REPORT)
        stems = {path.name.removesuffix(REPORT) if is_report else stem_of(path.name)}
        path, where = path.parent, path.parent / f"{min(stems)}{REPORT}"
    targets = [Target(path, stem, None) for stem in sorted(stems)]
    targets = [target for target in targets if target.report.exists() or is_pending(target.staging)]
    if not targets:
        raise UsageError(f"{nothing}: there is no report {where}")
    return targets


def split_target(path: Path) -> Target:
    """Return where a split lies: in the folder of its name, or in one file."""
    is_file = not {".jsonl", ".parquet"}.isdisjoint(path.suffixes) or not path.is_dir()
    return Target(path.parent, stem_of(path.name), None) if is_file else Target(path, path.name, None)


def report_at(target: Target) -> Report:
    """Read the report of an output.

    Raises:
        FailedRun: It cannot be read.
    """
    try:
        return msgspec.json.decode(read_file(target.report), type=Report)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FailedRun(f"{target.report} cannot be read as a report: {error}") from None


def report_of(output: str | os.PathLike[str]) -> Report:
    """Read the report of the run that wrote an output: beside a file or in a folder, or the report itself.

    Raises:
        UsageError: There is none, or a folder has several.
        FailedRun: It cannot be read.
    """
    targets = targets_at(output, "no run")
    if len(targets) > 1:
        names = ", ".join(target.report.name for target in targets)
        raise UsageError(f"{output} has several reports; name one of them: {names}")
    return report_at(targets[0])

"""The command, with small spans that may do harm: for `clusters.py`, whose workers import this too.

A deed is a file in a folder, named for the number of a span, and says what the span does before its work: `kill` or
`stop` the process that it is in, or `wait` until there is a file `go`. Whoever does it renames the file, so that it is
done once, but with `always`. A file `SPAN.PID` says who was at it, and `ended.PID` that it has ended.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

from fastsft.execution import engines
from fastsft.execution.spans import ReportProgress
from fastsft.inputs import shards
from fastsft.inputs.shards import Span
from fastsft.outputs.receipts import Receipt
from fastsft.pipeline import job
from fastsft.pipeline.one_pass import Rows


class FaultyRows(Rows, frozen=True, kw_only=True):
    """Rows of spans that do what their deeds say."""

    phase: ClassVar[str] = "convert"
    deeds: str = os.environ.get("FASTSFT_DEEDS", "")

    def make(self, span: Span, report_progress: ReportProgress | None = None) -> Receipt:
        did = do(Path(self.deeds), span.index)
        try:
            return super().make(span, report_progress)
        finally:
            if did:
                Path(self.deeds, f"ended.{os.getpid()}").touch()


def do(deeds: Path, span: int) -> bool:
    path = deeds / str(span)
    try:
        deed = path.read_text()
        if "always" not in deed:
            path.rename(deeds / f"{span}.done")
    except FileNotFoundError:  # nothing to do, or another was faster
        return False
    (deeds / f"{span}.{os.getpid()}").touch()
    if "kill" in deed:
        os.kill(os.getpid(), signal.SIGKILL)
    if "stop" in deed:
        os.kill(os.getpid(), signal.SIGSTOP)
    while "wait" in deed and not (deeds / "go").exists():
        time.sleep(0.02)
    return True


def prepare() -> None:
    """Have this process cut inputs into small spans, and their rows made with deeds."""
    shards._MOST_SPAN_NBYTES = int(os.environ["FASTSFT_SPAN_NBYTES"])
    if seconds := os.environ.get("FASTSFT_PREFLIGHT_SECONDS"):
        engines.PREFLIGHT_SECONDS = float(seconds)
    if os.environ.get("FASTSFT_DEEDS"):
        job.Rows = FaultyRows  # type: ignore[misc]


def main() -> None:
    """Be the command."""
    prepare()
    from fastsft.cli.main import main

    main()


def run_each(commands: str, told: str) -> None:
    """Run commands of a JSON list in this process, one after another, and write what they print into a file each."""
    from fastsft.cli.app import run

    prepare()
    for number, words in enumerate(json.loads(commands)):
        sys.argv = ["fastsft", *words]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = run()
        Path(told, f"{number}.out").write_text(f"exit code {code}\n{said.getvalue()}")

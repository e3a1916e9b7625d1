"""Everything that fastsft raises on purpose.

    FastsftError
    ├── UsageError        the command or the call was wrong; nothing was written     exit 2
    │   └── Busy              another run writes there
    ├── FailedRun         the run could not be finished; nothing was published       exit 1
    │   ├── KeepsReceipts     it was broken off from outside, and can go on from what it did
    │   │   └── UnfinishedParts   parts of it are not done yet
    │   │       └── LinesChosen        all have scanned, and are to make the rows next
    │   └── TooManyRefused    more lines were refused than --max-refused allows      exit 3
    ├── DamagedShard      a compressed shard cannot be read to its end; it is refused whole, the run goes on
    └── NoRow             one line gives no row; the run goes on
        ├── Refused           it is not a usable rollout
        └── Dropped           its row is not wanted

    Stopped (a BaseException)   a signal asked the run to end              exit 128 + its number

Each error hands all its arguments to `super().__init__`, because an error that
is raised in a worker process crosses to the parent pickled, and is rebuilt from them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastsft.report import Report


class FastsftError(Exception):
    """Base of all errors that fastsft raises on purpose.

    Attributes:
        problem: One sentence for a person.
        more: What else is said, a line each; a line feed in a name begins no line of its own.
    """

    exit_code = 1

    def __init__(self, problem: str, *more: str) -> None:
        super().__init__(problem, *more)
        self.problem = problem
        self.more = more

    def __str__(self) -> str:
        return "\n  ".join((self.problem, *self.more))


class UsageError(FastsftError):
    """The command or the call was wrong: an option, a path, two that contradict each other."""

    exit_code = 2


class Busy(UsageError):
    """Another run, or a part of one, writes to the same target."""


class FailedRun(FastsftError):
    """The run ended early and published nothing.

    Attributes:
        report: The fates counted up to then; None where the run had not got so far.
    """

    def __init__(self, problem: str, report: Report | None = None, *more: str) -> None:
        Exception.__init__(self, problem, report, *more)
        self.problem = problem
        self.report = report
        self.more = more


class KeepsReceipts(FailedRun):
    """The run was broken off from outside; what it did is kept, and the same words go on from there."""


class UnfinishedParts(KeepsReceipts):
    """Parts of a run are not done yet, so nothing can be published."""


class LinesChosen(UnfinishedParts):
    """All parts have scanned their lines, and the lines are chosen; their rows come when the parts run once more."""


class TooManyRefused(FailedRun):
    """More lines were refused than `max_refused` allows."""

    exit_code = 3


class DamagedShard(FastsftError):
    """A compressed shard is damaged or ends early, so nothing of it can be trusted."""


class NoRow(FastsftError):
    """A line gives no row.

    Attributes:
        reason: The code that the report counts it under, such as `bad_json`.
        problem: One sentence for a person: what was expected and what was found.
    """

    def __init__(self, reason: str, problem: str) -> None:
        Exception.__init__(self, reason, problem)
        self.reason = reason
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class Refused(NoRow):
    """A line cannot become a row. Raising it is all that a new reason needs, with its line in README's table."""


class Dropped(NoRow):
    """A rollout has a row, and that is not wanted."""


class Stopped(BaseException):
    """A signal asked the run to end; raised where it was, so that everything is cleaned up on the way out.

    Attributes:
        number: Which signal.
        keeps_receipts: Whether the same command goes on from what was done.
    """

    keeps_receipts = False

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def errors_naming(path: Path, outcome: str = "nothing was published") -> Iterator[None]:
    """Turn an operating system's error into one that says which path and what came of the run."""
    try:
        yield
    except OSError as error:
        raise FailedRun(f"cannot write {path}: {error.strerror}; {outcome}") from None


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Turn what no input and no word of a command is to blame for into an error with a sentence."""
    try:
        yield
    except MemoryError:
        raise FailedRun(
            "out of memory; nothing was published (fewer --jobs and a smaller --max-line need less)"
        ) from None
    except ImportError as error:
        name = error.name or "a library"
        raise FailedRun(f"cannot load {name}: {error}; install fastsft anew, in a fresh environment") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # Polars' own, which no except clause can name without Polars
            raise
        raise FailedRun(f"Polars failed, please report this: {error}; nothing was published") from None

"""Return the files of a run their names, all outputs of it at one point.

Everything lies complete and flushed in the staging folders. Then one record says what goes where and what goes away;
from the moment that it is there, the run has happened: whoever finds the record finishes what it says. Before that,
nothing has changed. Order: the record, the old reports away, renames, old files away, reports, folders flushed, the
record away.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from fastsft.errors import FailedRun, UsageError, errors_naming
from fastsft.storage.files import discard, flush, kind_of, read_file, remove, rename, write_new

RECORD = "publish.json"


class Publication(msgspec.Struct, frozen=True):
    """What publishing does, in order; paths are relative to the folder of the first output, which may be moved.

    Attributes:
        renames: Each staged file and its final path.
        away: Old files of rows and of refused lines that the run does not replace.
        reports: Each staged report and its final path.
    """

    renames: list[tuple[str, str]]
    away: list[str]
    reports: list[tuple[str, str]]

    def relative_to(self, folder: Path) -> Publication:
        """Return the same with relative paths."""

        def pairs(paths: list[tuple[str, str]]) -> list[tuple[str, str]]:
            return [(os.path.relpath(staged, folder), os.path.relpath(final, folder)) for staged, final in paths]

        away = [os.path.relpath(path, folder) for path in self.away]
        return Publication(pairs(self.renames), away, pairs(self.reports))


class _Elsewhere(msgspec.Struct, frozen=True):
    """What lies in the staging folders of a run's other outputs: where the record is, relative to the output."""

    record: str


def publish(publication: Publication, staging: Sequence[Path]) -> None:
    """Publish what lies staged; the first folder of `staging` holds the record, the others name it.

    Raises:
        FailedRun: The record could not be written, and nothing was published; or a file could not get its name, and
            the next run, or `fastsft verify`, goes on with it.
    """
    record = staging[0] / RECORD
    others = [folder for folder in staging[1:] if folder != staging[0]]
    publication = publication.relative_to(staging[0].parent)
    try:
        for folder in others:
            write_new(folder / RECORD, msgspec.json.encode(_Elsewhere(os.path.relpath(record, folder.parent))))
        write_new(record, msgspec.json.encode(publication))
        with errors_naming(record):
            flush(staging[0])
    except BaseException:
        for folder in staging:
            discard(folder / RECORD)
        raise
    _carry_out(publication, record)
    for folder in others:
        discard(folder / RECORD)


def is_pending(staging: Path) -> bool:
    """Tell whether a record lies in a staging folder, of what has begun to be published."""
    return kind_of(staging / RECORD) == "file"


def check_nothing_is_pending(folders: Iterable[str]) -> None:
    """Make sure that no run that died had begun to publish in folders: some files there may be old and others new.

    Raises:
        UsageError: One had.
    """
    for folder in folders:
        for staging in sorted(Path(folder).glob(".*.fastsft")):
            if is_pending(staging):
                problem = f"{folder} is half published, as a run was killed there"
                raise UsageError(f"{problem}; `fastsft verify {folder}` finishes it")


def finish_publication(staging: Path) -> bool:
    """Finish what a run that died had begun to publish, if there is a record of it; tell whether there was.

    Raises:
        FailedRun: It cannot be finished.
    """
    record = staging / RECORD
    try:
        if elsewhere := _elsewhere(record):  # another output of the run has it
            record = staging.parent / elsewhere
        publication = msgspec.json.decode(read_file(record), type=Publication)
    except FileNotFoundError:
        discard(staging / RECORD)
        return False
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(record, error) from None
    _carry_out(publication, record)
    discard(staging / RECORD)
    return True


def _elsewhere(record: Path) -> str | None:
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(read_file(record), type=_Elsewhere).record
    return None


def _unreadable(record: Path, error: Exception) -> FailedRun:
    return FailedRun(f"{record} cannot be read ({error}); a run was publishing there: remove it by hand")


def _carry_out(publication: Publication, record: Path) -> None:
    """Do what a record says; what was done before is not done again.

    Raises:
        FailedRun: A file is gone, or the system would not do it.
    """
    folder = record.parent.parent
    with errors_naming(record, f"publishing was not finished, and the next run goes on with it ({record})"):
        for staged, final in publication.reports:
            if (folder / staged).exists():  # else it is the new one
                _remove(folder / final)
        for staged, final in publication.renames:
            _rename(folder / staged, folder / final)
        for path in publication.away:
            _remove(folder / path)
        for staged, final in publication.reports:
            _rename(folder / staged, folder / final)
        for name in _folders(publication):
            flush(folder / name)
    discard(record)  # if it stays, the next run finds all done that it says


def _folders(publication: Publication) -> Iterable[str]:
    return sorted({os.path.dirname(final) for _, final in (*publication.renames, *publication.reports)})


def _rename(staged: Path, final: Path) -> None:
    try:
        rename(staged, final)
    except FileNotFoundError:
        if not final.is_file():  # else it has its name already
            raise FailedRun(f"{staged} is gone, and {final} was to be made of it: convert again") from None


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        remove(path)

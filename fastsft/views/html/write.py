"""Write the page of an output beside its report, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from fastsft.errors import UsageError
from fastsft.options import DEFAULT_RENDER_SECONDS
from fastsft.outputs.target import check_promise
from fastsft.pipeline.overview import output_at, overview_of
from fastsft.storage.files import kind_of, open_file
from fastsft.storage.whole import written_whole
from fastsft.views.html.page import GENERATOR, page_of

_HEAD_NBYTES = 1024  # in which a page says that it is ours


def write_page(
    output: str | os.PathLike[str],
    page: str | os.PathLike[str] | None = None,
    *,
    template: str | None = None,
    render_seconds: float = DEFAULT_RENDER_SECONDS,
) -> Path:
    """Write the page of an output to `page`, or beside its report, and return where it is.

    Raises:
        UsageError: There is no report, or something that is no page of ours would be overwritten.
        FailedRun: The report cannot be read, files change while they are read, or the page cannot be written.
    """
    target = output_at(output)
    path = target.folder / f"{target.stem}.report.html" if page is None else Path(page)
    _check(path)
    overview = overview_of(target, template=template, render_seconds=render_seconds)
    with written_whole(path) as part, part.open("wb") as file:
        file.write(page_of(overview))
    return path


def _check(path: Path) -> None:
    """Make sure that a page takes the place of a page or of nothing.

    Raises:
        UsageError: It would not.
    """
    check_promise(str(path), "the report is a page, as report.html", ("html",))
    try:
        kind = kind_of(path)
        if kind == "folder":
            raise UsageError(f"{path} is a folder; name a file in it, as {path / 'report.html'}")
        if kind is None and not os.path.lexists(path):
            return
        with open_file(path) as file:
            head = file.read(_HEAD_NBYTES)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    if GENERATOR.encode() not in head:
        raise UsageError(f"{path} is there and no page of fastsft's; move it, or choose another with --output")

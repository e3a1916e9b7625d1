"""Write one file so that it is whole or absent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fastsft.errors import errors_naming
from fastsft.storage.files import create, discard, flush, part_of


@contextlib.contextmanager
def written_whole(path: Path, outcome: str = "nothing was written") -> Iterator[Path]:
    """Return the path of an unfinished file, which gets the name `path` at the end of the block, or never does.

    Raises:
        FailedRun: The system would not write it; `outcome` says what came of it.
    """
    part = part_of(path, ".")
    with errors_naming(path, outcome):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(create(part))  # by us, so that writing to it follows no link
        try:
            yield part
            flush(part)
            os.replace(part, path)
        except BaseException:
            discard(part)
            raise
        with contextlib.suppress(OSError):  # it is there, and whole
            flush(path.parent)

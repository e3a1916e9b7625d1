"""Write one file so that it is whole or absent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fastsft.errors import errors_naming


@contextlib.contextmanager
def written_whole(path: Path, outcome: str = "nothing was written") -> Iterator[Path]:
    """Return the path of an unfinished file, which gets the name `path` at the end of the block, or never does.

    Raises:
        FailedRun: The system would not write it; `outcome` says what came of it.
    """
    part = path.with_name(f".{path.name}.part")  # hidden, as nobody's own file is
    with errors_naming(path, outcome):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

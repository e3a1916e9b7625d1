"""Parquet files of rows, read as the JSON lines that they were made of: what is null was not there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, Any

import msgspec

from fastsft.storage.files import open_file

_BATCH_ROWS = 256
_encode = msgspec.json.Encoder().encode


def open_parquet(file: str | IO[bytes]) -> IO[bytes]:
    """Open a Parquet file as a stream of JSON lines, a few rows at once in memory.

    Raises:
        EOFError: It is damaged; so do reads.
    """
    return io.BufferedReader(_Lines(file))


def parquet_rows(file: IO[bytes]) -> int:
    """Return how many rows a Parquet file says it has.

    Raises:
        EOFError: It is damaged.
    """
    import polars as pl

    try:
        return int(pl.scan_parquet(file).select(pl.len()).collect().item())
    except pl.exceptions.PolarsError as error:
        raise EOFError(str(error).splitlines()[0]) from None


class _Lines(io.RawIOBase):
    def __init__(self, file: str | IO[bytes]) -> None:
        self._file = open_file(file) if isinstance(file, str) else file
        self._lines = _lines_of(self._file)
        self._left = b""

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the lines that come next."""
        if not self._left:
            self._left = next(self._lines, b"")
        taken = self._left[: len(buffer)]
        buffer[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _lines_of(file: IO[bytes]) -> Iterator[bytes]:
    import polars as pl

    try:
        rows = parquet_rows(file)
        for start in range(0, rows, _BATCH_ROWS):
            file.seek(0)
            batch = pl.scan_parquet(file).slice(start, _BATCH_ROWS).collect()
            yield b"".join(_encode(without_nulls(row)) + b"\n" for row in batch.iter_rows(named=True))
    except pl.exceptions.PolarsError as error:
        raise EOFError(str(error).splitlines()[0]) from None


def without_nulls(value: Any) -> Any:
    """Return a value without the keys that are null in it."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value

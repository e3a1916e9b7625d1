"""An index: the table of lines in a Parquet file, so that choosing again reads the chosen lines alone.

It holds a row for each rollout and one for each refused line, and in its metadata which shards it is of: it fits
while their sizes and modification times are the same. A digest tells whether it is whole before anything else is read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from fastsft.errors import FailedRun, UsageError
from fastsft.formats.row import Layout
from fastsft.inputs.shards import Shard, printable
from fastsft.options import INDEX_NAME, Options
from fastsft.report import Fates, Report
from fastsft.selection.table import COLUMNS, FROM_SIDES, TablePart, write_part
from fastsft.selection.tasks import with_tasks
from fastsft.storage.files import kind_of, rewrite
from fastsft.storage.seal import UNSEALED, head_of, is_whole, seal
from fastsft.version import __version__

_COMMAND = "fastsft index INPUT... --output FILE"
_KEY = "fastsft"
_BLOCK_ROWS = 250_000  # read at once where some are enough
_VERSION = 6  # of what it holds and how it is found
_REFUSED = {"reason": pl.String, "problem": pl.String}  # of lines that are no rollout
_REFUSED_COLUMNS = ("shard_index", "line", "offset", *_REFUSED)


class _Entry(msgspec.Struct):
    """One shard as it was when it was scanned."""

    path: str
    nbytes: int
    modified_ns: int
    fates: Fates
    problem: str | None


class _About(msgspec.Struct):
    """What the metadata say: the head, the shards, and what rows were asked for and hashed, and their turns."""

    version: int
    fastsft: str
    sha256: str
    max_line_nbytes: int
    layout: Layout
    trainer: str | None
    content: bool
    shards: list[_Entry]
    sides: bool = False


class KnownShard(NamedTuple):
    """What an index knows of a shard of the run beside its rollouts.

    Attributes:
        shard_index: Which of the run's shards it is.
        fates: Of the lines that are no rollouts.
        problem: Why it was refused whole; None where it was not.
    """

    shard_index: int
    fates: Fates
    problem: str | None


class Index:
    """An index that fits the shards of a run."""

    def __init__(self, path: str, about: _About, shards: Sequence[Shard], entries: Sequence[int]) -> None:
        self._path = path
        self._about = about
        self._shards = shards
        self._entries = entries  # where each shard of the run stands in the index

    def read(self, names: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Read the columns `names` of the run's rollouts, in its order, and its refused lines.

        Raises:
            FailedRun: The file is damaged.
        """
        wanted = list(dict.fromkeys([*names, "shard_index", "line", "offset", "reason", "problem"]))
        with self._reading() as lines:
            known = self._of_run(lines.select(wanted)).collect()
        is_rollout = pl.col("reason").is_null()
        rollouts = known.filter(is_rollout).select(names).sort("shard_index", maintain_order=True)
        refused = known.filter(is_rollout.not_()).select(_REFUSED_COLUMNS)
        return rollouts, refused.sort("shard_index", "line")

    def write_parts(self, names: Sequence[str], folder: Path, nrows: int) -> tuple[list[TablePart], pl.DataFrame]:
        """Write what `read` would return of rollouts as parts of a table, so many lines at once; and the refused lines.

        Raises:
            FailedRun: The file is damaged, or the parts cannot be written.
        """
        parts = []
        with self._reading() as lines:
            for number, (start, count) in enumerate(self._pieces(lines, nrows)):
                rollouts = lines.slice(start, count).filter(pl.col("reason").is_null())
                known = self._of_run(rollouts).select(names).collect()
                if not known.is_empty():
                    path = folder / f"index-{number:06}.arrow"
                    write_part([known], path)
                    parts.append(TablePart(path, len(known), known["shard_index"][0], 0))
            refused = self._of_run(lines.filter(pl.col("reason").is_not_null())).select(_REFUSED_COLUMNS)
            return parts, refused.collect(engine="streaming").sort("shard_index", "line")

    def _pieces(self, lines: pl.LazyFrame, nrows: int) -> Iterator[tuple[int, int]]:
        """Return where the lines of the run's shards stand in the file, in the run's order, so many lines at once."""
        counts = dict(lines.group_by("shard_index").agg(pl.len()).collect(engine="streaming").rows())
        known = sorted(counts)
        starts = dict(zip(known, accumulate((counts[entry] for entry in known[:-1]), initial=0), strict=True))
        stretches: list[tuple[int, int]] = []
        for entry in filter(counts.__contains__, self._entries):
            start, count = starts[entry], counts[entry]
            if stretches and sum(stretches[-1]) == start:  # one shard goes on where another ends
                start, count = stretches[-1][0], stretches.pop()[1] + count
            stretches.append((start, count))
        for start, count in stretches:
            for at in range(start, start + count, nrows):
                yield at, min(nrows, start + count - at)

    def _of_run(self, lines: pl.LazyFrame) -> pl.LazyFrame:
        """Take the lines of the run's shards alone, and name these as the run does."""
        paths = [printable(shard.path) for shard in self._shards]
        columns = {"shard_index": self._entries, "now": range(len(paths)), "path": paths}
        indexes = pl.LazyFrame(columns, schema={"shard_index": pl.UInt32, "now": pl.UInt32, "path": pl.String})
        known = lines.join(indexes, on="shard_index", how="inner", maintain_order="left")
        return known.with_columns(pl.col("now").alias("shard_index"), pl.col("path").alias("shard"))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[pl.LazyFrame]:
        try:
            with open(self._path, "rb") as file:  # a path would be taken for a glob
                yield pl.scan_parquet(file)
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            problem = f"{self._path} is damaged ({type(error).__name__}); rebuild it with: {_COMMAND}"
            raise FailedRun(f"{problem}; nothing was published") from None

    @property
    def rows(self) -> int:
        """How many lines it holds, of all its shards."""
        with self._reading() as lines:
            return int(lines.select(pl.len()).collect().item())

    def some_rollouts(self, names: Sequence[str], *, most: int) -> Iterator[pl.DataFrame]:
        """Read columns of at most `most` of the run's rollouts, in blocks that lie evenly over the index.

        Raises:
            FailedRun: The file is damaged.
        """
        blocks = -(-self.rows // _BLOCK_ROWS)
        wanted = min(blocks, max(1, most // _BLOCK_ROWS))
        with self._reading() as lines:
            for number in range(wanted):
                block = lines.slice(number * blocks // wanted * _BLOCK_ROWS, _BLOCK_ROWS)
                of_run = pl.col("reason").is_null() & pl.col("shard_index").is_in(self._entries)
                yield block.filter(of_run).select(names).collect()

    def known_shards(self) -> list[KnownShard]:
        """Return what is known of the run's shards, in its order."""
        entries = [self._about.shards[entry] for entry in self._entries]
        return [
            KnownShard(shard.index, entry.fates, entry.problem)
            for shard, entry in zip(self._shards, entries, strict=True)
        ]


def index_for(
    path: str | os.PathLike[str] | None, shards: Sequence[Shard], options: Options, notes: list[str]
) -> Index | None:
    """Return the index that was named, or the one that lies beside the first shard and fits; None without any.

    Raises:
        UsageError: The one that was named is none, or does not fit.
    """
    if path is not None:
        return _fitting(os.fspath(path), shards, options)
    beside = os.path.join(os.path.dirname(shards[0].path), INDEX_NAME)
    if kind_of(beside) != "file":
        return None
    try:
        found = _fitting(beside, shards, options)
    except UsageError as problem:
        notes.append(f"{problem}; it is not used")
        return None
    notes.append(f"{beside} is used instead of a scan")
    return found


def _about_of(path: str) -> _About:
    """Read what an index says of itself.

    Raises:
        UsageError: It is none, of another version, or damaged.
    """
    again = f"rebuild it with: {_COMMAND}"
    try:
        head = head_of(path)
        if head is None:
            raise UsageError(f"{path} is no index of fastsft; make one with: {_COMMAND}")
        if head.version != _VERSION:
            raise UsageError(f"{path} is an index of fastsft {head.fastsft}, which this one cannot read; {again}")
        if not is_whole(path, head):
            raise UsageError(f"{path} is damaged; {again}")
        with open(path, "rb") as file:  # a path would be taken for a glob
            return msgspec.json.decode(pl.read_parquet_metadata(file)[_KEY], type=_About)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _fitting(path: str, shards: Sequence[Shard], options: Options) -> Index:
    about = _about_of(path)
    again = f"rebuild it with: {_COMMAND}"
    if about.max_line_nbytes != options.max_line_nbytes:
        raise UsageError(f"{path} was made with --max-line {about.max_line_nbytes}, and this run has another; {again}")
    if options.pairing is not None:
        _check_sides(path, about, options)
    elif (about.layout, about.trainer) != (options.layout, options.trainer):
        raise UsageError(
            f"{path} is of {about.layout.format} rows, and this run makes others; {again} --format "
            f"{options.layout.format} and the same --for, --arguments, --reasoning and --loss"
        )
    if options.dedup and not about.content:
        raise UsageError(f"{path} holds no hashes of rows; {again} --dedup")
    indexes = {entry.path: shard_index for shard_index, entry in enumerate(about.shards)}
    found = []
    for shard in shards:
        shard_index = indexes.get(_identity(shard))
        if shard_index is None:
            raise UsageError(f"{path} knows nothing of {shard.path}; {again}")
        entry = about.shards[shard_index]
        if (entry.nbytes, entry.modified_ns) != (shard.nbytes, shard.modified_ns):
            raise UsageError(f"{path} is older than {shard.path}, which has changed; {again}")
        found.append(shard_index)
    return Index(path, about, shards, found)


def _check_sides(path: str, about: _About, options: Options) -> None:
    """Make sure that pairs can be chosen by an index: how calls and tools are laid out changes none.

    Raises:
        UsageError: They cannot.
    """
    assert options.pairing is not None
    if options.pairing.laid_out.fit is not None:
        raise UsageError(f"{path} does not know what has no place in {options.pairing.format} rows; leave --index out")
    if not about.sides or about.layout.reasoning != options.layout.reasoning:
        chat = f"--format chat --pairs --reasoning {options.layout.reasoning}"
        raise UsageError(f"{path} does not know the turns of these rows; rebuild it with: {_COMMAND} {chat}")


def _identity(shard: Shard) -> str:
    return printable(shard.location if shard.is_stored else os.path.realpath(shard.path))


def refused_lines(parts: Iterable[tuple[Path, str, int]]) -> pl.DataFrame:
    """Read refused lines: of each file its path, and the shard in which so many lines stand before it."""
    schema = {"shard": pl.String, "line": pl.UInt64, "offset": pl.UInt64} | _REFUSED
    found = [pl.DataFrame(schema=schema)]
    for path, shard, before in parts:
        with path.open("rb") as file:  # a path would be taken for a glob
            lines = pl.read_ndjson(file, schema=schema)
        number = pl.col("line") + pl.when(pl.col("shard") == shard).then(before).otherwise(0)
        found.append(lines.with_columns(number.cast(pl.UInt64)))
    return pl.concat(found)


def columns_for(options: Options) -> list[str]:
    """List the columns that a scan finds for an index."""
    known = [name for name in COLUMNS if name != "task"]
    hashed = [*(["content"] if options.dedup else []), *(FROM_SIDES if options.pairs else ())]
    return ["shard_index", *known, "prompt", "unusable", "problem", *hashed]


def write_table(
    path: Path,
    lines: pl.DataFrame,
    refused: pl.DataFrame,
    report: Report,
    shards: Sequence[Shard],
    options: Options,
) -> None:
    """Write the table of all lines as an index, to a path that another process gives its name.

    Raises:
        FailedRun: It cannot be written.
    """
    entries = [
        _Entry(_identity(shard), shard.nbytes, shard.modified_ns, entry.fates, entry.problem)
        for shard, entry in zip(shards, report.inputs, strict=True)
    ]
    about = _About(
        _VERSION,
        __version__,
        UNSEALED,
        options.max_line_nbytes,
        options.layout,
        options.trainer,
        options.dedup,
        entries,
        options.pairs,
    )
    indexes = {"shard": [entry.path for entry in report.inputs], "shard_index": range(len(report.inputs))}
    known = pl.DataFrame(indexes, schema={"shard": pl.String, "shard_index": pl.UInt32})
    unusable = refused.join(known, on="shard", how="left", maintain_order="left")
    both = pl.concat([with_tasks(lines), unusable], how="diagonal").sort("shard_index", "offset", maintain_order=True)
    try:
        with rewrite(path) as file:
            both.write_parquet(file, metadata={_KEY: msgspec.json.encode(about).decode()})
    except pl.exceptions.PolarsError as error:  # it tells of a full disk itself
        raise FailedRun(f"cannot write {path}: {str(error).splitlines()[0]}; nothing was written") from None
    seal(path)

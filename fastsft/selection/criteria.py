"""Why a line is dropped: Polars expressions over the table of lines, in the order of asking.

Each criterion is a reason and an expression that is true where a line is dropped for it,
among the lines that those before it left. Most judge a line by itself and are asked chunk by
chunk, in the one pass over the input. As soon as one compares lines, the table of
the whole run is scanned first, and the chosen lines are read after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal, NamedTuple, TypeAlias

import polars as pl

from fastsft.errors import FailedRun, UsageError
from fastsft.options import Options
from fastsft.quantities import sample_of
from fastsft.selection.entries import columns_of_pairs
from fastsft.selection.gates import ValueCriterion, gate_criteria, reward_criteria
from fastsft.selection.table import COLUMNS, frame_of
from fastsft.selection.tasks import TASK_FROM, draw, draw_for, rank, split_of, with_tasks
from fastsft.selection.where import functions_in

# Functions of SQL that look at one line; with any other, and with these columns, lines are compared.
_LINE_BY_LINE = frozenset(
    "IN AND OR NOT BETWEEN LIKE ILIKE ABS CEIL CEILING FLOOR ROUND SIGN SQRT MOD LOWER UPPER LENGTH CHAR_LENGTH "
    "OCTET_LENGTH STARTS_WITH ENDS_WITH REGEXP_LIKE CONCAT LEFT RIGHT TRIM LTRIM RTRIM COALESCE IFNULL NULLIF CAST "
    "GREATEST LEAST IF".split()
)
_OF_THE_WHOLE_RUN = frozenset({"line", "task"})
_NUMBERS = ("line", "offset", "nbytes", "turns", "calls", "tokens")  # unsigned in the table


class Criterion(NamedTuple):
    """A reason to drop a line.

    Attributes:
        reason: The code it is counted under.
        dropped: What is true of the line.
        compares: Whether that depends on other lines.
        of_rows: Whether it is asked of what has a row alone, as what has none must take no other's place.
    """

    reason: str
    dropped: pl.Expr
    compares: bool = False
    of_rows: bool = False


@lru_cache(maxsize=8)
def criteria(options: Options) -> tuple[Criterion, ...]:
    """List why lines are dropped, in the order of asking.

    Raises:
        UsageError: `where` is not an expression over the table's columns.
    """
    return tuple(_criteria(options))


def _criteria(options: Options) -> Iterator[Criterion]:
    reward, task = pl.col("reward"), pl.col("task")
    yield from map(_on_column, gate_criteria(options))
    if options.pass_rate is not None:
        share = (reward >= options.reward_threshold).mean().over(task)
        yield Criterion("pass_rate", share.is_between(*options.pass_rate).not_(), compares=True)
    yield from map(_on_column, reward_criteria(options))
    if options.where is not None:
        expression, compares = where_of(options.where)
        yield Criterion("where", expression.fill_null(False).not_(), compares)
    if options.max_tokens is not None and options.template is None:
        yield Criterion("too_long", (pl.col("tokens") > options.max_tokens).fill_null(False))
    if options.makes == "tasks":
        yield Criterion("same_task", rank(["order"], of="task") >= 1, True, of_rows=True)
    if options.dedup:
        content = pl.col("content")
        again = content.is_not_null() & content.is_first_distinct().not_()
        yield Criterion("duplicate", again, True, of_rows=True)
    if options.best_of is not None:
        best_first = [-reward, pl.col("tokens").fill_null(2**32 - 1), pl.col("nbytes"), pl.col("order")]
        yield Criterion("not_best", rank(best_first, of="task") >= options.best_of, True, of_rows=True)
    if options.per_task is not None:
        drawn = rank([draw_for("per_task"), pl.col("order")], of="task")
        yield Criterion("per_task", drawn >= options.per_task, True, of_rows=True)
    if options.per_agent is not None:
        drawn = rank([draw_for("per_agent"), pl.col("order")], of="agent")
        yield Criterion("per_agent", drawn >= options.per_agent, True, of_rows=True)
    if options.sample is not None:
        count, part = sample_of(options.sample)
        wanted = pl.lit(count) if part is None else pl.len().cast(pl.UInt64) * part.numerator // part.denominator
        shard_index = pl.int_range(pl.len()).sort_by(draw_for("not_sampled"), "order").arg_sort()
        yield Criterion("not_sampled", shard_index >= wanted, True, of_rows=True)


def _on_column(one: ValueCriterion) -> Criterion:
    return Criterion(one.reason, one.drops(pl.col(one.column)))


def where_of(text: str) -> tuple[pl.Expr, bool]:
    """Read an SQL expression over the table's columns; and tell whether it compares lines.

    Raises:
        UsageError: It is none, or names a column that is not there.
    """
    columns = f"the columns are: {', '.join(COLUMNS)}"
    functions = functions_in(text)
    try:
        expression = pl.sql_expr(f"({text}\n)")  # the brackets let Polars 1.30 see what stands behind an expression
        if unknown := [name for name in expression.meta.root_names() if name not in COLUMNS]:
            hint = " (text stands in single quotes)" if '"' in text else ""
            raise UsageError(f"--where names no column of the table: {unknown[0]}{hint}; {columns}")
        empty = pl.DataFrame(schema={name: column.dtype for name, column in COLUMNS.items()})
        kind = _signed(empty).select(expression.alias("where")).collect()["where"].dtype
    except (pl.exceptions.PolarsError, UnicodeEncodeError, OSError) as error:
        raise UsageError(f"--where cannot be read: {str(error).splitlines()[0]}; {columns}") from None
    if kind != pl.Boolean:
        raise UsageError(f"--where must be true or false of a line, and {text!r} is neither but {kind}; {columns}")
    compares = not functions <= _LINE_BY_LINE or bool(_OF_THE_WHOLE_RUN & set(expression.meta.root_names()))
    return expression, compares


def compares_lines(options: Options) -> bool:
    """Tell whether choosing takes the table of the whole run, or what rows say of where they come from."""
    pairs = options.pairing is not None
    return pairs or any(criterion.compares for criterion in criteria(options)) or options.places_lines


def _beyond_values(options: Options) -> list[Criterion]:
    """List the criteria that judge each line by itself and that `gates.py` cannot ask."""
    by_value = {one.reason for one in (*gate_criteria(options), *reward_criteria(options))}
    return [one for one in criteria(options) if not one.compares and one.reason not in by_value]


@lru_cache(maxsize=8)
def columns_beyond_values(options: Options) -> tuple[str, ...]:
    """List the columns that these criteria ask for."""
    return _asked(_beyond_values(options))


def columns_of(options: Options, *, splits: bool) -> list[str]:
    """List the columns that a scan must find for all criteria, and for the splits."""
    asked = [*_asked(criteria(options)), *(["task"] if splits or "task" in options.provenance else [])]
    found = ["shard_index", "line", "offset", "nbytes", "unusable", "problem"]
    if options.pairing is not None:
        asked += columns_of_pairs(options.pairing)
    for name in asked:
        found += TASK_FROM if name in ("task", "draw") else [] if name == "order" else [name]
    return list(dict.fromkeys(found))


def _asked(several: Iterable[Criterion]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for one in several for name in one.dropped.meta.root_names()))


def _reason(asked: Sequence[Criterion]) -> pl.Expr:
    return pl.coalesce(pl.when(dropped).then(pl.lit(reason)) for reason, dropped, *_ in asked).alias("reason")


def _batches(several: Iterable[Criterion]) -> Iterator[list[Criterion]]:
    """Group criteria that may be asked at once; `where` may not, as it may fail for lines that others drop."""
    for alone, group in groupby(several, key=lambda one: one.compares or one.reason == "where"):
        asked = list(group)
        yield from [[one] for one in asked] if alone else [asked]


def drop_reasons(known: Mapping[str, Sequence[Any]], options: Options) -> list[str | None]:
    """Return the drop reason of each line, or None where it is kept, by the criteria beyond single values.

    Args:
        known: The columns that `columns_beyond_values` lists, by their names, of lines that `gates.py` keeps.
        options: The criteria.

    Raises:
        FailedRun: `where` cannot be worked out for a line.
    """
    found: list[str | None] = _judged(frame_of(known), _reason_beyond_values(options), "in-memory")["reason"].to_list()
    return found


@lru_cache(maxsize=8)
def _reason_beyond_values(options: Options) -> pl.Expr:
    return _reason(_beyond_values(options))


def _signed(lines: pl.DataFrame) -> pl.LazyFrame:
    """Let numbers be subtracted: `turns - 100` of an unsigned column would be four thousand million."""
    names = [name for name in _NUMBERS if name in lines.columns]
    return lines.lazy().with_columns(pl.col(names).cast(pl.Int64)) if names else lines.lazy()


def _judged(lines: pl.DataFrame, reason: pl.Expr, engine: Literal["auto", "in-memory"] = "auto") -> pl.DataFrame:
    """Return `shard_index` and `reason` of each line, where the table has them.

    For few lines the engine is `in-memory`: a quarter of the time, as the other hands them to threads.

    Raises:
        FailedRun: `where` cannot be worked out for a line, as a cast of a name to a number.
    """
    shard_index = [name for name in ("shard_index",) if name in lines.columns]
    try:
        return _signed(lines).select(*shard_index, reason).collect(engine=engine)
    except pl.exceptions.PolarsError as error:
        first = str(error).splitlines()[0]
        raise FailedRun(f"--where cannot be worked out: {first}; nothing was published") from None


def choose(
    lines: pl.DataFrame, options: Options, shares: Sequence[float] = ()
) -> tuple[pl.DataFrame, Dropped, pl.DataFrame]:
    """Choose from the table of the whole run, a row for each rollout, in input order.

    Args:
        lines: The columns that `columns_of` lists.
        options: The criteria.
        shares: What part of the tasks goes to each split; the rest stays in split 0.

    Returns:
        The chosen lines, with their `split`; index of the shard, reason and count of those dropped; and index, line,
        offset, reason and problem of those that are not dropped and have no row.
    """
    left = lines.with_row_index("order")
    if set(TASK_FROM) <= set(lines.columns):
        left = with_tasks(left)
    judged = judge(left, options)
    left, dropped = without_dropped(judged.left, [one for one in criteria(options) if one.of_rows])
    return with_split(left, options, shares), [*judged.dropped, *dropped], judged.rowless.drop("order")


Dropped: TypeAlias = "list[tuple[int, str, int]]"  # index of a shard, reason, how many lines


class Judged(NamedTuple):
    """What is known of lines before those that have rows are compared.

    Attributes:
        left: The lines that have rows and are wanted so far, with their draws where these are asked for.
        dropped: The others, counted.
        rowless: Those that are not dropped and have no row.
    """

    left: pl.DataFrame
    dropped: Dropped
    rowless: pl.DataFrame


def judge(lines: pl.DataFrame, options: Options) -> Judged:
    """Judge lines that have an `order` and, where it is asked for, a `task`; all lines of a task are among them."""
    left = lines
    if "draw" in _asked(criteria(options)):
        left = left.with_columns(draw(options.seed).alias("draw"))
    left, dropped = without_dropped(left, [one for one in criteria(options) if not one.of_rows])
    # What has no row takes no other's place: it is gone before rows are compared and counted.
    without_row = left.filter(pl.col("unusable").is_not_null())
    left = left.filter(pl.col("unusable").is_null())
    # Of rows that there are, and that are not wanted: a colon stands before the name of a finding.
    unwanted = (pl.col("unusable") == "too_long") | pl.col("unusable").str.contains(":", literal=True)
    counts = (
        without_row.filter(unwanted).group_by("shard_index", "unusable").agg(pl.len()).sort("shard_index", "unusable")
    )
    rowless = without_row.filter(unwanted.not_())
    rowless = rowless.select("order", "shard_index", "line", "offset", pl.col("unusable").alias("reason"), "problem")
    return Judged(left, [*dropped, *counts.rows()], rowless)


def without_dropped(left: pl.DataFrame, several: Iterable[Criterion]) -> tuple[pl.DataFrame, Dropped]:
    """Ask criteria one after another; the lines that none drops, and the others, counted."""
    dropped: Dropped = []
    for at_once in _batches(several):
        gone, left = _ask(left, at_once, "shard_index")
        dropped.extend(gone.group_by("shard_index", "reason").agg(pl.len()).sort("shard_index", "reason").rows())
    return left, dropped


def _ask(left: pl.DataFrame, at_once: Sequence[Criterion], name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the column `name` and the `reason` of the lines that go, and the lines that are left."""
    reason = _judged(left, _reason(at_once))["reason"]
    gone = pl.DataFrame([left[name], reason]).filter(reason.is_not_null())
    return gone, left.filter(reason.is_null())


def with_reasons(lines: pl.DataFrame, options: Options) -> pl.DataFrame:
    """Add the `reason` of each line of a whole run, as `choose` counts them; null where it is kept.

    `lines` has the columns that `columns_of` lists.

    Raises:
        FailedRun: `where` cannot be worked out for a line.
    """
    left = lines.with_row_index("order")
    if set(TASK_FROM) <= set(lines.columns):
        left = with_tasks(left)
    if "draw" in _asked(criteria(options)):
        left = left.with_columns(draw(options.seed).alias("draw"))
    known = []
    for at_once in _batches(one for one in criteria(options) if not one.of_rows):
        gone, left = _ask(left, at_once, "order")
        known.append(gone)
    known.append(left.filter(pl.col("unusable").is_not_null()).select("order", pl.col("unusable").alias("reason")))
    left = left.filter(pl.col("unusable").is_null())
    for at_once in _batches(one for one in criteria(options) if one.of_rows):
        gone, left = _ask(left, at_once, "order")
        known.append(gone)
    return (
        lines.with_row_index("order")
        .join(pl.concat(known), on="order", how="left", maintain_order="left")
        .drop("order")
    )


def matching(lines: pl.DataFrame, where: str) -> pl.Series:
    """Tell of each line whether an expression is true of it; all lines of the run are among them.

    Raises:
        UsageError: It is no expression over the table's columns.
        FailedRun: It cannot be worked out for a line.
    """
    expression, _ = where_of(where)
    known = with_tasks(lines) if "task" in expression.meta.root_names() else lines
    reason = pl.when(expression.fill_null(False)).then(pl.lit("yes")).alias("reason")
    return _judged(known, reason)["reason"].is_not_null()


def columns_asked(where: str) -> list[str]:
    """List the columns of a scan that an expression asks for."""
    names = where_of(where)[0].meta.root_names()
    return list(dict.fromkeys(one for name in names for one in (TASK_FROM if name == "task" else [name])))


def with_split(left: pl.DataFrame, options: Options, shares: Sequence[float]) -> pl.DataFrame:
    """Add which split each line goes to."""
    split = split_of(shares, options.seed) if shares else pl.lit(0)
    return left.with_columns(split.cast(pl.UInt8).alias("split"))

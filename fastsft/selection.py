"""The table of lines, and the Polars expressions that choose from it, lazily.

Each line that is a rollout has one row in the table; each criterion is a reason
and an expression over the table's columns that is true where the line is dropped
for it. The criteria are asked in order, and the first that holds is the reason. A
criterion that judges each line by itself joins `criteria`; those that compare lines
take the same table, of the whole run instead of one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from fastsft.options import Options

COLUMNS = {
    "line": pl.UInt32,  # place of the line in its chunk, from 0
    "reward": pl.Float64,  # no unit; null where the rollout says null
}


def table(lines: Sequence[int], rewards: Sequence[float | None]) -> pl.DataFrame:
    """Build the table of one chunk, a row for each rollout."""
    return pl.DataFrame([pl.Series("line", lines, COLUMNS["line"]), pl.Series("reward", rewards, COLUMNS["reward"])])


def criteria(options: Options) -> list[tuple[str, pl.Expr]]:
    """List why lines are dropped, with what is true of them, in the order of asking."""
    return [
        ("no_reward", pl.col("reward").is_null()),
        ("below_threshold", pl.col("reward") < options.reward_threshold),
    ]


def drop_reasons(lines: pl.LazyFrame, options: Options) -> list[str | None]:
    """Give for each row of the table why its line is dropped, or None where it is kept."""
    reason = pl.coalesce(
        pl.when(expression).then(pl.lit(reason)).otherwise(None) for reason, expression in criteria(options)
    )
    return lines.select(reason.alias("reason")).collect()["reason"].to_list()

"""How long does choosing from a table of 10 million lines take, and against DuckDB and pandas?

usage: python benchmarks/bench_select.py [--lines 10000000] [--pairs 3] [--results FOLDER]

The table is seeded: 8 rollouts a task, a tenth of them duplicates. Each program reads the same Parquet file in a
process of its own, and chooses the same: gates, a threshold, a length, no duplicates, the best two of each task. That
they choose the same lines is checked before any clock starts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
from timing import Results, Run, arguments, in_turns, peaks_of, ratios, run, seconds_of, spread

from fastsft.options import GATES


def main() -> None:
    parser = arguments(__doc__, pairs=3)
    parser.add_argument("--lines", type=int, help="lines of the table (default: 10000000, or as many as --size has)")
    parser.add_argument("--choose", choices=WORKS, help=argparse.SUPPRESS)
    parser.add_argument("--table", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.choose:
        print(WORKS[chosen.choose](chosen.table))
        return
    results = Results(chosen.results)
    count = chosen.lines or (10_000_000 if chosen.size == "200MB" else 10_000)  # at toy size, a toy table
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch, "table.parquet")
        _table(count).write_parquet(table)
        command = [sys.executable, __file__, "--table", str(table), "--choose"]
        answers = {name: subprocess.run([*command, name], check=True, capture_output=True).stdout for name in WORKS}
        if len(set(answers.values())) != 1:
            sys.exit(f"choices differ; settle that before timing: {answers}")

        def work_of(name: str) -> Run:
            return run([*command, name])

        raw = in_turns({name: (lambda name=name: work_of(name)) for name in WORKS}, pairs=chosen.pairs)
        size = table.stat().st_size
        results.add(
            f"{count:,} lines, {size / 1e6:,.0f} MB of Parquet: fastsft {seconds_of(raw['fastsft']):.2f} s, "
            f"{peaks_of(raw['fastsft'])}; chosen and sum of positions: {answers['fastsft'].decode().strip()}",
            raw,
        )
        for name in list(WORKS)[1:]:
            results.add(
                f"  {spread(ratios(raw[name], raw['fastsft']))} as fast as {name}: "
                f"{seconds_of(raw[name]):.2f} s, {peaks_of(raw[name])}",
                {},
            )


def _table(count: int) -> pl.DataFrame:
    position = pl.int_range(count, dtype=pl.UInt64)
    number = position.hash(seed=1)
    columns = {
        "shard_index": pl.lit(0, pl.UInt32),
        "line": position + 1,
        "offset": position * 20_000,
        "nbytes": (number % 30_000 + 1_000).cast(pl.UInt32),
        "reward": (position.hash(seed=2) % 101).cast(pl.Float64) / 100,
        "agent": pl.format("agent_{}", position.hash(seed=3) % 40),
        "task_index": pl.lit(None, pl.Int64),
        "prompt": (position // 8).hash(seed=4),
        "tokens": (number % 12_000).cast(pl.UInt32),
        "unusable": pl.lit(None, pl.String),
        "problem": pl.lit(None, pl.String),
        "content": pl.when(position.hash(seed=5) % 10 == 0)
        .then(position % 1000)
        .otherwise(position)
        .cast(pl.String)
        .cast(pl.Binary),
        **{gate: position.hash(seed=6 + index) % 50 == 0 for index, gate in enumerate(GATES)},
    }
    return pl.select(**columns)


def _fastsft(table: str) -> tuple[int, int]:
    from fastsft.options import Options
    from fastsft.selection.criteria import choose, columns_of

    options = Options(reward_threshold=0.5, where="tokens < 8192", dedup=True, best_of=2)
    names = columns_of(options, splits=False)
    chosen, *_ = choose(pl.read_parquet(table, columns=names), options)
    return len(chosen), int(chosen["line"].sum())


def _duckdb(table: str) -> tuple[int, int]:
    import duckdb

    query = f"""
        WITH alive AS (
            SELECT * FROM read_parquet('{table}')
            WHERE NOT ({" OR ".join(GATES)}) AND reward >= 0.5 AND tokens < 8192
            QUALIFY row_number() OVER (PARTITION BY content ORDER BY line) = 1
        ), best AS (
            SELECT line FROM alive
            QUALIFY row_number() OVER (PARTITION BY prompt ORDER BY reward DESC, tokens, nbytes, line) <= 2
        )
        SELECT count(*), sum(line)::BIGINT FROM best
    """
    count, total = duckdb.execute(query).fetchall()[0]
    return int(count), int(total)


def _pandas(table: str) -> tuple[int, int]:
    import pandas as pd

    lines = pd.read_parquet(table)
    gated = lines[list(GATES)].any(axis=1)
    lines = lines[~gated & (lines["reward"] >= 0.5) & (lines["tokens"] < 8192)].drop_duplicates("content")
    keys, up = ["reward", "tokens", "nbytes", "line"], [False, True, True, True]
    best = lines.sort_values(keys, ascending=up, kind="stable").groupby("prompt", sort=False).head(2)
    return len(best), int(best["line"].sum())


WORKS = {"fastsft": _fastsft, "duckdb": _duckdb, "pandas": _pandas}


if __name__ == "__main__":
    main()

"""The ways in which rollouts can be sides of pairs, as a table: an entry for each turn in which one can part.

Two entries can be a pair where they have the same `key`, the task and all that was said before, and `said` differs:
that is the first difference of their rollouts, so no pair of rollouts has two. With `--turn only` and `whole` a rollout
has one entry. With `first-difference` it has one for its first turn, and more only where another begins with the same.
"""

from __future__ import annotations

import polars as pl

from fastsft.formats.sides import TURN_NBYTES, turns_in
from fastsft.pairing import Pairing
from fastsft.selection.tasks import mixed

_SIDES = {
    "only": ("answer", "answer_length"),
    "first-difference": ("answer", "answer_length"),
    "whole": ("whole", "length"),
}
# Rewards are written with few digits: 1 - 0.8 is 0.2 to whoever writes 0.2, and less as doubles.
_ROUNDING = 1e-9
STAGES = ("no_partner", "same_content", "tie", "gap")  # how far a rollout comes on its way into a pair
PAIR_REASONS = ("multi_turn", *STAGES, "length", "per_task", "balance")  # why one is in no row


def columns_of_pairs(pairing: Pairing) -> list[str]:
    """List the columns that comparing takes, beside where lines are."""
    more = {"first-difference": ["later"], "only": ["acts"], "whole": []}[pairing.turns]
    return list(dict.fromkeys(["reward", "task", "tokens", "context", "whole", *_SIDES[pairing.turns], *more]))


def entries_of(lines: pl.DataFrame, pairing: Pairing) -> pl.DataFrame:
    """Return `order`, `task`, `reward`, `base`, `key`, `said`, `length` and `turn` of each entry.

    `base` is the key of the rollout's first; `turn` counts from 1, and is 0 where all turns are compared.
    """
    said, length = _SIDES[pairing.turns]
    entries = lines.select(
        "order", "task", "reward", _key(pl.col("context")).alias("base"),
        pl.col(said).alias("said"), pl.col(length).alias("length"),
        pl.lit(int(pairing.turns != "whole"), pl.UInt32).alias("turn"),
    ).with_columns(pl.col("base").alias("key"))  # fmt: skip
    if pairing.turns != "first-difference":
        return entries
    # A hash of an answer is one of all before it, too; with the task, as a part of the tasks is to give the same.
    of_task = mixed(mixed(pl.col("task")) ^ pl.col("answer"))
    several = lines.filter(pl.col("later").is_not_null() & of_task.is_duplicated())
    if several.is_empty():
        return entries
    contexts, answers, lengths = zip(*turns_in(several["later"].to_list()), strict=True)
    turns = (pl.col("later").bin.size() // TURN_NBYTES).cast(pl.UInt32)
    later = (
        several.select("order", "task", "reward", "context", pl.int_ranges(2, turns + 2, dtype=pl.UInt32).alias("turn"))
        .with_columns(_key(pl.col("context")).alias("base"))
        .explode("turn")
        .with_columns(
            pl.Series("context", contexts, pl.UInt64),
            pl.Series("said", answers, pl.UInt64),
            pl.Series("length", lengths, pl.UInt32),
        )
        .with_columns(_key(pl.col("context")).alias("key"))
        .select(entries.columns)
    )
    return pl.concat([entries, later.filter(pl.col("key").is_duplicated())])


def _key(context: pl.Expr) -> pl.Expr:
    return mixed(mixed(pl.col("task")) ^ context)


def with_partners(entries: pl.DataFrame, pairing: Pairing) -> pl.DataFrame:
    """Add how far each entry comes, and whether it may be chosen, and rejected, in some pair.

    `stage` is an index of `STAGES`, or beyond them where there is a pair. Of all that say something else behind the
    same, those with the lowest and the highest reward decide. What nobody else says needs no such care: an entry is no
    partner of its own, as its reward does not differ.
    """
    each = entries.group_by("key").agg(
        pl.len().alias("rollouts"),
        pl.col("reward").min().alias("lowest"),
        pl.col("reward").max().alias("highest"),
        (pl.col("said").min() == pl.col("said").max()).alias("says_one"),
    )
    entries = entries.join(each, on="key", how="left", maintain_order="left")
    is_repeated = pl.col("said").is_duplicated() & (pl.col("lowest") != pl.col("highest")) & pl.col("says_one").not_()
    repeated = entries.select(is_repeated.alias("is_repeated"))["is_repeated"]
    if repeated.any():
        of_key = entries.select(pl.col("key").is_in(entries.filter(repeated)["key"].unique().implode()))["key"]
        plain, careful = entries.filter(~of_key), entries.filter(of_key)
        entries = pl.concat([plain, _with_extremes(careful.drop("lowest", "highest")).select(entries.columns)])
    reward, lowest, highest = pl.col("reward"), pl.col("lowest"), pl.col("highest")
    is_open = pl.col("says_one").not_()
    entries = entries.with_columns(
        (is_open & pairs_well(reward, lowest, pairing)).alias("may_be_chosen"),
        (is_open & pairs_well(highest, reward, pairing)).alias("may_be_rejected"),
    )
    stage = (
        pl.when(pl.col("rollouts") == 1).then(STAGES.index("no_partner"))
        .when("says_one").then(STAGES.index("same_content"))
        .when(pl.col("may_be_chosen") | pl.col("may_be_rejected")).then(len(STAGES))
        .when((lowest == reward) & (highest == reward)).then(STAGES.index("tie"))
        .otherwise(STAGES.index("gap"))
    )  # fmt: skip
    return entries.with_columns(stage.cast(pl.Int8).alias("stage")).drop("rollouts", "lowest", "highest", "says_one")


def pairs_well(chosen: pl.Expr, rejected: pl.Expr, pairing: Pairing) -> pl.Expr:
    """Tell whether two rewards are those of a pair."""
    well = (chosen > rejected) & (chosen - rejected >= pairing.min_gap - _ROUNDING)
    if pairing.least_chosen is not None:
        well &= chosen >= pairing.least_chosen
        if pairing.choose == "threshold":
            well &= rejected < pairing.least_chosen
    return well if pairing.max_rejected is None else well & (rejected <= pairing.max_rejected)


def _with_extremes(entries: pl.DataFrame) -> pl.DataFrame:
    """Add the lowest and the highest reward of the entries with the same key that say something else."""
    by_said = entries.group_by("key", "said").agg(
        pl.col("reward").min().alias("lowest"), pl.col("reward").max().alias("highest")
    )
    for name, descending in (("lowest", False), ("highest", True)):
        ordered = by_said.select("key", "said", name).sort("key", name, descending=[False, descending])
        is_first = pl.col("key") != pl.col("key").shift()
        ordered = ordered.with_columns(is_first.fill_null(True).alias("is_first"))
        is_second = pl.col("is_first").shift().fill_null(False) & pl.col("is_first").not_()
        first = ordered.filter("is_first").select("key", pl.col("said").alias("by"), pl.col(name).alias("extreme"))
        second = ordered.filter(is_second).select("key", pl.col(name).alias("next"))
        entries = entries.join(first, on="key", how="left", maintain_order="left")
        entries = entries.join(second, on="key", how="left", maintain_order="left")
        other = pl.when(pl.col("by") == pl.col("said")).then(pl.col("next")).otherwise(pl.col("extreme"))
        entries = entries.with_columns(other.alias(name)).drop("by", "extreme", "next")
    return entries

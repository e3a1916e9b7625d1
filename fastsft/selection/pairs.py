"""From lines that have rows to pairs: in the order in which they are wanted, taken while nothing forbids it.

A pair is wanted before another of its task where, by `--choose`,

- best-worst and sigma: the chosen reward is higher; then where the rejected one is lower, or nearer to the mean less
  two standard deviations of all rollouts that could be its partners;
- all: the gap is larger;
- threshold: a number is smaller that is drawn by the seed, the task and what both say;

then where both sides are closer in length, then as in `--best-of`: where first the chosen, then the rejected rollout
has fewer tokens, then bytes. What both say decides before their places in the input do, so the order of files does not.
From the first on, a pair is taken unless its task has as many as it may, or a rollout of it is in as many as it may.
All is done by columns, and of many pairs a part of the tasks at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import polars as pl

from fastsft.options import Options
from fastsft.pairing import Pairing
from fastsft.report import PairCounts
from fastsft.selection.criteria import Dropped, with_split
from fastsft.selection.entries import STAGES, entries_of, pairs_well, with_partners
from fastsft.selection.tasks import mixed, rank

_PLACE = ("shard_index", "line", "offset", "nbytes")
_FEW = 4  # rollouts of a task, of which mean and deviation say little
_MOST_OF_SIDE = 256  # entries with one key that are tried on either side
_PAIRS_AT_ONCE = 2_000_000  # of 100 bytes
_ORDER = ("first", "second", "apart", "chosen_rank", "rejected_rank", "turn")
_DIGITS = 9  # by which distances are compared: the order in which a mean is added up is no promise of Polars

# What is written of each, for those who read its lines.
PAIR_COLUMNS = (
    "shard_index", "line", "offset", "nbytes", "split", "turn", "is_good", "reward",
    "other_shard_index", "other_line", "other_offset", "other_nbytes", "other_reward",
)  # fmt: skip


class Paired(NamedTuple):
    """What became of lines that have rows.

    Attributes:
        pairs: A row for each row to write, in input order of its earlier line, which is `order`; where the `split`, the
            `turn` and both lines are: first the chosen one, or the one that is judged.
        kept: Index of the shard, and how many of its lines are in some pair.
        dropped: Index of the shard, reason and count of the others.
        counts: What the report says of pairs.
        splits: Rows and tasks of each split; empty without splits.
    """

    pairs: pl.DataFrame
    kept: list[tuple[int, int]]
    dropped: Dropped
    counts: PairCounts
    splits: list[tuple[int, int, int]]


def pair(lines: pl.DataFrame, options: Options, shares: Sequence[float] = ()) -> Paired:
    """Pair lines that have rows, and `order` and `task`; all lines of a task are among them."""
    pairing = options.pairing
    assert pairing is not None
    reasons = []
    candidates = lines
    if pairing.turns == "only":
        several = pl.col("acts") > 1
        reasons.append(lines.filter(several).select("order", pl.lit("multi_turn").alias("reason")))
        candidates = lines.filter(several.not_())
    if pairing.laid_out.pairs:
        pairs, dropped = _pairs_of(candidates, options, pairing)
    else:
        pairs, dropped = _judged(candidates, options, pairing)
    reasons.append(dropped)
    return _placed(lines, pairs, pl.concat(reasons), options, shares)


def _placed(
    lines: pl.DataFrame, pairs: pl.DataFrame, reasons: pl.DataFrame, options: Options, shares: Sequence[float]
) -> Paired:
    """Say where the lines of pairs are, and count."""
    sides = pl.concat([pairs.select(pl.col("chosen").alias("order")), pairs.select(pl.col("rejected").alias("order"))])
    sides = sides.drop_nulls().unique()
    kept = lines.select("order", "shard_index").join(sides, on="order", how="semi")
    gone = reasons.join(lines.select("order", "shard_index"), on="order", how="left")
    places = lines.select("order", *_PLACE).join(sides, on="order", how="semi")
    others = places.select("order", *(pl.col(name).alias(f"other_{name}") for name in _PLACE))
    split = with_split(pairs, options, shares)
    placed = split.join(places, left_on="chosen", right_on="order", how="left", maintain_order="left").join(
        others, left_on="rejected", right_on="order", how="left", maintain_order="left"
    )
    placed = placed.with_columns(
        pl.min_horizontal("chosen", "rejected").alias("order"),
        pl.col("chosen_reward").alias("reward"),
        pl.col("rejected_reward").alias("other_reward"),
    ).sort("order", pl.max_horizontal("chosen", "rejected"), "chosen", "turn")
    by_split = split.group_by("split").agg(pl.len(), pl.col("task").n_unique().alias("tasks")).sort("split")
    return Paired(
        placed.select("order", *PAIR_COLUMNS),
        kept.group_by("shard_index").agg(pl.len()).sort("shard_index").rows(),
        gone.group_by("shard_index", "reason").agg(pl.len()).sort("shard_index", "reason").rows(),
        _counts(pairs),
        by_split.rows() if shares else [],
    )


def _counts(pairs: pl.DataFrame) -> PairCounts:
    is_chosen = pl.col("is_good")
    chosen = pairs.filter(is_chosen).select(pl.col("chosen").alias("order")).unique()
    bad = pairs.filter(is_chosen.not_()).select(pl.col("chosen").alias("order"))
    rejected = pl.concat([pairs.select(pl.col("rejected").alias("order")).drop_nulls(), bad]).unique()
    both = len(chosen.join(rejected, on="order", how="semi"))
    lengths = pairs.select(
        pl.col("chosen_length").cast(pl.UInt64).filter(is_chosen).sum().alias("chosen"),
        pl.col("chosen_length").cast(pl.UInt64).filter(is_chosen.not_()).sum().alias("bad"),
        pl.col("rejected_length").cast(pl.UInt64).sum().alias("rejected"),
    ).row(0, named=True)
    turns = pairs.filter(pl.col("rejected").is_not_null() & (pl.col("turn") > 0)).group_by("turn").agg(pl.len())
    return PairCounts(
        pairs=len(pairs),
        chosen=len(chosen) - both,
        rejected=len(rejected) - both,
        both=both,
        chosen_sides=pairs.select(is_chosen.sum()).item(),
        chosen_characters=lengths["chosen"],
        rejected_sides=len(pairs) - pairs["rejected"].null_count() + len(bad),
        rejected_characters=lengths["bad"] + lengths["rejected"],
        turns={str(turn): count for turn, count in turns.sort("turn").rows()},
    )


def _pairs_of(lines: pl.DataFrame, options: Options, pairing: Pairing) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the pairs that are taken, and the reasons of all lines that are in none."""
    entries = with_partners(entries_of(lines, pairing), pairing)
    sides = _sides(lines, entries, options, pairing)
    if sides.are_first:
        pairs, tried = _taken(_in_order(_closest(sides, pairing), lines), pairing), None
    else:
        pairs, tried = _taken_at_once(sides, lines, pairing)
    used = pl.concat([pairs.select(pl.col(name).alias("order")) for name in ("chosen", "rejected")]).unique()
    stages = entries.select("order", "stage")
    if len(entries) > len(lines):
        stages = stages.group_by("order").agg(pl.col("stage").max())
    stages = stages.join(used, on="order", how="anti")
    if tried is not None:
        stages = stages.join(tried, on="order", how="left").with_columns(pl.coalesce("unlike", "stage").alias("stage"))
    names = dict(enumerate([*STAGES, "per_task", "length"]))
    reason = pl.col("stage").replace_strict(names, return_dtype=pl.String).alias("reason")
    return pairs.drop(_ORDER[:3]), stages.select("order", reason)


class _Sides(NamedTuple):
    """Entries that may be chosen, and those that may be rejected.

    Attributes:
        chosen: The former.
        rejected: The latter.
        are_first: Whether those are left alone that come before all others in the order of their task, and each of one
            side is as good as another but for its length.
    """

    chosen: pl.DataFrame
    rejected: pl.DataFrame
    are_first: bool


def _sides(lines: pl.DataFrame, entries: pl.DataFrame, options: Options, pairing: Pairing) -> _Sides:
    """Return both sides, with what their order asks for: their draw, and how far each is from the target."""
    able = entries.filter(pl.col("may_be_chosen") | pl.col("may_be_rejected"))
    able = able.with_columns(pl.col("reward").alias("distance"), pl.lit(0, pl.UInt64).alias("draw"))
    if pairing.choose in ("auto", "sigma"):
        able = _with_distance(able, entries.filter(pl.col("key") == pl.col("base")), pairing)
    elif pairing.choose == "threshold":
        draw = mixed(mixed(pl.col("task") ^ pl.lit(options.seed % 2**64, pl.UInt64)) ^ pl.col("whole"))
        able = able.drop("draw").join(lines.select("order", draw.alias("draw")), on="order", how="left")
    names = ("order", "task", "key", "said", "length", "turn", "reward", "draw", "distance")
    chosen = able.filter("may_be_chosen").select(names)
    rejected = able.filter("may_be_rejected").select(names)
    if pairing.most_pairs == 1 and pairing.length_ratio is None and pairing.choose in ("auto", "best-worst", "sigma"):
        return _first(chosen, rejected, pairing)
    return _Sides(chosen, rejected, False)


def _with_distance(able: pl.DataFrame, first: pl.DataFrame, pairing: Pairing) -> pl.DataFrame:
    """Set how far the reward of each entry is from the mean less two deviations, where it is compared by that."""
    of_task = first.join(able.select("base").unique(), on="base", how="semi").group_by("base").agg(
        (pl.col("reward").mean() - 2 * pl.col("reward").std(ddof=0)).alias("target"),
        ((pl.len() > _FEW) & (pl.col("reward").n_unique() > 2)).alias("is_spread"),
    )  # fmt: skip
    able = able.join(of_task, on="base", how="left", maintain_order="left")
    is_by_target = pl.lit(True) if pairing.choose == "sigma" else pl.col("is_spread")
    distance = (pl.col("reward") - pl.col("target")).abs().round(_DIGITS)
    return able.with_columns(pl.when(is_by_target).then(distance).otherwise("reward").alias("distance"))


def _first(chosen: pl.DataFrame, rejected: pl.DataFrame, pairing: Pairing) -> _Sides:
    """Leave out what cannot be in the first pair of its task: lower rewards than the best, then larger distances."""
    best = pl.col("reward").max().over("task")
    chosen = chosen.filter(pl.col("reward") == best)
    partners = chosen.group_by("key").agg(
        pl.col("reward").max().alias("best"), pl.col("said").min().alias("least"), pl.col("said").max().alias("most")
    )
    is_other = (pl.col("least") != pl.col("said")) | (pl.col("most") != pl.col("said"))
    rejected = rejected.join(partners, on="key", how="inner", maintain_order="left")
    rejected = rejected.filter(is_other & pairs_well(pl.col("best"), pl.col("reward"), pairing))
    rejected = rejected.filter(pl.col("distance") == pl.col("distance").min().over("task"))
    return _Sides(chosen, rejected.drop("best", "least", "most"), True)


def _closest(sides: _Sides, pairing: Pairing) -> pl.DataFrame:
    """Return the pairs of each task that are closest in length, of sides that are the first of their order.

    In the order of their lengths, two of the closest stand side by side, so not all pairs need be looked at. That is
    not so where the same is said on both sides, which is no pair, though its lengths are the same.
    """
    said_by_both = sides.chosen.join(sides.rejected.select("key", "said"), on=["key", "said"], how="semi")
    if not said_by_both.is_empty():
        is_some = pl.col("task").is_in(said_by_both["task"].unique().implode())
        some, others = (
            _Sides(sides.chosen.filter(wanted), sides.rejected.filter(wanted), True)
            for wanted in (is_some, is_some.not_())
        )
        found = pl.concat([pairs.filter(_is_closest()) for pairs in _joined(some, pairing)])
        return pl.concat([found, _closest(others, pairing)])
    chosen, rejected = sides.chosen, sides.rejected
    is_chosen = pl.lit(True).alias("is_chosen")
    both = pl.concat(
        [chosen.select("task", "key", "length", is_chosen), rejected.select("task", "key", "length", is_chosen.not_())]
    ).sort("key", "length")
    are_two = (pl.col("key") == pl.col("key").shift()) & (pl.col("is_chosen") != pl.col("is_chosen").shift())
    gaps = both.select("task", (pl.col("length") - pl.col("length").shift()).alias("gap"), are_two.alias("are_two"))
    closest = gaps.filter("are_two").group_by("task").agg(pl.col("gap").min())
    chosen = chosen.join(closest, on="task", how="inner", maintain_order="left")
    length = pl.col("length").cast(pl.Int64)
    rejected = rejected.with_columns(length.alias("at"))
    at_gap = []
    for at, wanted in (
        (length + pl.col("gap"), pl.lit(True)),
        (length - pl.col("gap"), pl.col("gap") > 0),
    ):
        meant = chosen.filter(wanted).with_columns(at.alias("at")).drop("gap")
        at_gap.append(_pairs_in(meant, rejected, pairing, on=["key", "at"]))
    return pl.concat(at_gap)


def _is_closest() -> pl.Expr:
    return pl.col("apart") == pl.col("apart").min().over("task")


def _joined(sides: _Sides, pairing: Pairing) -> Iterator[pl.DataFrame]:
    """Return all pairs of so many tasks at once as fit in memory."""
    chosen, rejected, _ = sides
    counts = chosen.group_by("task", "key").agg(pl.len().alias("chosen")).join(
        rejected.group_by("key").agg(pl.len().alias("rejected")), on="key", how="inner"
    )  # fmt: skip
    counts = counts.group_by("task").agg((pl.col("chosen").cast(pl.UInt64) * pl.col("rejected")).sum().alias("pairs"))
    counts = counts.sort("task").with_columns(((pl.col("pairs").cum_sum() - 1) // _PAIRS_AT_ONCE).alias("chunk"))
    if len(counts) == 0 or counts["chunk"].n_unique() == 1:
        yield _pairs_in(chosen, rejected, pairing)
        return
    of_chunk = counts.select("task", "chunk")
    parts = [
        side.join(of_chunk, on="task", how="inner").partition_by("chunk", as_dict=True, include_key=False)
        for side in (chosen, rejected)
    ]
    for chunk in sorted(parts[0]):
        yield _pairs_in(parts[0][chunk], parts[1][chunk], pairing)


def _taken_at_once(sides: _Sides, lines: pl.DataFrame, pairing: Pairing) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Take pairs of some tasks at a time; and tell, where lengths matter, which rollouts have no partner for theirs."""
    worst_last = {"threshold": pl.col("draw"), "all": -pl.col("reward")}.get(pairing.choose, -pl.col("reward"))
    best_last = {"threshold": pl.col("draw"), "all": pl.col("reward")}.get(pairing.choose, pl.col("distance"))
    fewer = _Sides(_fewer(sides.chosen, worst_last), _fewer(sides.rejected, best_last), False)
    taken, in_some = [], []
    for pairs in _joined(fewer, pairing):
        taken.append(_taken(_in_order(pairs, lines), pairing))
        in_some += [pairs.select(pl.col(name).alias("order")).unique() for name in ("chosen", "rejected")]
    if pairing.length_ratio is None:
        return pl.concat(taken), None
    tried = pl.concat([side.select("order") for side in fewer[:2]]).unique()
    unlike = tried.join(pl.concat(in_some).unique(), on="order", how="anti")
    return pl.concat(taken), unlike.with_columns(pl.lit(len(STAGES) + 1, pl.Int8).alias("unlike"))


def _fewer(side: pl.DataFrame, best_first: pl.Expr) -> pl.DataFrame:
    """Leave out the worst of a side where it has so many that all their pairs would be too many."""
    if side.is_empty() or side.group_by("key").len()["len"].max() <= _MOST_OF_SIDE:  # type: ignore[operator]
        return side
    return side.filter(rank([best_first, "said", "order"], of="key") < _MOST_OF_SIDE)


def _pairs_in(
    chosen: pl.DataFrame, rejected: pl.DataFrame, pairing: Pairing, on: Sequence[str] = ("key",)
) -> pl.DataFrame:
    """Return the pairs of two sides, and what their order is by but for the rank of their rollouts."""
    other_names = ("order", "said", "length", "reward", "draw", "distance")
    others = rejected.select(*on, *(pl.col(name).alias(f"other_{name}") for name in other_names))
    pairs = chosen.select("task", *dict.fromkeys([*on, *other_names]), "turn").join(others, on=list(on), how="inner")
    mine, other = pl.col("reward"), pl.col("other_reward")
    length, other_length = pl.col("length").cast(pl.Int64), pl.col("other_length").cast(pl.Int64)
    is_pair = (pl.col("said") != pl.col("other_said")) & pairs_well(mine, other, pairing)
    if pairing.length_ratio is not None:
        low, high = pairing.length_ratio
        is_pair &= (length >= low * other_length) & (length <= high * other_length)
    first, second = -mine, pl.col("other_distance")
    if pairing.choose == "all":
        first, second = -(mine - other).round(_DIGITS), pl.lit(0.0)
    elif pairing.choose == "threshold":
        first, second = mixed(pl.col("draw") ^ mixed(pl.col("other_draw"))), pl.lit(0.0)
    return pairs.filter(is_pair).select(
        "task", "turn",
        pl.lit(True).alias("is_good"),
        pl.col("order").alias("chosen"), pl.col("other_order").alias("rejected"),
        mine.alias("chosen_reward"), other.alias("rejected_reward"),
        pl.col("length").alias("chosen_length"), pl.col("other_length").alias("rejected_length"),
        first.alias("first"), second.alias("second"),
        (length - other_length).abs().alias("apart"),
    )  # fmt: skip


def _in_order(pairs: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """Sort pairs as they are wanted, in the last resort by the rank of the chosen rollout, then of the rejected one."""
    orders = pl.concat([pairs.select(pl.col(name).alias("order")) for name in ("chosen", "rejected")]).unique()
    ranked = lines.select("order", "tokens", "nbytes", "whole").join(orders, on="order", how="semi")
    best_first = pl.arg_sort_by(pl.col("tokens").fill_null(2**32 - 1), "nbytes", "whole", "order")
    ranks = ranked.select("order", best_first.arg_sort().cast(pl.UInt32).alias("rank"))
    for name in ("chosen", "rejected"):
        mine = ranks.select(pl.col("order").alias(name), pl.col("rank").alias(f"{name}_rank"))
        pairs = pairs.join(mine, on=name, how="left")
    return pairs.sort("task", *_ORDER).drop("chosen_rank", "rejected_rank")


def _taken(pairs: pl.DataFrame, pairing: Pairing) -> pl.DataFrame:
    """Take pairs, in the order in which they are wanted, unless their task, or a rollout of theirs, has its share."""
    of_task, of_rollout = pairing.most_pairs, pairing.most_uses
    if of_task == 1:
        return pairs.unique("task", keep="first", maintain_order=True)
    if of_rollout is None:
        return pairs if of_task is None else pairs.filter(pl.int_range(pl.len()).over("task") < of_task)
    left, taken = pairs.with_row_index("pair"), []
    while not left.is_empty():  # a pair of each task at a time
        taken.append(left.unique("task", keep="first", maintain_order=True))
        so_far = pl.concat(taken)
        uses = pl.concat([so_far.select(pl.col(name).alias("order")) for name in ("chosen", "rejected")])
        full = uses.group_by("order").len().filter(pl.col("len") >= of_rollout)["order"].implode()
        left = left.filter(
            pl.col("pair").is_in(so_far["pair"].implode()).not_(),
            pl.col("chosen").is_in(full).not_(),
            pl.col("rejected").is_in(full).not_(),
        )
        if of_task is not None:
            done = so_far.group_by("task").len().filter(pl.col("len") >= of_task)["task"].implode()
            left = left.filter(pl.col("task").is_in(done).not_())
    return pl.concat(taken).drop("pair") if taken else pairs


def _judged(lines: pl.DataFrame, options: Options, pairing: Pairing) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of KTO: each rollout by itself, good or bad; and the reasons of those that are neither."""
    reward = pl.col("reward")
    is_good = pl.when(reward >= pairing.threshold).then(True).when(reward <= pairing.most_rejected).then(False)
    draw = mixed(mixed(pl.col("task") ^ pl.lit(options.seed % 2**64, pl.UInt64)) ^ pl.col("said"))
    left = entries_of(lines, pairing).with_columns(is_good.alias("is_good"), draw.alias("draw"))
    dropped = []

    def drop(reason: str, where: pl.Series) -> None:
        nonlocal left
        dropped.append(left.filter(where).select("order", pl.lit(reason).alias("reason")))
        left = left.filter(~where)

    drop("gap", left["is_good"].is_null())
    drop("same_content", left.select(pl.col("is_good").n_unique().over("key", "said") > 1)["is_good"])
    if pairing.balance:
        good = left.select(pl.col("is_good").sum()).item()
        drop(
            "balance",
            left.select(rank(["draw", "order"], of="is_good").alias("at"))["at"] >= min(good, len(left) - good),
        )
    kept = left.select(
        "task", "turn", "is_good", pl.col("order").alias("chosen"),
        pl.lit(None, pl.UInt32).alias("rejected"),
        pl.col("reward").alias("chosen_reward"), pl.lit(None, pl.Float64).alias("rejected_reward"),
        pl.col("length").alias("chosen_length"), pl.lit(None, pl.UInt32).alias("rejected_length"),
    )  # fmt: skip
    return kept, pl.concat(dropped)

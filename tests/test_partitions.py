"""A table taken apart gives the choice that the whole table in memory gives."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import generate
import msgspec
import polars as pl
import pytest

import fastsft
from fastsft.execution.placement import Placement
from fastsft.execution.workers import Workers
from fastsft.inputs.shards import Shard, spans_of
from fastsft.options import Options
from fastsft.outputs.receipts import Receipt
from fastsft.pairing import Pairing
from fastsft.pipeline import choosing_in_parts
from fastsft.pipeline.choosing import choose_lines, scanned_lines
from fastsft.pipeline.choosing_in_parts import choose_in_parts, may_choose_in_parts
from fastsft.pipeline.choosing_pairs import choose_pairs
from fastsft.pipeline.two_passes import CHOSEN
from fastsft.report import Fates, InputShard, Report
from fastsft.selection import partitions
from fastsft.selection.criteria import columns_of
from fastsft.selection.index_file import Index, columns_for, index_for, write_table
from fastsft.selection.table import COLUMNS, HIDDEN, write_part

ASKED = {
    "nothing compared but tasks": ({"pass_rate": (0.2, 0.9)}, ()),
    "best of a task": ({"best_of": 2}, ()),
    "dedup": ({"dedup": True}, ()),
    "dedup and best": ({"dedup": True, "best_of": 1}, ()),
    "per task": ({"per_task": 2, "seed": 3}, ()),
    "per agent": ({"per_agent": 9}, ()),
    "per agent, more than there are": ({"per_agent": 9999}, ()),
    "a sample": ({"sample": 30}, ()),
    "a share": ({"sample": "12.5%", "seed": 7}, ()),
    "none": ({"sample": 0, "allow_empty": True}, ()),
    "none is good": ({"best_of": 1, "reward_threshold": 5.0, "allow_empty": True}, ()),
    "splits": ({}, (0.2, 0.1)),
    "pairs": ({"format": "chat", "pairing": Pairing()}, ()),
    "pairs of answers of one turn": ({"format": "chat", "pairing": Pairing(turn="only", length_ratio=(0.9, 1.1))}, ()),
    "all pairs, in splits": ({"format": "chat", "pairing": Pairing(choose="all", uses=2), "seed": 4}, (0.3, 0.1)),
    "no pair": ({"format": "chat", "pairing": Pairing(min_gap=9), "allow_empty": True}, (0.3,)),
    "judged one by one": ({"format": "chat", "pairing": Pairing(format="kto", turn="whole")}, ()),
    "all": (
        {
            "pass_rate": (0.1, 1.0),
            "where": "turns < 9",
            "dedup": True,
            "best_of": 3,
            "per_task": 2,
            "per_agent": 25,
            "sample": "50%",
            "max_tokens": 90,
            "allow": ("masked",),
        },
        (0.3,),
    ),
}


def value_of(name: str, rng: random.Random, task: int) -> object:
    """A random value of a column; small ranges, so that values meet again."""
    match name:
        case "reward":
            return rng.choice([0.0, 0.5, 0.96, 1.0, 1.0, None])
        case "agent":
            return rng.choice(["a", "b", "b", "c", None])
        case "prompt":
            return (task * 7919) % 2**40 + (rng.random() < 0.1)  # now and then the prompt differs
        case "task_index":
            return task if rng.random() < 0.7 else None
        case "unusable":
            return rng.choice([None] * 12 + ["no_assistant_turn", "bad_arguments", "untrainable:empty_turn"])
        case "problem":
            return rng.choice([None, "a problem"])
        case "content":
            return rng.choice([None, *(bytes([number] * 16) for number in range(40))])
        case "context" | "answer" | "whole":
            return rng.randrange(3)
        case "answer_length" | "length" | "acts":
            return rng.randrange(1, 3)
        case "later":
            return rng.choice([None, struct.pack("<6Q", *(rng.randrange(4) for _ in range(6)))])
        case "tokens" | "turns" | "calls":
            return rng.choice([None, *range(120)]) if name == "tokens" else rng.randrange(12)
        case _:
            return rng.random() < 0.05  # gates


def parts_in(folder: Path, names: list[str], seed: int) -> tuple[list[Shard], list[tuple[str, int, int, int]]]:
    """Write a random table of a few shards, in parts that begin and end anywhere in them."""
    rng = random.Random(seed)
    kinds = {name: (COLUMNS.get(name) or HIDDEN[name]).dtype for name in names}
    shards = [Shard(f"{number}.jsonl", 0, 0, index=number) for number in range(3)]
    parts, offset, line = [], [0, 0, 0], [0, 0, 0]
    for index in (0, 0, 0, 1, 2, 2):
        rows, before = [], line[index]
        for number in range(rng.choice([0, 1, 60, 130])):
            row = {name: value_of(name, rng, rng.randrange(60)) for name in names}
            nbytes = rng.randrange(5, 40)
            row |= {"shard_index": index, "line": number + 1, "offset": offset[index], "nbytes": nbytes}
            if row.get("unusable"):
                row["content"] = None
            offset[index] += nbytes + 1
            line[index] += 1
            rows.append({name: row[name] for name in names})
        if rows:
            name = f"scan-{len(parts)}.arrow"
            write_part([pl.DataFrame(rows, schema=kinds, orient="row")], folder / name)
            parts.append((name, len(rows), index, before))
    shards = [Shard(shard.path, nbytes, 0, index=shard.index) for shard, nbytes in zip(shards, offset, strict=True)]
    return shards, parts


def told(receipts: list[Receipt], folder: Path) -> list[object]:
    return [
        (one.ranges, one.first_refused, (folder / one.refused.name).read_bytes() if one.refused else None)
        for one in receipts
    ]


def counted(dropped: list[tuple[int, str, int]]) -> list[tuple[int, str, int]]:
    keys = sorted({(index, reason) for index, reason, _ in dropped})
    return [(*key, sum(count for *other, count in dropped if tuple(other) == key)) for key in keys]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_choice_is_that_of_the_whole_table(tmp_path, monkeypatch, asked, seed):
    more, shares = ASKED[asked]
    options = Options(**more)
    names = columns_of(options, splits=bool(shares))
    shards, parts = parts_in(tmp_path, names, seed)
    spans = spans_of(shards, 700)
    monkeypatch.setattr(choosing_in_parts, "_LINES_AT_ONCE", 50)
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    for folder in (whole, apart):
        folder.mkdir()
        for name, *_ in parts:
            (folder / name).hardlink_to(tmp_path / name)

    choose = choose_lines if options.pairing is None else choose_pairs
    expected = choose(parts, whole, shards, spans, options, shares)
    with Workers(Placement(jobs=1), nbytes=0, tasks=1) as workers:
        choice = choose_in_parts(parts, apart, shards, spans, options, shares, workers)

    assert counted(choice.dropped) == counted(expected.dropped)
    assert told(choice.receipts, apart) == told(expected.receipts, whole)
    assert (choice.spans, choice.splits, choice.seen) == (expected.spans, expected.splits, expected.seen)
    assert (choice.kept, choice.pairs) == (expected.kept, expected.pairs)
    if expected.spans:
        assert pl.read_ipc(apart / CHOSEN).equals(pl.read_ipc(whole / CHOSEN))
    left = {path.name.split(".")[0] for path in apart.iterdir()} - {name.split(".")[0] for name, *_ in parts}
    assert left <= {"chosen", "known"}


def index_in(folder: Path, seed: int, order: list[int]) -> tuple[list[Shard], Index]:
    """Write an index of a random table with some refused lines, and read it for some of its shards, in any order."""
    options = Options(dedup=True, pairs=True, format="chat")
    shards, parts = parts_in(folder, columns_for(options), seed)
    lines = scanned_lines(parts, folder, columns_for(options))
    lines = lines.with_columns(shard=pl.concat_str(pl.col("shard_index"), pl.lit(".jsonl")))
    refused = lines.filter(pl.col("line") % 9 == 0).select(
        "shard", "line", "offset", pl.lit("bad_json").alias("reason"), pl.lit("torn").alias("problem")
    )
    counts = dict(refused.group_by("shard").len().rows())
    entries = [
        InputShard(shard.path, shard.nbytes, Fates(refused={"bad_json": counts.get(shard.path, 0)})) for shard in shards
    ]
    (folder / "i.index").touch()
    report = Report(version="", options={}, inputs=entries)
    write_table(folder / "i.index", lines.filter(pl.col("line") % 9 != 0), refused, report, shards, options)
    mine = [msgspec.structs.replace(shards[number], index=at) for at, number in enumerate(order)]
    index = index_for(folder / "i.index", mine, options, [])
    assert index is not None
    return mine, index


@pytest.mark.parametrize("asked", [name for name in ASKED if "where" not in ASKED[name][0]] + ["all"])
@pytest.mark.parametrize(("seed", "order"), [(1, [0, 1, 2]), (2, [2, 0, 1]), (3, [2, 1]), (4, [0, 2])])
def test_the_choice_from_an_index_is_that_of_the_whole_index(tmp_path, monkeypatch, asked, seed, order):
    more, shares = ASKED[asked]
    options = Options(**more)
    shards, index = index_in(tmp_path, seed, order)
    spans = spans_of(shards, 700)
    monkeypatch.setattr(choosing_in_parts, "_LINES_AT_ONCE", 50)
    monkeypatch.setattr(choosing_in_parts, "_LINES_READ", 30)
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    whole.mkdir()
    apart.mkdir()

    choose = choose_lines if options.pairing is None else choose_pairs
    expected = choose(index, whole, shards, spans, options, shares)
    with Workers(Placement(jobs=1), nbytes=0, tasks=1) as workers:
        choice = choose_in_parts(index, apart, shards, spans, options, shares, workers)

    assert counted(choice.dropped) == counted(expected.dropped)
    assert told(choice.receipts, apart) == told(expected.receipts, whole)
    assert (choice.spans, choice.splits, choice.seen) == (expected.spans, expected.splits, expected.seen)
    assert (choice.kept, choice.pairs) == (expected.kept, expected.pairs)
    if expected.spans:
        assert pl.read_ipc(apart / CHOSEN).equals(pl.read_ipc(whole / CHOSEN))
    assert {path.name.split(".")[0] for path in apart.iterdir()} <= {"chosen", "known"}


@pytest.mark.parametrize(
    ("lines", "where", "expected"), [(10, None, False), (11, None, True), (11, "reward > 0", True)]
)
def test_large_tables_are_taken_apart(monkeypatch, lines, where, expected):
    monkeypatch.setattr(choosing_in_parts, "_MOST_LINES_IN_MEMORY", 10)
    parts = [("a", 5, 0, 0), ("b", lines - 5, 0, 5)]

    assert may_choose_in_parts(parts, Options(best_of=1, where=where)) is expected
    assert not may_choose_in_parts(parts, Options(where="reward > avg(reward)"))
    balanced = Pairing(format="kto", balance=True)
    assert not may_choose_in_parts(parts, Options(format="chat", pairing=balanced))


def test_a_large_index_is_taken_apart(tmp_path, monkeypatch):
    _, index = index_in(tmp_path, 1, [0, 1, 2])

    for most, expected in ((index.rows, False), (index.rows - 1, True)):
        monkeypatch.setattr(choosing_in_parts, "_MOST_LINES_IN_MEMORY", most)
        assert may_choose_in_parts(index, Options(best_of=1)) is expected


@pytest.mark.parametrize("seed", range(5))
def test_the_kth_of_a_group_is_found_from_counts_and_one_bucket(seed):
    rng = random.Random(seed)
    lines = [(rng.choice(["a", "b", None]), rng.randrange(64), order) for order in range(200)]  # draws meet again
    for most in (0, 1, 10, 70, 500):
        counts = [(group, draw // 4, 1) for group, draw, _ in lines]
        buckets = partitions.buckets_of(counts, most)
        inside = [one for one in lines if one[0] in buckets and one[1] // 4 == buckets[one[0]][0]]
        limits = partitions.limits_of(inside, buckets)

        kept = [one for one in lines if one[0] not in limits or one[1:] <= limits[one[0]]]

        of_each = [sorted(one[1:] for one in lines if one[0] == group)[:most] for group in ("a", "b", None)]
        assert sorted(one[1:] for one in kept) == sorted(one for several in of_each for one in several)


def test_rows_chosen_from_a_large_index_are_those_of_a_scan(tmp_path, monkeypatch):
    shards = generate.write(tmp_path / "in", "mixed", count=90, nbytes=0, shards=3, seed=7)
    (tmp_path / "in" / "torn.jsonl").write_bytes(b"{torn\n")
    fastsft.index(tmp_path / "in", tmp_path / "i.index", jobs=1)
    inputs = [shards[2], tmp_path / "in" / "torn.jsonl", shards[0]]
    expected = fastsft.convert(inputs, tmp_path / "scanned" / "rows.jsonl", best_of=1, jobs=1)
    monkeypatch.setattr(choosing_in_parts, "_MOST_LINES_IN_MEMORY", 10)

    report = fastsft.convert(inputs, tmp_path / "chosen" / "rows.jsonl", best_of=1, index=tmp_path / "i.index", jobs=2)

    written = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("scanned", "chosen")]
    assert written[0] == written[1]
    assert (report.fates, report.inputs, report.rows) == (expected.fates, expected.inputs, expected.rows)
    assert report.fates.kept > 0
    assert [path.name for path in (tmp_path / "chosen").iterdir() if path.name.startswith(".")] == []

"""What options may be, and what is said where they may not."""

from __future__ import annotations

import pytest
from builders import lines, rollout, said

import fastsft
from fastsft import Options, UsageError
from fastsft.options import nbytes_of


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"format": "yaml"}, "no format named 'yaml'; there are: openai, chat, simple"),
        ({"reward_threshold": float("nan")}, "the reward threshold must be a finite number, not nan"),
        ({"reward_threshold": float("inf")}, "the reward threshold must be a finite number, not inf"),
        (
            {"allow": ("most",)},
            "nothing to allow named 'most'; there are: masked, failed, unverified, incomplete, no_generation, "
            "no_user_turn, all",
        ),
        ({"max_refused": "few"}, "the limit of refused lines is a count or a share, as 100 or 1%, not 'few'"),
        ({"max_refused": -1}, "the limit of refused lines is a count or a share, as 100 or 1%, not -1"),
        ({"shards": 2, "shard_nbytes": 5}, "shards are cut by count or by size, not by both"),
        ({"shards": 0}, "the number of shards must be at least 1, not 0"),
        ({"shard_nbytes": 0}, "the shard size must be at least 1, not 0"),
        ({"compress": "lz4"}, "no compression named 'lz4'; there are: gz, zst"),
        ({"max_line_nbytes": 0}, "the longest line must be at least 1, not 0"),
        ({"jobs": 0}, "the number of jobs must be at least 1, not 0"),
        ({"name": "../x"}, "a shard name has letters, digits, '.', '_' and '-' alone, not '../x'"),
        ({"name": ""}, "a shard name has letters, digits, '.', '_' and '-' alone, not ''"),
    ],
)
def test_a_wrong_choice_names_the_right_ones(options, problem):
    with pytest.raises(UsageError) as caught:
        Options(**options)
    assert str(caught.value) == problem


@pytest.mark.parametrize("allow", ["masked, failed", ["masked,failed"], ("masked", "failed")])
def test_gates_are_lifted_by_words_or_with_commas(allow, tmp_path):
    shard, marks = tmp_path / "in.jsonl", ({"mask_sample": True}, {"_ng_failure_class": "x"}, {"truncated": True})
    shard.write_bytes(lines(*({**rollout("?", said("4")), **mark} for mark in marks)))

    assert fastsft.convert(shard, tmp_path / "rows.jsonl", allow=allow).fates.kept == 2
    assert fastsft.stats(shard, allow=allow).gated == {"incomplete": 1}


@pytest.mark.parametrize(
    ("limit", "refused", "lines", "too_many"),
    [
        (None, 9, 9, False),
        (0, 0, 9, False),
        (0, 1, 9, True),
        ("2", 2, None, False),
        ("2", 3, None, True),
        ("1%", 1, 100, False),
        ("1%", 2, 100, True),
        ("0.1%", 1, 1000, False),
        ("0.1%", 1, 999, True),
        ("1%", 99, None, False),
    ],
)
def test_limits_of_refused_lines_are_counts_or_shares(limit, refused, lines, too_many):
    assert Options(max_refused=limit).refuses_too_many(refused, lines) is too_many


@pytest.mark.parametrize(
    ("size", "nbytes"),
    [
        ("7", 7),
        ("500MB", 500_000_000),
        ("1.5GB", 1_500_000_000),
        ("2k", 2000),
        ("64MiB", 64 * 1024**2),
        ("1 tb", 10**12),
    ],
)
def test_sizes_have_units_of_1000_or_1024(size, nbytes):
    assert nbytes_of(size) == nbytes


@pytest.mark.parametrize("size", ["", "MB", "-1", "1e6", "5 apples", "1.5.5"])
def test_what_is_no_size_is_said(size):
    with pytest.raises(UsageError, match="not a size"):
        nbytes_of(size)

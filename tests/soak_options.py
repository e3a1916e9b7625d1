"""Random options for the soak, as words of the command, with what the judge has to know of them."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field


@dataclass
class Plan:
    """What one round asks of `fastsft convert`.

    Attributes:
        words: Options, but for inputs, `--output`, `--jobs` and what is not to change the bytes.
        output: What `--output` names, below the folder of the run.
        layout: The format.
        threshold: The least reward.
        max_reward: The highest; None for no limit.
        max_line: The longest line, in bytes; None for no limit.
        allow: The gates that stay open.
        max_refused: The limit on refused lines; None for none.
        max_recorded: How many refused lines are listed at most; None for all.
        allow_empty: Whether a run may keep nothing.
        layout_words: Options that an index depends on.
        chooses: Whether options are given that leave out lines of which the oracle would make rows.
        compares: Whether lines are compared, which takes two passes.
        splits: Whether tasks go to several outputs.
        shows_rows: Whether rows are the oracle's; it knows neither `--loss`, `--for` nor other `--reasoning`.
        knows_fates: Whether the same lines have rows; with `--reasoning think` more have.
        at_most: The most rows of a group: of a task, an agent, or all ("task", "agent", "all").
        is_unique: Whether no row may stand twice.
    """

    words: list[str] = field(default_factory=list)
    output: str = "out/train.jsonl"
    layout: str = "openai"
    threshold: float = 0.95
    max_reward: float | None = None
    max_line: int | None = None
    allow: tuple[str, ...] = ()
    max_refused: int | None = None
    max_recorded: int | None = None
    allow_empty: bool = False
    layout_words: list[str] = field(default_factory=list)
    chooses: bool = False
    compares: bool = False
    splits: bool = False
    shows_rows: bool = True
    knows_fates: bool = True
    at_most: dict[str, int] = field(default_factory=dict)
    is_unique: bool = False
    may_use_index: bool = True
    cuts_by_size: bool = False


def draw(rng: random.Random) -> Plan:
    """Draw a plan."""
    plan = Plan(layout=rng.choice(["openai", "openai", "chat", "chat", "simple"]))
    _layout(rng, plan)
    _target(rng, plan)
    plan.threshold = rng.choice([0.95, 0.95, 0.5, -1e9])
    plan.words += ["--reward-threshold", str(plan.threshold)]
    if rng.random() < 0.15:
        plan.max_reward = rng.choice([1.0, 2.0])
        plan.words += ["--max-reward", str(plan.max_reward)]
    if rng.random() < 0.3:
        gates = ["masked", "failed", "unverified", "incomplete", "no_generation", "no_user_turn"]
        plan.allow = tuple(rng.choice([["all"], rng.sample(gates, rng.randint(1, 4))]))
        plan.words += ["--allow", ",".join(plan.allow)]
    if rng.random() < 0.15:
        plan.max_line = rng.choice([3_000, 20_000, 100_000])
        plan.words += ["--max-line", str(plan.max_line)]
    if rng.random() < 0.1:
        plan.max_refused = rng.choice([0, 5, 1000])
        plan.words += ["--max-refused", str(plan.max_refused)]
    if rng.random() < 0.25:
        plan.max_recorded = rng.choice([0, 1, 3, 20])
        plan.words += ["--max-refused-recorded", str(plan.max_recorded)]
    if rng.random() < 0.3:
        plan.allow_empty = True
        plan.words.append("--allow-empty")
    if rng.random() < 0.5:
        _choosing(rng, plan)
    if rng.random() < 0.25:
        _splits(rng, plan)
    return plan


def older(rng: random.Random, plan: Plan) -> Plan:
    """Return another plan for the same output, whose rows are others."""
    changed = dataclasses.replace(plan, words=[*plan.words])
    changed.words[changed.words.index("--reward-threshold") + 1] = str(0.3 if plan.threshold > 0 else 0.9)
    if "--shards" in changed.words:
        changed.words[changed.words.index("--shards") + 1] = str(rng.randint(1, 6))
    return changed


def _layout(rng: random.Random, plan: Plan) -> None:
    words = ["--format", plan.layout]
    if plan.layout == "chat" and rng.random() < 0.5:
        words += ["--arguments", rng.choice(["object", "string"])]
    if plan.layout == "chat" and rng.random() < 0.4:
        reasoning = rng.choice(["field", "think", "drop"])
        words += ["--reasoning", reasoning]
        plan.shows_rows, plan.knows_fates = reasoning == "field", reasoning != "think"
    if plan.layout != "simple" and rng.random() < 0.3:
        words += ["--tools", rng.choice(["list", "string"])]
    if plan.layout != "simple" and rng.random() < 0.1:
        words += ["--loss", "own"]
        plan.shows_rows = False
    if rng.random() < 0.1:
        words += ["--for", "nemo-rl"]
        plan.shows_rows = False
    plan.layout_words = words
    plan.words += words


def _target(rng: random.Random, plan: Plan) -> None:
    kind = rng.choice(["file", "file", "folder", "size", "number"])
    if kind == "file":
        plan.output += rng.choice(["", "", ".gz", ".zst"])
        return
    plan.output = "out/"
    if kind == "size":
        plan.words += ["--shard-size", rng.choice(["2KB", "30KB", "300KB"])]
        plan.cuts_by_size = True
    if kind == "number":
        plan.words += ["--shards", str(rng.randint(1, 5))]
    if rng.random() < 0.4:
        plan.words += ["--compress", rng.choice(["gz", "zst"])]


def _choosing(rng: random.Random, plan: Plan) -> None:
    for name in rng.sample([*_CHOICES], rng.choice([1, 1, 2, 3])):
        plan.chooses = True
        value = rng.choice(_CHOICES[name])
        plan.words += [f"--{name}", *([str(value)] if value is not None else [])]
        if name == "trainable":  # which an index does not know
            plan.may_use_index = False
        if name in _GROUPS and isinstance(value, int):
            group = _GROUPS[name]
            plan.at_most[group] = min(value, plan.at_most.get(group, value))
        plan.is_unique |= name == "dedup"
        plan.compares |= name not in ("where", "max-tokens", "trainable")
    if rng.random() < 0.3:
        plan.words += ["--seed", str(rng.randint(1, 99))]


_CHOICES: dict[str, list[int | str | None]] = {
    "best-of": [1, 2],
    "per-task": [1, 3],
    "per-agent": [2, 20],
    "sample": [3, 30, "40%"],
    "dedup": [None],
    "pass-rate": ["0.1:0.9", "0:0.5", "0.3:1"],
    "where": ["calls < 3", "reward > 0.6 AND turns > 1", "reward >= avg(reward)", "line > 5", "agent <> 'agent_1'"],
    "max-tokens": [400, 5000],
    "trainable": [None],
}
_GROUPS = {"best-of": "task", "per-task": "task", "per-agent": "agent", "sample": "all"}


def _splits(rng: random.Random, plan: Plan) -> None:
    plan.splits = plan.compares = True
    suffix = plan.output.removeprefix("out/train.jsonl") if plan.output != "out/" else ""
    plan.words += [
        "--val",
        rng.choice([f"out/val.jsonl{suffix}", "out/val/"]),
        "--val-fraction",
        rng.choice(["0.1", "0.5"]),
    ]
    if rng.random() < 0.4:
        plan.words += ["--split", "out/test.jsonl=0.2"]

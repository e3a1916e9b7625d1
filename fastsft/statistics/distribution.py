"""What the statistics of a set of rollouts tell: rewards, tasks, lengths."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from fastsft.report import Fates

THRESHOLDS = (0.5, 0.85, 0.9, 0.95, 1.0)  # the guide's, and the edges beside them


class Distribution(msgspec.Struct):
    """How some numbers are distributed; quantiles are numbers that occur (nearest rank), null where there is none."""

    count: int
    mean: float | None
    min: float | None
    max: float | None
    quantiles: dict[str, float | None]


class AgentStats(msgspec.Struct):
    """The rewards of one agent's rollouts, and how many a threshold would keep; `name` is null where they name none."""

    name: str | None
    rewards: Distribution
    kept: dict[str, int]


class TaskStats(msgspec.Struct):
    """Tasks, their rollouts, and how many never, sometimes or always reach the threshold."""

    count: int
    rollouts: Distribution
    never: int
    sometimes: int
    always: int


class Bin(msgspec.Struct):
    """How many rewards lie from `low` to `high`, the last bin's `high` included."""

    low: float
    high: float
    count: int


class Stats(msgspec.Struct):
    """What `fastsft stats` tells.

    Attributes:
        shards: Files read.
        nbytes: Their size on disk.
        fates: Blank and refused lines; rollouts have no fate yet.
        rollouts: Lines that are rollouts.
        gated: Rollouts that say themselves not to train on them, by the first gate that is closed.
        no_reward: Rollouts whose reward is null, of those that pass the gates.
        reward_threshold: What `tasks` are judged by.
        rewards: Of the rollouts that pass the gates; so are `kept`, `histogram`, `agents` and `tasks`.
        kept: How many rows each threshold would keep at most.
        histogram: The rewards, in equal bins.
        agents: Each agent's, the largest first.
        tasks: What was attempted how often, and with which success.
        lengths: Bytes, turns, calls and tokens of a rollout.
        notes: Files that were left out, and why.
    """

    shards: int
    nbytes: int
    fates: Fates
    rollouts: int
    gated: dict[str, int]
    no_reward: int
    reward_threshold: float
    rewards: Distribution
    kept: dict[str, int]
    histogram: list[Bin]
    agents: list[AgentStats]
    tasks: TaskStats
    lengths: dict[str, Distribution]
    notes: list[str]

    def to_json(self) -> bytes:
        """Encode it for programs, in ASCII: an agent's name may hold what steers a terminal."""
        return json.dumps(msgspec.to_builtins(self), indent=2).encode()


class AgentRates(msgspec.Struct):
    """How often one agent's rollouts reach the threshold; `name` is null where they name none.

    Attributes:
        name: The agent's.
        rollouts: Those that pass the gates and have a reward.
        mean: Of their rewards.
        passed: How many of them reach the threshold.
        tasks: What they attempt.
        never: Tasks that none of their rollouts solves.
        sometimes: Tasks that some solve.
        always: Tasks that all solve.
    """

    name: str | None
    rollouts: int
    mean: float
    passed: int
    tasks: int
    never: int
    sometimes: int
    always: int


class Success(msgspec.Struct):
    """What a page tells of the rollouts behind an output.

    Attributes:
        reward_threshold: What counts as a success.
        rollouts: Lines that are rollouts.
        rewards: Of the rollouts that pass the gates; so are `histogram`, `agents` and `tasks`.
        histogram: The rewards, in equal bins.
        agents: Each agent's rates.
        tasks: What was attempted how often, and with which success.
        lengths: Bytes, turns, calls and recorded tokens of a rollout.
        octaves: The same counted by powers of two.
    """

    reward_threshold: float
    rollouts: int
    rewards: Distribution
    histogram: list[Bin]
    agents: list[AgentRates]
    tasks: TaskStats
    lengths: dict[str, Distribution]
    octaves: dict[str, list[Bin]]


def edges_of(bins: Sequence[Bin]) -> list[tuple[float, float]]:
    """Return where each bin begins and ends, as a person reads them: not -4.4e-16."""
    return [(round(one.low, 9), round(one.high, 9)) for one in bins]

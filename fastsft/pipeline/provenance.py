"""Where a row comes from, for its `metadata`: columns of the table of lines, put behind what the layout made."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from fastsft.inputs.shards import printable
from fastsft.options import Options
from fastsft.rollouts.rollout import Rollout
from fastsft.selection import facts

_encode = msgspec.json.Encoder().encode


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Which line a row is of: the path of its shard, its number there from 1, its task; 0 for what nobody asks."""

    path: str
    line: int = 0
    task: int = 0


def with_origin(body: msgspec.Struct, rollout: Rollout, origin: Origin, options: Options) -> Raw:
    """Return a row as JSON, with the columns that are asked for under `metadata`, the last of its keys.

    A task is 16 hexadecimal digits, as readers take a number of 64 bits without a sign for another.
    """
    known: dict[str, Any] = {}
    for name in options.provenance:
        match name:
            case "reward":
                known[name] = facts.reward(rollout)
            case "agent":
                known[name] = facts.agent(rollout) or ""  # as a column that begins with null has no type
            case "task":
                known[name] = f"{origin.task:016x}"
            case "shard":
                known[name] = printable(origin.path)
            case "line":
                known[name] = origin.line
            case other:
                raise AssertionError(f"no column {other}")
    return Raw(_encode(body)[:-1] + b',"metadata":' + _encode(known) + b"}")

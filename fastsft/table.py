"""The table of lines: what is known of each rollout without its text, a column for each thing.

A run builds the columns that its criteria ask for and no others; an index holds all of
them. What a line says of itself is read tolerantly: a value of another type is as none.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import polars as pl
from msgspec import Raw

from fastsft.formats.content import NO_TEXT
from fastsft.rollout import ABSENT, Rollout, json_type
from fastsft.tasks import prompt_hash

_TRUE = Raw(b"true")
_UNSET = (ABSENT, Raw(b"null"), Raw(b"false"))
_NOT_CUT_SHORT = (Raw(b'"completed"'), *_UNSET)


class Column(NamedTuple):
    """One column: its type, what it says, and how it is found from a rollout; None where the line's place tells."""

    dtype: type[pl.DataType]
    meaning: str
    of: Callable[[Rollout], Any] | None = None


FROM_ROWS = ("unusable", "problem", "content")


class Place(NamedTuple):
    """Which shard: its path as JSON can hold it, and which of the run's shards it is, from 0."""

    shard: str
    place: int


class _InstanceConfig(msgspec.Struct, gc=False):
    mask_sample: Raw = Raw(b"")


class _Usage(msgspec.Struct, gc=False):
    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _AgentRef(msgspec.Struct, gc=False):
    name: str | None = None


_instance_config = msgspec.json.Decoder(_InstanceConfig)
_usage = msgspec.json.Decoder(_Usage)
_agent_ref = msgspec.json.Decoder(_AgentRef)
_integer = msgspec.json.Decoder(int)
_values = msgspec.json.Decoder(list[Raw])
_string = msgspec.json.Decoder(str)


def _masked(rollout: Rollout) -> bool:
    marks = rollout.marks
    if marks.mask_sample == _TRUE or not marks.instance_config:
        return marks.mask_sample == _TRUE
    return bool(_read(_instance_config, marks.instance_config, _InstanceConfig()).mask_sample == _TRUE)


def _failed(rollout: Rollout) -> bool:
    return rollout.marks.failure_class not in _UNSET


def _unverified(rollout: Rollout) -> bool:
    return rollout.marks.verification_skipped == _TRUE


def _incomplete(rollout: Rollout) -> bool:
    response = rollout.response
    return rollout.marks.truncated == _TRUE or (
        response is not None and (response.status not in _NOT_CUT_SHORT or response.incomplete_details not in _UNSET)
    )


def _agent(rollout: Rollout) -> str | None:
    raw = rollout.marks.agent_ref
    return _agent_named(bytes(raw)) if raw else None


@lru_cache(maxsize=1024)  # there are few agents
def _agent_named(raw: bytes) -> str | None:
    found: _AgentRef = _read(_agent_ref, raw, _AgentRef())
    return found.name


def _status(rollout: Rollout) -> str | None:
    if rollout.response is None:
        return None
    found: str | None = _read(_string, rollout.response.status, None)
    return found


def _task_index(rollout: Rollout) -> int | None:
    found = _read(_integer, rollout.marks.task_index, None)
    return found if found is not None and abs(found) < 2**63 else None


def _turns(rollout: Rollout) -> int:
    """Count the turns that a rollout has, those behind the last assistant turn included, without making them."""
    count = int(json_type(rollout.instructions) == "string" and rollout.instructions != NO_TEXT)
    for items in (rollout.prompt, rollout.output):
        calling = False
        for item in items:
            if item.type == "function_call":
                count += not calling
                calling = True
            elif item.type != "reasoning":
                count += 1
                calling = False
    return count


def _calls(rollout: Rollout) -> int:
    """Count the calls in a rollout's output."""
    count = sum(item.type == "function_call" for item in rollout.output)
    for item in rollout.output:
        if item.tool_calls or item.function_call:
            try:
                count += len(_values.decode(item.tool_calls)) if json_type(item.tool_calls) == "list" else 0
            except msgspec.DecodeError:
                continue
            count += json_type(item.function_call) == "object"
    return count


def _tokens(rollout: Rollout) -> int | None:
    """Count the tokens of the whole conversation: exactly where ids were recorded, else as the response has it."""
    for item in reversed(rollout.output):
        if item.generation_token_ids:
            return (_length(item.prompt_token_ids) + _length(item.generation_token_ids)) or None
    if rollout.response is None or not rollout.response.usage:
        return None
    usage = _read(_usage, rollout.response.usage, _Usage())
    counted = usage.total_tokens or max(
        usage.input_tokens + usage.output_tokens, usage.prompt_tokens + usage.completion_tokens
    )
    return counted if 0 < counted < 2**31 else None


def _length(ids: Raw) -> int:
    """Count the elements of a list of numbers without building them."""
    values = bytes(ids).strip(b"[] \t\n\r")
    return values.count(b",") + 1 if values else 0


def _read(decoder: msgspec.json.Decoder[Any], raw: bytes | Raw, otherwise: Any) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return otherwise


COLUMNS = {
    "shard": Column(pl.String, "the path of its shard, as it was found"),
    "line": Column(pl.UInt64, "its number in the shard, from 1"),
    "offset": Column(pl.UInt64, "bytes before it in the shard, decompressed"),
    "nbytes": Column(pl.UInt32, "its length in bytes"),
    "reward": Column(pl.Float64, "its score; null where the line says null", lambda rollout: rollout.reward),
    "agent": Column(pl.String, "the environment's name, `agent_ref.name`", _agent),
    "task": Column(pl.UInt64, "the task's key"),
    "task_index": Column(pl.Int64, "`_ng_task_index`", _task_index),
    "masked": Column(pl.Boolean, "`mask_sample` is true, on top or in `instance_config`", _masked),
    "failed": Column(pl.Boolean, "`_ng_failure_class` is there", _failed),
    "unverified": Column(pl.Boolean, "`verification_skipped` is true", _unverified),
    "incomplete": Column(
        pl.Boolean, "cut short: `truncated`, `incomplete_details`, or a `status` not `completed`", _incomplete
    ),
    "status": Column(pl.String, "`response.status`", _status),
    "turns": Column(pl.UInt32, "turns of prompt and output", _turns),
    "calls": Column(pl.UInt32, "calls that the model made", _calls),
    "tokens": Column(pl.UInt32, "length in tokens, by recorded ids or `usage`; null where neither is there", _tokens),
}
# What a scan finds beside them: the parts from which tasks are told, and what a row would hold.
HIDDEN = {
    "place": Column(pl.UInt32, "which of the run's shards it is in, from 0"),
    "prompt": Column(pl.UInt64, "hash of what was asked", prompt_hash),
    "unusable": Column(pl.String, "why it has no row, as a reason; null where it has one, or nobody asked"),
    "problem": Column(pl.String, "the same as a sentence"),
    "content": Column(pl.Binary, "hash of the row; null where it has none, or nobody asked"),
}


def table(
    names: Iterable[str], rollouts: Sequence[Rollout], *, place: Place, lines: Sequence[int], offsets: Sequence[int]
) -> pl.DataFrame:
    """Build columns of the rollouts of one shard; line i begins at `offsets[i]` and ends where the next begins."""
    return frame_of(columns(names, rollouts, place=place, lines=lines, offsets=offsets))


def columns(
    names: Iterable[str], rollouts: Sequence[Rollout], *, place: Place, lines: Sequence[int], offsets: Sequence[int]
) -> dict[str, Sequence[Any]]:
    """Find the same columns, as Python has them."""
    return {name: _column(name, rollouts, place, lines, offsets) for name in names}


def frame_of(known: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """Build a table from columns by their names."""
    return pl.DataFrame([pl.Series(name, values, _dtype(name)) for name, values in known.items()])


def empty(names: Sequence[str]) -> pl.DataFrame:
    """Build the table of no rollouts."""
    return pl.DataFrame(schema={name: _dtype(name) for name in names})


def _dtype(name: str) -> type[pl.DataType]:
    return (COLUMNS.get(name) or HIDDEN[name]).dtype


def _column(
    name: str, rollouts: Sequence[Rollout], place: Place, lines: Sequence[int], offsets: Sequence[int]
) -> Sequence[Any]:
    match name:
        case "shard" | "place":
            return [getattr(place, name)] * len(lines)
        case "line":
            return [line + 1 for line in lines]
        case "offset":
            return [offsets[line] for line in lines]
        case "nbytes":
            return [offsets[line + 1] - offsets[line] - 1 for line in lines]
        case _:
            of = (COLUMNS.get(name) or HIDDEN[name]).of
            assert of is not None, name
            return list(map(of, rollouts))


def with_rows(known: pl.DataFrame, told: Sequence[tuple[str | None, str | None, bytes | None]]) -> pl.DataFrame:
    """Add the columns `FROM_ROWS`, which take making the rows."""
    kinds = {name: HIDDEN[name].dtype for name in FROM_ROWS}
    return known.hstack(pl.DataFrame(told, schema=kinds, orient="row"))


def packed(known: pl.DataFrame, before: int) -> bytes:
    """Give a table as Arrow's IPC stream, on its way between processes; its lines come behind so many others."""
    stream = io.BytesIO()
    _behind(known, before).write_ipc_stream(stream)
    return stream.getvalue()


def unpacked(stream: bytes, before: int) -> pl.DataFrame:
    """Read what `packed` gave."""
    return _behind(pl.read_ipc_stream(stream), before)


def _behind(known: pl.DataFrame, before: int) -> pl.DataFrame:
    return known.with_columns(pl.col("line") + before) if "line" in known.columns else known

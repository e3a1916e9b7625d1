"""What is known of a rollout without its text: a function for each thing, named as its column in `table.py`.

What a line says of itself is read tolerantly: a value of another type is as none.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from fastsft.formats.content import NO_TEXT
from fastsft.formats.loss import has_ids
from fastsft.rollout import ABSENT, Rollout, json_type

_TRUE = Raw(b"true")
_UNSET = (ABSENT, Raw(b"null"), Raw(b"false"))
_NOT_CUT_SHORT = (Raw(b'"completed"'), *_UNSET)


class _InstanceConfig(msgspec.Struct, gc=False):
    mask_sample: Raw = ABSENT


class _Usage(msgspec.Struct, gc=False):
    total_tokens: Raw = ABSENT
    input_tokens: Raw = ABSENT
    output_tokens: Raw = ABSENT
    prompt_tokens: Raw = ABSENT
    completion_tokens: Raw = ABSENT


class _AgentRef(msgspec.Struct, gc=False):
    name: str | None = None


_instance_config = msgspec.json.Decoder(_InstanceConfig)
_usage = msgspec.json.Decoder(_Usage)
_agent_ref = msgspec.json.Decoder(_AgentRef)
_integer = msgspec.json.Decoder(int)
_values = msgspec.json.Decoder(list[Raw])
_string = msgspec.json.Decoder(str)


def reward(rollout: Rollout) -> float | None:
    """Give the score; None where the line says null."""
    return rollout.reward


def masked(rollout: Rollout) -> bool:
    """Tell whether `mask_sample` is true, on top or in `instance_config`."""
    marks = rollout.marks
    if marks.mask_sample == _TRUE or not marks.instance_config:
        return marks.mask_sample == _TRUE
    return bool(_read(_instance_config, marks.instance_config, _InstanceConfig()).mask_sample == _TRUE)


def failed(rollout: Rollout) -> bool:
    """Tell whether there is a `_ng_failure_class`."""
    return rollout.marks.failure_class not in _UNSET


def unverified(rollout: Rollout) -> bool:
    """Tell whether `verification_skipped` is true."""
    return rollout.marks.verification_skipped == _TRUE


def incomplete(rollout: Rollout) -> bool:
    """Tell whether the attempt was cut short: `truncated`, `incomplete_details`, or a `status` not `completed`."""
    response = rollout.response
    return rollout.marks.truncated == _TRUE or (
        response is not None and (response.status not in _NOT_CUT_SHORT or response.incomplete_details not in _UNSET)
    )


def agent(rollout: Rollout) -> str | None:
    """Give the environment's name, `agent_ref.name`."""
    raw = rollout.marks.agent_ref
    return _agent_named(bytes(raw)) if raw else None


@lru_cache(maxsize=1024)  # there are few agents
def _agent_named(raw: bytes) -> str | None:
    found: _AgentRef = _read(_agent_ref, raw, _AgentRef())
    return found.name


def status(rollout: Rollout) -> str | None:
    """Give `response.status`."""
    if rollout.response is None:
        return None
    found: str | None = _read(_string, rollout.response.status, None)
    return found


def task_index(rollout: Rollout) -> int | None:
    """Give `_ng_task_index`, where 64 bits hold it."""
    found = _read(_integer, rollout.marks.task_index, None)
    return found if found is not None and abs(found) < 2**63 else None


def turns(rollout: Rollout) -> int:
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


def calls(rollout: Rollout) -> int:
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


def tokens(rollout: Rollout) -> int | None:
    """Count the tokens of the whole conversation: exactly where ids were recorded, else as the response has it."""
    for item in reversed(rollout.output):
        if has_ids(item):
            return (_length(item.prompt_token_ids) + _length(item.generation_token_ids)) or None
    if rollout.response is None or not rollout.response.usage:
        return None
    usage = _read(_usage, rollout.response.usage, _Usage())
    counted = _count(usage.total_tokens) or max(
        _count(usage.input_tokens) + _count(usage.output_tokens),
        _count(usage.prompt_tokens) + _count(usage.completion_tokens),
    )
    return counted if 0 < counted < 2**31 else None


def _count(raw: Raw) -> int:
    number: int = _read(_integer, raw, 0)
    return number


def _length(ids: Raw) -> int:
    """Count the elements of a list of numbers without building them."""
    values = bytes(ids).strip(b"[] \t\n\r")
    return values.count(b",") + 1 if values else 0


def _read(decoder: msgspec.json.Decoder[Any], raw: bytes | Raw, otherwise: Any) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return otherwise

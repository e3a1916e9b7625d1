"""What is known of a rollout without its text: a function for each thing, named as its column in `table.py`.

What a line says of itself is read tolerantly: a value of another type is as none.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.formats.calls import ASSISTANT
from fastsft.formats.content import NO_TEXT
from fastsft.formats.turns import conversation
from fastsft.rollouts import token_ids
from fastsft.rollouts.rollout import ABSENT, Item, Rollout, json_type

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


class _Metadata(msgspec.Struct, gc=False):
    no_generation: Raw = msgspec.field(name="ng_no_generation", default=ABSENT)


class _AgentRef(msgspec.Struct, gc=False):
    name: str | None = None


_instance_config = msgspec.json.Decoder(_InstanceConfig)
_usage = msgspec.json.Decoder(_Usage)
_agent_ref = msgspec.json.Decoder(_AgentRef)
_metadata = msgspec.json.Decoder(_Metadata)
_integer = msgspec.json.Decoder(int)
_values = msgspec.json.Decoder(list[Raw])
_string = msgspec.json.Decoder(str)


def reward(rollout: Rollout) -> float | None:
    """Return the score; None where the line says null."""
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


def no_generation(rollout: Rollout) -> bool:
    """Tell whether `response.metadata.ng_no_generation` says that the model never answered."""
    response = rollout.response
    if response is None or len(response.metadata) <= len("ng_no_generation"):
        return False
    if b"ng_no_generation" not in bytes(response.metadata):
        return False
    found: _Metadata = _read(_metadata, response.metadata, _Metadata())
    return found.no_generation not in _UNSET and bytes(found.no_generation).lower() not in _SAYS_NO


_SAYS_NO = (b'""', b"0", b'"0"', b'"false"', b'"none"', b'"null"', b"{}", b"[]")


def no_user_turn(rollout: Rollout) -> bool:
    """Tell whether nobody asks: there is no user turn before the last assistant turn of the output."""
    for item in rollout.prompt:
        if item.role in (None, "user") and item.type in (None, "message"):
            return False
    asked = next((index for index, item in enumerate(rollout.output) if item.role == "user"), None)
    if asked is None:
        return bool(rollout.output)  # an output without items has no row, and is told so
    if not any(item.generation_token_ids for item in rollout.output) and any(
        item.type == "function_call" for item in rollout.output[asked:]
    ):
        return False  # the assistant acts behind it
    try:
        return all(turn.role != "user" for turn in conversation(rollout).turns)
    except Refused:  # it has no row, and is told why where that is made
        return False


def agent(rollout: Rollout) -> str | None:
    """Return the environment's name: `agent_ref.name`, else `task_source`."""
    marks = rollout.marks
    name = _agent_named(bytes(marks.agent_ref)) if marks.agent_ref else None
    if name is None and marks.task_source:
        source = bytes(marks.task_source)
        name = _read(_string, source, None) if json_type(marks.task_source) == "string" else _agent_named(source)
    return name


@lru_cache(maxsize=1024)  # there are few agents
def _agent_named(raw: bytes) -> str | None:
    found: _AgentRef = _read(_agent_ref, raw, _AgentRef())
    return found.name


def status(rollout: Rollout) -> str | None:
    """Return `response.status`."""
    if rollout.response is None:
        return None
    found: str | None = _read(_string, rollout.response.status, None)
    return found


def task_index(rollout: Rollout) -> int | None:
    """Return `_ng_task_index`, where 64 bits hold it."""
    found = _read(_integer, rollout.marks.task_index, None)
    return found if found is not None and abs(found) < 2**63 else None


def turns(rollout: Rollout) -> int:
    """Count the turns that a rollout has, those behind the last assistant turn included, without making them."""
    count = int(json_type(rollout.instructions) == "string" and rollout.instructions != NO_TEXT)
    has_spoken = False  # the assistant, whose turn goes on
    before: Item | None = None  # the item that ended a response
    for items, roleless in ((rollout.prompt, "user"), (rollout.output, ASSISTANT)):
        for item in items:
            role = (item.role or roleless) if item.type in (None, "message") else ASSISTANT
            if item.type == "function_call_output" or role != ASSISTANT:
                count += 1
                has_spoken, before = False, None
                continue
            if before is not None and not token_ids.same_ids(item, before):
                has_spoken, before = False, None
            if item.type != "reasoning" and not has_spoken:
                count += 1
                has_spoken = True
            if item.generation_token_ids and items is rollout.output and token_ids.has_ids(item):
                before = item
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
    """Count the tokens of the longest context: exactly where ids were recorded, else by `usage` of a single response.

    Of several responses most agents sum `usage` up, and each repeats the context of the one before.
    """
    if any(item.generation_token_ids and token_ids.has_ids(item) for item in rollout.output):
        return token_ids.length_of(rollout.output)
    if rollout.response is None or not rollout.response.usage or not _is_one_response(rollout.output):
        return None
    usage = _read(_usage, rollout.response.usage, _Usage())
    counted = _count(usage.total_tokens) or max(
        _count(usage.input_tokens) + _count(usage.output_tokens),
        _count(usage.prompt_tokens) + _count(usage.completion_tokens),
    )
    return counted if 0 < counted < 2**31 else None


def _is_one_response(output: list[Item]) -> bool:
    """Tell whether all that the assistant does in an output it does at once."""
    has_spoken = has_ended = False
    for item in output:
        is_assistants = item.role in (None, ASSISTANT) if item.type in (None, "message") else item.type in _ASSISTANTS
        if is_assistants and has_ended:
            return False
        has_spoken = has_spoken or is_assistants
        has_ended = has_spoken and not is_assistants
    return True


_ASSISTANTS = ("function_call", "reasoning")


def _count(raw: Raw) -> int:
    number: int = _read(_integer, raw, 0)
    return number


def _read(decoder: msgspec.json.Decoder[Any], raw: bytes | Raw, otherwise: Any) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return otherwise

"""Items -> turns: what each item is, and the turns of the `openai` layout, one for each message.

Whatever dialect an item has (Responses or chat, string or list of parts), it
becomes the same turn here.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby, repeat

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.calls import ASSISTANT, chat_shaped_calls, keys_of
from fastsft.formats.content import NO_TEXT, Content, content_of, said_in
from fastsft.formats.loss import own_spans
from fastsft.rollout import ABSENT, Item, Rollout, is_string


class Call(msgspec.Struct, gc=False):
    """One function call: the name, a JSON string, and the arguments, a JSON object by its keys."""

    name: Raw
    arguments: dict[str, Raw]


class Turn(msgspec.Struct, omit_defaults=True, gc=False):
    """One message of a row; `weight` and `loss_mask` are 1 on the model's own turns where marks are asked for."""

    role: str
    content: Content
    tool_calls: list[Call] = []
    weight: int | None = None
    loss_mask: int | None = None


def conversation(rollout: Rollout, *, own: bool = False) -> tuple[list[Turn], int]:
    """Give the turns of prompt and output up to the last assistant turn, and how many were cut behind it.

    With `own`, the assistant's turns are marked as the model's own or not.

    A row that ends otherwise stops the whole load in NeMo RL.

    Raises:
        Refused: An item cannot become a turn, or the output has no assistant turn.
    """
    prompt = _turns(rollout.prompt, roleless="user")
    output = _turns(rollout.output, roleless=ASSISTANT)
    end = len(output)
    while end and output[end - 1].role != ASSISTANT:
        end -= 1
    if not end:
        raise Refused("nothing_to_imitate", "the output has no assistant turn")
    if own:
        _mark(prompt, repeat(False))
        _mark(output, own_spans(rollout.output))
    turns = prompt + output[:end]
    if instructions := instructions_of(rollout):
        turns.insert(0, Turn("system", instructions))
    return turns, len(output) - end


def _turns(items: list[Item], *, roleless: str) -> list[Turn]:
    """Give each message and result its turn; calls made one after another share one, placed before what follows.

    Reasoning is left out and does not part the calls around it. A message without
    a role has the role `roleless`, the rule of NeMo Gym's SFT guide.
    """
    turns: list[Turn] = []
    calls: list[Call] = []
    for item in items:
        kind = item.type if item.type in _ITEM_KINDS else kind_of(item)
        if kind == "function_call":
            calls.append(Call(item.name, keys_of(item.name, item.arguments)))
            continue
        if kind == "reasoning":
            continue
        if calls:
            turns.append(Turn(ASSISTANT, NO_TEXT, calls))
            calls = []
        if kind == "message":
            turns.append(_message(item, roleless if item.role is None else item.role))
        elif kind == "function_call_output":
            turns.append(Turn("tool", content_of(item.output)))
        else:
            raise AssertionError(f"no turn for item kind {kind}")
    if calls:
        turns.append(Turn(ASSISTANT, NO_TEXT, calls))
    return turns


def _mark(turns: list[Turn], own: Iterable[bool]) -> None:
    """Mark the assistant's turns; `own` tells of each run of them."""
    runs = (list(run) for role, run in groupby(turns, lambda turn: turn.role) if role == ASSISTANT)
    for run, mark in zip(runs, own, strict=False):
        for turn in run:
            turn.weight = turn.loss_mask = int(mark)


def _message(item: Item, role: str) -> Turn:
    turn = Turn(role, said_in(item))
    if item.tool_calls or item.function_call:
        called = chat_shaped_calls(item, role)
        turn.tool_calls = [Call(call.name, keys_of(call.name, call.arguments)) for call in called]
    return turn


def kind_of(item: Item) -> str:
    """Name what an item is: one of the kinds that become turns or are left out knowingly.

    Raises:
        Refused: It is of another kind.
    """
    if item.type in _ITEM_KINDS:
        return item.type
    if item.type is not None:
        raise Refused("unknown_item", f"item type {excerpt(item.type.encode())} has no place in a row")
    if item.role is None and not item.content:
        raise Refused("unknown_item", "an item has neither a type nor a role")
    return "message"


_ITEM_KINDS = frozenset({"message", "function_call", "function_call_output", "reasoning"})


def instructions_of(rollout: Rollout) -> Raw | None:
    """Give the system text beside the prompt; None for none.

    Raises:
        Refused: It is no text.
    """
    if rollout.instructions in _NO_INSTRUCTIONS:
        return None
    if not is_string(rollout.instructions):
        raise Refused("bad_content", f"instructions are not a string, found {excerpt(rollout.instructions)}")
    return rollout.instructions


_NO_INSTRUCTIONS = (ABSENT, Raw(b"null"), NO_TEXT)

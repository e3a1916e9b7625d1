"""The `simple` layout: what the user asked last and what the model said last, as text."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.formats.content import NO_TEXT, Content
from fastsft.formats.media import media_beside, media_in
from fastsft.formats.row import PLAIN, Layout, Row
from fastsft.formats.tools import tools_of
from fastsft.formats.turns import Turn, conversation, is_imitable, without_thoughts
from fastsft.rollouts.rollout import Rollout


class SimpleRow(msgspec.Struct, gc=False):
    """`{"input": ..., "output": ...}`, both JSON strings."""

    input: Raw
    output: Raw


class CompletionRow(msgspec.Struct, gc=False):
    """The same with other columns."""

    prompt: Raw
    completion: Raw


# By their columns.
_ROWS: dict[tuple[str, str], type[SimpleRow | CompletionRow]] = {
    ("input", "output"): SimpleRow,
    ("prompt", "completion"): CompletionRow,
}
PAIRS = tuple(_ROWS)


def to_simple(rollout: Rollout, layout: Layout = PLAIN) -> Row:
    """Keep the prompt's last user text and the output's last assistant text; turns and calls between are left out.

    Where the prompt has no user turn, as with agents that repeat it in the output, the output's last one before the
    answer counts.

    >>> from fastsft.rollouts.rollout import Item
    >>> asked, said = Item(role="user", content=Raw(b'"2+2?"')), Item(role="assistant", content=Raw(b'"4"'))
    >>> msgspec.json.encode(to_simple(Rollout([asked], [said])).body)
    b'{"input":"2+2?","output":"4"}'

    Raises:
        Refused: The rollout has no such row.
    """
    found = conversation(rollout)
    tools_of(rollout.tools, _as_it_is)  # tools that no layout takes refuse the line in this one, too
    turns = without_thoughts(found.turns) if found.has_thoughts else found.turns
    index = _place_of_answer(turns)
    answer, asked = turns[index], _question(found.turns[: found.prompt], turns[:index])
    left_out = media_in(turn for turn in turns if turn is not asked and turn is not answer) | media_beside(rollout)
    if found.has_thoughts:
        left_out.add("reasoning")
    if any(turn.tool_calls for turn in turns):
        left_out.add("calls")
    body = _ROWS[layout.pair](NO_TEXT if asked is None else _text(asked.content), _text(_said_last(answer)))
    return Row(body, left_out=tuple(sorted(left_out)))


def _place_of_answer(turns: list[Turn]) -> int:
    """Find the last turn of the output that has a text; an empty one counts, as in the guide's script."""
    for index in range(len(turns) - 1, -1, -1):
        turn = turns[index]
        if is_imitable(turn) and (_said_last(turn) != NO_TEXT or not turn.tool_calls):
            return index
    raise Refused("not_text", "a `simple` row holds text alone, and the output has calls alone")


def _said_last(turn: Turn) -> Content:
    return turn.content if turn.note is None or turn.note.answer is None else turn.note.answer


def _question(prompt: list[Turn], before: list[Turn]) -> Turn | None:
    asked = [turn for turn in prompt if turn.role == "user"] or [turn for turn in before if turn.role == "user"]
    return asked[-1] if asked else None


def _text(content: Content) -> Raw:
    if isinstance(content, list):
        raise Refused("not_text", "a `simple` row holds text alone, and this turn has an image, a sound or a file")
    return content


def _as_it_is(tool: object) -> object:
    return tool

"""What a trainer sees of a row: its rendered text in pieces, a turn each, and which of them it learns.

As NeMo RL does it (`get_formatted_message_log`, with the settings that `fastsft nemo-rl` writes): each beginning of the
row is rendered, and what follows the first character that differs from the one before is the piece of its last turn,
tokenized by itself; the first begins with the tokenizer's first token and the last ends with its last. The assistant's
pieces are under loss, their header included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from fastsft.formats.calls import ASSISTANT

if TYPE_CHECKING:
    from fastsft.checks.rendering import ChatTemplate

_MARKS = ("weight", "loss_mask")


class Piece(msgspec.Struct):
    """The text that one turn adds to what is rendered.

    Attributes:
        text: What it adds.
        learned: Whether it is under loss: it is the assistant's, and no mark says that the model did not sample it.
        tokens: How many it has; None without a tokenizer.
    """

    text: str
    learned: bool
    tokens: int | None = None


def pieces_of(template: ChatTemplate, messages: list[Any], tools: Any) -> list[Piece]:
    """Cut a row into the pieces that its turns add, raising whatever the template raises."""
    bos, eos = template.special("bos_token"), template.special("eos_token")
    pieces, before = [], ""
    for end, message in enumerate(messages, 1):
        now = template.rendered(messages[:end], tools)
        text = now[_first_difference(before, now) :]
        if end == 1 and not text.startswith(bos):
            text = bos + text
        if end == len(messages) and not text.rstrip("\n").endswith(eos):
            text += eos
        tokens = template.tokens(text) if template.counts_tokens else None
        pieces.append(Piece(text, _is_learned(message), tokens))
        before = now
    return pieces


def _first_difference(before: str, now: str) -> int:
    """Return the index of the first character in which two texts differ; the length of the shorter where none does."""
    if now.startswith(before):
        return len(before)
    shared = zip(before, now, strict=False)
    return next((index for index, (one, other) in enumerate(shared) if one != other), min(len(before), len(now)))


def _is_learned(message: dict[str, Any]) -> bool:
    return message.get("role") == ASSISTANT and all(message.get(mark) != 0 for mark in _MARKS)

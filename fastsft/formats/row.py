"""What every layout takes beside a rollout, and what it gives: one row."""

from __future__ import annotations

import msgspec


class Layout(msgspec.Struct, frozen=True):
    """What can be chosen about a layout; not every layout has a choice.

    Attributes:
        arguments: Arguments of calls as an `object`, or as the JSON `string` that the model wrote.
        reasoning: Reasoning in a `field` of its turn, in front of the text in `think` tags, or `drop`.
        loss: `own` marks the turns that the model sampled; None marks nothing.
    """

    arguments: str = "object"
    reasoning: str = "field"
    loss: str | None = None


PLAIN = Layout()


class Row(msgspec.Struct, gc=False):
    """One output line, not yet encoded.

    Attributes:
        body: The struct whose JSON is the line.
        turns_cut: How many turns behind the last assistant turn were left out.
    """

    body: msgspec.Struct
    turns_cut: int = 0

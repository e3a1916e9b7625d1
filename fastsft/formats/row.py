"""What every layout gives: one row."""

from __future__ import annotations

import msgspec


class Row(msgspec.Struct, gc=False):
    """One output line, not yet encoded.

    Attributes:
        body: The struct whose JSON is the line.
        turns_cut: How many turns behind the last assistant turn were left out.
    """

    body: msgspec.Struct
    turns_cut: int = 0

"""What a trainer sees of a row, the text under loss told from the rest: by colour, or by a mark on each line."""

from __future__ import annotations

from collections.abc import Sequence

from fastsft.checks.pieces import Piece
from fastsft.checks.rendering import Rendering
from fastsft.escape import escaped
from fastsft.views.colour import Paint, plain
from fastsft.views.transcript import cut

_ON, _OFF = "bold green", "dim"  # for whoever sees no green, too
_MARK_ON, _MARK_OFF = "loss │ ", "     │ "


def told_loss(rendering: Rendering, *, full: bool, paint: Paint) -> str:
    """Return the text of the pieces, escaped, under a line that says how much of it is under loss."""
    if rendering.beyond or rendering.stops:
        return f"the template {escaped(rendering.beyond or f'raises {rendering.stops}')}"
    told = _marked(rendering.pieces, full) if paint is plain else _coloured(rendering.pieces, full, paint)
    return "\n".join([_legend(rendering.pieces, paint), told])


def _legend(pieces: Sequence[Piece], paint: Paint) -> str:
    counts_tokens = all(piece.tokens is not None for piece in pieces)
    sizes = [(piece.tokens or 0) if counts_tokens else len(piece.text) for piece in pieces]
    learned = sum(size for size, piece in zip(sizes, pieces, strict=True) if piece.learned)
    what = "tokens" if counts_tokens else "characters"
    share = f"{learned:,} of {sum(sizes):,} {what} under loss ({learned / (sum(sizes) or 1):.0%})"
    if paint is plain:
        return f"{share}: the lines marked `loss`; where that changes within a line, it is cut\n"
    return f"{share}: {paint('under loss', _ON)}, {paint('not', _OFF)}\n"


def _coloured(pieces: Sequence[Piece], full: bool, paint: Paint) -> str:
    return "".join(paint(_shown(piece, full), _ON if piece.learned else _OFF) for piece in pieces)


def _marked(pieces: Sequence[Piece], full: bool) -> str:
    lines = []
    for piece in pieces:
        mark = _MARK_ON if piece.learned else _MARK_OFF
        lines += [f"{mark}{line}".rstrip() for line in _shown(piece, full).removesuffix("\n").split("\n")]
    return "\n".join(lines)


def _shown(piece: Piece, full: bool) -> str:
    shown = cut(piece.text, full)
    return escaped(shown if shown == piece.text else f"{shown}\n", keep="\n")

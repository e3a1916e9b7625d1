"""What was asked, as one number, whatever escapes, dialect of parts, ids and settings it is written with."""

from __future__ import annotations

import contextlib
import hashlib
from functools import lru_cache
from itertools import takewhile

import msgspec
from msgspec import Raw

from fastsft.rollouts.rollout import Item, Rollout, comparable, json_type

_sorted = msgspec.json.Encoder(order="deterministic")
_any = msgspec.json.Decoder()
_ASKING = ("system", "developer", "user")
_EMPTY = (Raw(b"[]"), Raw(b"{}"), Raw(b'""'))


def prompt_hash(rollout: Rollout) -> int:
    """Return 64 bits of the SHA-256 of what was asked; among 100 million tasks, two alike have odds of 1 to 4,000."""
    prompt = _prompt(rollout)
    try:
        asked = _sorted.encode(
            [
                [comparable(item) for item in prompt],
                _canonical(bytes(rollout.tools)) if _is_there(rollout.tools) else None,
                _any.decode(rollout.instructions) if _is_there(rollout.instructions) else None,
            ]
        )
    except (RecursionError, msgspec.DecodeError):  # nests too deep, or holds a number that no double holds
        leaves = [item.content or item.arguments or item.output for item in prompt]
        asked = b"\n".join(map(bytes, [*leaves, rollout.tools, rollout.instructions]))
    return int.from_bytes(hashlib.sha256(asked).digest()[:8], "little")


def tools_hash(rollout: Rollout) -> bytes:
    """Return 64 bits of the SHA-256 of the tools on offer, however they are written; none for no tools."""
    return _hash_of_tools(bytes(rollout.tools)) if _is_there(rollout.tools) else b""


@lru_cache(maxsize=64)
def _hash_of_tools(raw: bytes) -> bytes:
    with contextlib.suppress(RecursionError, msgspec.DecodeError):  # else as it is written
        raw = _sorted.encode(_any.decode(raw))
    return hashlib.sha256(raw).digest()[:8]


def _prompt(rollout: Rollout) -> list[Item]:
    """Return what was asked; some agents leave the prompt empty and repeat it at the front of the output.

    Where nothing was asked at all, the whole output stands for it: such rollouts have nothing in common.
    """
    if rollout.prompt:
        return rollout.prompt
    asked = list(takewhile(lambda item: item.type in (None, "message") and item.role in _ASKING, rollout.output))
    return asked or rollout.output


def _is_there(raw: Raw) -> bool:
    return json_type(raw) not in ("absent", "null") and raw not in _EMPTY


@lru_cache(maxsize=64)  # the rollouts of one environment offer the same tools
def _canonical(raw: bytes) -> object:
    return _any.decode(raw)

"""The token ids that NeMo Gym records on items: which items were sampled, and how long a conversation was.

Where ids are recorded, an item of the output without any was not sampled, but for those that its response ends with:
NeMo Gym records the ids of one response on its last item. Ids are a list of numbers, or, to be carried cheaply, a
text of base64 with a head that names the type of a number, as in `…:i32:128:AAEC…` (NeMo Gym's pull request 2888,
and `nrlre1:` of NeMo RL), or an object with the same under names.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from fastsft.rollouts.rollout import ABSENT, Item, json_type

_SHORT = 16  # bytes; a longer list holds something
_NO_IDS = (ABSENT, Raw(b"null"), Raw(b"[]"), Raw(b'""'), Raw(b"{}"))
# Several of NeMo Gym's agents write it into both lists of an empty message where nothing was recorded, as its trainer
# wants ids on one item at least.
_PLACEHOLDER = Raw(b"[0]")
_NUMBERS = re.compile(rb"\[[\d,\s]*\]")
_INTEGER = re.compile(r"(?:<|little-)?(?:u?int|[iu])(8|16|32|64|4)", re.IGNORECASE)  # `i4` is numpy's name for 32 bits
_any = msgspec.json.Decoder()


def has_ids(item: Item) -> bool:
    """Tell whether the tokens that were sampled are recorded on an item."""
    ids = item.generation_token_ids
    if ids in _NO_IDS or (ids == _PLACEHOLDER and item.prompt_token_ids == _PLACEHOLDER):
        return False
    if json_type(ids) not in ("list", "string", "object"):
        return False
    return len(ids) > _SHORT or bool(bytes(ids)[1:-1].strip())


def same_ids(item: Item, other: Item) -> bool:
    """Tell whether two items have the ids of one response."""
    return (
        has_ids(item)
        and item.generation_token_ids == other.generation_token_ids
        and item.prompt_token_ids == other.prompt_token_ids
    )


def split_at_last_sampled(output: list[Item]) -> tuple[list[Item], list[Item]]:
    """Split an output behind the last item with ids; where there is none, all of it (the same list) and nothing."""
    for index in range(len(output) - 1, -1, -1):
        if output[index].generation_token_ids and has_ids(output[index]):
            return output[: index + 1], output[index + 1 :]
    return output, []


def length_of(output: Sequence[Item]) -> int | None:
    """Return the number of tokens of the longest context that ids are recorded of; None without or with unknown ids.

    The longest, as an agent that compacts its context samples its last response from a shorter one.
    """
    longest = 0
    for item in output:
        if item.generation_token_ids and has_ids(item):
            prompt, generated = _count(item.prompt_token_ids), _count(item.generation_token_ids)
            if prompt is None or generated is None:
                return None
            longest = max(longest, prompt + generated)
    return longest or None


def _count(ids: Raw) -> int | None:
    """Count ids; None where they are in no known form."""
    if not ids:
        return 0
    match json_type(ids):
        case "list":
            return _count_list(bytes(ids))
        case "string" | "object":
            return _count_packed(_any.decode(ids))
        case "null":
            return 0
        case _:
            return None


def _count_list(ids: bytes) -> int | None:
    """Count the numbers of a list without building them."""
    values = ids.strip(b"[] \t\n\r")
    if not values:
        return 0
    if b'"' in values or b"[" in values or b"{" in values or not _NUMBERS.fullmatch(ids):
        return None
    return values.count(b",") + 1


def _count_packed(value: object) -> int | None:
    """Count the numbers of a base64 text, whose head or whose sister fields name the type of a number."""
    if isinstance(value, dict):
        names = [entry for entry in value.values() if isinstance(entry, str)]
        texts = [*sorted(names, key=len), *(str(entry) for entry in value.values() if isinstance(entry, int))]
        data = max(names, key=len, default="")
        heads = [text for text in texts if text is not data]
    elif isinstance(value, str):
        *heads, data = value.split(",")[-1].split(":") if value.startswith("data:") else value.split(":")
        heads += value.split(",")[0].replace(";", ":").split(":") if value.startswith("data:") else []
    else:
        return None
    widths = [int(match[1]) for head in heads if (match := _INTEGER.fullmatch(head))]
    if len(widths) != 1:
        return None
    nbytes = 4 if widths[0] == 4 else widths[0] // 8
    try:
        size = len(binascii.a2b_base64(data, strict_mode=True)) if data else 0
    except (binascii.Error, ValueError):
        return None
    return size // nbytes if size % nbytes == 0 else None

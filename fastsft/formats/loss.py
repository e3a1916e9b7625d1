"""Which turns of a row the model sampled itself, so that a trainer can learn from those alone.

Turns of the prompt are not its own, nor is what an agent put into the output: where token ids
are recorded, a turn without any was not sampled. Where none are recorded at all, the
output's assistant turns are all taken for the model's. NeMo Gym records the ids of one
response on its last item, so they speak for all items since another's turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from msgspec import Raw

from fastsft.formats.calls import ASSISTANT
from fastsft.rollout import ABSENT, Item

_SHORT = 16  # bytes; a longer list holds something
_NO_IDS = (ABSENT, Raw(b"null"), Raw(b"[]"))
# Several of NeMo Gym's agents write it into both lists of an empty message where nothing was recorded, as its trainer
# wants ids on one item at least.
_PLACEHOLDER = Raw(b"[0]")


def has_ids(item: Item) -> bool:
    """Tell whether the tokens that were sampled are recorded on an item."""
    ids = item.generation_token_ids
    if ids in _NO_IDS or (ids == _PLACEHOLDER and item.prompt_token_ids == _PLACEHOLDER):
        return False
    return len(ids) > _SHORT or bool(bytes(ids).strip(b"[] \t\r\n"))


def _is_assistants(item: Item) -> bool:
    """Tell whether an item of the output is the assistant's: said, called or thought by it."""
    return item.role in (None, ASSISTANT) if item.type in (None, "message") else item.type != "function_call_output"


def own_spans(output: Sequence[Item]) -> list[bool]:
    """Tell of each run of the assistant's items that makes a turn, in order, whether the model sampled it."""
    recorded = any(map(has_ids, output))
    spans = [list(run) for ours, run in groupby(output, _is_assistants) if ours]
    return [not recorded or any(map(has_ids, span)) for span in spans if any(item.type != "reasoning" for item in span)]

"""The materialized inputs of rollouts: the tasks as NeMo Gym wrote them beside, before it ran anything."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fastsft.inputs.shards import ROLLOUT_SUFFIXES, Shard, find_shards
from fastsft.storage.files import kind_of

_ENDING = "_materialized_inputs"


def materialized_inputs(shards: Sequence[Shard]) -> list[Shard]:
    """Find the file of materialized inputs of each shard, where it lies beside it; its index is the shard's.

    Raises:
        UsageError: One cannot be read.
    """
    found = []
    for shard in shards:
        path = next(filter(_is_there, _paths_of(shard)), None)
        if path is not None:
            ((beside,), _) = find_shards([path])
            found.append(msgspec.structs.replace(beside, index=shard.index))
    return found


def _paths_of(shard: Shard) -> list[str]:
    """Return where they may lie: compressed as the rollouts, plain, or compressed otherwise."""
    suffix = next((one for one in sorted(ROLLOUT_SUFFIXES, key=len) if shard.location.endswith(one)), "")
    stem = shard.location.removesuffix(suffix)
    return [f"{stem}{_ENDING}{one}" for one in dict.fromkeys([suffix or ROLLOUT_SUFFIXES[0], *ROLLOUT_SUFFIXES])]


def _is_there(path: str) -> bool:
    from fastsft.storage.urls import is_remote

    if is_remote(path):
        from fastsft.storage.stores import entry_at

        return entry_at(path) is not None
    return kind_of(path) == "file"

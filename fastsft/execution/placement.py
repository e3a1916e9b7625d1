"""Where the spans of a run are done."""

from __future__ import annotations

import msgspec


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where spans are done.

    Attributes:
        jobs: How many at once; None for what pays here, or for what a cluster has.
        backend: `loky`, `ray` or `dask`; None for forked processes, or what `joblib.parallel_config` chose.
        address: Of the cluster; None for the one that the backend finds, or starts here.
        stall_seconds: A span that takes longer is done once more elsewhere; None for no limit.
        retries: How often a span is done once more, whose worker was lost.
    """

    jobs: int | None = None
    backend: str | None = None
    address: str | None = None
    stall_seconds: float | None = None
    retries: int = 1


LOCAL = Placement()

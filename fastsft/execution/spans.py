"""What a run makes of each span, and having workers make it.

A product is a value that another process can be handed: what it makes of a span depends on the span and on itself, so
it may be made twice, and anywhere that sees the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

from fastsft.execution.workers import Workers

ReportProgress: TypeAlias = Callable[[int, int], None]  # takes how many bytes of a span are done, and rows made

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Product(Protocol[S_contra, R_co]):
    """What a run makes: rows, a part of the table, findings."""

    def make(self, span: S_contra, report_progress: ReportProgress | None = None) -> R_co:
        """Make it of one span, and return a small value that says what was left in files.

        Where `report_progress` is given, this process is the only one, and says how far the span is.
        """


def make_all(
    product: Product[S, R], spans: Sequence[S], workers: Workers, report_progress: ReportProgress
) -> Iterator[R]:
    """Make a product of each span, in order; within a span, progress is reported where one process works alone."""
    alone = report_progress if workers.is_alone else None
    return workers.in_order(partial(_make, product=product, report_progress=alone), spans, what="span")


def _make(_: int, span: S, product: Product[S, R], report_progress: ReportProgress | None) -> R:
    return product.make(span, report_progress)

"""The order of things: read `drive.py` first.

paths -inputs-> spans and lines -rollouts-> structs -selection-> the chosen lines -formats-> rows -outputs-> segments,
then files and one report; execution runs it.

A span is the unit of work (`staged.py`): byte ranges of the input, fixed by input and options before anything runs. It
writes its rows itself and comes back as a receipt, so no row passes through the process that drives the run. What it
gives depends on its bytes and the options, so it may be done anywhere, in any order, twice. The driver plans, collects
receipts in order (`ledger.py`), has segments put together, and publishes.
Where each line is judged by itself, one pass over the input does it all. Where lines are compared, a first pass scans
the table of the whole run (or an index holds it), and a second reads the chosen lines.
"""

from fastsft.pipeline.drive import run

__all__ = ["run"]

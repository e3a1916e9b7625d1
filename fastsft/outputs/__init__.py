"""What a run leaves: segments of spans and their receipts in a staging folder, then files and one report.

`target.py` names the files, `staging.py` keeps a run's own folder, `segments.py` writes what a span leaves,
`assembly.py` puts segments together, `publication.py` gives everything its name at one point.
"""

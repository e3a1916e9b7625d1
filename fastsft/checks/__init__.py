"""Will this train? Rows are read as a trainer's loader and its chat template read them, and what stops one is told.

`kinds.py` lists what can be found, `rules.py` finds it in one row, `rendering.py` renders a row with a
chat template, `run.py` does both to whole files in parallel, `total.py` adds up what that gives.
"""

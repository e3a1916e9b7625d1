"""Which lines are kept: criteria, tasks, the table of lines, the index."""

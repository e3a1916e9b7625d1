"""The door of the command: words -> values, and what comes of them -> what a person reads. It decides nothing else."""

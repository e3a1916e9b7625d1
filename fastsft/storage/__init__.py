"""Files as a run writes them: made exclusively, whole or absent, flushed before they get their names."""

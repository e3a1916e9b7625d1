"""What trainers need beside rows: a file for each."""
